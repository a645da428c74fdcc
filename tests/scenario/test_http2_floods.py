"""HTTP/2 used as a weapon: the proxy ends the connection, lives, stays small, and serves the others."""

import struct
import time

import hpack
import pytest

from wire import Http2

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
# Growth of the proxy's memory that no flood may pass.
GROWTH_MIB = 24


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head():
    fields = [(":method", "GET"), (":scheme", "http"), (":path", "/?delay=50"), (":authority", "orders.shop")]
    # Never indexed, so that each block stands alone.
    return hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple(*pair) for pair in fields])


def rapid_reset():
    """CVE-2023-44487."""
    block = head()
    for number in range(50_000):
        stream = 1 + 2 * number
        yield frame(HEADERS, END_STREAM | END_HEADERS, stream, block) + frame(RST_STREAM, 0, stream, b"\0\0\0\x08")


def continuations():
    """CVE-2024-27316: a header block that never ends."""
    yield frame(HEADERS, END_STREAM, 1, head())
    piece = hpack.Encoder().encode([hpack.NeverIndexedHeaderTuple("x-a", "b" * 4000)])
    for _ in range(20_000):
        yield frame(CONTINUATION, 0, 1, piece)


def empty_continuations():
    yield frame(HEADERS, END_STREAM, 1, head())
    for _ in range(500_000):
        yield frame(CONTINUATION, 0, 1)


def settings():
    """CVE-2019-9515: each wants an acknowledgement, and none is read."""
    for _ in range(500_000):
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100))


def pings():
    """CVE-2019-9512."""
    for _ in range(500_000):
        yield frame(PING, 0, 0, b"12345678")


def resets_by_error():
    """CVE-2025-8671: makes the server reset its own streams."""
    block = head()
    for number in range(50_000):
        stream = 1 + 2 * number
        yield frame(HEADERS, END_STREAM | END_HEADERS, stream, block) + frame(WINDOW_UPDATE, 0, stream, b"\0\0\0\0")


def empty_data():
    """CVE-2019-9518."""
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "orders.shop")]
    yield frame(HEADERS, END_HEADERS, 1, hpack.Encoder().encode(fields))
    for _ in range(500_000):
        yield frame(DATA, 0, 1)


def hpack_bomb():
    """A small block that unpacks to many headers: one large entry named again and again."""
    encoder = hpack.Encoder()
    encoder.encode([("x-bomb", "b" * 3900)])
    block = hpack.Encoder().encode(
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "orders.shop"), ("x-bomb", "b" * 3900)]
    )
    # 62 is the newest entry of the dynamic table.
    yield frame(HEADERS, END_STREAM | END_HEADERS, 1, block)
    for number in range(2_000):
        yield frame(HEADERS, END_STREAM | END_HEADERS, 3 + 2 * number, b"\x82\x86\x84" + b"\xbe" * 15_000)


FLOODS = [rapid_reset, continuations, empty_continuations, settings, pings, resets_by_error, empty_data, hpack_bomb]


@pytest.mark.parametrize("flood", FLOODS, ids=[f.__name__ for f in FLOODS])
def test_a_flood_ends_its_own_connection_and_nothing_else(shop, flood):
    before = shop.web.process.rss_mib()
    other = shop.web.http2()
    assert other.get().status == 200
    client = Http2(shop.web.outbound, timeout=20)
    ended = False
    batch = b""
    end = time.monotonic() + 20
    try:
        for piece in flood():
            batch += piece
            if len(batch) > 60_000:
                client.socket.sendall(batch)
                batch = b""
            if time.monotonic() > end:
                break
        client.socket.sendall(batch)
        while data := client.socket.recv(65536):
            if b"\x07" in data and time.monotonic() > end:
                break
        ended = True
    except (BrokenPipeError, ConnectionResetError):
        ended = True
    except TimeoutError:
        pass
    growth = shop.web.process.peak_rss_mib() - before
    assert shop.web.process.alive()
    assert growth < GROWTH_MIB, f"the proxy grew by {growth:.0f} MiB"
    assert other.get().status == 200, "another connection suffered"
    assert shop.web.get().status == 200
    # Pings and settings may also be held back by a full socket; then nothing grows, which is as good.
    if flood not in (settings, pings, empty_data):
        assert ended, "the connection still stands"
