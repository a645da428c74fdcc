"""Applications in the test's own process whose every byte the test decides."""

import contextlib
import socket
import threading

import h2.config
import h2.connection
import h2.events
import h2.settings


class Scripted:
    """Listens on loopback; `script(connection)` plays one connection, in a thread."""

    def __init__(self, script, host="127.0.0.1", port=0):
        self._script = script
        # As many as any test opens at once. Where the queue is full the kernel goes on with SYN cookies, and now and
        # then resets a connection that its client has had established and has sent a request on.
        self._listener = socket.create_server((host, port), backlog=2048)
        self._listener.settimeout(0.2)
        self.address = self._listener.getsockname()[:2]
        self.port = self.address[1]
        self.connections = 0
        self.heads = []
        self.errors = []
        self.on_reset = lambda: None
        self._open = True
        self._sockets = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self):
        while self._open:
            try:
                peer, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            peer.settimeout(30)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._sockets.append(peer)
            threading.Thread(target=self._play, args=(peer,), daemon=True).start()

    def _play(self, peer):
        try:
            self._script(self, peer)
        except (OSError, EOFError):
            pass
        except Exception as error:
            self.errors.append(error)
        finally:
            peer.close()

    def read_head(self, peer):
        """The next request's head as bytes; a probe that connects and says nothing is an EOFError."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = peer.recv(1)
            if not byte:
                raise EOFError
            head += byte
        self.heads.append(head)
        return head

    def close(self):
        self._open = False
        self._listener.close()
        for peer in self._sockets:
            with contextlib.suppress(OSError):
                peer.close()
        self._thread.join(2)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def h2_tunnel(server, peer):
    """An HTTP/2 application that takes extended CONNECT (RFC 8441) and echoes the tunnel's bytes."""
    connection = h2.connection.H2Connection(
        h2.config.H2Configuration(client_side=False, header_encoding="latin-1", validate_inbound_headers=False)
    )
    connection.local_settings.enable_connect_protocol = 1
    # What is not acknowledged yet would not be in the first SETTINGS.
    connection.local_settings.acknowledge()
    connection.initiate_connection()
    peer.sendall(connection.data_to_send())
    while data := peer.recv(65536):
        for event in connection.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    head = dict(event.headers)
                    server.heads.append(head)
                    known = head.get(":protocol") == "websocket" or head[":path"] == "/stay"
                    headers = [(":status", "200" if known else "400"), ("x-tunnel", "yes")]
                    connection.send_headers(event.stream_id, headers, end_stream=not known)
                case h2.events.DataReceived():
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    connection.send_data(event.stream_id, event.data)
                case h2.events.StreamReset():
                    server.on_reset()
                case h2.events.StreamEnded():
                    with contextlib.suppress(Exception):
                        connection.end_stream(event.stream_id)
        peer.sendall(connection.data_to_send())
