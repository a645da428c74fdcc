"""A WebSocket echo and its client: websocket.py serve HOST PORT | websocket.py ask URL [HOST PORT].

With HOST PORT the client connects there and says the URL's host, as to a proxy.
"""

import socket
import sys

from websockets.sync.client import connect
from websockets.sync.server import serve


def echo(connection):
    for message in connection:
        connection.send(message)


def ask(url, via):
    sock = socket.create_connection(via, 10) if via else None
    with connect(url, sock=sock, proxy=None, open_timeout=10) as connection:
        for message in ("hello", b"\x00\x01\xff", "x" * 300_000, "bye"):
            connection.send(message)
            assert connection.recv(timeout=10) == message
        assert connection.ping().wait(10)
    assert connection.close_code == 1000, connection.close_code
    print("ok")


match sys.argv[1:]:
    case ["serve", host, port]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, int(port)), family=family, dualstack_ipv6=":" in host)
        with serve(echo, sock=listener, max_size=2**22) as server:
            print("listening", flush=True)
            server.serve_forever()
    case ["ask", url]:
        ask(url, None)
    case ["ask", url, host, port]:
        ask(url, (host, int(port)))
    case _:
        sys.exit(__doc__)
