"""A client of gate01, gate02 or RFC 7, as strict as the original's program. Commands and outcomes are JSON lines."""

import uuid
import zlib

import zmq

from fragile_gunzip import gunzip
from frames import (C, HUGE, HUGE_END, HUGE_ERROR, STREAM, STREAM_END, STREAM_ERROR, Fault, credentials, from_json, pack, params, printable,
                    unpack)
from program import arguments, now, run, say


class Client:
    def __init__(self, args):
        self.args, self.dialect, self.over = args, args.dialect, False
        self.ctx = zmq.Context()
        self.id = ("gc-" + args.id).encode() if self.dialect == "gate01" else uuid.uuid5(uuid.NAMESPACE_DNS, args.id).bytes
        self.calls, self.services, self.waiting = {}, None, []
        self.connect()
        self.sent = self.heard = now()

    def connect(self):
        self.sock = self.ctx.socket(zmq.DEALER)
        if self.dialect != "mdp":
            self.sock.setsockopt(zmq.IDENTITY, self.id)
        self.sock.connect(self.args.connect)
        if self.dialect == "mdp":
            self.services = []
            say(ready=True, services=[])
        else:
            self.request("Gate", "get_services", [], {}, n=None, internal="get_services")

    def sockets(self):
        return [self.sock]

    def due(self):
        due = [call["due"] for call in self.calls.values()]
        return min(due + [self.sent + self.args.heartbeat if self.dialect != "mdp" else now() + 1000])

    # --- sending

    def request(self, service, function, args, kwargs, n, timeout=60000, shape="auto", internal=None):
        if self.dialect == "mdp":
            name = service if function == "call" else service + "." + function
            body = [each if isinstance(each, bytes) else str(each).encode() for each in args]
            self.calls[name.encode()] = {"n": n, "due": now() + timeout, "streaming": False, "service": service}
            self.sock.send_multipart([b"", C, name.encode()] + body)
            return
        tag = uuid.uuid4()
        tag = tag.hex.encode() if self.dialect == "gate01" else tag.bytes
        frames = [b"", C, service.encode()] + ([self.id] if self.dialect == "gate01" else [])
        frames += credentials(self.args) + [tag, pack(function)] + params(self.dialect, args, kwargs, shape)
        self.calls[tag] = {"n": n, "due": now() + timeout, "streaming": False, "service": service, "internal": internal}
        self.sock.send_multipart(frames)
        self.sent = now()

    def command(self, line):
        op = line.pop("op")
        if op == "call":
            if self.services is None:
                self.waiting.append(dict(line, op=op))
                return
            if self.dialect != "mdp" and not line.get("unchecked") and line["service"] not in self.services:
                say(n=line["n"], error=["AttributeError", "no service " + line["service"], ""])
                return
            self.request(line["service"], line["function"], from_json(line.get("args", [])),
                         from_json(line.get("kwargs", {})), line["n"], line.get("timeout", 60000),
                         line.get("shape", "auto"))
        elif op == "refresh":
            self.request("Gate", "get_services", [], {}, n=None, internal="get_services")
        elif op == "raw":
            self.sock.send_multipart([bytes.fromhex(each) for each in line["frames"]])
        elif op == "reconnect":
            self.sock.close(100)
            self.calls, self.services = {}, None
            self.connect()
        elif op == "quit":
            self.over = True

    # --- receiving

    def receive(self, _, frames):
        self.heard = now()
        least = {"gate01": 5, "gate02": 4, "mdp": 3}[self.dialect]
        if len(frames) < least or frames[0] != b"" or frames[1] != C:
            raise Fault("not an answer: %r" % frames[:6])
        if self.dialect == "mdp":
            call = self.calls.pop(frames[2], None)
            if call is None:
                raise Fault("an answer to no call: %r" % frames[:4])
            say(n=call["n"], frames=[printable(each if len(each) > 1000 else text(each)) for each in frames[3:]])
            return
        try:
            service = frames[2].decode()
        except UnicodeDecodeError:
            raise Fault("a service name that is not UTF-8")
        if self.dialect == "gate01":
            if frames[3] != self.id:
                raise Fault("somebody else's client id: %r" % frames[3])
            tag, body = frames[4], frames[5:]
        else:
            tag, body = frames[3], frames[4:]
        call = self.calls.get(tag)
        if call is None:
            if self.dialect == "gate01":
                raise Fault("an answer too many, or too late: %r" % frames[2:7])
            return
        if call["service"] == "Gate" and self.dialect == "gate01":
            self.gate_answer(tag, call, body)
        elif len(body) == 1:
            self.plain_answer(tag, call, unpack(self.dialect, body[0]))
        else:
            self.stream_answer(tag, call, body)

    def gate_answer(self, tag, call, body):
        if len(body) != 3:
            raise Fault("an answer of Gate with %d frames" % len(body))
        if not body[1].isdigit() or len(body[1]) != 3:
            raise Fault("a status of %r" % body[1])
        self.plain_answer(tag, call, unpack(self.dialect, body[2]), status=int(body[1]))

    def plain_answer(self, tag, call, answer, **more):
        del self.calls[tag]
        if not isinstance(answer, dict):
            raise Fault("an envelope that is no map: %r" % (answer,))
        exception = answer.get("exception")
        if exception and (not isinstance(exception, (list, tuple)) or len(exception) != 3):
            raise Fault("an exception that is no triple: %r" % (exception,))
        if call.get("internal") == "get_services":
            if exception:
                say(refused=exception)
                return
            self.services = answer["result"]
            say(ready=True, services=self.services)
            waiting, self.waiting = self.waiting, []
            for line in waiting:
                self.command(line)
        elif call.get("internal") is None and exception:
            say(n=call["n"], error=exception, **more)
        elif call.get("internal") is None:
            say(n=call["n"], result=printable(answer.get("result")), **more)

    def huge_answer(self, tag, call, body):
        """Compressed pieces, read with the weaknesses of 0.1, or as one stream of bytes."""
        pieces = call.setdefault("pieces", [])
        call["due"] = now() + 60000
        ending = STREAM_END if self.dialect == "gate01" else HUGE_END
        if body[1] == STREAM_ERROR and len(body) == 3 and self.dialect == "gate02":
            del self.calls[tag]
            say(n=call["n"], error=unpack(self.dialect, body[2]))
        elif len(body) != 2:
            raise Fault("huge data in %d frames" % len(body))
        elif body[1] != ending:
            pieces.append(body[1])
        elif HUGE_ERROR in pieces:
            del self.calls[tag]
            say(n=call["n"], error=unpack(self.dialect, pieces[-1]))
        else:
            del self.calls[tag]
            try:
                data = gunzip(pieces) if self.dialect == "gate01" else zlib.decompress(b"".join(pieces), 31)
                say(n=call["n"], huge=True, result=printable(unpack(self.dialect, data)))
            except Exception as err:
                say(n=call["n"], huge=True, error=[type(err).__name__, str(err), ""])

    def stream_answer(self, tag, call, body):
        if body[0] == HUGE:
            self.huge_answer(tag, call, body)
            return
        if body[0] != STREAM:
            raise Fault("an unknown tag: %r" % body[0])
        call["streaming"], call["due"] = True, now() + 60000
        if body[1] == STREAM_END and len(body) == 2:
            del self.calls[tag]
            say(n=call["n"], end=True)
        elif body[1] == STREAM_ERROR and len(body) == 3:
            if self.dialect == "gate01":
                raise Fault("0.1 takes the exception for an item, and waits for ever")
            del self.calls[tag]
            say(n=call["n"], error=unpack(self.dialect, body[2]))
        else:
            say(n=call["n"], item=printable(unpack(self.dialect, body[1])))

    def tick(self):
        for tag, call in list(self.calls.items()):
            if call["due"] <= now():
                del self.calls[tag]
                if call.get("internal") == "keepalive":
                    raise Fault("keepalive was not answered")
                if call.get("internal") is None:
                    say(n=call["n"], timeout=True)
        if self.dialect == "mdp" or self.sent + self.args.heartbeat > now() or self.services is None:
            return
        function = "client_heartbeat" if self.dialect == "gate01" else "keepalive"
        self.request("Gate", function, [b"heartbeat"], {}, n=None, timeout=3 * self.args.heartbeat, internal=function)


def text(frame):
    try:
        return frame.decode()
    except UnicodeDecodeError:
        return frame


run(Client(arguments(connect="")))
