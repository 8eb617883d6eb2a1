"""Both sides of the original's ZAP: with --bind a service that answers as AsyncZAPService of --dialect does, with
--connect a broker's DEALER that asks whatever it is told. Commands and what happens are JSON lines."""

import zmq

from program import arguments, now, run, say


class Service:
    """Commands: users, delay (ms), status (instead of its own), reply (frames instead of the usual ones)."""

    def __init__(self, args):
        self.args, self.over, self.later = args, False, []
        self.users = dict([args.plain.split(":")]) if args.plain else {}
        self.delay, self.status, self.frames = 0, None, None
        self.sock = zmq.Context().socket(zmq.ROUTER)
        self.sock.linger = 0
        self.sock.bind(args.bind)
        say(bound=self.sock.last_endpoint.decode())

    def sockets(self):
        return [self.sock]

    def due(self):
        return min([each[0] for each in self.later] + [now() + 1000])

    def command(self, line):
        if line["op"] == "set":
            self.users = line.get("users", self.users)
            self.delay = line.get("delay", 0)
            self.status = line.get("status")
            self.frames = line.get("frames")
        self.over = line["op"] == "quit"
        say(done=line.get("n"))

    def decide(self, domain, mechanism, credentials):
        if domain != b"gate":
            return b"400", b"Invalid domain", b""
        if mechanism == b"NULL":
            return b"200", b"OK", b"anonymous"
        if mechanism != b"PLAIN" or len(credentials) != 2:
            return b"400", b"NO ACCESS", b""
        user, password = (each.decode() for each in credentials)
        if user not in self.users:
            return b"400", b"Invalid username", b""
        if self.users[user] != password:
            return b"400", b"Invalid password", b""
        return b"200", b"OK", user.encode()

    def receive(self, _, frames):
        peer, delimiter, version, id, domain, address, identity, mechanism, *credentials = frames
        status, text, user = self.decide(domain, mechanism, credentials)
        say(asked=[each.decode() for each in credentials], address=address.decode(), identity=identity.decode(),
            id=id.decode(), empty=delimiter == b"", version=version.decode())
        if status == b"200" and self.args.dialect == "gate01":
            user = identity
        reply = [peer, b"", b"1.0", id, (self.status or status.decode()).encode(), text, user, b""]
        if self.frames is not None:
            reply = [peer] + [id if each == "ID" else each.encode() for each in self.frames]
        self.later.append((now() + self.delay, reply))

    def tick(self):
        while self.later and self.later[0][0] <= now():
            self.sock.send_multipart(self.later.pop(0)[1])


class Broker:
    """Command: ask, with frames in hexadecimal."""

    def __init__(self, args):
        self.over = False
        self.sock = zmq.Context().socket(zmq.DEALER)
        self.sock.linger = 0
        self.sock.connect(args.connect)
        say(ready=True)

    def sockets(self):
        return [self.sock]

    def due(self):
        return now() + 1000

    def command(self, line):
        if line["op"] == "ask":
            self.sock.send_multipart([bytes.fromhex(each) for each in line["frames"]])
        self.over = line["op"] == "quit"

    def receive(self, _, frames):
        say(answer=[each.hex() for each in frames])

    def tick(self):
        pass


args = arguments(bind="", connect="")
run(Service(args) if args.bind else Broker(args))
