"""HTTP/2 by the letter of RFC 9113, RFC 7541 and RFC 8441, through the real program: a row for each rule.

The first table makes the proxy the server: a client that writes frames by hand breaks or stretches one
rule in each row, on a connection of its own. The second makes it the client: an application that writes
frames by hand misbehaves towards it. In both a row says exactly what has to come back, and that whoever
did nothing wrong, on the same connection or another, goes on undisturbed.
"""

import contextlib
import signal
import socket
import struct
import threading
from dataclasses import dataclass

import pytest

import frames
from answers import application
from frames import (
    ACK,
    ACK_SETTINGS,
    CANCEL,
    COMPRESSION_ERROR,
    CONNECT_PROTOCOL,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INTERNAL_ERROR,
    LIST_SIZE,
    MAX_STREAMS,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    TABLE_SIZE,
    WIDE,
    WINDOW,
    WINDOW_MAX,
    WINDOW_UPDATE,
    Client,
    block,
    data,
    frame,
    goaway,
    headers,
    integer,
    literal,
    ping,
    rst,
    settings,
    string,
    window_update,
)
from mesh import service
from scripted import Scripted
from wire import Closed

# One worker, so that what one row leaves behind is what the next one meets.
ONE_WORKER = {"WEFT_WORKERS": "1"}
# The request at the end of a row that shows that the connection goes on.
LIVE = 4001
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def edge(shared_mesh):
    shared_mesh.web = shared_mesh.workload("web", env=ONE_WORKER)
    with application() as server:
        shared_mesh.offer("edge", server.port, app_protocol="http", env=ONE_WORKER)
        shared_mesh.edge = server
        shared_mesh.other = Client(shared_mesh.web.outbound)
        shared_mesh.next_stream = iter(range(1, WINDOW_MAX, 2))
        yield shared_mesh
        server.released.set()


# ---- The proxy as server -----------------------------------------------------------------------------


@dataclass
class Gone:
    """The connection ends with GOAWAY."""

    code: int
    last: int | None = None


@dataclass
class Reset:
    """The stream ends with RST_STREAM."""

    code: int


@dataclass
class Answer:
    """The stream is answered to its end; what is None is not looked at."""

    status: int
    fault: str | None = None
    body: bytes | None = None
    trailers: list | None = None
    informational: list | None = None


OK = Answer(200, body=b"ok")
MALFORMED = Answer(400, "malformed_request")
TOO_LARGE = Answer(431, "headers_too_large")


def fields(path="/ok", method="GET", *more, authority="edge.shop"):
    return [(":method", method), (":scheme", "http"), (":path", path), (":authority", authority), *more]


def get(stream=1, path="/ok", *more, end=True):
    return headers(stream, fields(path, "GET", *more), end)


def post(stream=1, path="/echo", *more, end=False):
    return headers(stream, fields(path, "POST", *more), end)


def echoed(method, path, *lines, body=b""):
    """What the application shows of a request."""
    return b"\r\n".join([b"%s %s HTTP/1.1" % (method, path), b"host: edge.shop", *lines, b"", body])


def done(stream):
    return lambda client: client.read(stream)


def without(*names):
    return [pair for pair in fields() if pair[0] not in names]


def instead(name, value):
    return [(key, value if key == name else old) for key, old in fields()]


def barrier(client):
    client.barrier()


def quiet(stream, count):
    """No more than `count` octets of the stream's content come before the next word of the client."""

    def check(client):
        client.until(lambda: len(client.stream(stream).body) >= count)
        client.barrier()
        assert len(client.stream(stream).body) == count

    return check


def dribble(*pieces):
    """Octet by octet."""

    def write(client):
        for octet in b"".join(pieces):
            client.send(bytes([octet]))

    return write


def upload(stream, count, chunk=16384, padding=None):
    """Sends content as the proxy's windows allow it, padded where wanted, to the end of the stream."""

    def write(client):
        windows = {0: 65535, stream: 65500}
        seen = 0

        def take():
            nonlocal seen
            while seen < len(client.frames):
                got = client.frames[seen]
                seen += 1
                if got.kind == WINDOW_UPDATE and got.stream in windows:
                    windows[got.stream] += int.from_bytes(got.payload, "big")

        client.barrier()
        take()
        left = count
        while left:
            overhead = 0 if padding is None else padding + 1
            length = min(left, chunk - overhead)
            while min(windows.values()) < length + overhead:
                client.next()
                take()
            for which in windows:
                windows[which] -= length + overhead
            left -= length
            flags = 0 if left else END_STREAM
            if padding is None:
                client.send(frame(DATA, flags, stream, b"x" * length))
            else:
                client.send(frame(DATA, flags | PADDED, stream, bytes([padding]) + b"x" * length + b"\0" * padding))

    return write


def padded(kind, flags, stream, payload, padding, filling=b"\0"):
    return frame(kind, flags | PADDED, stream, bytes([padding]) + payload + filling * padding)


def begins_with(expected):
    """The first block of the connection, whichever stream's answer it is, begins with these octets."""

    def check(client):
        client.until(lambda: any(got.kind == HEADERS for got in client.frames))
        first = next(got.payload for got in client.frames if got.kind == HEADERS)
        assert first.startswith(expected), first.hex()

    return check


def resize_decoder(size):
    """Holds the proxy's encoder to what was announced: the decoder fails where it exceeds that."""

    def change(client):
        client.decoder.max_allowed_table_size = size

    return change


def announces(client):
    """RFC 9113 3.4: the server's first frame is SETTINGS."""
    first = client.next()
    pairs = dict(struct.unpack(">HI", first.payload[at : at + 6]) for at in range(0, len(first.payload), 6))
    assert (first.kind, first.flags, first.stream) == (SETTINGS, 0, 0)
    assert pairs == {CONNECT_PROTOCOL: 1, MAX_STREAMS: 1024, WINDOW: 65500, LIST_SIZE: 65536}


def acknowledges(count):
    def check(client):
        client.barrier()
        assert client.acknowledged == count

    return check


def pongs(*payloads):
    def check(client):
        client.until(lambda: len(client.pongs) >= len(payloads))
        assert client.pongs == list(payloads)

    return check


def no_data_above(size):
    def check(client):
        largest = max(len(got.payload) for got in client.frames if got.kind == DATA)
        assert largest <= size, largest

    return check


def tunnel(client):
    """Octets that went there and back."""
    client.until(lambda: client.stream(1).status)
    client.send(data(1, b"Hello"))
    client.until(lambda: client.stream(1).body == b"hELLO")
    client.send(data(1, b"", end=True))


REQUEST = block(*fields())
NOT_OVER = {}
START = WIDE
SMALL = PREFACE + settings((WINDOW, 10))


def start(*pairs):
    return PREFACE + settings(*pairs)


def row(section, name, steps, expected, first=START, credit=True):
    """A row of the first table."""
    steps = steps if isinstance(steps, (list, tuple)) else [steps]
    return pytest.param(steps, expected, first, credit, id=f"{section} {name}")


SIZES = [
    ("PING of 7 octets", "6.7", frame(PING, 0, 0, b"1234567")),
    ("PING of 9 octets", "6.7", frame(PING, 0, 0, b"123456789")),
    ("PING of nothing", "6.7", frame(PING, 0, 0)),
    ("PING ACK of 7 octets", "6.7", frame(PING, ACK, 0, b"1234567")),
    ("RST_STREAM of 3 octets", "6.4", post() + frame(RST_STREAM, 0, 1, b"abc")),
    ("RST_STREAM of 5 octets", "6.4", post() + frame(RST_STREAM, 0, 1, b"abcde")),
    ("SETTINGS of 5 octets", "6.5", frame(SETTINGS, 0, 0, b"\0\3\0\0\0")),
    ("SETTINGS of 7 octets", "6.5", frame(SETTINGS, 0, 0, b"\0\3\0\0\0\1\0")),
    ("SETTINGS ACK with a payload", "6.5", frame(SETTINGS, ACK, 0, b"\0\3\0\0\0\1")),
    ("WINDOW_UPDATE of 3 octets", "6.9", frame(WINDOW_UPDATE, 0, 0, b"\0\0\1")),
    ("WINDOW_UPDATE of 5 octets", "6.9", frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\0\1")),
    ("WINDOW_UPDATE of 3 octets on a stream", "6.9", post() + frame(WINDOW_UPDATE, 0, 1, b"\0\0\1")),
    ("GOAWAY of 7 octets", "6.8", frame(GOAWAY, 0, 0, b"\0" * 7)),
    ("DATA of 16385 octets", "4.2", post() + data(1, b"x" * 16385)),
    ("HEADERS of 16385 octets", "4.2", frame(HEADERS, END_HEADERS, 1, b"\0" * 16385)),
    ("CONTINUATION of 16385 octets", "4.2", frame(HEADERS, 0, 1, REQUEST) + frame(CONTINUATION, 4, 1, b"\0" * 16385)),
    ("SETTINGS of 16386 octets", "4.2", frame(SETTINGS, 0, 0, b"\0\x77\0\0\0\0" * 2731)),
    ("an unknown frame of 16385 octets", "4.2", frame(0xBE, 0, 0, b"x" * 16385)),
    ("a frame of 2^24-1 octets", "4.2", b"\xff\xff\xff\0\0\0\0\0\1"),
]

WRONG_STREAM = [
    ("6.1", "DATA on stream 0", data(0, b"x")),
    ("6.2", "HEADERS on stream 0", headers(0, fields())),
    ("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, b"\0\0\0\1\0")),
    ("6.4", "RST_STREAM on stream 0", rst(0, CANCEL)),
    ("6.5", "SETTINGS on a stream", post() + frame(SETTINGS, 0, 1)),
    ("6.5", "SETTINGS ACK on a stream", post() + frame(SETTINGS, ACK, 1)),
    ("6.6", "PUSH_PROMISE by a client", post() + frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + REQUEST)),
    ("6.6", "PUSH_PROMISE on stream 0", frame(PUSH_PROMISE, END_HEADERS, 0, b"\0\0\0\2" + REQUEST)),
    ("6.7", "PING on a stream", post() + frame(PING, 0, 1, b"12345678")),
    ("6.8", "GOAWAY on a stream", post() + frame(GOAWAY, 0, 1, b"\0" * 8)),
    ("6.10", "CONTINUATION on stream 0", frame(CONTINUATION, END_HEADERS, 0, REQUEST)),
    ("6.10", "CONTINUATION on an idle stream", frame(CONTINUATION, END_HEADERS, 1, REQUEST)),
    ("6.10", "CONTINUATION after END_HEADERS", post() + frame(CONTINUATION, END_HEADERS, 1, b"")),
    ("6.10", "CONTINUATION after the end of the request", get(1, "/hold") + frame(CONTINUATION, END_HEADERS, 1, b"")),
    ("5.1", "DATA on an idle stream", data(1, b"x")),
    ("5.1", "RST_STREAM on an idle stream", rst(1, CANCEL)),
    ("5.1", "WINDOW_UPDATE on an idle stream", window_update(1, 1)),
    ("5.1", "DATA on an idle stream above an open one", post() + data(3, b"x")),
    ("5.1.1", "HEADERS on an even stream", headers(2, fields())),
    ("5.1.1", "DATA on an even stream", data(2, b"x")),
    ("5.1.1", "RST_STREAM on an even stream", rst(2, CANCEL)),
    ("5.1.1", "WINDOW_UPDATE on an even stream", window_update(2, 1)),
]

INTERRUPTIONS = [
    ("PING", ping()),
    ("SETTINGS", settings()),
    ("SETTINGS ACK", ACK_SETTINGS),
    ("PRIORITY", frame(PRIORITY, 0, 1, b"\0\0\0\0\0")),
    ("WINDOW_UPDATE", window_update(0, 1)),
    ("RST_STREAM", rst(1, CANCEL)),
    ("DATA", data(1, b"x")),
    ("HEADERS of the same stream", headers(1, fields())),
    ("HEADERS of another stream", headers(3, fields())),
    ("GOAWAY", goaway(0)),
    ("an unknown frame", frame(0xBE, 0, 1)),
    ("CONTINUATION of another stream", frame(CONTINUATION, END_HEADERS, 3, REQUEST)),
    ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2")),
]

BAD_HPACK = [
    ("6.1", "index 0", b"\x80"),
    ("2.3.3", "an index above the empty table", b"\xbe"),
    ("2.3.3", "a name's index above the empty table", b"\x7e" + string("b")),
    ("2.3.3", "an index far above the tables", integer(10_000, 7, 0x80)),
    ("5.1", "an integer without an end", b"\xff" + b"\x80" * 20 + b"\x01"),
    ("5.1", "an integer above 32 bits", b"\xff\xff\xff\xff\xff\xff\x01"),
    ("5.1", "a block that ends within an integer", b"\xff\x80"),
    ("5.2", "a string longer than the block", b"\x10" + string("x-a") + b"\x0a" + b"short"),
    ("5.2", "a block that ends before the value", b"\x10" + string("x-a")),
    ("5.2", "a block that ends within the name", b"\x10\x05x-"),
    ("5.2", "Huffman coding with EOS", b"\x10" + string("x-a") + b"\x84\xff\xff\xff\xff"),
    ("5.2", "Huffman padding of eight bits", b"\x10" + string("x-a") + b"\x82\x1f\xff"),
    ("5.2", "Huffman padding of zeros", b"\x10" + string("x-a") + b"\x81\x18"),
    ("4.2", "a table size update after a field", b"\x20"),
]

MALFORMED_FIELDS = [
    ("8.2.2", "connection", [*fields(), ("connection", "close")]),
    ("8.2.2", "keep-alive", [*fields(), ("keep-alive", "timeout=1")]),
    ("8.2.2", "proxy-connection", [*fields(), ("proxy-connection", "close")]),
    ("8.2.2", "transfer-encoding", [*fields(), ("transfer-encoding", "chunked")]),
    ("8.2.2", "upgrade", [*fields(), ("upgrade", "h2c")]),
    ("8.2.2", "te other than trailers", [*fields(), ("te", "gzip")]),
    ("8.2.2", "te with trailers and more", [*fields(), ("te", "trailers, gzip")]),
    ("8.2.1", "a name in upper case", [*fields(), ("X-A", "b")]),
    ("8.2.1", "a name with a space", [*fields(), ("x a", "b")]),
    ("8.2.1", "a name with NUL", [*fields(), ("x\0a", "b")]),
    ("8.2.1", "a name with CR LF", [*fields(), ("x\r\nhost", "b")]),
    ("8.2.1", "a name with DEL", [*fields(), ("x\x7fa", "b")]),
    ("8.2.1", "a name above ASCII", [*fields(), ("x\x80a", "b")]),
    ("8.2.1", "a name with a colon", [*fields(), ("x:a", "b")]),
    ("8.2.1", "an empty name", [*fields(), ("", "b")]),
    ("8.2.1", "a value with NUL", [*fields(), ("x-a", "b\0c")]),
    ("8.2.1", "a value with CR", [*fields(), ("x-a", "b\rc")]),
    ("8.2.1", "a value with LF", [*fields(), ("x-a", "b\nc")]),
    ("8.2.1", "a value with a space in front", [*fields(), ("x-a", " b")]),
    ("8.2.1", "a value with a tab behind", [*fields(), ("x-a", "b\t")]),
    ("8.3", "an unknown pseudo-header field", [*fields(), (":weird", "a")]),
    ("8.3", "a pseudo-header field after a regular one", [*fields()[:3], ("x-a", "b"), fields()[3]]),
    ("8.3", ":status in a request", [*fields(), (":status", "200")]),
    ("8.3.1", "no :method", without(":method")),
    ("8.3.1", "no :scheme", without(":scheme")),
    ("8.3.1", "no :path", without(":path")),
    ("8.3.1", "two :method", [*fields(), (":method", "GET")]),
    ("8.3.1", "two :scheme", [*fields(), (":scheme", "http")]),
    ("8.3.1", "two :path", [*fields(), (":path", "/ok")]),
    ("8.3.1", "two :authority", [*fields(), (":authority", "edge.shop")]),
    ("8.3.1", "an empty :path", instead(":path", "")),
    ("8.3.1", ":path without a slash", instead(":path", "ok")),
    ("8.3.1", ":path * with GET", instead(":path", "*")),
    ("8.3.1", ":path with a fragment", instead(":path", "/ok#a")),
    ("8.3.1", ":path with a space", instead(":path", "/ok HTTP/1.1")),
    ("8.3.1", ":path with CR LF", instead(":path", "/ok\r\nx-a: b")),
    ("8.3.1", ":path above ASCII", instead(":path", "/\xe9")),
    ("8.3.1", "an absolute :path", instead(":path", "http://edge.shop/ok")),
    ("8.3.1", "an empty :method", instead(":method", "")),
    ("8.3.1", ":method that is no token", instead(":method", "GE T")),
    ("8.3.1", "an empty :scheme", instead(":scheme", "")),
    ("8.5", "CONNECT with :path", [(":method", "CONNECT"), (":path", "/"), (":authority", "edge.shop:80")]),
    ("8.5", "CONNECT with :scheme", [(":method", "CONNECT"), (":scheme", "http"), (":authority", "edge.shop:80")]),
    ("8.5", "CONNECT without :authority", [(":method", "CONNECT")]),
    ("RFC 8441 4", ":protocol without CONNECT", [*fields(), (":protocol", "websocket")]),
    ("RFC 8441 4", ":protocol without :path", [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", "edge.shop")]),
    ("8.1.1", "content-length that is no number", [*fields("/echo", "POST"), ("content-length", "5x")]),
    ("8.1.1", "content-length with a sign", [*fields("/echo", "POST"), ("content-length", "+5")]),
    ("8.1.1", "content-length of nothing", [*fields("/echo", "POST"), ("content-length", "")]),
    ("8.1.1", "content-length as a list", [*fields("/echo", "POST"), ("content-length", "5, 5")]),
    ("8.1.1", "two content-lengths", [*fields("/echo", "POST"), ("content-length", "5"), ("content-length", "6")]),
    ("8.1.1", "content-length without content", [*fields("/echo", "POST"), ("content-length", "5")]),
]  # fmt: skip

FINE_FIELDS = [
    ("8.2.2", "te: trailers", [*fields("/echo"), ("te", "trailers")], echoed(b"GET", b"/echo", b"te: trailers")),
    ("8.2.1", "a value above ASCII", [*fields("/echo"), ("x-a", "caf\xe9")], echoed(b"GET", b"/echo", b"x-a: caf\xe9")),
    ("8.2.1", "an empty value", [*fields("/echo"), ("x-a", "")], echoed(b"GET", b"/echo", b"x-a: ")),
    ("8.2.1", "a tab within a value", [*fields("/echo"), ("x-a", "b\tc")], echoed(b"GET", b"/echo", b"x-a: b\tc")),
    ("8.2.3", "two cookies", [*fields("/echo"), ("cookie", "a=1"), ("cookie", "b=2")], echoed(b"GET", b"/echo", b"cookie: a=1; b=2")),
    ("8.2", "a name twice", [*fields("/echo"), ("x-a", "1"), ("x-a", "2")], echoed(b"GET", b"/echo", b"x-a: 1", b"x-a: 2")),
    ("8.3.1", "Host in place of :authority", [*without(":authority")[:2], (":path", "/echo"), ("host", "edge.shop")], echoed(b"GET", b"/echo")),
    ("8.3.1", "Host equal to :authority", [*fields("/echo"), ("host", "edge.shop")], echoed(b"GET", b"/echo")),
    ("8.3.1", "Host equal but for case", [*fields("/echo"), ("host", "EDGE.shop")], echoed(b"GET", b"/echo")),
    ("8.3.1", "pseudo-header fields in another order", [*reversed(fields("/echo"))], echoed(b"GET", b"/echo")),
    ("8.3.1", ":path with a query", fields("/echo?a=b&c"), echoed(b"GET", b"/echo?a=b&c")),
    ("8.3.1", ":path * with OPTIONS", fields("*", "OPTIONS"), echoed(b"OPTIONS", b"*")),
    ("8.3.1", "a method of nobody's", fields("/echo", "BREW"), echoed(b"BREW", b"/echo")),
    ("8.3.1", "a method in lower case", fields("/echo", "get"), echoed(b"get", b"/echo")),
    ("8.3.1", ":scheme https", [(":method", "GET"), (":scheme", "https"), (":path", "/echo"), (":authority", "edge.shop:80")], echoed(b"GET", b"/echo").replace(b"shop", b"shop:80")),
]  # fmt: skip

SERVER = [
    # RFC 9113 3.4: the preface.
    row("3.4", "the server's first frame is SETTINGS", announces, NOT_OVER),
    row("3.4", "SETTINGS without a setting", [], NOT_OVER, first=PREFACE + settings()),
    row("3.4", "PING before SETTINGS", ping(), Gone(PROTOCOL_ERROR, 0), first=PREFACE),
    row("3.4", "HEADERS before SETTINGS", get(), Gone(PROTOCOL_ERROR, 0), first=PREFACE),
    row("3.4", "SETTINGS ACK before SETTINGS", ACK_SETTINGS, Gone(PROTOCOL_ERROR, 0), first=PREFACE),
    row("3.4", "an unknown frame before SETTINGS", frame(0xBE), Gone(PROTOCOL_ERROR, 0), first=PREFACE),
    row("3.4", "WINDOW_UPDATE before SETTINGS", window_update(0, 1), Gone(PROTOCOL_ERROR, 0), first=PREFACE),
    row("3.4", "the preface twice", PREFACE, Gone(FRAME_SIZE_ERROR, 0)),
    row("3.4", "everything octet by octet", dribble(START, get()), {1: OK}, first=b""),
    row("3.4", "a request at once with the preface", [], {1: OK}, first=START + get()),
    row("3.4", "each SETTINGS is acknowledged", [settings(), settings(), acknowledges(3)], NOT_OVER),
    # RFC 9113 4.1 and 4.2: frames.
    row("4.1", "the reserved bit of the stream identifier", [post()[:5] + b"\x80" + post()[6:], data(1, b"a", end=True)], {1: Answer(200)}),
    row("4.1", "undefined flags of HEADERS", frame(HEADERS, 0xFF & ~(PADDED | PRIORITIZED), 1, REQUEST), {1: OK}),
    row("4.1", "undefined flags of DATA", [post(), frame(DATA, 0xF7, 1, b"abc")], {1: Answer(200, body=echoed(b"POST", b"/echo", b"transfer-encoding: chunked", body=b"abc"))}),
    row("4.1", "undefined flags of SETTINGS", [frame(SETTINGS, 0xFE), acknowledges(2)], NOT_OVER),
    row("4.1", "undefined flags of PING", [frame(PING, 0xFE, 0, b"12345678"), pongs(b"12345678")], NOT_OVER),
    row("4.1", "undefined flags of WINDOW_UPDATE", frame(WINDOW_UPDATE, 0xFF, 0, b"\0\0\0\1"), NOT_OVER),
    row("4.1", "an unknown frame on stream 0", frame(0xBE, 0xFF, 0, b"anything"), NOT_OVER),
    row("4.1", "an unknown frame on an idle stream", frame(0xBE, 0xFF, 1, b"anything"), NOT_OVER),
    row("5.5", "an unknown frame on an open stream", [post(), frame(0xFF, 0xFF, 1, b"anything"), data(1, b"", end=True)], {1: Answer(200)}),
    row("4.2", "DATA of 16384 octets", [post(1, "/length"), data(1, b"x" * 16384, end=True)], {1: Answer(200, body=b"16384")}),
    *[row(section, name, sent, Gone(FRAME_SIZE_ERROR)) for name, section, sent in SIZES],
    row("6.3", "PRIORITY of 4 octets", [post(1), frame(PRIORITY, 0, 1, b"\0\0\0\0")], {1: Reset(FRAME_SIZE_ERROR)}),
    row("6.3", "PRIORITY of 6 octets", [post(1), frame(PRIORITY, 0, 1, b"\0\0\0\0\0\0")], {1: Reset(FRAME_SIZE_ERROR)}),
    row("6.3", "PRIORITY of 4 octets on an idle stream, where no RST_STREAM may stand (6.4)", frame(PRIORITY, 0, 1, b"\0\0\0\0"), Gone(FRAME_SIZE_ERROR, 0)),
    row("4.2", "HEADERS too short for its padding's length", frame(HEADERS, END_HEADERS | PADDED, 1, b""), Gone(FRAME_SIZE_ERROR, 0)),
    row("4.2", "HEADERS too short for its priority", frame(HEADERS, END_HEADERS | PRIORITIZED, 1, b"\0\0\0\0"), Gone(FRAME_SIZE_ERROR, 0)),
    row("4.2", "DATA too short for its padding's length", [post(), frame(DATA, PADDED, 1, b"")], Gone(FRAME_SIZE_ERROR, 1)),
    # RFC 9113 6.1 and 6.2: padding.
    row("6.1", "DATA with 255 octets of padding", [post(), padded(DATA, END_STREAM, 1, b"abc", 255)], {1: Answer(200, body=echoed(b"POST", b"/echo", b"transfer-encoding: chunked", body=b"abc"))}),
    row("6.1", "DATA with no padding but its length", [post(), padded(DATA, END_STREAM, 1, b"abc", 0)], {1: Answer(200, body=echoed(b"POST", b"/echo", b"transfer-encoding: chunked", body=b"abc"))}),
    row("6.1", "DATA of nothing but padding", [post(1, "/length"), padded(DATA, END_STREAM, 1, b"", 10)], {1: Answer(200, body=b"0")}),
    row("6.1", "padding that is not zero", [post(1, "/length"), padded(DATA, END_STREAM, 1, b"ab", 10, b"!")], {1: Answer(200, body=b"2")}),
    row("6.1", "padded DATA octet by octet", [post(1, "/length"), dribble(padded(DATA, END_STREAM, 1, b"ab", 10))], {1: Answer(200, body=b"2")}),
    row("6.1", "DATA with as much padding as payload", [post(), frame(DATA, PADDED, 1, b"\x03abc")], NOT_OVER),
    row("6.1", "DATA with more padding than payload", [post(), frame(DATA, PADDED, 1, b"\x04abc")], Gone(PROTOCOL_ERROR, 1)),
    row("6.1", "DATA with a padding length alone that is not 0", [post(), frame(DATA, PADDED, 1, b"\x01")], Gone(PROTOCOL_ERROR, 1)),
    row("6.2", "HEADERS with padding", padded(HEADERS, END_HEADERS | END_STREAM, 1, REQUEST, 100), {1: OK}),
    row("6.2", "HEADERS with priority", frame(HEADERS, END_HEADERS | END_STREAM | PRIORITIZED, 1, b"\x80\0\0\0\x10" + REQUEST), {1: OK}),
    row("6.2", "HEADERS with padding and priority", padded(HEADERS, END_HEADERS | END_STREAM | PRIORITIZED, 1, b"\0\0\0\0\x10" + REQUEST, 7), {1: OK}),
    row("6.2", "HEADERS that depends on itself", frame(HEADERS, END_HEADERS | END_STREAM | PRIORITIZED, 1, b"\0\0\0\1\x10" + REQUEST), {1: OK}),
    row("6.2", "HEADERS with more padding than payload", frame(HEADERS, END_HEADERS | PADDED, 1, bytes([len(REQUEST) + 1]) + REQUEST), Gone(PROTOCOL_ERROR, 0)),
    row("6.2", "HEADERS with padding that leaves no room for the priority", frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, b"\x03\0\0\0\0\x10ab"), Gone(PROTOCOL_ERROR, 0)),
    # RFC 9113 5.1 and 6: frames where they don't belong.
    *[row(section, name, sent, Gone(PROTOCOL_ERROR)) for section, name, sent in WRONG_STREAM],
    row("5.1.1", "HEADERS on a stream below an idle one that was passed over", [get(5), done(5), get(3)], Gone(PROTOCOL_ERROR, 5)),
    row("5.1", "PRIORITY on an idle stream", frame(PRIORITY, 0, 7, b"\0\0\0\0\x10"), NOT_OVER),
    row("5.1", "PRIORITY on an idle stream opens nothing below it", [frame(PRIORITY, 0, 7, b"\0\0\0\0\x10"), get(1)], {1: OK}),
    row("5.1", "PRIORITY on a stream that depends on itself", frame(PRIORITY, 0, 1, b"\0\0\0\1\x10"), NOT_OVER),
    row("5.1", "PRIORITY on a half-closed stream", [get(1, "/hold"), frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")], NOT_OVER),
    row("5.1", "PRIORITY on a closed stream", [get(), done(1), frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")], {1: OK}),
    row("5.1", "DATA on a half-closed stream", [get(1, "/hold"), data(1, b"x")], {1: Reset(STREAM_CLOSED)}),
    row("5.1", "HEADERS on a half-closed stream", [get(1, "/hold"), get(1, "/hold")], {1: Reset(STREAM_CLOSED)}),
    row("5.1", "WINDOW_UPDATE on a half-closed stream", [get(1, "/hold"), window_update(1, 1)], NOT_OVER, first=start()),
    row("5.1", "RST_STREAM on a half-closed stream", [get(1, "/hold"), rst(1, CANCEL)], NOT_OVER),
    row("5.1", "DATA on a closed stream", [post(1, "/ok", end=True), done(1), data(1, b"x")], Reset(STREAM_CLOSED)),
    row("5.1", "HEADERS on a closed stream", [get(), done(1), get()], Gone(STREAM_CLOSED, 1)),
    row("5.1", "WINDOW_UPDATE on a closed stream", [get(), done(1), window_update(1, 1)], {1: OK}),
    row("5.1", "RST_STREAM on a closed stream", [get(), done(1), rst(1, CANCEL)], {1: OK}),
    row("5.1", "CONTINUATION on a closed stream", [get(), done(1), frame(CONTINUATION, END_HEADERS, 1)], Gone(PROTOCOL_ERROR, 1)),
    row("5.1", "DATA after the client's RST_STREAM", [post(), rst(1, CANCEL), data(1, b"x")], {1: Reset(STREAM_CLOSED)}),
    row("5.1", "HEADERS after the client's RST_STREAM", [post(), rst(1, CANCEL), post()], Gone(STREAM_CLOSED, 1)),
    row("5.1", "RST_STREAM twice", [post(), rst(1, CANCEL), rst(1, CANCEL)], NOT_OVER),
    row("5.4.2", "DATA after the proxy's RST_STREAM", [post(1, "/echo", ("X-A", "b")), data(1, b"x" * 1000), barrier, data(1, b"y", end=True)], {1: Reset(PROTOCOL_ERROR)}),
    row("5.4.2", "trailers after the proxy's RST_STREAM", [post(1, "/echo", ("X-A", "b")), barrier, headers(1, [("x-b", "c")])], {1: Reset(PROTOCOL_ERROR)}),
    row("5.4.2", "WINDOW_UPDATE and RST_STREAM after the proxy's RST_STREAM", [post(1, "/echo", ("X-A", "b")), barrier, window_update(1, 9), rst(1, CANCEL)], {1: Reset(PROTOCOL_ERROR)}),
    row("4.3", "the table goes on after a stream that was refused", [post(1, "/echo", ("X-A", "b")), barrier, headers(1, literal("x-kept", "yes", 0x40)), headers(3, block(*fields("/echo")) + b"\xbe")], {1: Reset(PROTOCOL_ERROR), 3: Answer(200, body=echoed(b"GET", b"/echo", b"x-kept: yes"))}),
    row("4.3", "the table goes on after a malformed block", [headers(1, block(*fields()) + literal("x-kept", "yes", 0x40) + literal("X-A", "b")), headers(3, block(*fields("/echo")) + b"\xbe")], {1: Reset(PROTOCOL_ERROR), 3: Answer(200, body=echoed(b"GET", b"/echo", b"x-kept: yes"))}),
    # RFC 9113 6.10: CONTINUATION.
    row("6.10", "a block in two frames", [frame(HEADERS, END_STREAM, 1, REQUEST[:9]), frame(CONTINUATION, END_HEADERS, 1, REQUEST[9:])], {1: OK}),
    row("6.10", "a block in four frames, with empty ones", [frame(HEADERS, END_STREAM, 1, b""), frame(CONTINUATION, 0, 1, REQUEST), frame(CONTINUATION, 0, 1), frame(CONTINUATION, END_HEADERS, 1)], {1: OK}),
    row("6.10", "a block in a frame for each octet", [frame(HEADERS, END_STREAM, 1), *[frame(CONTINUATION, 0, 1, bytes([o])) for o in REQUEST[:60]], frame(CONTINUATION, END_HEADERS, 1, REQUEST[60:])], {1: OK}),
    row("6.10", "undefined flags of CONTINUATION", [frame(HEADERS, END_STREAM, 1, REQUEST[:9]), frame(CONTINUATION, 0xFF, 1, REQUEST[9:])], {1: OK}),
    row("6.10", "END_STREAM of CONTINUATION means nothing", [frame(HEADERS, 0, 1, block(*fields("/echo", "POST"))), frame(CONTINUATION, END_HEADERS | END_STREAM, 1), data(1, b"abc", end=True)], {1: Answer(200, body=echoed(b"POST", b"/echo", b"transfer-encoding: chunked", body=b"abc"))}),
    row("6.10", "a padded HEADERS that goes on", [padded(HEADERS, END_STREAM, 1, REQUEST[:9], 5), frame(CONTINUATION, END_HEADERS, 1, REQUEST[9:])], {1: OK}),
    row("6.10", "trailers in two frames", [post(), frame(HEADERS, END_STREAM, 1, block(("x-a", "b"))[:4]), frame(CONTINUATION, END_HEADERS, 1, block(("x-a", "b"))[4:])], {1: Answer(200, body=echoed(b"POST", b"/echo", b"transfer-encoding: chunked") + b"x-a: b\r\n")}),
    row("10.5.1", "CONTINUATION without an end", [frame(HEADERS, 0, 1, REQUEST), *[frame(CONTINUATION, 0, 1)] * 100], Gone(ENHANCE_YOUR_CALM, 0)),
    *[row("6.10", f"{name} within a block", [frame(HEADERS, END_STREAM, 1, REQUEST), sent], Gone(PROTOCOL_ERROR, 0)) for name, sent in INTERRUPTIONS],
    # RFC 9113 6.5.2: settings.
    row("6.5.2", "ENABLE_PUSH 2", settings((ENABLE_PUSH, 2)), Gone(PROTOCOL_ERROR)),
    row("6.5.2", "ENABLE_PUSH 0 and 1", settings((ENABLE_PUSH, 0), (ENABLE_PUSH, 1)), NOT_OVER),
    row("6.5.2", "INITIAL_WINDOW_SIZE 2^31", settings((WINDOW, 2**31)), Gone(FLOW_CONTROL_ERROR)),
    row("6.5.2", "MAX_FRAME_SIZE 16383", settings((FRAME_SIZE, 16383)), Gone(PROTOCOL_ERROR)),
    row("6.5.2", "MAX_FRAME_SIZE 2^24", settings((FRAME_SIZE, 2**24)), Gone(PROTOCOL_ERROR)),
    row("6.5.2", "MAX_FRAME_SIZE 16384 is kept", [settings((FRAME_SIZE, 16384)), get(1, "/bytes?200000"), done(1), no_data_above(16384)], {1: Answer(200, body=b"x" * 200_000)}),
    row("6.5.2", "MAX_FRAME_SIZE as it is initially is kept", [get(1, "/bytes?200000"), done(1), no_data_above(16384)], {1: Answer(200, body=b"x" * 200_000)}),
    row("6.5.2", "MAX_FRAME_SIZE 2^24-1", [settings((FRAME_SIZE, 2**24 - 1)), get(1, "/bytes?200000")], {1: Answer(200, body=b"x" * 200_000)}),
    row("6.5.2", "MAX_CONCURRENT_STREAMS 0 of a client", [settings((MAX_STREAMS, 0)), get()], {1: OK}),
    row("6.5.2", "MAX_HEADER_LIST_SIZE 0 is advice", [settings((LIST_SIZE, 0)), get()], {1: OK}),
    row("6.5.2", "an unknown setting", [settings((0xFFFF, 2**32 - 1), (0, 1)), acknowledges(2)], NOT_OVER),
    row("6.5.3", "the last of several values holds", [get(1, "/bytes?50"), quiet(1, 30), window_update(1, 20)], {1: Answer(200, body=b"x" * 50)}, first=start((WINDOW, 0), (WINDOW, 40), (WINDOW, 30))),
    row("6.5.2", "HEADER_TABLE_SIZE 0", [resize_decoder(0), *[get(n, "/echo") for n in (1, 3, 5, 7)], begins_with(b"\x20"), done(1), done(3), done(5), done(7)], {n: Answer(200) for n in (1, 3, 5, 7)}, first=start((TABLE_SIZE, 0))),
    row("RFC 7541 4.2", "HEADER_TABLE_SIZE 0 and 4096 between two blocks", [settings((TABLE_SIZE, 0)), settings((TABLE_SIZE, 4096)), get(), begins_with(b"\x20\x3f\xe1\x1f")], {1: OK}),
    row("RFC 7541 4.2", "HEADER_TABLE_SIZE 0 and 4096 in one SETTINGS", [settings((TABLE_SIZE, 0), (TABLE_SIZE, 4096)), get(), begins_with(b"\x20\x3f\xe1\x1f")], {1: OK}),
    row("6.5.2", "HEADER_TABLE_SIZE 2^32-1", [settings((TABLE_SIZE, 2**32 - 1)), get()], {1: OK}),
    row("RFC 8441 3", "ENABLE_CONNECT_PROTOCOL 2", settings((CONNECT_PROTOCOL, 2)), Gone(PROTOCOL_ERROR)),
    # RFC 9113 5.2 and 6.9: flow control.
    row("6.9.1", "an initial window of 10", [get(1, "/bytes?50"), quiet(1, 10), window_update(1, 15), quiet(1, 25), window_update(1, 100)], {1: Answer(200, body=b"x" * 50)}, first=SMALL),
    row("6.9.1", "an initial window of 0 lets the head through", [get(1, "/bytes?5"), lambda c: c.until(lambda: c.stream(1).status), quiet(1, 0), window_update(1, 5)], {1: Answer(200, body=b"xxxxx")}, first=start((WINDOW, 0))),
    row("6.9.1", "an answer without content needs no window", get(1, "/empty"), {1: Answer(200, body=b"")}, first=start((WINDOW, 0))),
    row("6.9.1", "trailers need no window", [get(1, "/trailers"), quiet(1, 0), window_update(1, 2)], {1: Answer(200, body=b"ok", trailers=[("x-sum", "7")])}, first=start((WINDOW, 0))),
    row("6.9.1", "the last octet of the window ends the stream", [get(1, "/bytes?10")], {1: Answer(200, body=b"x" * 10)}, first=SMALL),
    row("6.9.1", "one stream without a window holds nobody up", [get(1, "/bytes?50"), quiet(1, 10), get(3, "/bytes?10"), done(3), window_update(1, 40)], {1: Answer(200, body=b"x" * 50), 3: Answer(200, body=b"x" * 10)}, first=SMALL),
    row("6.9.2", "SETTINGS enlarges the window of an open stream", [get(1, "/bytes?50"), quiet(1, 10), settings((WINDOW, 30)), quiet(1, 30), settings((WINDOW, 60))], {1: Answer(200, body=b"x" * 50)}, first=SMALL),
    row("6.9.2", "SETTINGS makes a window negative", [get(1, "/bytes?50"), quiet(1, 10), settings((WINDOW, 0)), window_update(1, 10), quiet(1, 10), window_update(1, 1), quiet(1, 11), settings((WINDOW, 100))], {1: Answer(200, body=b"x" * 50)}, first=SMALL),
    row("6.9.2", "SETTINGS leaves the connection's window alone", [settings((WINDOW, WINDOW_MAX)), get(1, "/bytes?70000"), quiet(1, 65535), settings((WINDOW, 0)), settings((WINDOW, WINDOW_MAX)), quiet(1, 65535), window_update(0, 100_000)], {1: Answer(200, body=b"x" * 70_000)}, first=start(), credit=False),
    row("6.9", "the connection's window is kept to the octet", [settings((WINDOW, WINDOW_MAX)), get(1, "/bytes?70000"), quiet(1, 65535), window_update(0, 1), quiet(1, 65536), window_update(0, 100_000)], {1: Answer(200, body=b"x" * 70_000)}, first=start(), credit=False),
    row("6.9", "the connection's window is shared", [settings((WINDOW, 40_000)), get(1, "/bytes?40000"), done(1), get(3, "/bytes?40000"), quiet(3, 25_535), window_update(0, 100_000)], {1: Answer(200, body=b"x" * 40_000), 3: Answer(200, body=b"x" * 40_000)}, first=start(), credit=False),
    row("6.9", "WINDOW_UPDATE of 0 on a stream", [post(), window_update(1, 0)], {1: Reset(PROTOCOL_ERROR)}),
    row("6.9", "WINDOW_UPDATE of 0 on the connection", window_update(0, 0), Gone(PROTOCOL_ERROR, 0)),
    row("6.9", "the reserved bit of WINDOW_UPDATE", [get(1, "/bytes?50"), quiet(1, 10), frame(WINDOW_UPDATE, 0, 1, b"\x80\0\0\x28")], {1: Answer(200, body=b"x" * 50)}, first=SMALL),
    row("6.9", "WINDOW_UPDATE of 0 with the reserved bit", [post(), frame(WINDOW_UPDATE, 0, 1, b"\x80\0\0\0")], {1: Reset(PROTOCOL_ERROR)}),
    row("6.9.1", "a stream's window of 2^31-1", [post(1, "/length"), window_update(1, WINDOW_MAX - 65535), data(1, b"", end=True)], {1: Answer(200, body=b"0")}, first=start()),
    row("6.9.1", "a stream's window of 2^31", [post(), window_update(1, WINDOW_MAX - 65534)], {1: Reset(FLOW_CONTROL_ERROR)}, first=start()),
    row("6.9.1", "the connection's window of 2^31-1", window_update(0, WINDOW_MAX - 65535), NOT_OVER, first=start(), credit=False),
    row("6.9.1", "the connection's window of 2^31", window_update(0, WINDOW_MAX - 65534), Gone(FLOW_CONTROL_ERROR, 0), first=start()),
    row("6.9.2", "SETTINGS takes a window above 2^31-1", [post(), window_update(1, 1000), settings((WINDOW, WINDOW_MAX))], Gone(FLOW_CONTROL_ERROR, 1), first=start()),
    row("6.9", "content above the stream's window", [post(1, "/stall"), *[data(1, b"x" * 16384)] * 1200], {1: Reset(FLOW_CONTROL_ERROR)}),
    row("5.2", "windows are given back to a client that keeps to them", [post(1, "/length"), upload(1, 3 * MIB)], {1: Answer(200, body=b"%d" % (3 * MIB))}),
    row("5.2", "windows are given back for padding too", [post(1, "/length"), upload(1, 50_000, chunk=300, padding=255)], {1: Answer(200, body=b"50000")}),
    row("5.2", "the connection's window is given back for a stream that was reset", [post(1, "/echo", ("X-A", "b")), barrier, *[data(1, b"x" * 16384)] * 2100, post(3, "/length"), upload(3, MIB)], {1: Reset(PROTOCOL_ERROR), 3: Answer(200, body=b"%d" % MIB)}),
    # RFC 9113 8: messages.
    *[row(section, name, headers(1, pairs), {1: Reset(PROTOCOL_ERROR)}) for section, name, pairs in MALFORMED_FIELDS],
    *[row(section, name, headers(1, pairs), {1: Answer(200, body=body)}) for section, name, pairs, body in FINE_FIELDS],
    row("8.3.1", "Host other than :authority", headers(1, [*fields(), ("host", "other.shop")]), {1: MALFORMED}),
    row("8.3.1", "two Hosts", headers(1, [*without(":authority"), ("host", "edge.shop"), ("host", "edge.shop")]), {1: MALFORMED}),
    row("8.3.1", "user information in :authority", headers(1, fields(authority="me@edge.shop")), {1: MALFORMED}),
    row("8.3.1", "a path in :authority", headers(1, fields(authority="edge.shop/ok")), {1: MALFORMED}),
    row("8.3.1", "a bad port in :authority", headers(1, fields(authority="edge.shop:99999")), {1: MALFORMED}),
    row("8.3.1", "neither :authority nor Host", headers(1, without(":authority")), {1: MALFORMED}),
    row("8.5", "CONNECT", [headers(1, [(":method", "CONNECT"), (":authority", "edge.shop:80")], end=False), data(1, b"GET /empty HTTP/1.1\r\nHost: edge.shop\r\nConnection: close\r\n\r\n"), lambda c: c.until(lambda: c.stream(1).body.endswith(b"\r\n\r\n")), data(1, b"", end=True)], {1: Answer(200)}),
    row("8.5", "CONNECT to nowhere", headers(1, [(":method", "CONNECT"), (":authority", "nowhere.shop:80")], end=False), {1: Answer(503, "unknown_destination")}),
    row("RFC 8441 5", "extended CONNECT that is accepted", [headers(1, [(":method", "CONNECT"), (":protocol", "rot13"), *fields("/switch")[1:]], end=False), tunnel], {1: Answer(200, body=b"hELLO")}),
    row("RFC 8441 5", "extended CONNECT that the application answers as any request", headers(1, [(":method", "CONNECT"), (":protocol", "rot13"), *fields("/ok")[1:]], end=False), {1: Answer(502, "upstream_protocol")}),
    row("10.5.1", "a header list above the limit", [frame(HEADERS, END_STREAM, 1, REQUEST + literal("x-a", "b" * 16_000)), *[frame(CONTINUATION, 0, 1, literal("x-a", "b" * 16_000))] * 4, frame(CONTINUATION, END_HEADERS, 1)], {1: TOO_LARGE}),
    row("10.5.1", "too many fields", headers(1, [*fields(), *[("x-a", "b")] * 253]), {1: TOO_LARGE}),
    row("10.5.1", "many fields, with room for those of the hop", headers(1, [*fields(), *[("x-a", "b")] * 240]), {1: OK}),
    row("8.1.1", "content-length kept to", [post(1, "/echo", ("content-length", "5")), data(1, b"he"), data(1, b"llo", end=True)], {1: Answer(200, body=echoed(b"POST", b"/echo", b"content-length: 5", body=b"hello"))}),
    row("8.1.1", "content-length kept to without END_STREAM on the last octet", [post(1, "/echo", ("content-length", "5")), data(1, b"hello"), data(1, b"", end=True)], {1: Answer(200, body=echoed(b"POST", b"/echo", b"content-length: 5", body=b"hello"))}),
    row("8.1.1", "content-length 0 without content", post(1, "/length", ("content-length", "0"), end=True), {1: Answer(200, body=b"0")}),
    row("8.1.1", "content-length above the content", [post(1, "/echo", ("content-length", "5")), data(1, b"hell", end=True)], {1: Reset(PROTOCOL_ERROR)}),
    row("8.1.1", "content-length below the content", [post(1, "/echo", ("content-length", "5")), data(1, b"hello!", end=True)], {1: Reset(PROTOCOL_ERROR)}),
    row("8.1.1", "content-length below the content of two frames", [post(1, "/hold", ("content-length", "5")), data(1, b"hello"), data(1, b"!", end=True)], {1: Reset(PROTOCOL_ERROR)}),
    row("8.1.1", "content-length above the content before trailers", [post(1, "/echo", ("content-length", "5")), data(1, b"hell"), headers(1, [("x-a", "b")])], {1: Reset(PROTOCOL_ERROR)}),
    row("8.1.1", "content-length does not count padding", [post(1, "/length", ("content-length", "5")), padded(DATA, END_STREAM, 1, b"hello", 9)], {1: Answer(200, body=b"5")}),
    row("8.1", "trailers", [post(), data(1, b"abc"), headers(1, [("x-sum", "7"), ("x-end", "1")])], {1: Answer(200, body=echoed(b"POST", b"/echo", b"transfer-encoding: chunked", body=b"abc") + b"x-sum: 7\r\nx-end: 1\r\n")}),
    row("8.1", "trailers without content", [post(), headers(1, [("x-sum", "7")])], {1: Answer(200, body=echoed(b"POST", b"/echo", b"transfer-encoding: chunked") + b"x-sum: 7\r\n")}),
    row("8.1", "an empty trailer section", [post(1, "/length"), data(1, b"abc"), headers(1, b"")], {1: Answer(200, body=b"3")}),
    row("8.1", "trailers without END_STREAM", [post(), headers(1, [("x-a", "b")], end=False)], {1: Reset(PROTOCOL_ERROR)}),
    row("8.1", "trailers with a pseudo-header field", [post(), headers(1, [(":path", "/")])], {1: Reset(PROTOCOL_ERROR)}),
    row("8.1", "trailers with :status", [post(), headers(1, [(":status", "200")])], {1: Reset(PROTOCOL_ERROR)}),
    row("8.2.1", "trailers with a name in upper case", [post(), headers(1, [("X-A", "b")])], {1: Reset(PROTOCOL_ERROR)}),
    row("8.2.2", "trailers with connection", [post(), headers(1, [("connection", "x-a")])], {1: Reset(PROTOCOL_ERROR)}),
    row("8.1", "trailers after trailers", [post(1, "/hold"), headers(1, [("x-a", "b")]), headers(1, [("x-a", "b")])], {1: Reset(STREAM_CLOSED)}),
    row("8.1", "DATA after trailers", [post(1, "/hold"), headers(1, [("x-a", "b")]), data(1, b"x")], {1: Reset(STREAM_CLOSED)}),
    row("RFC 9110 9.3.2", "HEAD", headers(1, fields("/head", "HEAD")), {1: Answer(200, body=b"")}),
    row("RFC 9110 15.3.5", "204", get(1, "/204"), {1: Answer(204, body=b"")}),
    row("RFC 9110 15.4.5", "304", get(1, "/304"), {1: Answer(304, body=b"")}),
    row("8.1", "103 before the answer", get(1, "/early"), {1: Answer(200, body=b"ok", informational=[(103, [("link", "</a.css>")])])}),
    row("8.1", "100 before the answer", [post(1, "/continue", ("expect", "100-continue"), ("content-length", "2")), lambda c: c.until(lambda: c.stream(1).informational), data(1, b"ok", end=True)], {1: Answer(200, body=b"ok", informational=[(100, [])])}),
    row("8.1", "an answer with trailers", get(1, "/trailers"), {1: Answer(200, body=b"ok", trailers=[("x-sum", "7")])}),
    row("8.1", "a chunked answer", get(1, "/chunked"), {1: Answer(200, body=b"abcde", trailers=[])}),
    row("8.1.1", "an answer that is cut", get(1, "/cut"), {1: Reset(INTERNAL_ERROR)}),
    row("8.2.2", "connection-specific fields of the answer stay behind", [get(1, "/private"), done(1), lambda c: none_of(c, 1, "connection", "keep-alive", "x-hop", "transfer-encoding")], {1: OK}),
    row("8.1", "an answer before the request's end, then RST_STREAM NO_ERROR", [post(1, "/unread", ("content-length", "500000")), data(1, b"x" * 1000), done(1)], {1: Answer(200, body=b"early")}),
    # RFC 7541.
    *[row(f"RFC 7541 {section}", name, headers(1, REQUEST + wrong), Gone(COMPRESSION_ERROR, 0)) for section, name, wrong in BAD_HPACK],
    *[row(f"RFC 7541 {section}", f"{name}, in trailers", [post(), headers(1, wrong if section != "4.2" else block(("x-a", "b")) + wrong)], Gone(COMPRESSION_ERROR, 1)) for section, name, wrong in BAD_HPACK],
    row("RFC 7541 6.3", "a table size above what was announced", headers(1, integer(4097, 5, 0x20) + REQUEST), Gone(COMPRESSION_ERROR, 0)),
    row("RFC 7541 6.3", "a table size as it was announced", headers(1, integer(4096, 5, 0x20) + REQUEST), {1: OK}),
    row("RFC 7541 4.2", "two table size updates in front", headers(1, b"\x20" + integer(4096, 5, 0x20) + REQUEST), {1: OK}),
    row("RFC 7541 4.3", "a table size of 0 empties the table", [headers(1, REQUEST + literal("x-a", "b", 0x40)), headers(3, b"\x20" + integer(4096, 5, 0x20) + REQUEST + b"\xbe")], Gone(COMPRESSION_ERROR, 1)),
    row("RFC 7541 6.2.1", "an entry that is used again", [headers(1, block(*fields("/echo")) + literal("x-a", "b", 0x40)), headers(3, block(*fields("/echo")) + b"\xbe\xbe")], {1: Answer(200), 3: Answer(200, body=echoed(b"GET", b"/echo", b"x-a: b", b"x-a: b"))}),
    row("RFC 7541 6.2.1", "an entry's name that is used again", [headers(1, block(*fields("/echo")) + literal("x-a", "b", 0x40)), headers(3, block(*fields("/echo")) + integer(62, 4) + string("c"))], {1: Answer(200), 3: Answer(200, body=echoed(b"GET", b"/echo", b"x-a: c"))}),
    row("RFC 7541 6.2.2", "a literal that is not added", [headers(1, block(*fields()) + literal("x-a", "b", 0x00)), done(1), headers(3, REQUEST + b"\xbe")], Gone(COMPRESSION_ERROR, 1)),
    row("RFC 7541 6.2.3", "a literal that is never indexed", [headers(1, block(*fields()) + literal("x-a", "b", 0x10)), done(1), headers(3, REQUEST + b"\xbe")], Gone(COMPRESSION_ERROR, 1)),
    row("RFC 7541 4.4", "an entry above the table's size empties it", [headers(1, REQUEST + literal("x-a", "b", 0x40)), done(1), headers(3, REQUEST + literal("x-b", "c" * 4096, 0x40)), done(3), headers(5, REQUEST + b"\xbe")], Gone(COMPRESSION_ERROR, 3)),
    row("RFC 7541 4.4", "the oldest entry leaves first", [headers(1, REQUEST + literal("x-a", "b" * 2000, 0x40) + literal("x-b", "c" * 2000, 0x40) + literal("x-c", "d", 0x40)), done(1), headers(3, block(*fields("/echo")) + b"\xbe"), done(3), headers(5, REQUEST + b"\xc0")], Gone(COMPRESSION_ERROR, 3)),
    row("RFC 7541 5.2", "Huffman coding", headers(1, block(*fields("/echo")) + b"\x10" + string("x-a") + b"\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"), {1: Answer(200, body=echoed(b"GET", b"/echo", b"x-a: www.example.com"))}),
    row("RFC 7541 6.1", "fields of the static table", headers(1, b"\x82\x86\x84\x41" + string("edge.shop")), {1: OK}),
    row("RFC 7541 2.3.3", "the last entry of the static table", headers(1, block(*fields("/echo")) + b"\xbd"), {1: Answer(200, body=echoed(b"GET", b"/echo", b"www-authenticate: "))}),
    row("RFC 7541 5.1", "an integer with more octets than it needs", headers(1, block(*fields("/echo")) + b"\x10\x7f" + b"\x80" * 3 + b"\0" + b"x" * 127 + string("b")), {1: Answer(200, body=echoed(b"GET", b"/echo", b"x" * 127 + b": b"))}),
    # RFC 9113 6.7 and 6.8.
    row("6.7", "PING is answered with its payload", [ping(b"\0\1\2\3\4\5\6\xff"), pongs(b"\0\1\2\3\4\5\6\xff")], NOT_OVER),
    row("6.7", "PINGs are answered in order", [ping(b"11111111"), ping(b"22222222"), pongs(b"11111111", b"22222222")], NOT_OVER),
    row("6.7", "PING ACK of nothing that was asked", [ping(b"87654321", ACK), pongs()], NOT_OVER),
    row("6.8", "GOAWAY of a client", [goaway(0), get(1)], {1: OK}),
    row("6.8", "GOAWAY of a client while a stream is open", [post(), goaway(0, NO_ERROR, b"debug"), data(1, b"", end=True)], {1: Answer(200)}),
    row("7", "GOAWAY with an unknown code", goaway(0, 0xFFFFFFFF), NOT_OVER),
    row("7", "RST_STREAM with an unknown code", [get(1, "/hold"), rst(1, 0xFFFFFFFF)], NOT_OVER),
    # RFC 9113 5.1.2 and 10.5: limits.
    row("5.1.2", "a stream above the limit", [*[get(1 + 2 * n, "/bytes?1") for n in range(1025)], done(2049), settings((WINDOW, 100))], {**{1 + 2 * n: Answer(200, body=b"x") for n in range(1024)}, 2049: Reset(REFUSED_STREAM)}, first=start((WINDOW, 0))),
    row("10.5", "more PINGs than anybody needs", ping() * 5000, Gone(ENHANCE_YOUR_CALM)),
    row("10.5", "more SETTINGS than anybody needs", settings((0xFFFF, 1)) * 5000, Gone(ENHANCE_YOUR_CALM)),
    row("10.5", "more SETTINGS ACKs than anybody needs", ACK_SETTINGS * 5000, Gone(ENHANCE_YOUR_CALM)),
    row("10.5", "more PRIORITY than anybody needs", frame(PRIORITY, 0, 1, b"\0\0\0\0\0") * 5000, Gone(ENHANCE_YOUR_CALM)),
    row("10.5", "more unknown frames than anybody needs", frame(0xBE) * 5000, Gone(ENHANCE_YOUR_CALM)),
    row("10.5", "more empty DATA than anybody needs", post(1, "/hold") + data(1) * 5000, Gone(ENHANCE_YOUR_CALM, 1)),
    row("10.5", "rapid reset", [get(n, "/hold") + rst(n, CANCEL) for n in range(1, 2000, 2)], Gone(ENHANCE_YOUR_CALM)),
    row("10.5", "streams that the proxy has to reset", [get(n, "/ok", ("X-A", "b")) for n in range(1, 2000, 2)], Gone(ENHANCE_YOUR_CALM)),
]  # fmt: skip


def none_of(client, stream, *names):
    found = [name for name, _ in client.stream(stream).headers if name in names]
    assert not found, found


def compare(number, seen, expected):
    match expected:
        case Reset(code):
            assert seen.reset == code, (number, seen, expected)
        case Answer():
            assert seen.ended, (number, seen, expected)
            assert (seen.status, seen.fault) == (expected.status, expected.fault), (number, seen)
            for what in ("body", "trailers", "informational"):
                if (wanted := getattr(expected, what)) is not None:
                    assert getattr(seen, what) == wanted, (number, what, getattr(seen, what), wanted)


@pytest.mark.parametrize(("steps", "expected", "first", "credit"), SERVER)
def test_the_proxy_as_server(edge, steps, expected, first, credit):
    with Client(edge.web.outbound, first=first, credit=credit is not False) as client:
        try:
            for step in steps:
                step(client) if callable(step) else client.send(step)
        except Closed:
            assert isinstance(expected, Gone), f"the connection ended: {client.goaways} {client.streams}"
        if isinstance(expected, Gone):
            with pytest.raises(Closed):
                client.barrier()
            assert [code for _, code in client.goaways] == [expected.code], (client.goaways, client.streams)
            assert expected.last in (None, client.goaways[0][0]), client.goaways
        else:
            wanted = {1: expected} if isinstance(expected, Reset) else expected
            for number in wanted:
                client.read(number)
            # The answer's content may need a window that the row did not give.
            client.send(headers(LIVE, fields("/empty")))
            live = client.read(LIVE)
            assert (live.status, live.ended) == (200, True), live
            client.barrier()
            assert not client.goaways
            assert {number for number, seen in client.streams.items() if seen.over} == {*wanted, LIVE}, client.streams
            for number, one in wanted.items():
                compare(number, client.stream(number), one)
    number = next(edge.next_stream)
    edge.other.send(get(number))
    compare(number, edge.other.read(number), OK)


def test_a_proxy_that_shuts_down_tells_twice_and_finishes_what_is_open(shared_mesh, edge):
    """RFC 9113 6.8: GOAWAY with the highest identifier, then with the last one, then the end."""
    ending = shared_mesh.workload("ending", env=ONE_WORKER)
    client = Client(ending.outbound)
    client.send(post(1, "/length"))
    client.barrier()
    unasked = []
    client.pinged = unasked.append
    ending.process.signal(signal.SIGTERM)
    client.until(lambda: client.goaways and unasked)
    assert client.goaways == [(WINDOW_MAX, NO_ERROR)]
    # What was on its way when the proxy said so is still served.
    client.send(get(3))
    compare(3, client.read(3), OK)
    assert client.goaways == [(WINDOW_MAX, NO_ERROR)]
    client.send(ping(unasked[0], ACK))
    client.until(lambda: len(client.goaways) == 2)
    assert client.goaways[1] == (3, NO_ERROR)
    # What comes later is not looked at, and its client may ask another.
    client.send(get(5))
    client.barrier()
    assert not client.closed and not client.stream(5).over
    client.send(data(1, b"abc", end=True))
    compare(1, client.read(1), Answer(200, body=b"3"))
    client.to_the_end()
    assert len(client.goaways) == 2 and not client.stream(5).over
    assert ending.process.wait(10) == 0


def test_a_proxy_that_shuts_down_ends_an_idle_connection(shared_mesh, edge):
    ending = shared_mesh.workload("ending-idle", env=ONE_WORKER)
    with Client(ending.outbound) as client:
        client.barrier()
        ending.process.signal(signal.SIGTERM)
        client.to_the_end()
        assert client.goaways == [(WINDOW_MAX, NO_ERROR), (0, NO_ERROR)]
    assert ending.process.wait(10) == 0


# ---- The proxy as client -----------------------------------------------------------------------------


class Application(frames.Connection):
    """One connection that the proxy made to the application."""

    def __init__(self, sock, number):
        super().__init__(sock, 20)
        self.number = number
        self.requests = {}
        self.contents = {}
        self.ends = set()
        self.resets = {}
        self.is_free = True

    def fields(self, stream, pairs, end):
        if stream in self.requests:
            self.ends.add(stream)
            self.trailers = pairs
            return
        self.requests[stream] = dict(pairs)
        self.contents[stream] = b""
        if end:
            self.ends.add(stream)

    def data(self, stream, payload, end):
        self.contents[stream] += payload
        if self.is_free and payload:
            self.send(window_update(0, len(payload)), window_update(stream, len(payload)))
        if end:
            self.ends.add(stream)

    def reset(self, stream, code):
        self.resets[stream] = code


class Misbehaving:
    """An HTTP/2 application whose connections each play the script that the test has set."""

    def __init__(self):
        self.listener = Scripted(self.play)
        self.port = self.listener.port
        self.script = None
        self.first = settings()
        self.connections = []
        self.lock = threading.Condition()

    def play(self, _, peer):
        with self.lock:
            one = Application(peer, len(self.connections))
            self.connections.append(one)
            script = self.script
        with contextlib.suppress(Closed):
            self.serve(one, script)
        with self.lock:
            one.closed = True
            self.lock.notify_all()

    def serve(self, one, script):
        assert one.take(len(PREFACE)) == PREFACE
        if callable(self.first):
            return self.first(one)
        one.send(self.first)
        begun = set()
        while True:
            one.next()
            for stream, head in list(one.requests.items()):
                if stream not in begun:
                    begun.add(stream)
                    self.answer(one, stream, head, script)

    def answer(self, one, stream, head, script):
        if head[":path"] == "/ok":
            one.send(headers(stream, [(":status", "200")], end=False), data(stream, b"%d" % one.number, end=True))
            return
        for step in script:
            if callable(step):
                step(one, stream)
            else:
                one.send(step)

    def close(self):
        self.listener.close()

    def retire(self):
        """Ends every connection so that the proxy knows of it before the next request."""
        for one in list(self.connections):
            if not one.closed:
                one.send(goaway(WINDOW_MAX))
        with self.lock:
            gone = self.lock.wait_for(lambda: all(one.closed for one in self.connections), 10)
        assert gone, "the proxy keeps a connection after GOAWAY"


def respond(*more, status="200", end=False, stream=1):
    return headers(stream, [(":status", status), *more], end)


ANSWER = respond(("content-length", "2")) + data(1, b"ok", end=True)
BLOCK = block((":status", "200"), ("content-length", "2"))
LOST = Answer(503, "upstream_reset")
WRONG = Answer(502, "upstream_protocol")
CUT = Reset(INTERNAL_ERROR)
ASK = headers(1, fields("/row", authority="far.shop"))
POST = headers(1, fields("/row", "POST", authority="far.shop"), end=False)
HEAD = headers(1, fields("/row", "HEAD", authority="far.shop"))


def hang_up(one, stream):
    """Ends the connection in order."""
    one.socket.shutdown(2)


def tear(one, stream):
    """Ends the connection with a TCP reset."""
    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.closed = True
    one.socket.close()
    raise Closed("torn")


def whole(one, stream):
    """Waits for the end of the request."""
    one.until(lambda: stream in one.ends)


def first_time(*steps):
    """What is done to the first connection only; later ones are answered."""

    def play(one, stream):
        if one.number == 0 and stream == 1:
            for step in steps:
                step(one, stream) if callable(step) else one.send(step)
        else:
            one.send(respond(end=False, stream=stream), data(stream, b"again", end=True))

    return play


AGAIN = Answer(200, body=b"again")


def each_time(refuse):
    """A request that is refused whenever it comes; only its fiftieth time is answered."""
    times = iter(range(50))

    def play(one, stream):
        if next(times, None) is None:
            one.send(respond(stream=stream), data(stream, b"the fiftieth time", end=True))
        else:
            refuse(one, stream)

    return play


# Set once the proxy has said that a window was exceeded.
OVERFLOWN = threading.Event()


def overflown(one, stream):
    one.until(lambda: stream in one.resets)
    OVERFLOWN.set()


def echo(one, stream):
    """Shows the request's fields and content."""
    whole(one, stream)
    lines = [f"{name}: {value}" for name, value in one.requests[stream].items() if name not in ("traceparent", "tracestate")]
    text = "\n".join(lines).encode("latin-1") + b"\n\n" + one.contents[stream]
    one.send(respond(stream=stream), data(stream, text, end=True))


def room(*steps):
    """Gives windows by hand: each step is what is sent, then the content that has arrived after it."""

    def play(one, stream):
        one.is_free = False
        for sent, count in steps:
            one.send(sent)
            one.until(lambda: len(one.contents[stream]) >= count)
            one.barrier()
            assert len(one.contents[stream]) == count, (len(one.contents[stream]), count)

    return play


def small_frames(one, stream):
    whole(one, stream)
    largest = max(len(got.payload) for got in one.frames if got.kind == DATA)
    assert largest <= 16384, largest


def strict_table(one, stream):
    """Holds the proxy's encoder to a table of nothing."""
    one.decoder.max_allowed_table_size = 0
    # The request came before our SETTINGS was seen; the next block begins with the change.
    one.send(ANSWER)


def dribbled(*pieces):
    def write(one, stream):
        for octet in b"".join(pieces):
            one.send(bytes([octet]))

    return write


def far_row(section, name, steps, expected, complaint=None, ask=ASK, first=None, more=(), client=WIDE, same=True):
    """A row of the second table. `complaint` is what the proxy says to the application, `more` what the
    client sends after the request, `same` whether the connection to the application goes on."""
    steps = steps if isinstance(steps, (list, tuple)) else [steps]
    same = same and not isinstance(complaint, Gone)
    return pytest.param(steps, expected, complaint, ask, first or settings(), more, client, same, id=f"{section} {name}")


MALFORMED_HEADS = [
    ("8.3.2", "no :status", block(("x-a", "b"))),
    ("8.3.2", "nothing at all", b""),
    ("8.3.2", "two :status", block((":status", "200"), (":status", "200"))),
    ("8.3.2", ":status of two digits", block((":status", "20"))),
    ("8.3.2", ":status of four digits", block((":status", "2000"))),
    ("8.3.2", ":status that is no number", block((":status", "2x0"))),
    ("8.3.2", ":status below 100", block((":status", "099"))),
    ("8.3.2", "an empty :status", block((":status", ""))),
    ("8.3.2", ":status after a field", block(("x-a", "b"), (":status", "200"))),
    ("8.3", ":path in a response", block((":status", "200"), (":path", "/"))),
    ("8.3", ":method in a response", block((":status", "200"), (":method", "GET"))),
    ("8.3", "an unknown pseudo-header field", block((":status", "200"), (":weird", "a"))),
    ("8.2.1", "a name in upper case", block((":status", "200"), ("X-A", "b"))),
    ("8.2.1", "an empty name", block((":status", "200"), ("", "b"))),
    ("8.2.1", "a name with a space", block((":status", "200"), ("x a", "b"))),
    ("8.2.1", "a name with CR LF", block((":status", "200"), ("x\r\na", "b"))),
    ("8.2.1", "a value with LF", block((":status", "200"), ("x-a", "b\nc"))),
    ("8.2.1", "a value with CR", block((":status", "200"), ("x-a", "b\rc"))),
    ("8.2.1", "a value with NUL", block((":status", "200"), ("x-a", "b\0c"))),
    ("8.2.1", "a value with a space behind", block((":status", "200"), ("x-a", "b "))),
    ("8.2.2", "connection", block((":status", "200"), ("connection", "close"))),
    ("8.2.2", "transfer-encoding", block((":status", "200"), ("transfer-encoding", "chunked"))),
    ("8.2.2", "keep-alive", block((":status", "200"), ("keep-alive", "timeout=1"))),
    ("8.2.2", "proxy-connection", block((":status", "200"), ("proxy-connection", "close"))),
    ("8.2.2", "upgrade", block((":status", "200"), ("upgrade", "h2c"))),
    ("8.6", "101", block((":status", "101"))),
    ("8.1.1", "two content-lengths", block((":status", "200"), ("content-length", "2"), ("content-length", "3"))),
    ("8.1.1", "content-length that is no number", block((":status", "200"), ("content-length", "2x"))),
    ("8.1.1", "an empty content-length", block((":status", "200"), ("content-length", ""))),
    ("8.1.1", "content-length with a sign", block((":status", "200"), ("content-length", "-1"))),
]

BROKEN_CONNECTIONS = [
    ("4.2", "DATA of 16385 octets", respond() + data(1, b"x" * 16385), FRAME_SIZE_ERROR, CUT),
    ("4.2", "HEADERS of 16385 octets", frame(HEADERS, END_HEADERS, 1, b"x" * 16385), FRAME_SIZE_ERROR, WRONG),
    ("6.1", "DATA on stream 0", data(0, b"x"), PROTOCOL_ERROR, WRONG),
    ("6.1", "DATA with more padding than payload", respond() + frame(DATA, PADDED, 1, b"\x04abc"), PROTOCOL_ERROR, CUT),
    ("6.2", "HEADERS on stream 0", respond(stream=0), PROTOCOL_ERROR, WRONG),
    ("6.2", "HEADERS with more padding than payload", frame(HEADERS, END_HEADERS | PADDED, 1, b"\xffabc"), PROTOCOL_ERROR, WRONG),
    ("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, b"\0\0\0\1\0"), PROTOCOL_ERROR, WRONG),
    ("6.4", "RST_STREAM on stream 0", rst(0, CANCEL), PROTOCOL_ERROR, WRONG),
    ("6.4", "RST_STREAM of 3 octets", frame(RST_STREAM, 0, 1, b"abc"), FRAME_SIZE_ERROR, WRONG),
    ("6.5", "SETTINGS of 5 octets", frame(SETTINGS, 0, 0, b"\0\3\0\0\0"), FRAME_SIZE_ERROR, WRONG),
    ("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1), PROTOCOL_ERROR, WRONG),
    ("6.5", "SETTINGS ACK with a payload", frame(SETTINGS, ACK, 0, b"\0\3\0\0\0\1"), FRAME_SIZE_ERROR, WRONG),
    ("6.5.2", "ENABLE_PUSH 1 of a server", settings((ENABLE_PUSH, 1)), PROTOCOL_ERROR, WRONG),
    ("6.5.2", "INITIAL_WINDOW_SIZE 2^31", settings((WINDOW, 2**31)), FLOW_CONTROL_ERROR, WRONG),
    ("6.5.2", "MAX_FRAME_SIZE 16383", settings((FRAME_SIZE, 16383)), PROTOCOL_ERROR, WRONG),
    ("6.5.2", "MAX_FRAME_SIZE 2^24", settings((FRAME_SIZE, 2**24)), PROTOCOL_ERROR, WRONG),
    ("6.6", "PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, b"\0\0\0\2" + REQUEST), PROTOCOL_ERROR, WRONG),
    ("6.7", "PING of 7 octets", frame(PING, 0, 0, b"1234567"), FRAME_SIZE_ERROR, WRONG),
    ("6.7", "PING on a stream", frame(PING, 0, 1, b"12345678"), PROTOCOL_ERROR, WRONG),
    ("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, b"\0" * 8), PROTOCOL_ERROR, WRONG),
    ("6.8", "GOAWAY of 7 octets", frame(GOAWAY, 0, 0, b"\0" * 7), FRAME_SIZE_ERROR, WRONG),
    ("6.9", "WINDOW_UPDATE of 0 on the connection", window_update(0, 0), PROTOCOL_ERROR, WRONG),
    ("6.9", "WINDOW_UPDATE of 3 octets", frame(WINDOW_UPDATE, 0, 0, b"abc"), FRAME_SIZE_ERROR, WRONG),
    ("6.9.1", "the connection's window above 2^31-1", window_update(0, WINDOW_MAX), FLOW_CONTROL_ERROR, WRONG),
    ("6.10", "CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1), PROTOCOL_ERROR, WRONG),
    ("6.10", "PING within a block", frame(HEADERS, 0, 1, BLOCK) + ping(), PROTOCOL_ERROR, WRONG),
    ("6.10", "DATA within a block", frame(HEADERS, 0, 1, BLOCK) + data(1, b"ok"), PROTOCOL_ERROR, WRONG),
    ("6.10", "CONTINUATION of another stream", frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 4, 3), PROTOCOL_ERROR, WRONG),
    ("10.5.1", "CONTINUATION without an end", frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1) * 100, ENHANCE_YOUR_CALM, WRONG),
    ("5.1", "HEADERS on an idle stream", respond(stream=3), PROTOCOL_ERROR, WRONG),
    ("5.1", "DATA on an idle stream", data(3, b"x"), PROTOCOL_ERROR, WRONG),
    ("5.1", "RST_STREAM on an idle stream", rst(3, CANCEL), PROTOCOL_ERROR, WRONG),
    ("5.1", "WINDOW_UPDATE on an idle stream", window_update(3, 1), PROTOCOL_ERROR, WRONG),
    ("5.1.1", "HEADERS on an even stream", respond(stream=2), PROTOCOL_ERROR, WRONG),
    ("5.1.1", "a request of the server", headers(2, fields()), PROTOCOL_ERROR, WRONG),
    ("10.5", "more PINGs than anybody needs", ping() * 5000, ENHANCE_YOUR_CALM, WRONG),
    ("10.5", "more SETTINGS than anybody needs", settings() * 5000, ENHANCE_YOUR_CALM, WRONG),
    ("10.5", "more unknown frames than anybody needs", frame(0xBE) * 5000, ENHANCE_YOUR_CALM, WRONG),
    ("10.5", "more empty DATA than anybody needs", respond() + data(1) * 5000, ENHANCE_YOUR_CALM, CUT),
    *[(f"RFC 7541 {section}", name, headers(1, block((":status", "200")) + wrong), COMPRESSION_ERROR, WRONG) for section, name, wrong in BAD_HPACK],
    ("RFC 7541 6.1", "index 0 in trailers", respond() + data(1, b"ok") + headers(1, b"\x80"), COMPRESSION_ERROR, CUT),
    ("RFC 7541 6.3", "a table size above what was announced", headers(1, integer(4097, 5, 0x20) + BLOCK), COMPRESSION_ERROR, WRONG),
]  # fmt: skip

CUT_SHORT = [
    ("before any octet", b"", LOST),
    ("within a frame's header", ANSWER[:5], LOST),
    ("within a header block", respond()[:-2], LOST),
    ("after HEADERS without END_HEADERS", frame(HEADERS, 0, 1, BLOCK), LOST),
    ("after an informational head", respond(status="103"), LOST),
    ("after the head", respond(), CUT),
    ("within DATA", respond() + data(1, b"0123456789")[:14], CUT),
    ("after DATA without END_STREAM", respond() + data(1, b"0123456789"), CUT),
    ("before the last DATA that content-length counts", respond(("content-length", "9")) + data(1, b"01234"), CUT),
    ("after all DATA that content-length counts, without END_STREAM", respond(("content-length", "2")) + data(1, b"ok"), CUT),
    ("within trailers", respond() + data(1, b"ok") + frame(HEADERS, END_STREAM, 1, b""), CUT),
]

CLIENT = [
    # Answers that are as they should be.
    far_row("8.1", "an answer", ANSWER, OK),
    far_row("8.1", "an answer octet by octet", dribbled(ANSWER), OK),
    far_row("8.1", "an answer without content", respond(end=True), Answer(200, body=b"", trailers=[])),
    far_row("8.1", "an answer of empty DATA", respond() + data(1) + data(1, end=True), Answer(200, body=b"")),
    far_row("8.1", "an answer without content-length", respond() + data(1, b"o") + data(1, b"k", end=True), OK),
    far_row("8.1", "trailers", respond() + data(1, b"ok") + headers(1, [("x-sum", "7")]), Answer(200, body=b"ok", trailers=[("x-sum", "7")])),
    far_row("8.1", "trailers without content", respond() + headers(1, [("x-sum", "7")]), Answer(200, body=b"", trailers=[("x-sum", "7")])),
    far_row("8.1", "an empty trailer section", respond() + data(1, b"ok") + headers(1, b""), Answer(200, body=b"ok", trailers=[])),
    far_row("8.1", "103 twice", respond(("link", "a"), status="103") + respond(("link", "b"), status="103") + ANSWER, Answer(200, body=b"ok", informational=[(103, [("link", "a")]), (103, [("link", "b")])])),
    far_row("8.1", "100 that nobody asked for", respond(status="100") + ANSWER, Answer(200, body=b"ok", informational=[(100, [])])),
    far_row("8.1", "an unknown informational status", respond(status="199") + ANSWER, Answer(200, body=b"ok", informational=[(199, [])])),
    far_row("8.3.2", "a status of nobody's", respond(status="299", end=True), Answer(299)),
    far_row("RFC 9110 9.3.2", "HEAD with content-length", respond(("content-length", "500"), end=True), Answer(200, body=b""), ask=HEAD),
    far_row("RFC 9110 9.3.2", "HEAD with content-length and an empty DATA", respond(("content-length", "500")) + data(1, end=True), Answer(200, body=b""), ask=HEAD),
    far_row("RFC 9110 9.3.2", "HEAD with content", respond(("content-length", "2")) + data(1, b"ok", end=True), CUT, Reset(PROTOCOL_ERROR), ask=HEAD),
    far_row("RFC 9110 15.3.5", "204", respond(status="204", end=True), Answer(204, body=b"")),
    far_row("RFC 9110 15.3.5", "204 with content", respond(status="204") + data(1, b"ok", end=True), CUT, Reset(PROTOCOL_ERROR)),
    far_row("RFC 9110 15.4.5", "304 with content-length", respond(("content-length", "500"), status="304", end=True), Answer(304, body=b"")),
    far_row("RFC 9110 15.4.5", "304 with content", respond(("content-length", "2"), status="304") + data(1, b"ok", end=True), CUT, Reset(PROTOCOL_ERROR)),
    far_row("6.1", "padding everywhere", padded(HEADERS, END_HEADERS, 1, BLOCK, 255) + padded(DATA, 0, 1, b"o", 255) + padded(DATA, 0, 1, b"", 9) + padded(DATA, END_STREAM, 1, b"k", 0), OK),
    far_row("6.1", "padding that is not zero", padded(HEADERS, END_HEADERS, 1, BLOCK, 9, b"!") + padded(DATA, END_STREAM, 1, b"ok", 9, b"!"), OK),
    far_row("6.2", "HEADERS with priority", frame(HEADERS, END_HEADERS | PRIORITIZED, 1, b"\x80\0\0\0\x10" + BLOCK) + data(1, b"ok", end=True), OK),
    far_row("6.10", "a head in three frames", frame(HEADERS, 0, 1, BLOCK[:3]) + frame(CONTINUATION, 0, 1, BLOCK[3:9]) + frame(CONTINUATION, END_HEADERS, 1, BLOCK[9:]) + data(1, b"ok", end=True), OK),
    far_row("6.10", "trailers in two frames", respond() + data(1, b"ok") + frame(HEADERS, END_STREAM, 1, block(("x-a", "b"))[:3]) + frame(CONTINUATION, END_HEADERS, 1, block(("x-a", "b"))[3:]), Answer(200, body=b"ok", trailers=[("x-a", "b")])),
    far_row("5.5", "unknown frames everywhere", frame(0xBE, 0xFF, 0, b"a") + frame(0xBE, 0xFF, 1, b"a") + respond() + frame(0xBE, 0xFF, 1, b"a") + data(1, b"ok", end=True) + frame(0xBE, 0xFF, 1, b"a"), OK),
    far_row("6.3", "PRIORITY everywhere", frame(PRIORITY, 0, 1, b"\0\0\0\0\x10") + frame(PRIORITY, 0, 7, b"\0\0\0\1\x10") + ANSWER + frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"), OK),
    far_row("6.7", "PING before the answer", [ping(b"12345678"), lambda one, _: one.until(lambda: b"12345678" in one.pongs), ANSWER], OK),
    far_row("6.7", "PING ACK of nothing that was asked", ping(b"zzzzzzzz", ACK) + ANSWER, OK),
    far_row("6.5", "SETTINGS before the answer", [settings((0xFFFF, 7)), lambda one, _: one.until(lambda: one.acknowledged == 2), ANSWER], OK),
    far_row("6.5.2", "ENABLE_PUSH 0 of a server", settings((ENABLE_PUSH, 0)) + ANSWER, OK),
    far_row("6.5.2", "MAX_HEADER_LIST_SIZE 0 is advice", ANSWER, OK, first=settings((LIST_SIZE, 0))),
    far_row("RFC 7541 6.2.1", "entries of the table", headers(1, literal(":status", "200", 0x40) + literal("x-a", "b", 0x40) + b"\xbe", end=False) + data(1, b"ok", end=True), OK),
    far_row("RFC 7541 4.2", "a table size of 0 and again 4096", headers(1, b"\x20" + integer(4096, 5, 0x20) + BLOCK, end=False) + data(1, b"ok", end=True), OK),
    far_row("4.3", "the table goes on after a head that is malformed", [first_time(headers(1, block((":status", "200"), ("X-A", "b")) + literal("x-kept", "yes", 0x40)))], WRONG, Reset(PROTOCOL_ERROR)),
    far_row("RFC 7541 4.2", "HEADER_TABLE_SIZE 0", [strict_table], OK, first=settings((TABLE_SIZE, 0))),
    far_row("8.2.3", "Set-Cookie twice", [respond(("set-cookie", "a=1"), ("set-cookie", "b=2"), end=True)], Answer(200)),
    # Heads and content that are malformed: a stream error, and the connection goes on.
    *[far_row(section, name, headers(1, wrong, end=False), WRONG, Reset(PROTOCOL_ERROR)) for section, name, wrong in MALFORMED_HEADS],
    far_row("8.1", "an informational head that ends the stream", respond(status="103", end=True), WRONG, Reset(PROTOCOL_ERROR)),
    far_row("8.1", "DATA before the head", data(1, b"ok", end=True), WRONG, Reset(PROTOCOL_ERROR)),
    far_row("8.1", "DATA after an informational head", respond(status="103") + data(1, b"ok", end=True), WRONG, Reset(PROTOCOL_ERROR)),
    far_row("8.1", "a second head", respond() + respond(), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.1", "an informational head after the head", respond() + respond(status="103"), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.1", "trailers without END_STREAM", respond() + data(1, b"ok") + headers(1, [("x-a", "b")], end=False), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.1", "trailers with :status", respond() + data(1, b"ok") + headers(1, [(":status", "200")]), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.2.1", "trailers with a name in upper case", respond() + data(1, b"ok") + headers(1, [("X-A", "b")]), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.2.2", "trailers with connection", respond() + data(1, b"ok") + headers(1, [("connection", "x")]), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.1.1", "content-length above the content", respond(("content-length", "5")) + data(1, b"ok", end=True), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.1.1", "content-length below the content", respond(("content-length", "1")) + data(1, b"ok", end=True), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.1.1", "content-length without content", respond(("content-length", "5"), end=True), WRONG, Reset(PROTOCOL_ERROR)),
    far_row("8.1.1", "content-length above the content before trailers", respond(("content-length", "5")) + data(1, b"ok") + headers(1, [("x-a", "b")]), CUT, Reset(PROTOCOL_ERROR)),
    far_row("8.1.1", "content-length does not count padding", respond(("content-length", "2")) + padded(DATA, END_STREAM, 1, b"ok", 7), OK),
    far_row("5.1", "DATA after the end", ANSWER + data(1, b"x"), OK, Reset(STREAM_CLOSED)),
    far_row("5.1", "HEADERS after the end", ANSWER + respond(), OK),
    far_row("5.1", "RST_STREAM after the end", ANSWER + rst(1, NO_ERROR), OK),
    far_row("5.1", "WINDOW_UPDATE after the end", ANSWER + window_update(1, 5), OK),
    far_row("6.3", "PRIORITY of 4 octets", frame(PRIORITY, 0, 1, b"\0\0\0\0"), WRONG, Reset(FRAME_SIZE_ERROR)),
    far_row("6.9", "WINDOW_UPDATE of 0 on the stream", window_update(1, 0), WRONG, Reset(PROTOCOL_ERROR)),
    far_row("6.9.1", "the stream's window above 2^31-1", window_update(1, WINDOW_MAX), WRONG, Reset(FLOW_CONTROL_ERROR)),
    far_row("6.9", "content above the stream's window", [respond(), *[data(1, b"x" * 16384)] * 256, overflown], CUT, Reset(FLOW_CONTROL_ERROR), client=start((WINDOW, 100)), more=[lambda c: OVERFLOWN.wait(10), settings((WINDOW, WINDOW_MAX)) + window_update(0, 2**30)]),
    far_row("10.5.1", "a head above the limit", [frame(HEADERS, 0, 1, BLOCK + literal("x-a", "b" * 16_000)), *[frame(CONTINUATION, 0, 1, literal("x-a", "b" * 16_000))] * 4, frame(CONTINUATION, END_HEADERS, 1)], WRONG, Reset(PROTOCOL_ERROR)),
    far_row("10.5.1", "too many fields", respond(*[("x-a", "b")] * 256), WRONG, Reset(PROTOCOL_ERROR)),
    far_row("10.5.1", "trailers above the limit", respond() + headers(1, [("x-a", "b")] * 257), CUT, Reset(PROTOCOL_ERROR)),
    far_row("10.5", "more informational heads than anybody needs", respond(status="103") * 1000, WRONG, Reset(ENHANCE_YOUR_CALM)),
    # What breaks the whole connection.
    *[far_row(section, name, sent, expected, Gone(code)) for section, name, sent, code, expected in BROKEN_CONNECTIONS],
    *[far_row("5.4", f"the connection ends {name}", [sent, hang_up], expected, same=False) for name, sent, expected in CUT_SHORT],
    *[far_row("5.4", f"the connection is reset {name}", [sent, tear], expected, same=False) for name, sent, expected in (CUT_SHORT[0], CUT_SHORT[5])],
    far_row("3.4", "the first frame is no SETTINGS", ANSWER, WRONG, Gone(PROTOCOL_ERROR), first=ping()),
    far_row("3.4", "the first frame is HTTP/1", ANSWER, WRONG, Gone(FRAME_SIZE_ERROR), first=b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    # Streams that the application ends.
    far_row("6.4", "RST_STREAM CANCEL before the head", rst(1, CANCEL), LOST),
    far_row("6.4", "RST_STREAM NO_ERROR before the head", rst(1, NO_ERROR), LOST),
    far_row("6.4", "RST_STREAM INTERNAL_ERROR before the head", rst(1, INTERNAL_ERROR), LOST),
    far_row("7", "RST_STREAM with an unknown code", rst(1, 0xFFFFFFFF), LOST),
    far_row("6.4", "RST_STREAM after an informational head", respond(status="103") + rst(1, CANCEL), LOST),
    far_row("6.4", "RST_STREAM after the head", respond() + rst(1, CANCEL), CUT),
    far_row("6.4", "RST_STREAM NO_ERROR after the head", respond() + rst(1, NO_ERROR), CUT),
    far_row("6.4", "RST_STREAM within the content", respond() + data(1, b"some") + rst(1, INTERNAL_ERROR), CUT),
    far_row("8.1", "a whole answer before the request's end, then RST_STREAM NO_ERROR", ANSWER + rst(1, NO_ERROR), OK, ask=POST, more=[data(1, b"x" * 1000)]),
    far_row("8.1", "a whole answer before the request's end", ANSWER, OK, Reset(CANCEL), ask=POST, more=[data(1, b"x" * 1000)]),
    far_row("8.1", "a head before the request's end", [respond(), whole, data(1, b"ok", end=True)], OK, ask=POST, more=[data(1, b"x" * 1000), lambda c: c.until(lambda: c.stream(1).status), data(1, b"", end=True)]),
    far_row("8.7", "REFUSED_STREAM is asked for again", first_time(rst(1, REFUSED_STREAM)), AGAIN),
    far_row("8.7", "REFUSED_STREAM of a POST is asked for again", first_time(whole, rst(1, REFUSED_STREAM)), AGAIN, ask=POST, more=[data(1, b"abc", end=True)]),
    far_row("8.7", "REFUSED_STREAM each time is not asked for again without an end", each_time(lambda one, stream: one.send(rst(stream, REFUSED_STREAM))), LOST),
    far_row("6.8", "GOAWAY that excludes the request, which is asked for again", first_time(goaway(0)), AGAIN, same=False),
    far_row("6.8", "GOAWAY that excludes a POST, which is asked for again", first_time(whole, goaway(0)), AGAIN, ask=POST, more=[data(1, b"abc", end=True)], same=False),
    far_row("6.8", "GOAWAY with an error that excludes the request", first_time(goaway(0, PROTOCOL_ERROR), hang_up), AGAIN, same=False),
    far_row("6.8", "GOAWAY that excludes each request is not asked for again without an end", each_time(lambda one, stream: one.send(goaway(0))), LOST, same=False),
    far_row("6.8", "GOAWAY that includes the request", goaway(1) + ANSWER, OK, same=False),
    far_row("6.8", "GOAWAY of the highest identifier", goaway(WINDOW_MAX) + ANSWER, OK, same=False),
    far_row("6.8", "GOAWAY twice, the second one lower", first_time(goaway(WINDOW_MAX), goaway(0)), AGAIN, same=False),
    far_row("6.8", "GOAWAY that includes the request, and the end", [goaway(1), hang_up], LOST, same=False),
    far_row("6.8", "GOAWAY after the head", respond() + goaway(1) + data(1, b"ok", end=True), OK, same=False),
    # Flow control and settings towards the application.
    far_row("6.9.1", "an initial window of 10", [room((b"", 10), (window_update(1, 15), 25), (window_update(1, 25), 50)), ANSWER], OK, ask=POST, more=[data(1, b"x" * 50, end=True)], first=settings((WINDOW, 10))),
    far_row("6.9.1", "an initial window of 0", [room((b"", 0), (window_update(1, 1), 1), (window_update(1, 100), 50)), ANSWER], OK, ask=POST, more=[data(1, b"x" * 50, end=True)], first=settings((WINDOW, 0))),
    far_row("6.9.2", "SETTINGS enlarges the window of an open stream", [room((b"", 10), (settings((WINDOW, 30)), 30), (settings((WINDOW, 60)), 50)), ANSWER], OK, ask=POST, more=[data(1, b"x" * 50, end=True)], first=settings((WINDOW, 10))),
    far_row("6.9.2", "SETTINGS makes a window negative", [room((b"", 10), (settings((WINDOW, 0)) + window_update(1, 10), 10), (window_update(1, 1), 11), (settings((WINDOW, 100)), 50)), ANSWER], OK, ask=POST, more=[data(1, b"x" * 50, end=True)], first=settings((WINDOW, 10))),
    far_row("6.9", "the connection's window is kept to the octet", [room((b"", 65535), (window_update(0, 5), 65540), (window_update(0, 100_000), 70_000)), ANSWER], OK, ask=POST, more=[upload(1, 70_000, 10_000)], first=settings((WINDOW, WINDOW_MAX))),
    far_row("6.5.2", "MAX_FRAME_SIZE as it is initially", [small_frames, ANSWER], OK, ask=POST, more=[upload(1, 96_000, 16_000)]),
    far_row("6.9.1", "an empty request needs no window", [echo], Answer(200), first=settings((WINDOW, 0))),
    # What the application gets.
    far_row("8.3.1", "the request as it was sent", [echo], Answer(200, body=b":method: GET\n:scheme: http\n:path: /row\n:authority: far.shop\n\n")),
    far_row("8.1", "trailers of the request", [whole, lambda one, _: one.send(headers(1, [(":status", "200"), *one.trailers], end=True))], Answer(200), ask=POST, more=[data(1, b"abc"), headers(1, [("x-sum", "7")])]),
    far_row("8.2.2", "te: trailers of the request", [echo], Answer(200, body=b":method: GET\n:scheme: http\n:path: /row\n:authority: far.shop\nte: trailers\n\n"), ask=headers(1, fields("/row", "GET", ("te", "trailers"), authority="far.shop"))),
    far_row("8.1.1", "content-length of the request", [echo], Answer(200, body=b":method: POST\n:scheme: http\n:path: /row\n:authority: far.shop\ncontent-length: 3\n\nabc"), ask=headers(1, fields("/row", "POST", ("content-length", "3"), authority="far.shop"), end=False), more=[data(1, b"abc", end=True)]),
    far_row("RFC 8441 5", "extended CONNECT that is accepted", [respond(), whole, data(1, b"bye", end=True)], Answer(200, body=b"bye"), ask=headers(1, [(":method", "CONNECT"), (":protocol", "chat"), *fields("/row", authority="far.shop")[1:]], end=False), more=[lambda c: c.until(lambda: c.stream(1).status), data(1, b"hi", end=True)], first=settings((CONNECT_PROTOCOL, 1))),
    far_row("RFC 8441 5", "extended CONNECT that is refused", respond(status="403", end=True), Answer(403), ask=headers(1, [(":method", "CONNECT"), (":protocol", "chat"), *fields("/row", authority="far.shop")[1:]], end=False), first=settings((CONNECT_PROTOCOL, 1))),
]  # fmt: skip


@pytest.fixture(scope="module")
def far(shared_mesh, edge):
    made = Misbehaving()
    shared_mesh.offer("far", made.port, app_protocol="kubernetes.io/h2c", env=ONE_WORKER)
    made.web = edge.web
    yield made
    made.close()


@pytest.mark.parametrize(("steps", "expected", "complaint", "ask", "first", "more", "client", "same"), CLIENT)
def test_the_proxy_as_client(far, steps, expected, complaint, ask, first, more, client, same):
    far.retire()
    far.connections.clear()
    far.script, far.first = steps, first
    with Client(far.web.outbound, first=client) as client:
        client.send(ask)
        for step in more:
            step(client) if callable(step) else client.send(step)
        compare(1, client.read(1), expected)
        one = far.connections[0]
        if isinstance(complaint, Gone):
            with far.lock:
                assert far.lock.wait_for(lambda: one.closed, 10), "the connection to the application goes on"
            assert [code for _, code in one.goaways] == [complaint.code], one.goaways
        far.first = settings()
        client.send(settings((WINDOW, WINDOW_MAX)), headers(LIVE, fields("/ok", authority="far.shop")))
        live = client.read(LIVE)
        assert (live.status, live.fault) == (200, None), live
        assert (live.body == b"0") is same, (live, one.goaways, one.resets)
        if not isinstance(complaint, Gone):
            assert one.goaways == []
            assert one.resets == ({1: complaint.code} if complaint else {}), one.resets
        assert not client.goaways
    assert not far.listener.errors, far.listener.errors


def test_extended_connect_to_an_application_that_does_not_offer_it(shared_mesh, edge):
    """RFC 8441 3: it must not be sent, so the client is told, and everybody else is served on."""
    alone = Misbehaving()
    alone.script = [ANSWER]
    workload = shared_mesh.offer("alone", alone.port, app_protocol="kubernetes.io/h2c", env=ONE_WORKER)
    try:
        with Client(shared_mesh.web.outbound, timeout=3) as client:
            client.send(headers(1, fields("/ok", authority="alone.shop")))
            compare(1, client.read(1), Answer(200, body=b"0"))
            opening = [(":method", "CONNECT"), (":protocol", "chat"), *fields("/row", authority="alone.shop")[1:]]
            client.send(headers(3, opening, end=False))
            compare(3, client.read(3), WRONG)
            client.send(headers(5, fields("/ok", authority="alone.shop")))
            compare(5, client.read(5), Answer(200, body=b"0"))
    finally:
        workload.process.kill()
        alone.close()


def test_the_streams_that_an_application_allows_are_not_exceeded(shared_mesh, edge):
    """RFC 9113 5.1.2: eight requests at once to an application that takes one stream on a connection."""
    narrow = Misbehaving()
    narrow.first = settings((MAX_STREAMS, 1))
    answered = []

    def play(one, stream):
        # Whatever the proxy sends before it answers a PING would be a second stream.
        one.barrier()
        assert len(one.requests) == 1 + answered.count(one.number), one.requests
        answered.append(one.number)
        one.send(respond(stream=stream), data(stream, b"ok", end=True))

    narrow.script = [play]
    shared_mesh.offer("narrow", narrow.port, app_protocol="kubernetes.io/h2c", env=ONE_WORKER)
    with Client(shared_mesh.web.outbound) as client:
        client.send(*[headers(1 + 2 * n, fields("/row", authority="narrow.shop")) for n in range(8)])
        for n in range(8):
            compare(1 + 2 * n, client.read(1 + 2 * n), OK)
    assert len(answered) == 8
    narrow.close()
    assert not narrow.listener.errors


def test_an_application_that_takes_no_streams_at_all(shared_mesh, edge):
    """RFC 9113 5.1.2: SETTINGS_MAX_CONCURRENT_STREAMS of 0 is an answer too, so the client is told."""
    closed = Misbehaving()
    closed.first = settings((MAX_STREAMS, 0))
    workload = shared_mesh.offer("closed", closed.port, app_protocol="kubernetes.io/h2c", env=ONE_WORKER)
    try:
        with Client(shared_mesh.web.outbound, timeout=1) as client:
            client.send(headers(1, fields("/ok", authority="closed.shop")))
            assert client.read(1).status == 503
        assert len(closed.connections) < 10
    finally:
        workload.process.kill()
        closed.close()


def test_a_request_that_trailers_cut_short_does_not_reach_the_application_whole(far):
    """RFC 9113 8.1.1: what is malformed must not be passed on as if it were not."""
    far.retire()
    far.connections.clear()
    ended = []

    def watch(one, stream):
        one.until(lambda: stream in one.ends or stream in one.resets)
        ended.append(stream in one.ends)

    far.script, far.first = [watch], settings()
    with Client(far.web.outbound) as client:
        cut = fields("/row", "POST", ("content-length", "5"), authority="far.shop")
        client.send(headers(1, cut, end=False), data(1, b"hell"), headers(1, [("x-a", "b")]))
        compare(1, client.read(1), Reset(PROTOCOL_ERROR))
        client.send(headers(3, fields("/ok", authority="far.shop")))
        client.read(3)
    assert True not in ended


def refuse_stream(one, stream):
    one.send(rst(stream, REFUSED_STREAM))


def refuse_by_goaway(one, stream):
    one.send(goaway(0))


@pytest.mark.parametrize("refuse", [refuse_stream, refuse_by_goaway])
def test_what_one_instance_did_not_process_is_asked_of_another(shared_mesh, edge, refuse):
    """RFC 9113 8.7: a request that was provably not processed may be sent again, also a POST."""
    name = refuse.__name__.replace("_", "-")
    refusing, serving = Misbehaving(), Misbehaving()
    refusing.script = [refuse]
    serving.script = [whole, lambda one, stream: one.send(respond(stream=stream), data(stream, one.contents[stream], end=True))]
    workloads = []
    shared_mesh.apply(service(name, app_protocol="kubernetes.io/h2c"))
    for number, instance in enumerate((refusing, serving)):
        ports = {"http": instance.port}
        workload = shared_mesh.workload(
            f"{name}-{number}", ports=ports, labels={"app": name}, service_account=name, env=ONE_WORKER
        )
        shared_mesh.wait_port_up(workload, instance.port)
        workloads.append(workload)
    try:
        with Client(shared_mesh.web.outbound, timeout=3) as client:
            # Which instance is asked first is the balancer's to choose, so it is asked until both were.
            for stream in range(1, 601, 2):
                path = fields("/row", "POST", authority=f"{name}.shop")
                client.send(headers(stream, path, end=False), data(stream, b"%d" % stream, end=True))
                compare(stream, client.read(stream), Answer(200, body=b"%d" % stream))
                if refusing.connections and refusing.connections[0].requests:
                    break
        assert refusing.connections, "the instance that refuses was never asked"
    finally:
        for workload in workloads:
            workload.process.kill()
        refusing.close()
        serving.close()
