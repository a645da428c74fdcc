"""An application of no known protocol behind TLS: tls_echo.py PORT KEY CERTIFICATE GREETING answers what it is sent, after its greeting."""

import socket
import socketserver
import ssl
import sys

port, key, certificate, greeting = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)


class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        with context.wrap_socket(self.request, server_side=True) as connection:
            connection.sendall(greeting.encode())
            while piece := connection.recv(65536):
                connection.sendall(piece)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    address_family = socket.AF_INET


with Server(("127.0.0.1", int(port)), Echo) as server:
    server.serve_forever()
