"""HTTP as bytes: a client that sends exactly what a test says, and tells exactly what came back."""

import contextlib
import socket
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings


@dataclass
class Response:
    status: int = 0
    headers: list = field(default_factory=list)
    body: bytes = b""
    trailers: list = field(default_factory=list)
    informational: list = field(default_factory=list)
    version: str = ""
    reset: int | None = None

    def header(self, name):
        """The header's only value, or None; several of one name fail the test."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def fault(self):
        return self.header("weft-fault")

    def json(self):
        import json

        return json.loads(self.body.splitlines()[0])

    def echoed(self, name):
        """What the testkit's application saw of a request header."""
        values = [value for key, value in self.json()["headers"] if key == name]
        assert len(values) < 2, f"{name} reached the application {len(values)} times: {values}"
        return values[0] if values else None

# RFC 9113 6.8.
GOAWAY = 7


class Closed(AssertionError):
    """The other side ended the connection."""


class Http1:
    """One HTTP/1 connection."""

    def __init__(self, address, timeout=10, bind=None):
        self.socket = socket.create_connection(address, timeout, source_address=bind)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode("latin-1"))

    def _fill(self):
        piece = self.socket.recv(65536)
        if not piece:
            raise Closed(f"connection closed, {len(self._buffer)} bytes unread: {self._buffer[:200]!r}")
        self._buffer += piece

    def _until(self, mark):
        while mark not in self._buffer:
            self._fill()
        text, self._buffer = self._buffer.split(mark, 1)
        return text

    def take(self, count):
        """Exactly `count` bytes."""
        while len(self._buffer) < count:
            self._fill()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def rest(self):
        """Everything up to the end of the connection."""
        while True:
            try:
                self._fill()
            except Closed:
                data, self._buffer = self._buffer, b""
                return data

    def closed(self):
        """True when the other side has ended the connection and nothing more came."""
        try:
            piece = self._buffer or self.socket.recv(1)
        except ConnectionResetError:
            return True
        assert piece == b"", f"more bytes instead of the end: {piece + self._buffer[:200]!r}"
        return True

    def read_head(self):
        lines = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ")[:2]
        pairs = [line.split(":", 1) for line in lines[1:]]
        return Response(int(status), [(k.lower(), v.strip()) for k, v in pairs], version=version)

    def read(self, method="GET"):
        """One whole response, those of 1xx before it included."""
        informational = []
        while True:
            response = self.read_head()
            if 100 <= response.status < 200 and response.status != 101:
                informational.append(response)
                continue
            break
        response.informational = informational
        if method == "HEAD" or response.status in (101, 204, 304):
            return response
        if method == "CONNECT" and response.status // 100 == 2:
            return response
        if "chunked" in (response.header("transfer-encoding") or ""):
            response.body, response.trailers = self.read_chunked()
        elif response.header("content-length") is not None:
            response.body = self.take(int(response.header("content-length")))
        else:
            response.body = self.rest()
        return response

    def read_chunk(self):
        """One chunk's data; empty at the end of the body."""
        size = int(self._until(b"\r\n").split(b";")[0], 16)
        if size == 0:
            return b""
        data = self.take(size)
        assert self.take(2) == b"\r\n"
        return data

    def read_chunked(self):
        body, trailers = b"", []
        while piece := self.read_chunk():
            body += piece
        while line := self._until(b"\r\n"):
            name, value = line.decode("latin-1").split(":", 1)
            trailers.append((name.lower(), value.strip()))
        return body, trailers

    def get(self, target, host="orders.shop", **headers):
        extra = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
        self.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n")
        return self.read()


def get(address, target="/", host="orders.shop", **headers):
    """One GET on a connection of its own."""
    with Http1(address) as connection:
        return connection.get(target, host, **headers)


class Http2:
    """One HTTP/2 connection with prior knowledge. Validation is off: a test may send what it wants."""

    def __init__(self, address, timeout=10, validate=False, tunnel=None):
        """`tunnel` is a socket that leads there already."""
        self.socket = tunnel or socket.create_connection(address, timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding="latin-1",
            validate_outbound_headers=validate,
            normalize_outbound_headers=validate,
            validate_inbound_headers=True,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()
        self.responses = {}
        self.ended = set()
        self.goaway = None
        self._received = b""
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def flush(self):
        self.socket.sendall(self.h2.data_to_send())

    def request(self, method="GET", path="/", authority="orders.shop", headers=(), end=True, scheme="http", pseudo=()):
        """Sends a request head and returns its stream."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", method)]
        if method != "CONNECT" or pseudo:
            head += [(":scheme", scheme), (":path", path)]
        head += [(":authority", authority), *pseudo, *headers]
        return self.raw_request(stream, head, end)

    def raw_request(self, stream, head, end=True):
        self.h2.send_headers(stream, head, end_stream=end)
        self.responses[stream] = Response()
        self.flush()
        return stream

    def data(self, stream, data, end=False):
        self.h2.send_data(stream, data, end_stream=end)
        self.flush()

    def _frames(self):
        """Takes the whole frames off what was received."""
        while len(self._received) >= 9:
            length = 9 + int.from_bytes(self._received[:3], "big")
            if len(self._received) < length:
                return
            frame, self._received = self._received[:length], self._received[length:]
            yield frame

    def step(self):
        """Takes what the other side sent next."""
        data = self.socket.recv(65536)
        if not data:
            raise Closed("connection closed")
        self._received += data
        for frame in self._frames():
            # GOAWAY is kept from the library, which takes it for the end of the connection. A server
            # that drains says it and goes on with the streams that are open (RFC 9113 6.8).
            if frame[3] == GOAWAY:
                self.goaway = int.from_bytes(frame[13:17], "big")
                continue
            for event in self.h2.receive_data(frame):
                self._take(event)
        # The other side may be gone already; what it said before is still to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.flush()

    def _take(self, event):
        response = self.responses.get(getattr(event, "stream_id", None))
        match event:
            case h2.events.InformationalResponseReceived():
                status = int(dict(event.headers)[":status"])
                response.informational.append(Response(status, list(event.headers)))
            case h2.events.ResponseReceived():
                response.status = int(dict(event.headers)[":status"])
                response.headers = [pair for pair in event.headers if pair[0] != ":status"]
            case h2.events.DataReceived():
                response.body += event.data
                if event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.TrailersReceived():
                response.trailers = list(event.headers)
            case h2.events.StreamEnded():
                self.ended.add(event.stream_id)
            case h2.events.StreamReset():
                if response:
                    response.reset = int(event.error_code)
                self.ended.add(event.stream_id)

    def read(self, stream):
        """The stream's whole response, or what came before its reset."""
        while stream not in self.ended:
            self.step()
        return self.responses[stream]

    def read_head(self, stream):
        while not self.responses[stream].status and stream not in self.ended:
            self.step()
        return self.responses[stream]

    def get(self, path="/", authority="orders.shop", headers=()):
        return self.read(self.request("GET", path, authority, headers))
