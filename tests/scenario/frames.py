"""HTTP/2 as frames: what a test writes is what goes out, and what comes back is told frame by frame.

Nothing here helps a peer to be right. Header blocks are written by hand, one literal after the other,
so that each stands alone and may be as wrong as a row wants it.
"""

import contextlib
import socket
import struct
from dataclasses import dataclass, field
from typing import NamedTuple

import hpack

from wire import Closed

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RFC 9113 6: types.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
# RFC 9113 6: flags.
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 32
# RFC 9113 7: error codes.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED = range(6)
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(6, 12)
# RFC 9113 6.5.2 and RFC 8441 3: settings.
TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, WINDOW, FRAME_SIZE, LIST_SIZE, CONNECT_PROTOCOL = 1, 2, 3, 4, 5, 6, 8
WINDOW_MAX = 2**31 - 1


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def integer(value, prefix, flags=0):
    """RFC 7541 5.1."""
    most = (1 << prefix) - 1
    if value < most:
        return bytes([flags | value])
    out, value = [flags | most], value - most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def octets(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def string(text):
    """RFC 7541 5.2, without Huffman coding."""
    return integer(len(octets(text)), 7) + octets(text)


def literal(name, value, form=0x10):
    """RFC 7541 6.2: never indexed (0x10), not added (0x00) or added to the table (0x40)."""
    return bytes([form]) + string(name) + string(value)


def block(*fields):
    """A header block that leaves the table alone."""
    return b"".join(literal(name, value) for name, value in fields)


def headers(stream, fields, end=True, flags=END_HEADERS):
    payload = fields if isinstance(fields, bytes) else block(*fields)
    return frame(HEADERS, flags | (END_STREAM if end else 0), stream, payload)


def data(stream, payload=b"", end=False):
    return frame(DATA, END_STREAM if end else 0, stream, payload)


def settings(*pairs):
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in pairs))


def window_update(stream, increment):
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def rst(stream, code):
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def goaway(last, code=NO_ERROR, debug=b""):
    return frame(GOAWAY, 0, 0, struct.pack(">II", last, code) + debug)


def ping(payload=b"conforms", flags=0):
    return frame(PING, flags, 0, payload)


ACK_SETTINGS = frame(SETTINGS, ACK)
# What a client with room for everything begins with.
WIDE = PREFACE + settings((WINDOW, WINDOW_MAX)) + window_update(0, 2**30)


@dataclass
class Seen:
    """What came in on one stream."""

    status: int = 0
    headers: list = field(default_factory=list)
    informational: list = field(default_factory=list)
    body: bytes = b""
    trailers: list = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def over(self):
        return self.ended or self.reset is not None

    def header(self, name):
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def fault(self):
        return self.header("weft-fault")


class Connection:
    """One side of an HTTP/2 connection, by hand: reads frames, and answers SETTINGS and PING."""

    def __init__(self, sock, timeout=10):
        self.socket = sock
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.decoder = hpack.Decoder()
        self.decoder.max_allowed_table_size = 4096
        self.frames = []
        self.goaways = []
        self.pongs = []
        self.acknowledged = 0
        self.closed = False
        self._received = b""
        self._block = None

    def send(self, *pieces):
        # The other side may be gone already; what it said before is still to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(b"".join(pieces))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def take(self, count):
        """Exactly `count` octets; Closed at the end."""
        while len(self._received) < count:
            try:
                piece = self.socket.recv(65536)
            except ConnectionResetError:
                piece = b""
            if not piece:
                self.closed = True
                raise Closed(f"connection closed; {self.frames[-5:]}")
            self._received += piece
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def next(self):
        """The next frame."""
        whole = self.take(9)
        whole += self.take(int.from_bytes(whole[:3], "big"))
        got = Frame(whole[3], whole[4], int.from_bytes(whole[5:9], "big"), whole[9:])
        self.frames.append(got)
        self._take(got)
        return got

    def _take(self, got):
        match got.kind:
            case _ if self._block and got.kind != CONTINUATION:
                raise AssertionError(f"a header block was interrupted by {got}")
            case _ if got.kind == SETTINGS and got.flags & ACK:
                self.acknowledged += 1
            case _ if got.kind == SETTINGS:
                self.send(ACK_SETTINGS)
            case _ if got.kind == PING and got.flags & ACK:
                self.pongs.append(got.payload)
            case _ if got.kind == PING:
                self.pinged(got.payload)
            case _ if got.kind == GOAWAY:
                self.goaways.append(struct.unpack(">II", got.payload[:8]))
            case _ if got.kind in (HEADERS, CONTINUATION):
                if got.kind == HEADERS:
                    self._block = (got.stream, got.flags & END_STREAM, b"")
                stream, end, before = self._block
                assert stream == got.stream, f"CONTINUATION on {got.stream} of a block on {stream}"
                self._block = (stream, end, before + got.payload)
                if got.flags & END_HEADERS:
                    whole, self._block = self._block[2], None
                    pairs = self.decoder.decode(whole, raw=True)
                    self.fields(stream, [(k.decode("latin-1"), v.decode("latin-1")) for k, v in pairs], bool(end))
            case _ if got.kind == DATA:
                self.data(got.stream, got.payload, bool(got.flags & END_STREAM))
            case _ if got.kind == RST_STREAM:
                self.reset(got.stream, int.from_bytes(got.payload, "big"))

    def pinged(self, payload):
        self.send(ping(payload, ACK))

    def fields(self, stream, pairs, end):
        pass

    def data(self, stream, payload, end):
        pass

    def reset(self, stream, code):
        pass

    def until(self, condition):
        """Reads until `condition()` holds."""
        while not condition():
            self.next()

    def barrier(self):
        """Reads what the other side said before it read all that was sent up to now."""
        mark = struct.pack(">Q", 0xBA00000000000000 + len(self.pongs))
        self.send(ping(mark))
        self.until(lambda: mark in self.pongs)

    def to_the_end(self):
        """Reads until the other side ends the connection."""
        with contextlib.suppress(Closed):
            while True:
                self.next()


class Client(Connection):
    """A client; `credit` says whether it gives back what it was sent."""

    def __init__(self, address, first=WIDE, credit=True, timeout=10):
        super().__init__(socket.create_connection(address, timeout), timeout)
        self.streams = {}
        self.credit = credit
        self.send(first)

    def stream(self, number):
        return self.streams.setdefault(number, Seen())

    def fields(self, stream, pairs, end):
        seen = self.stream(stream)
        assert not seen.over, f"HEADERS after the end of {stream}: {pairs}"
        if seen.status:
            assert end and not any(name.startswith(":") for name, _ in pairs), f"no trailers: {pairs}"
            seen.trailers = pairs
        else:
            assert pairs[0][0] == ":status" and not any(name.startswith(":") for name, _ in pairs[1:]), pairs
            status = int(pairs[0][1])
            if status < 200:
                assert not end
                seen.informational.append((status, pairs[1:]))
            else:
                seen.status, seen.headers = status, pairs[1:]
        seen.ended = end

    def data(self, stream, payload, end):
        seen = self.stream(stream)
        assert seen.status and not seen.over, f"DATA of {stream} where none may be"
        seen.body += payload
        seen.ended = end
        if self.credit and payload:
            self.send(window_update(0, len(payload)))

    def reset(self, stream, code):
        self.stream(stream).reset = code

    def read(self, stream):
        """Everything of a stream to its end."""
        self.until(lambda: self.stream(stream).over)
        return self.stream(stream)
