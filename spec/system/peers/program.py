"""What the peers share: arguments, JSON lines on stdin and stdout, and the loop around a socket."""

import argparse
import json
import os
import sys
import time
import traceback

import zmq

from frames import Fault


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def arguments(**more):
    parser = argparse.ArgumentParser()
    parser.add_argument("--dialect", required=True)
    parser.add_argument("--heartbeat", type=int, default=0)
    parser.add_argument("--id", default=os.urandom(16).hex())
    parser.add_argument("--plain")
    parser.add_argument("--null", action="store_true")
    for name, default in more.items():
        parser.add_argument("--" + name, type=type(default), default=default)
    args = parser.parse_args()
    args.heartbeat = args.heartbeat or {"gate01": 3000, "gate02": 5000, "mdp": 2500}[args.dialect]
    return args


def now():
    return time.monotonic() * 1000


class Lines:
    """stdin, line by line, without waiting."""

    def __init__(self):
        os.set_blocking(0, False)
        self.rest = b""
        self.ended = False

    def take(self):
        try:
            data = os.read(0, 1 << 20)
            self.ended = self.ended or data == b""
            self.rest += data
        except BlockingIOError:
            pass
        *lines, self.rest = self.rest.split(b"\n")
        return [json.loads(line) for line in lines if line.strip()]


def run(peer):
    """peer: sockets() -> list, receive(socket, frames), command(dict), tick(), due() in ms from now."""
    lines = Lines()
    try:
        while not peer.over:
            poller = zmq.Poller()
            for each in peer.sockets():
                poller.register(each, zmq.POLLIN)
            if not lines.ended:
                poller.register(0, zmq.POLLIN)
            ready = dict(poller.poll(max(0, min(peer.due() - now(), 500))))
            if 0 in ready:
                for line in lines.take():
                    peer.command(line)
            for each in peer.sockets():
                if each in ready:
                    for _ in range(200):
                        try:
                            frames = each.recv_multipart(zmq.DONTWAIT)
                        except zmq.ZMQError:
                            break
                        peer.receive(each, frames)
            peer.tick()
            if lines.ended:
                peer.over = True
    except Fault as fault:
        say(fault=str(fault))
        os._exit(3)
    except Exception:
        say(fault="the peer itself failed: " + traceback.format_exc())
        os._exit(4)
    for each in peer.sockets():
        each.close(100)
