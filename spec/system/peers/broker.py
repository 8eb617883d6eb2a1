"""A broker of gate01, gate02 or RFC 7, as the original's (or the ZeroMQ guide's) behaves, faults included."""

import os

import zmq

from frames import (DISCONNECT, HUGE, HEARTBEAT, READY, REPLY, REQUEST, STREAM, STREAM_END, STREAM_ERROR, C, W, Fault,
                    credentials, envelope, unpack)
from program import arguments, now, run, say


class Broker:
    def __init__(self, args):
        self.args, self.dialect, self.over = args, args.dialect, False
        self.cred = credentials(args)
        ctx = zmq.Context()
        self.front, self.back = ctx.socket(zmq.ROUTER), ctx.socket(zmq.ROUTER)
        self.front.bind(args.frontend)
        self.back.bind(args.backend)
        self.workers = {}  # routing id -> {service, free, expires, sent}
        self.services, self.queues, self.paused, self.beaten = [], {}, 0, now()
        say(frontend=self.front.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0"),
            backend=self.back.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0"))

    def sockets(self):
        return [self.front, self.back] if self.paused <= now() else []

    def due(self):
        return max(self.paused, now() + 20) if self.paused > now() else self.beaten + self.args.heartbeat

    def command(self, line):
        if line["op"] == "pause":
            self.paused = now() + line["ms"]
        elif line["op"] == "disconnect_all":
            for worker in self.workers:
                self.back.send_multipart([worker, b"", W, DISCONNECT])
            self.workers = {}
        elif line["op"] == "quit":
            self.over = True

    def receive(self, sock, frames):
        if sock is self.front:
            self.from_client(frames[0], frames[1:])
        else:
            self.from_worker(frames[0], frames[1:])
        if self.args.flood:
            self.beat_all()

    def beat_all(self):
        for worker, state in self.workers.items():
            self.back.send_multipart([worker, b"", W, HEARTBEAT])
            state["sent"] = now()

    def check(self, frames, what):
        """Takes credentials off the front; None when they are wrong: the original is silent then."""
        n = len(self.cred)
        if frames[:n] != self.cred:
            say(refused=what)
            return None
        return frames[n:]

    # --- clients

    def from_client(self, client, frames):
        if frames[0] != b"" or frames[1] != C or len(frames) < 4:
            raise Fault("not from a client: %r" % frames[:5])
        service, rest = frames[2], frames[3:]
        if self.dialect == "mdp":
            self.queue(service, [client] + [b""] + rest)
            return
        if self.dialect == "gate01":
            if rest[0] != client:
                raise Fault("the client id is not the routing id: %r" % rest[0])
            rest = rest[1:]
        rest = self.check(rest, "client")
        if rest is None:
            return
        tag, function, params = rest[0], unpack(self.dialect, rest[1]), rest[2:]
        if self.dialect == "gate02" and (len(tag) != 16 or len(params) != 2):
            raise Fault("not as 0.2 has it: %r" % rest)
        if self.dialect == "gate01" and len(params) > 2:
            raise Fault("too many parameters")
        values = [unpack(self.dialect, each) for each in params]
        if service == b"Gate":
            self.gate(client, tag, function, *values)
        else:
            self.queue(service, [client, b"", tag] + rest[1:], tag)

    def to_client(self, client, service, tag, body):
        own = [client] if self.dialect == "gate01" else []
        self.front.send_multipart([client, b"", C, service] + own + [tag] + body)

    def gate(self, client, tag, function, args=(), _=None):
        status, result = b"200", b""
        if function == "get_services":
            result = [each.decode() for each in self.services] + ["Gate"]
        elif function in ("keepalive", "client_heartbeat"):
            status = b"200" if list(args) == [b"heartbeat"] else b"400"
            result = b"" if self.dialect == "gate01" else status
        elif self.dialect == "gate02":
            return
        else:
            status = b"501"
        body = [function.encode(), status, envelope(result)] if self.dialect == "gate01" else [envelope(result)]
        self.to_client(client, b"Gate", tag, body)

    def refuse(self, client, service, tag, busy):
        name = service.decode()
        if self.dialect == "gate01":
            error = ["<class 'gaterpc.exceptions.BuysWorkersError'>", "No idle workers.", ""] if busy else [
                "<class 'gaterpc.exceptions.ServiceUnAvailableError'>", "The %s Service unavailable." % name, ""]
        else:
            error = ["ServiceUnAvailableError", "ServiceUnAvailableError('The %s Service unavailable.')" % name, ""]
        self.to_client(client, service, tag, [envelope(exception=error)])

    def queue(self, service, request, tag=None):
        serving = [state for state in self.workers.values() if state["service"] == service]
        free = [state for state in serving if state["free"] > 0]
        if self.dialect != "mdp" and (not serving or (not free and self.dialect == "gate01")):
            self.refuse(request[0], service, tag, bool(serving))
            return
        self.queues.setdefault(service, []).append(request)
        self.serve(service)

    def serve(self, service):
        queue = self.queues.get(service, [])
        for worker, state in self.workers.items():
            while queue and state["service"] == service and state["free"] > 0:
                state["free"] -= 1
                state["sent"] = now()
                self.back.send_multipart([worker, b"", W, REQUEST] + queue.pop(0))

    # --- workers

    def from_worker(self, worker, frames):
        if len(frames) < 3 or frames[0] != b"" or frames[1] != W:
            raise Fault("not from a worker: %r" % frames[:5])
        command, rest = frames[2], frames[3:]
        if self.dialect == "gate01":
            if not rest or rest[0] != worker:
                raise Fault("the worker id is not the routing id: %r" % rest[:1])
            rest = rest[1:]
        if self.dialect != "mdp":
            rest = self.check(rest, "worker")
            if rest is None:
                return
        if command == READY:
            self.on_ready(worker, rest)
        elif worker not in self.workers:
            return
        elif command == HEARTBEAT:
            self.workers[worker]["expires"] = now() + 3 * self.args.heartbeat
        elif command == REPLY:
            self.on_reply(worker, rest)
        elif command == DISCONNECT and (self.dialect != "gate02" or len(rest) == 1):
            self.remove(worker, "left")

    def on_ready(self, worker, rest):
        if worker in self.workers:
            self.back.send_multipart([worker, b"", W, DISCONNECT])
            self.remove(worker, "greeted twice")
            return
        parts = rest[0].decode().split(":") if self.dialect != "mdp" else [rest[0].decode()]
        if len(rest) != 1 or len(parts) != {"gate01": 2, "gate02": 3, "mdp": 1}[self.dialect]:
            raise Fault("READY is not heard: %r" % rest)
        service = parts[0].encode()
        free = int(parts[2]) if self.dialect == "gate02" else 1
        self.workers[worker] = {"service": service, "free": free, "sent": now(), "expires": now() + 3 * self.args.heartbeat}
        if service not in self.services:
            self.services.append(service)
        say(worker=worker.hex(), service=parts[0])
        if self.dialect == "gate02":
            self.back.send_multipart([worker, b"", W, HEARTBEAT])
        self.serve(service)

    def remove(self, worker, why):
        del self.workers[worker]
        say(gone=worker.hex(), why=why)

    def on_reply(self, worker, rest):
        state = self.workers[worker]
        if len(rest) < 3 or rest[1] != b"":
            raise Fault("a reply without address: %r" % rest[:3])
        if self.dialect == "mdp":
            self.front.send_multipart([rest[0], b"", C, state["service"]] + rest[2:])
        else:
            body = rest[3:]
            if len(body) == 1:
                unpack(self.dialect, body[0])
            elif body[0] not in (STREAM, HUGE) or (body[1] == STREAM_ERROR and self.dialect == "gate01"):
                raise Fault("a body that this version does not have: %r" % body[:2])
            self.to_client(rest[0], state["service"], rest[2], body)
        # every item frees it too, as theirs does
        state["free"] = 1 if self.dialect != "gate02" else state["free"] + 1
        if self.dialect == "gate02":
            state["expires"] = now() + 3 * self.args.heartbeat
        self.serve(state["service"])

    def tick(self):
        if self.paused > now():
            return
        for worker in [each for each, state in self.workers.items() if state["expires"] < now()]:
            self.back.send_multipart([worker, b"", W, DISCONNECT])
            self.remove(worker, "expired")
        if self.beaten + self.args.heartbeat <= now():
            self.beat_all()
            self.beaten = now()


run(Broker(arguments(frontend="", backend="", flood=0)))
