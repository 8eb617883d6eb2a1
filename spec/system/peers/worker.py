"""A worker of gate01, gate02 or RFC 7, as strict as the original's program. Commands and news are JSON lines."""

import gzip
import os
import traceback
import uuid

import zmq

from frames import (HUGE, HUGE_END, HUGE_ERROR, DISCONNECT, HEARTBEAT, READY, REPLY, REQUEST, STREAM, STREAM_END, STREAM_ERROR, W, Fault,
                    credentials, envelope, pack, triple, unpack)
from program import arguments, now, run, say


def count(n):
    yield from range(n)


def stream_fail(n):
    yield from range(n)
    raise ValueError("midway")


def fail(message):
    raise ValueError(message)


functions = {
    "echo": lambda x: x, "add": lambda a, b: a + b, "fail": fail, "count": count, "stream_fail": stream_fail,
    "empty": lambda: iter(()), "big_text": lambda n: "0123456789abcdef" * (n // 16), "die": lambda: os._exit(9),
    "big_bytes": lambda n: b"\xff\x00\x80x" * (n // 4), "integers": lambda: {5: 1},
    "test": lambda *args, **kwargs: {"name": "test", "args": list(args), "kwargs": kwargs},
    "get_interfaces": lambda: {name: {"doc": None, "signature": "()"} for name in functions},
}


class Worker:
    def __init__(self, args):
        self.args, self.dialect, self.over = args, args.dialect, False
        self.ctx = zmq.Context()
        self.id = ("gw-" + args.id).encode() if self.dialect == "gate01" else uuid.uuid5(uuid.NAMESPACE_DNS, args.id).bytes
        self.beats, self.beat_every = True, args.heartbeat
        self.later = []  # (when, frames) of slow()
        self.connect()

    def connect(self):
        self.sock = self.ctx.socket(zmq.DEALER)
        self.sock.setsockopt(zmq.IDENTITY, self.id)
        self.sock.connect(self.args.connect)
        self.ready()
        self.heard = self.polled = self.beaten = now()
        self.silent = 0

    def head(self, command):
        return [b"", W, command] + ([self.id] if self.dialect == "gate01" else []) + credentials(self.args)

    def ready(self):
        text = {"gate01": "%s:gate-rpc service", "gate02": "%s:gate-rpc service:%d", "mdp": "%s"}[self.dialect]
        text = text % ((self.args.service, self.args.max) if self.dialect == "gate02" else (self.args.service,))
        self.sock.send_multipart(self.head(READY) + [text.encode()])
        say(ready=True)

    def sockets(self):
        return [self.sock]

    def due(self):
        return min([when for when, _ in self.later] + [self.beaten + self.beat_every, self.polled + self.args.heartbeat])

    def command(self, line):
        op = line["op"]
        if op == "stop_heartbeat":
            self.beats = False
        elif op == "beat_every":
            self.beat_every = line["ms"]
        elif op == "disconnect":
            self.sock.send_multipart(self.head(DISCONNECT) + ([b""] if line.get("extra") else []))
        elif op == "reconnect":
            self.sock.close(0)
            self.connect()
        elif op == "ready":
            self.ready()
        elif op == "raw":
            self.sock.send_multipart([bytes.fromhex(each) for each in line["frames"]])
        elif op == "quit":
            self.over = True

    def receive(self, _, frames):
        self.heard, self.silent = now(), 0
        if len(frames) < 3 or frames[0] != b"" or frames[1] != W:
            raise Fault("not for a worker: %r" % frames[:4])
        if frames[2] == HEARTBEAT:
            if self.dialect == "gate02" and self.beats:
                self.sock.send_multipart(self.head(HEARTBEAT))
        elif frames[2] == DISCONNECT:
            say(broker="disconnect")
            self.over = self.dialect != "mdp"
        elif frames[2] == REQUEST and self.dialect == "mdp":
            body = [each.upper() for each in frames[5:]] if self.args.mode == "upper" else frames[5:]
            if len(frames) < 5 or frames[4] != b"":
                raise Fault("a request without address and empty frame: %r" % frames[:6])
            say(request=[each[:40].decode(errors="replace") for each in frames[5:]])
            self.sock.send_multipart([b"", W, REPLY, frames[3], b""] + body)
        elif frames[2] == REQUEST:
            self.request(frames)
        else:
            raise Fault("an unknown command: %r" % frames[2])

    def request(self, frames):
        if len(frames) < 7:
            raise Fault("a request with too few frames ends a 0.1 worker: %r" % frames[2:])
        client, empty, tag, function, *rest = frames[3:]
        if empty != b"":
            raise Fault("a second address")
        if self.dialect == "gate01":
            try:
                tag.decode()
                client.decode()
            except UnicodeDecodeError:
                raise Fault("a request id that is not UTF-8 ends a 0.1 worker")
        if len(rest) > 2 or (self.dialect == "gate02" and len(rest) != 2):
            raise Fault("%d frames of parameters" % len(rest))
        name = unpack(self.dialect, function)
        args = unpack(self.dialect, rest[0]) if rest else []
        kwargs = unpack(self.dialect, rest[1]) if len(rest) > 1 else {}
        if not isinstance(name, str) or not isinstance(args, list) or not isinstance(kwargs, dict):
            raise Fault("parameters that are never answered: %r" % rest)
        if any(not isinstance(key, str) or (self.dialect == "gate02" and key.startswith("__")) for key in kwargs):
            raise Fault("keywords that are dropped: %r" % list(kwargs))
        say(request=name)
        self.answer(client, tag, name, args, kwargs)

    def reply(self, client, tag, body):
        self.sock.send_multipart(self.head(REPLY) + [client, b"", tag] + body)

    def huge(self, client, tag, value, failure=None):
        """As the packages cut it: 0.1 sends gzip's header first, both then 1000 bytes at a time."""
        old = self.dialect == "gate01"
        data = gzip.compress(pack(value), 9 if old else 1)
        cuts = ([data[:10]] if old else []) + [data[at:at + 1000] for at in range(10 if old else 0, len(data), 1000)]
        for piece in cuts[:1] if failure else cuts + ([] if old else [b""]):
            self.reply(client, tag, [HUGE, piece])
        if failure and old:
            self.reply(client, tag, [HUGE, HUGE_ERROR])
            self.reply(client, tag, [HUGE, pack(failure)])
        elif failure:
            self.reply(client, tag, [HUGE, STREAM_ERROR, pack(failure)])
        if old or not failure:
            self.reply(client, tag, [HUGE, STREAM_END if old else HUGE_END])

    def answer(self, client, tag, name, args, kwargs):
        if name == "ignore":
            return
        if name == "huge":
            self.huge(client, tag, "0123456789abcdef" * (args[0] // 16))
            return
        if name == "huge_fail":
            self.huge(client, tag, "x" * 10000, triple(self.dialect, ValueError("no luck"), "trace"))
            return
        if name == "slow":
            self.later.append((now() + args[0], (client, tag, [envelope("slept")])))
            return
        if name not in functions and self.dialect == "gate02":
            return  # as it does, SECURE being set
        try:
            if name not in functions:
                raise AttributeError("Function not found: " + name)
            result = functions[name](*args, **kwargs)
        except Exception as err:
            self.reply(client, tag, [envelope(exception=triple(self.dialect, err, traceback.format_exc()))])
            return
        if not hasattr(result, "__next__"):
            self.reply(client, tag, [envelope(result)])
            return
        try:
            for item in result:
                self.reply(client, tag, [STREAM, pack(item)])
        except Exception as err:
            if self.dialect == "gate02":
                self.reply(client, tag, [STREAM, STREAM_ERROR, pack(triple(self.dialect, err, traceback.format_exc()))])
            return  # 0.1 stops without a word
        self.reply(client, tag, [STREAM, STREAM_END])

    def tick(self):
        for entry in [each for each in self.later if each[0] <= now()]:
            self.later.remove(entry)
            self.reply(*entry[1])
        if self.beats and self.dialect != "gate02" and self.beaten + self.beat_every <= now():
            self.sock.send_multipart(self.head(HEARTBEAT))
            self.beaten = now()
        elif self.beaten + self.beat_every <= now():
            self.beaten = now()
        if self.polled + self.args.heartbeat <= now():
            self.silent = self.silent + 1 if self.heard < self.polled else 0
            self.polled = now()
            if self.silent >= 3:
                say(broker="offline")
                self.over = True


run(Worker(arguments(connect="", service="S", max=5000, mode="echo")))
