"""An application of no known protocol: raw.py PORT NAME answers what it is sent with its name before it."""

import socketserver
import sys


class Raw(socketserver.BaseRequestHandler):
    def handle(self):
        while piece := self.request.recv(4096):
            self.request.sendall(sys.argv[2].encode() + b" " + piece)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


with Server(("0.0.0.0", int(sys.argv[1])), Raw) as server:
    server.serve_forever()
