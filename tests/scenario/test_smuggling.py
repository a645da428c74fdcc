"""Requests that could be read in two ways (RFC 9112 11.2): a row each, with an exact expectation.

For every refused row: the status and the fault said, the connection ended, and nothing of it, nor of
the request hidden in it, seen by the application.
"""

import time

import pytest

from wire import Closed, Http1, Http2

HIDDEN = "GET /hidden HTTP/1.1\r\nHost: orders.shop\r\n\r\n"
HOST = "Host: orders.shop\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
MALFORMED = (400, "malformed_request")
TOO_LARGE = (431, "headers_too_large")

# What is wrong, the bytes, the status and the fault.
REFUSED = [
    ("content-length and transfer-encoding", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 4\r\n{CHUNKED}\r\n0\r\n\r\n{HIDDEN}", MALFORMED),
    ("transfer-encoding and content-length", f"POST / HTTP/1.1\r\n{HOST}{CHUNKED}Content-Length: 4\r\n\r\n0\r\n\r\n{HIDDEN}", MALFORMED),
    ("two content-lengths", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 0\r\nContent-Length: 44\r\n\r\n{HIDDEN}", MALFORMED),
    ("a list of two content-lengths", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 0, 44\r\n\r\n{HIDDEN}", MALFORMED),
    ("content-length with plus", f"POST / HTTP/1.1\r\n{HOST}Content-Length: +5\r\n\r\nhello", MALFORMED),
    ("content-length with minus", f"POST / HTTP/1.1\r\n{HOST}Content-Length: -5\r\n\r\nhello", MALFORMED),
    ("content-length in hex", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 0x5\r\n\r\nhello", MALFORMED),
    ("content-length empty", f"POST / HTTP/1.1\r\n{HOST}Content-Length:\r\n\r\nhello", MALFORMED),
    ("content-length with a space inside", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 5 5\r\n\r\nhello", MALFORMED),
    ("content-length over 64 bits", f"POST / HTTP/1.1\r\n{HOST}Content-Length: 18446744073709551621\r\n\r\nhello", MALFORMED),
    ("transfer-encoding xchunked", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{HIDDEN}", MALFORMED),
    ("transfer-encoding identity", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: identity\r\n\r\n{HIDDEN}", MALFORMED),
    ("chunked not last", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n{HIDDEN}", MALFORMED),
    ("chunked twice", f"POST / HTTP/1.1\r\n{HOST}{CHUNKED}{CHUNKED}\r\n0\r\n\r\n{HIDDEN}", MALFORMED),
    ("chunked with a vertical tab", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{HIDDEN}", MALFORMED),
    ("transfer-encoding in HTTP/1.0", f"POST / HTTP/1.0\r\n{HOST}{CHUNKED}\r\n0\r\n\r\n{HIDDEN}", MALFORMED),
    ("folded header", f"GET / HTTP/1.1\r\n{HOST}X-A: b\r\n c\r\n\r\n", MALFORMED),
    ("folded transfer-encoding", f"POST / HTTP/1.1\r\n{HOST}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{HIDDEN}", MALFORMED),
    ("first header begins with a space", f"GET / HTTP/1.1\r\n X-A: b\r\n{HOST}\r\n", MALFORMED),
    ("space before the colon", f"POST / HTTP/1.1\r\n{HOST}Content-Length : 44\r\n\r\n{HIDDEN}", MALFORMED),
    ("no colon", f"GET / HTTP/1.1\r\n{HOST}X-Nothing\r\n\r\n", MALFORMED),
    ("empty header name", f"GET / HTTP/1.1\r\n{HOST}: b\r\n\r\n", MALFORMED),
    ("bare CR in a value", f"GET / HTTP/1.1\r\n{HOST}X-A: b\rX-B: c\r\n\r\n", MALFORMED),
    ("bare CR in the request line", f"GET /a\rb HTTP/1.1\r\n{HOST}\r\n", MALFORMED),
    ("bare LF ends the request line", f"GET / HTTP/1.1\n{HOST}\r\n", MALFORMED),
    ("bare LF ends a header", f"GET / HTTP/1.1\r\n{HOST}X-A: b\nX-B: c\r\n\r\n", MALFORMED),
    ("bare LF ends the head", f"GET / HTTP/1.1\r\n{HOST}X-A: b\r\n\n", MALFORMED),
    ("NUL in a value", f"GET / HTTP/1.1\r\n{HOST}X-A: b\x00c\r\n\r\n", MALFORMED),
    ("NUL in a name", f"GET / HTTP/1.1\r\n{HOST}X\x00A: b\r\n\r\n", MALFORMED),
    ("NUL in the target", f"GET /\x00 HTTP/1.1\r\n{HOST}\r\n", MALFORMED),
    ("control byte in a value", f"GET / HTTP/1.1\r\n{HOST}X-A: b\x07c\r\n\r\n", MALFORMED),
    ("two Hosts", f"GET / HTTP/1.1\r\n{HOST}Host: other.shop\r\n\r\n", MALFORMED),
    ("the same Host twice", f"GET / HTTP/1.1\r\n{HOST}{HOST}\r\n", MALFORMED),
    ("no Host", "GET / HTTP/1.1\r\nX-A: b\r\n\r\n", MALFORMED),
    ("Host with a space", "GET / HTTP/1.1\r\nHost: orders.shop evil\r\n\r\n", MALFORMED),
    ("Host with a path", "GET / HTTP/1.1\r\nHost: orders.shop/evil\r\n\r\n", MALFORMED),
    ("Host with user info", "GET / HTTP/1.1\r\nHost: me@orders.shop\r\n\r\n", MALFORMED),
    ("Host with a bad port", "GET / HTTP/1.1\r\nHost: orders.shop:99999\r\n\r\n", MALFORMED),
    ("space in the target", f"GET /a b HTTP/1.1\r\n{HOST}\r\n", MALFORMED),
    ("no target", f"GET HTTP/1.1\r\n{HOST}\r\n", MALFORMED),
    ("method with a bad byte", f"GE(T / HTTP/1.1\r\n{HOST}\r\n", MALFORMED),
    ("version HTTP/1.2x", f"GET / HTTP/1.2x\r\n{HOST}\r\n", MALFORMED),
    ("version HTTP/9.9", f"GET / HTTP/9.9\r\n{HOST}\r\n", MALFORMED),
    ("version in lower case", f"GET / http/1.1\r\n{HOST}\r\n", MALFORMED),
    ("head above the limit", f"GET / HTTP/1.1\r\n{HOST}X-A: {'b' * 300_000}\r\n\r\n", TOO_LARGE),
    ("too many headers", f"GET / HTTP/1.1\r\n{HOST}" + "".join(f"X-{n}: b\r\n" for n in range(2000)) + "\r\n", TOO_LARGE),
]  # fmt: skip

# Bodies that go wrong after a good head: the request may have begun at the application, so what
# counts is that it is not taken for a whole one, that nothing hidden is served, and that the
# connection ends.
BAD_BODIES = [
    ("chunk size not hex", "xyz\r\nhello\r\n0\r\n\r\n"),
    ("chunk size empty", "\r\nhello\r\n0\r\n\r\n"),
    ("chunk size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size negative", "-5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size with plus", "+5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size with a leading space", " 5\r\nhello\r\n0\r\n\r\n"),
    ("chunk size over 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("chunk size wraps 32 bits is not 5", "100000005\r\nhello\r\n0\r\n\r\n"),
    ("chunk longer than its size", "5\r\nhello world\r\n0\r\n\r\n"),
    ("chunk without CRLF after it", "5\r\nhello0\r\n\r\n"),
    ("bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
    ("bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
    ("bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
    ("bare LF in an extension", "5;a\n5\r\nhello\r\n0\r\n\r\n"),
    ("NUL in an extension", "5;a\x00\r\nhello\r\n0\r\n\r\n"),
    ("an endless extension", "5;" + "a" * 300_000 + "\r\nhello\r\n0\r\n\r\n"),
    ("folded trailer", "0\r\nX-A: b\r\n c\r\n\r\n"),
    ("trailer with a space before the colon", "0\r\nX-A : b\r\n\r\n"),
    ("trailers above the limit", "0\r\n" + f"X-A: {'b' * 300_000}\r\n" + "\r\n"),
]


@pytest.mark.parametrize(("bytes_sent", "expected"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_request_that_reads_two_ways_is_refused(shop, bytes_sent, expected):
    before = served(shop)
    with shop.web.http1() as client:
        try:
            client.send(bytes_sent)
        except (BrokenPipeError, ConnectionResetError):
            pass  # Refused before the last byte was taken.
        response = client.read()
        assert (response.status, response.fault) == expected, response
        assert client.closed()
    assert served(shop) == before, "the application saw a request"


@pytest.mark.parametrize("body", [row[1] for row in BAD_BODIES], ids=[row[0] for row in BAD_BODIES])
def test_a_bad_chunk_ends_the_request_and_the_connection(shop, body):
    with shop.web.http1() as client:
        client.send(f"POST /bad-chunk HTTP/1.1\r\n{HOST}{CHUNKED}\r\n")
        try:
            client.send(body)
            client.send(HIDDEN)
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            answer = client.rest()
        except TimeoutError:
            assert "wraps" in body or body.startswith("1000000"), "the connection stays open"
            answer = b""
        except ConnectionResetError:
            answer = b""
    assert b"/hidden" not in answer
    assert b" 200 OK" not in answer.split(b"\r\n")[0], "a broken body was taken for a whole one"
    if answer:
        assert answer.startswith(b"HTTP/1.1 400 ") and b"weft-fault: malformed_request" in answer.lower(), answer


def test_what_is_odd_but_clear_passes(shop):
    """The other side of the table: none of these may be refused."""
    rows = [
        f"GET / HTTP/1.1\r\n{HOST}X-A:\tb \t\r\n\r\n",
        f"GET / HTTP/1.1\r\n{HOST}X-A:\r\n\r\n",
        f"\r\nGET / HTTP/1.1\r\n{HOST}\r\n",
        "GET / HTTP/1.1\r\nhOsT: orders.shop\r\n\r\n",
        f"GET / HTTP/1.1\r\n{HOST}X-A: caf\xe9\r\n\r\n",
        f"PROPFIND / HTTP/1.1\r\n{HOST}\r\n",
        f"OPTIONS * HTTP/1.1\r\n{HOST}\r\n",
        f"POST / HTTP/1.1\r\n{HOST}Content-Length: 005\r\n\r\nhello",
        f'POST / HTTP/1.1\r\n{HOST}Transfer-Encoding: Chunked\r\n\r\n0005;a=b;c="d"\r\nhello\r\n0\r\n\r\n',
        f"GET / HTTP/1.1\r\n{HOST}X-A: {'b' * 7000}\r\n\r\n",
    ]
    for row in rows:
        with shop.web.http1() as client:
            client.send(row)
            response = client.read()
            assert response.status == 200, (row[:100], response)


def served(shop):
    return sum(instance.application.requests() for instance in shop.orders)


GOOD = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "orders.shop")]

# What is wrong, the header list, the data sent after it.
HTTP2 = [
    ("connection header", [*GOOD, ("connection", "close")], None),
    ("transfer-encoding", [*GOOD, ("transfer-encoding", "chunked")], None),
    ("upgrade", [*GOOD, ("upgrade", "h2c")], None),
    ("keep-alive", [*GOOD, ("keep-alive", "timeout=1")], None),
    ("proxy-connection", [*GOOD, ("proxy-connection", "close")], None),
    ("te other than trailers", [*GOOD, ("te", "gzip")], None),
    ("name in upper case", [*GOOD, ("X-Upper", "a")], None),
    ("pseudo-header after a regular one", [*GOOD[:3], ("x-a", "b"), GOOD[3]], None),
    ("unknown pseudo-header", [*GOOD, (":weird", "a")], None),
    ("pseudo-header of responses", [*GOOD, (":status", "200")], None),
    ("two paths", [*GOOD, (":path", "/hidden")], None),
    ("two methods", [*GOOD, (":method", "POST")], None),
    ("no path", [GOOD[0], GOOD[1], GOOD[3]], None),
    ("empty path", [GOOD[0], GOOD[1], (":path", ""), GOOD[3]], None),
    ("no scheme", [GOOD[0], GOOD[2], GOOD[3]], None),
    ("no method", GOOD[1:], None),
    ("path without a slash", [GOOD[0], GOOD[1], (":path", "hidden"), GOOD[3]], None),
    ("space in the path", [GOOD[0], GOOD[1], (":path", "/ HTTP/1.1\r\nHost: x"), GOOD[3]], None),
    ("CRLF in a value", [*GOOD, ("x-a", "b\r\nhost: evil")], None),
    ("NUL in a value", [*GOOD, ("x-a", "b\x00")], None),
    ("LF in a name", [*GOOD, ("x-a\n", "b")], None),
    ("space in a name", [*GOOD, ("x a", "b")], None),
    ("colon in a name", [*GOOD, ("x:a", "b")], None),
    ("empty name", [*GOOD, ("", "b")], None),
    ("Host other than :authority", [*GOOD, ("host", "other.shop")], None),
    (":protocol without CONNECT", [*GOOD, (":protocol", "websocket")], None),
    ("content-length above the data", [(":method", "POST"), *GOOD[1:], ("content-length", "10")], b"hello"),
    ("content-length below the data", [(":method", "POST"), *GOOD[1:], ("content-length", "2")], b"hello"),
    ("two content-lengths", [(":method", "POST"), *GOOD[1:], ("content-length", "5"), ("content-length", "2")], b"hello"),
    ("content-length not a number", [(":method", "POST"), *GOOD[1:], ("content-length", "5x")], b"hello"),
]  # fmt: skip


@pytest.mark.parametrize(("head", "data"), [row[1:] for row in HTTP2], ids=[row[0] for row in HTTP2])
def test_a_malformed_http2_request_is_refused(shop, head, data):
    """RFC 9113 8.1.1: a stream error PROTOCOL_ERROR, or a 400; never a request at the application."""
    body_rows = data is not None
    before = served(shop)
    client = Http2(shop.web.outbound)
    stream = client.raw_request(1, head, end=not body_rows)
    if body_rows:
        client.data(stream, data, end=True)
    try:
        response = client.read(stream)
    except (Closed, ConnectionResetError):
        response = None
        assert client.goaway not in (None, 0), "closed without saying PROTOCOL_ERROR"
    if response:
        refused = response.reset == 1 or (response.status, response.fault) == (400, "malformed_request")
        assert refused, response
    time.sleep(0.02)
    if not body_rows:
        assert served(shop) == before, "the application saw a request"


def test_one_bad_stream_leaves_the_others_of_its_connection(shop):
    client = Http2(shop.web.outbound)
    good = client.request(path="/?delay=300")
    bad = client.request(headers=[("connection", "close")])
    assert client.read(bad).reset == 1 or client.read(bad).status == 400
    assert client.read(good).status == 200


def test_the_proxy_answers_on_after_all_that(shop):
    assert shop.web.get().status == 200
    with Http1(shop.web.outbound) as client:
        assert client.get("/").status == 200
