"""The host's resolver in the tests: dns.py IP ... answers `*.example` and denies everything else."""

import socket
import struct
import sys
import threading

A, AAAA = 1, 28


def question(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    return ".".join(labels), struct.unpack(">H", query[at + 1 : at + 3])[0], query[12 : at + 5]


def answer(query):
    name, kind, asked = question(query)
    known = name.endswith(".example")
    data = b""
    if known and kind == A:
        data = socket.inet_aton("10.77.0.99")
    elif known and kind == AAAA:
        data = socket.inet_pton(socket.AF_INET6, "fd00:77::99")
    head = query[:2] + struct.pack(">HHHHH", 0x8180 | (0 if known else 3), 1, 1 if data else 0, 0, 0)
    record = b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data if data else b""
    return head + asked + record


def serve(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as door:
        door.bind((address, 53))
        print("listening", flush=True)
        while True:
            query, peer = door.recvfrom(4096)
            door.sendto(answer(query), peer)


for one in sys.argv[1:]:
    threading.Thread(target=serve, args=(one,)).start()
