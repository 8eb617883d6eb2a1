"""A ZeroMQ server with pyzmq's authenticator, for ours to come to. It says {"bound": address}, {"heard": user} for
each peer's first message, and ends when its stdin does."""

import argparse
import json
import sys
import threading

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator


def say(**line):
    print(json.dumps(line), flush=True)


parser = argparse.ArgumentParser()
parser.add_argument("--plain", help="user:password that is let in")
parser.add_argument("--curve", help="the server's secret key file")
parser.add_argument("--clients", help="folder with the public key files of those that are let in")
args = parser.parse_args()

context = zmq.Context()
auth = ThreadAuthenticator(context)
auth.start()
server = context.socket(zmq.ROUTER)
server.linger = 0
server.setsockopt(zmq.ZAP_DOMAIN, b"gate")
if args.plain:
    auth.configure_plain(domain="gate", passwords=dict([args.plain.split(":")]))
    server.plain_server = True
else:
    auth.configure_curve(domain="gate", location=args.clients)
    server.curve_publickey, server.curve_secretkey = zmq.auth.load_certificate(args.curve)
    server.curve_server = True

port = server.bind_to_random_port("tcp://127.0.0.1")
say(bound=f"tcp://127.0.0.1:{port}")


def listen():
    known = set()
    while True:
        frames = server.recv_multipart(copy=False)
        peer = bytes(frames[0])
        if peer not in known:
            known.add(peer)
            say(heard=frames[1].get("User-Id"))


threading.Thread(target=listen, daemon=True).start()
sys.stdin.read()
auth.stop()
sys.exit(0)
