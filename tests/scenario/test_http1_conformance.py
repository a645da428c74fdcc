"""HTTP/1 by the letter of RFC 9112 and RFC 9110, through the real program: a row for each rule.

The first table makes the proxy the server, the second one the client of an application that plays a
script. A row says which octets come back, to the last one, whether the connection goes on, and through
the octets what reached the application. What could be read in two ways is in test_smuggling.py too;
here are the rows that are not.
"""

import contextlib
import itertools
import socket
import struct

import pytest

from answers import Input, application, sized
from scripted import Scripted
from wire import Http1

ONE_WORKER = {"WEFT_WORKERS": "1"}
HOST = "Host: edge.shop\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
TEXTS = {
    "malformed_request": (b"400 Bad Request", b"the request is malformed or ambiguous"),
    "headers_too_large": (b"431 Request Header Fields Too Large", b"the request's header section is too large"),
    "unknown_destination": (
        b"503 Service Unavailable",
        b"no service of the mesh has this host and port, and the name does not resolve",
    ),
    "upstream_reset": (b"503 Service Unavailable", b"the connection broke after the request was handed over"),
    "upstream_protocol": (b"502 Bad Gateway", b"the answer is not valid HTTP"),
}


def octets(text):
    return text if isinstance(text, bytes) else text.encode("latin-1")


def answer(content=b"ok", *lines, status=b"200 OK", version=b"1.1", after=()):
    """An answer as the proxy writes it; `after` are fields behind content-length."""
    head = [b"HTTP/" + version + b" " + status, *lines, b"content-length: %d" % len(content), *after]
    return b"\r\n".join([*head, b"", b""]) + content


def fault(reason, *after, close=False, version=b"1.1"):
    status, text = TEXTS[reason]
    lines = [b"weft-fault: " + reason.encode(), b"content-type: text/plain; charset=utf-8"]
    closing = [b"connection: close"] if close else []
    return answer(b"weft: %s: %s\n" % (reason.encode(), text), *lines, status=status, version=version, after=[*closing, *after])


def chunked(*pieces, lines=(), trailers=b"", status=b"200 OK", after=()):
    head = [b"HTTP/1.1 " + status, *lines, b"transfer-encoding: chunked", *after]
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"\r\n".join([*head, b"", b""]) + body + b"0\r\n" + trailers + b"\r\n"


def shown(first, *lines, content=b"", trailers=b"", host=b"edge.shop", after=()):
    """The application's answer to what reached it."""
    seen = b"\r\n".join([octets(first), b"host: " + host, *map(octets, lines), b"", b""]) + content + trailers
    return answer(seen, after=after)


OK = answer()
CLOSE = (b"connection: close",)
OK_CLOSE = answer(after=CLOSE)
OLD = answer(version=b"1.0", after=CLOSE)
OLD_KEPT = answer(version=b"1.0", after=[b"connection: keep-alive"])
MALFORMED = fault("malformed_request", close=True)
TOO_LARGE = fault("headers_too_large", close=True)
PROBE = f"GET /ok HTTP/1.1\r\n{HOST}\r\n"


class Cut:
    """The answer begins as one of `wholes` does and breaks off before its end."""

    def __init__(self, *wholes):
        self.wholes = wholes


class Begins:
    """The answer begins so, and its text is the proxy's to say."""

    def __init__(self, *wholes):
        self.wholes = wholes


class Either:
    """One of several answers, where both are right and the timing of the network decides."""

    def __init__(self, *wholes):
        self.wholes = wholes


@pytest.fixture(scope="module")
def edge(shared_mesh):
    shared_mesh.web = shared_mesh.workload("web", env=ONE_WORKER)
    with application() as server:
        shared_mesh.offer("edge", server.port, app_protocol="http", env=ONE_WORKER)
        shared_mesh.edge = server
        yield shared_mesh
        server.released.set()


# ---- The proxy as server -----------------------------------------------------------------------------


def get(*lines, path="/ok", method="GET", version="1.1", host=HOST):
    return f"{method} {path} HTTP/{version}\r\n{host}" + "".join(f"{line}\r\n" for line in lines) + "\r\n"


def raw(line):
    """A request of which only the first line is special."""
    return f"{line}\r\n{HOST}\r\n"


def post(body, *lines, path="/echo", length=None):
    """A request with Content-Length."""
    count = len(body) if length is None else length
    return get(*lines, f"Content-Length: {count}", path=path, method="POST") + body


def chunks(body, *lines, path="/echo"):
    return get(*lines, "Transfer-Encoding: chunked", path=path, method="POST") + body


CHUNKED_SHOWN = shown("POST /echo HTTP/1.1", "transfer-encoding: chunked", content=b"hello")


def row(section, name, sent, expected, ends=False):
    """A row of the first table; `ends` says that the proxy ends the connection after the answer."""
    return pytest.param(sent if isinstance(sent, list) else [sent], expected, ends, id=f"{section} {name}")


def refused(section, name, sent, expected=MALFORMED):
    return row(section, name, sent, expected, ends=True)


def await_answer(text):
    def wait(client, received):
        while text not in received[0]:
            received[0] += client.socket.recv(65536)

    return wait


def half_close(client, received):
    client.socket.shutdown(socket.SHUT_WR)


def one_by_one(text):
    def write(client, received):
        for octet in octets(text):
            client.send(bytes([octet]))

    return write


def tunnel(client, received):
    await_answer(b"\r\n\r\n")(client, received)
    client.send("Hello")
    await_answer(b"hELLO")(client, received)


SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: rot13\r\n\r\n"

BAD_LINES = [
    ("3", "two spaces after the method", "GET  /ok HTTP/1.1"),
    ("3", "two spaces before the version", "GET /ok  HTTP/1.1"),
    ("3", "a tab in place of a space", "GET\t/ok HTTP/1.1"),
    ("3", "a space in front", " GET /ok HTTP/1.1"),
    ("3", "a space behind", "GET /ok HTTP/1.1 "),
    ("3", "a tab behind", "GET /ok HTTP/1.1\t"),
    ("3", "no version (HTTP/0.9)", "GET /ok"),
    ("3", "nothing but a method", "GET"),
    ("3.1", "an empty method", " /ok HTTP/1.1"),
    ("3.1", "a method with a colon", "GET: /ok HTTP/1.1"),
    ("3.1", "a method with a control character", "G\x01T /ok HTTP/1.1"),
    ("3.1", "a method above ASCII", "G\xe9T /ok HTTP/1.1"),
    ("3.2", "a target without a slash", "GET ok HTTP/1.1"),
    ("3.2", "a target above ASCII", "GET /\xe9 HTTP/1.1"),
    ("3.2", "a target with DEL", "GET /\x7f HTTP/1.1"),
    ("3.2", "a target with a control character", "GET /\x01 HTTP/1.1"),
    ("3.2.1", "a fragment", "GET /ok#a HTTP/1.1"),
    ("3.2.2", "an absolute target with a fragment", "GET http://edge.shop/ok#a HTTP/1.1"),
    ("3.2.2", "an absolute target with user information", "GET http://me@edge.shop/ok HTTP/1.1"),
    ("3.2.2", "an absolute target without a host", "GET http:///ok HTTP/1.1"),
    ("3.2.2", "an absolute target of another scheme", "GET ftp://edge.shop/ok HTTP/1.1"),
    ("3.2.2", "an absolute target with a bad port", "GET http://edge.shop:80x/ok HTTP/1.1"),
    ("3.2.2", "an absolute target with backslashes", "GET http:\\\\edge.shop/ok HTTP/1.1"),
    ("3.2.3", "an authority with GET", "GET edge.shop:80 HTTP/1.1"),
    ("3.2.3", "CONNECT with a path", "CONNECT /ok HTTP/1.1"),
    ("3.2.3", "CONNECT without a port", "CONNECT edge.shop HTTP/1.1"),
    ("3.2.3", "CONNECT with an absolute target", "CONNECT http://edge.shop:80/ HTTP/1.1"),
    ("3.2.3", "CONNECT with user information", "CONNECT me@edge.shop:80 HTTP/1.1"),
    ("3.2.4", "* with GET", "GET * HTTP/1.1"),
    ("3.2.4", "* and more with OPTIONS", "OPTIONS *a HTTP/1.1"),
    ("2.3", "HTTP/2.0", "GET /ok HTTP/2.0"),
    ("2.3", "HTTP/0.9", "GET /ok HTTP/0.9"),
    ("2.3", "HTTP/1.10", "GET /ok HTTP/1.10"),
    ("2.3", "HTTP/01.1", "GET /ok HTTP/01.1"),
    ("2.3", "HTTP/1", "GET /ok HTTP/1"),
    ("2.3", "HTTP/1.", "GET /ok HTTP/1."),
    ("2.3", "HTTP 1.1", "GET /ok HTTP 1.1"),
    ("2.3", "another protocol", "GET /ok HTTPS/1.1"),
    ("2.3", "a version in mixed case", "GET /ok Http/1.1"),
]

BAD_FIELDS = [
    *[("5.1", f"a name with {octet!r}", f"X{octet}A: b") for octet in '()/@[\\]{}"<>=,;? \t\x7f\x80'],
    ("5.1", "a tab before the colon", "X-A\t: b"),
    ("5.1", "two spaces before the colon", "X-A  : b"),
    ("5.2", "a folded value with a tab", "X-A: b\r\n\tc"),
    ("5.2", "a line of spaces", "X-A: b\r\n  "),
    *[("5.5", f"a value with {octet!r}", f"X-A: b{octet}c") for octet in "\x01\x08\x0b\x0c\x1b\x1f\x7f"],
    ("2.2", "LF CR ends a line", "X-A: b\n\rX-B: c"),
    ("2.2", "CR CR LF ends a line", "X-A: b\r\r\nX-B: c"),
    ("2.2", "CR at the end of a value", "X-A: b\r"),
]

GOOD_FIELDS = [
    ("5.1", "a name of every octet that it may have", "!#$%&'*+-.^_`|~09azAZ: b", "!#$%&'*+-.^_`|~09azaz: b"),
    ("5", "no space after the colon", "X-A:b", "x-a: b"),
    ("5", "blanks around a value", "X-A: \t b c \t ", "x-a: b c"),
    ("5", "an empty value", "X-A:", "x-a: "),
    ("5.5", "a tab within a value", "X-A: b\tc", "x-a: b\tc"),
    ("5.5", "a value above ASCII", "X-A: caf\xe9\xff", "x-a: caf\xe9\xff"),
    ("5.5", "a value of colons and commas", "X-A: a:b, c, ,", "x-a: a:b, c, ,"),
    ("5.3", "a name twice", "X-A: 1\r\nX-A: 2", "x-a: 1\r\nx-a: 2"),
    ("5.3", "a name twice in other cases", "X-A: 1\r\nx-a: 2", "x-a: 1\r\nx-a: 2"),
    ("5.4", "a long value", "X-A: " + "b" * 60_000, "x-a: " + "b" * 60_000),
]

HOP_BY_HOP = [
    ("7.6.1", "Connection and what it names", ["Connection: X-Hop", "X-Hop: 1", "X-End: 2"], ["x-end: 2"]),
    ("7.6.1", "Connection names several", ["Connection: X-A, ,x-b", "X-A: 1", "X-B: 2", "X-C: 3"], ["x-c: 3"]),
    ("7.6.1", "Connection twice", ["Connection: x-a", "Connection: x-b", "X-A: 1", "X-B: 2"], []),
    ("7.6.1", "Connection names what is not there", ["Connection: x-a"], []),
    ("7.6.1", "Connection names Host", ["Connection: Host"], []),
    ("7.6.1", "Keep-Alive", ["Keep-Alive: timeout=5"], []),
    ("7.6.1", "Proxy-Connection", ["Proxy-Connection: keep-alive"], []),
    ("7.6.1", "Connection: keep-alive in HTTP/1.1", ["Connection: keep-alive"], []),
    ("10.1.4", "TE: trailers", ["TE: trailers", "Connection: TE"], ["te: trailers"]),
    ("10.1.4", "TE of a coding", ["TE: gzip", "Connection: TE"], []),
    ("10.1.4", "TE of a coding and trailers", ["TE: gzip, trailers;q=0.5", "Connection: TE"], []),
    ("7.8", "Upgrade without Connection", ["Upgrade: rot13"], []),
    ("7.8", "Upgrade to h2c, which RFC 9113 withdrew", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"], []),
    ("7.8", "Connection: upgrade without Upgrade", ["Connection: upgrade"], []),
    ("10.1.1", "an unknown expectation", ["Expect: 200-maybe"], ["expect: 200-maybe"]),
    ("6.6.2", "Trailer", ["Trailer: x-a"], ["trailer: x-a"]),
]  # fmt: skip

BAD_LENGTHS = [
    ("6.2", "Content-Length twice the same", "Content-Length: 5\r\nContent-Length: 5"),
    ("6.2", "Content-Length as a list", "Content-Length: 5, 5"),
    ("6.2", "Content-Length with a comma", "Content-Length: 5,"),
    ("6.2", "Content-Length as a fraction", "Content-Length: 5.0"),
    ("6.2", "Content-Length with an exponent", "Content-Length: 5e0"),
    ("6.2", "Content-Length in quotes", 'Content-Length: "5"'),
    ("6.2", "Content-Length with a parameter", "Content-Length: 5;a=b"),
    ("6.2", "Content-Length with an underscore", "Content-Length: 0_5"),
    ("6.2", "Content-Length above ASCII", "Content-Length: \xb2"),
    ("6.2", "Content-Length of twenty digits", "Content-Length: 00000000000000000005"),
    ("6.1", "Transfer-Encoding with a parameter", "Transfer-Encoding: chunked;q=1"),
    ("6.1", "Transfer-Encoding empty", "Transfer-Encoding:"),
    ("6.1", "Transfer-Encoding of a comma and chunked", "Transfer-Encoding: ,chunked"),
    ("6.1", "Transfer-Encoding in quotes", 'Transfer-Encoding: "chunked"'),
    ("6.1", "Transfer-Encoding gzip", "Transfer-Encoding: gzip"),
    ("6.1", "Transfer-Encoding gzip, chunked", "Transfer-Encoding: gzip, chunked"),
    ("6.1", "Transfer-Encoding chunked, chunked", "Transfer-Encoding: chunked, chunked"),
    ("6.1", "Transfer-Encoding chunked, identity", "Transfer-Encoding: chunked, identity"),
    ("6.1", "Transfer-Encoding in two lines", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"),
    ("6.1", "Transfer-Encoding with NUL", "Transfer-Encoding: chunked\0"),
    ("6.1", "Transfer-Encoding above ASCII", "Transfer-Encoding: chunked\xa0"),
    ("6.1", "Transfer-Encoding and Content-Length 0", "Transfer-Encoding: chunked\r\nContent-Length: 0"),
]

GOOD_CHUNKS = [
    ("one chunk", "5\r\nhello\r\n0\r\n\r\n"),
    ("a chunk for each octet", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
    ("zeros in front of the size", "0000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a last chunk of several zeros", "5\r\nhello\r\n0000\r\n\r\n"),
    ("an extension", "5;a\r\nhello\r\n0\r\n\r\n"),
    ("an extension with a value", "5;a=b;c=d\r\nhello\r\n0;e=f\r\n\r\n"),
    ("an extension with a quoted value", '5;a="b;\\"c"\r\nhello\r\n0\r\n\r\n'),
    ("an extension after a blank behind its semicolon", "5; a=b\r\nhello\r\n0\r\n\r\n"),
]

BAD_CHUNKS = [
    ("a blank after the size", "5 \r\nhello\r\n0\r\n\r\n"),
    ("a tab after the size", "5\t\r\nhello\r\n0\r\n\r\n"),
    ("a size of seventeen digits", "00000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("an h behind the size", "5h\r\nhello\r\n0\r\n\r\n"),
    ("an underscore within the size", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("an extension without a semicolon", "5 a=b\r\nhello\r\n0\r\n\r\n"),
    ("a bare CR after the size", "5\rhello\r\n0\r\n\r\n"),
    ("CR CR LF after the size", "5\r\r\nhello\r\n0\r\n\r\n"),
    ("an extension above the limit", "5;" + "a" * 256 + "\r\nhello\r\n0\r\n\r\n"),
    ("a chunk that is too long by one", "5\r\nhello!\r\n0\r\n\r\n"),
    ("a chunk that is too short by one", "6\r\nhello\r\n0\r\n\r\n"),
    ("two CRLFs after a chunk", "5\r\nhello\r\n\r\n0\r\n\r\n"),
    ("a trailer with a bad name", "5\r\nhello\r\n0\r\nX A: b\r\n\r\n"),
    ("a trailer with NUL", "5\r\nhello\r\n0\r\nX-A: \0\r\n\r\n"),
    ("a trailer without a colon", "5\r\nhello\r\n0\r\nX-A\r\n\r\n"),
    ("a trailer that ends with LF", "5\r\nhello\r\n0\r\nX-A: b\n\r\n"),
    ("too many trailers", "5\r\nhello\r\n0\r\n" + "X-A: b\r\n" * 257 + "\r\n"),
]

SERVER = [
    # RFC 9112 3: the request line.
    row("3.2.1", "a path with a query", get(path="/echo?a=b&c"), shown("GET /echo?a=b&c HTTP/1.1")),
    row("3.2.1", "a path of odd but allowed octets", get(path="/echo?%00;\"<>\\^`{|}"), shown("GET /echo?%00;\"<>\\^`{|} HTTP/1.1")),
    row("3.2.1", "a path that begins with two slashes", get(path="//echo"), OK),
    row("3.2.2", "an absolute target", get(path="http://edge.shop/echo"), shown("GET /echo HTTP/1.1")),
    row("3.2.2", "an absolute target wins over Host", get(path="http://edge.shop/echo", host="Host: other.shop\r\n"), shown("GET /echo HTTP/1.1")),
    row("3.2.2", "an absolute target with an upper-case scheme", get(path="HTTP://edge.shop/echo"), shown("GET /echo HTTP/1.1")),
    row("3.2.2", "an absolute target with a port", get(path="http://edge.shop:80/echo"), shown("GET /echo HTTP/1.1", host=b"edge.shop:80")),
    row("3.2.2", "an absolute target without a path", get(path="http://edge.shop"), OK),
    row("3.2.2", "an absolute target with a query and no path", get(path="http://edge.shop?a=b"), OK),
    row("3.2.2", "an absolute target still needs Host", get(path="http://edge.shop/ok", host=""), MALFORMED, ends=True),
    row("3.2.4", "OPTIONS *", get(path="*", method="OPTIONS"), shown("OPTIONS * HTTP/1.1")),
    row("3.2.4", "OPTIONS of an absolute target without a path is OPTIONS *", get(path="http://edge.shop", method="OPTIONS"), shown("OPTIONS * HTTP/1.1")),
    row("3.1", "a method of nobody's", get(path="/echo", method="BREW"), shown("BREW /echo HTTP/1.1")),
    row("3.1", "a method in lower case", get(path="/echo", method="get"), shown("get /echo HTTP/1.1")),
    row("3.1", "a method of every octet that it may have", get(path="/echo", method="!#$%&'*+-.^_`|~09azAZ"), shown("!#$%&'*+-.^_`|~09azAZ /echo HTTP/1.1")),
    row("2.2", "an empty line in front", "\r\n" + PROBE, OK),
    row("2.2", "four empty lines in front", "\r\n" * 4 + PROBE, OK),
    row("2.2", "an empty line between two requests", PROBE + "\r\n" + PROBE, OK + OK),
    refused("2.2", "a bare LF in front", "\n" + PROBE),
    refused("2.2", "a bare CR in front", "\r" + PROBE),
    refused("2.2", "a blank line in front", " \r\n" + PROBE),
    refused("2.2", "NUL in front", "\0" + PROBE),
    refused("2.2", "a byte order mark in front", "\xef\xbb\xbf" + PROBE),
    refused("2.2", "a bare LF between two lines", "GET /ok HTTP/1.1\r\nHost: edge.shop\nX-A: b\r\n\r\n"),
    *[refused(section, name, raw(line)) for section, name, line in BAD_LINES],
    refused("RFC 9113 3.4", "a preface that goes wrong", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
    row("2.3", "HTTP/1.0 is passed on with the proxy's own version", get(path="/echo", version="1.0"), answer(b"GET /echo HTTP/1.1\r\nhost: edge.shop\r\n\r\n", version=b"1.0", after=CLOSE), ends=True),
    row("2.3", "HTTP/1.2 is HTTP/1.1 to one who knows no more", get(version="1.2"), OK),
    row("3", "a target above the limit", get(path="/" + "a" * 70_000), Begins(b"HTTP/1.1 414 "), ends=True),
    row("3", "a long target", get(path="/echo?" + "a" * 60_000), shown("GET /echo?" + "a" * 60_000 + " HTTP/1.1")),
    # RFC 9112 3.2: Host.
    row("3.2", "Host with a port", get(path="/echo", host="Host: edge.shop:80\r\n"), shown("GET /echo HTTP/1.1", host=b"edge.shop:80")),
    row("3.2", "Host in upper case", get(path="/echo", host="HOST: EDGE.SHOP\r\n"), shown("GET /echo HTTP/1.1", host=b"EDGE.SHOP")),
    row("3.2", "Host with blanks around", get(path="/echo", host="Host: \t edge.shop \t\r\n"), shown("GET /echo HTTP/1.1")),
    row("3.2", "Host with an empty port", get(path="/echo", host="Host: edge.shop:\r\n"), shown("GET /echo HTTP/1.1", host=b"edge.shop:")),
    row("3.2", "Host after other fields", get("X-A: b", HOST.strip(), path="/echo", host=""), shown("GET /echo HTTP/1.1", "x-a: b")),
    refused("3.2", "an empty Host names nobody", get(host="Host:\r\n")),
    refused("3.2", "no Host in HTTP/1.0 names nobody", get(host="", version="1.0"), fault("malformed_request", close=True, version=b"1.0")),
    refused("3.2", "two Hosts in HTTP/1.0", get(host=HOST + HOST, version="1.0")),
    refused("3.2", "Host as a list", get(host="Host: edge.shop, edge.shop\r\n")),
    refused("3.2", "Host with a scheme", get(host="Host: http://edge.shop\r\n")),
    refused("3.2", "Host with a query", get(host="Host: edge.shop?a\r\n")),
    refused("3.2", "Host with a fragment", get(host="Host: edge.shop#a\r\n")),
    refused("3.2", "Host with a backslash", get(host="Host: edge.shop\\a\r\n")),
    refused("3.2", "Host with two ports", get(host="Host: edge.shop:80:80\r\n")),
    refused("3.2", "Host with a signed port", get(host="Host: edge.shop:+80\r\n")),
    row("3.2", "Host with a port alone names nobody", get(host="Host: :80\r\n"), fault("unknown_destination")),
    refused("3.2", "Host above ASCII", get(host="Host: edg\xe9.shop\r\n")),
    refused("3.2", "Host with an open bracket", get(host="Host: [::1\r\n")),
    # RFC 9112 5: fields.
    *[refused(section, name, get(line)) for section, name, line in BAD_FIELDS],
    *[row(section, name, get(line, path="/echo"), shown("GET /echo HTTP/1.1", seen)) for section, name, line, seen in GOOD_FIELDS],
    *[row(f"RFC 9110 {section}", name, get(*lines, path="/echo"), shown("GET /echo HTTP/1.1", *seen)) for section, name, lines, seen in HOP_BY_HOP],
    row("RFC 9110 7.6.1", "Connection names Content-Length", post("hello", "Connection: Content-Length"), shown("POST /echo HTTP/1.1", "content-length: 5", content=b"hello")),
    row("RFC 9110 7.6.1", "Connection names Transfer-Encoding", chunks("5\r\nhello\r\n0\r\n\r\n", "Connection: Transfer-Encoding"), CHUNKED_SHOWN),
    refused("5.4", "too many fields", get(*["X-A: b"] * 256), TOO_LARGE),
    row("5.4", "many fields, with room for those of the hop", get(*["X-A: b"] * 240), OK),
    # RFC 9112 6 and 7: framing.
    row("6.3", "POST without a length has no content", get(path="/echo", method="POST"), shown("POST /echo HTTP/1.1")),
    row("6.2", "Content-Length 0", post(""), shown("POST /echo HTTP/1.1", "content-length: 0")),
    row("6.2", "Content-Length with zeros in front", post("hello", length="0000000000000000005"), shown("POST /echo HTTP/1.1", "content-length: 0000000000000000005", content=b"hello")),
    row("6.2", "Content-Length with blanks around", post("hello", length=" \t5 \t"), shown("POST /echo HTTP/1.1", "content-length: 5", content=b"hello")),
    row("6.3", "GET with content", get("Content-Length: 5", path="/echo") + "hello", shown("GET /echo HTTP/1.1", "content-length: 5", content=b"hello")),
    row("6.3", "DELETE with content", get("Content-Length: 5", path="/echo", method="DELETE") + "hello", shown("DELETE /echo HTTP/1.1", "content-length: 5", content=b"hello")),
    row("6.2", "content that looks like a request", post(PROBE), shown("POST /echo HTTP/1.1", f"content-length: {len(PROBE)}", content=octets(PROBE))),
    *[refused(section, name, get(line, method="POST", path="/echo") + "5\r\nhello\r\n0\r\n\r\n") for section, name, line in BAD_LENGTHS],
    row("6.1", "Transfer-Encoding in upper case", get("TRANSFER-ENCODING: CHUNKED", path="/echo", method="POST") + "5\r\nhello\r\n0\r\n\r\n", CHUNKED_SHOWN),
    row("6.1", "Transfer-Encoding with blanks around", get("Transfer-Encoding: \t chunked \t", path="/echo", method="POST") + "5\r\nhello\r\n0\r\n\r\n", CHUNKED_SHOWN),
    *[row("7.1", f"chunks: {name}", chunks(body), CHUNKED_SHOWN) for name, body in GOOD_CHUNKS],
    row("7.1", "chunks: upper and lower case of the size", chunks("A\r\n0123456789\r\nb\r\n01234567890\r\n0\r\n\r\n"), shown("POST /echo HTTP/1.1", "transfer-encoding: chunked", content=b"012345678901234567890")),
    row("7.1", "chunks: none at all", chunks("0\r\n\r\n", path="/length"), answer(b"0")),
    row("7.1.1", "chunks: an extension after a blank (BWS)", chunks("5 ;a=b\r\nhello\r\n0\r\n\r\n"), CHUNKED_SHOWN),
    *[refused("7.1", f"chunks: {name}", chunks(body), b"") for name, body in BAD_CHUNKS],
    row("7.1.2", "trailers", chunks("5\r\nhello\r\n0\r\nX-Sum: 7\r\nX-Sum:8\r\n\r\n"), shown("POST /echo HTTP/1.1", "transfer-encoding: chunked", content=b"hello", trailers=b"x-sum: 7\r\nx-sum: 8\r\n")),
    row("RFC 9110 6.5.1", "trailers that may not be any are dropped", chunks("5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nHost: other.shop\r\nConnection: close\r\nX-Sum: 7\r\n\r\n"), shown("POST /echo HTTP/1.1", "transfer-encoding: chunked", content=b"hello", trailers=b"x-sum: 7\r\n")),
    # RFC 9112 9.3: keeping the connection, and requests in a row.
    row("9.3.2", "three requests at once", PROBE * 3, OK * 3),
    row("9.3.2", "a request after content", post("hello") + PROBE, shown("POST /echo HTTP/1.1", "content-length: 5", content=b"hello") + OK),
    row("9.3.2", "a request after chunks", chunks("5\r\nhello\r\n0\r\n\r\n") + PROBE, CHUNKED_SHOWN + OK),
    row("9.3.2", "a request after one that wants the end is not served", get("Connection: close") + PROBE, OK_CLOSE, ends=True),
    row("9.3.2", "a malformed request after a good one", PROBE + "GET /\x01 HTTP/1.1\r\n\r\n", OK + MALFORMED, ends=True),
    row("9.3.2", "HEAD, then GET", get(path="/head", method="HEAD") + PROBE, b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n" + OK),
    row("9.3", "everything octet by octet", [one_by_one(chunks("5\r\nhello\r\n0\r\nX-Sum: 7\r\n\r\n"))], shown("POST /echo HTTP/1.1", "transfer-encoding: chunked", content=b"hello", trailers=b"x-sum: 7\r\n")),
    row("9.3", "HTTP/1.1 goes on", PROBE, OK),
    row("9.6", "HTTP/1.1 with Connection: close", get("Connection: close"), OK_CLOSE, ends=True),
    row("9.6", "Connection: CLOSE among others", get("Connection: x-a, CLOSE"), OK_CLOSE, ends=True),
    row("9.6", "Connection: close in the second line", get("Connection: x-a", "Connection: close"), OK_CLOSE, ends=True),
    row("9.6", "close wins over keep-alive", get("Connection: keep-alive, close"), OK_CLOSE, ends=True),
    row("9.3", "HTTP/1.0 ends", get(version="1.0"), OLD, ends=True),
    row("9.3", "HTTP/1.0 with keep-alive goes on", get("Connection: keep-alive", version="1.0"), OLD_KEPT),
    row("9.3", "HTTP/1.0 with Keep-Alive in upper case goes on", get("Connection: Keep-Alive", version="1.0"), OLD_KEPT),
    row("9.3", "HTTP/1.0 with close and keep-alive ends", get("Connection: keep-alive, close", version="1.0"), OLD, ends=True),
    row("9.3", "HTTP/1.0 with Proxy-Connection ends", get("Proxy-Connection: keep-alive", version="1.0"), OLD, ends=True),
    row("9.3", "HTTP/1.0 with content", get("Content-Length: 5", path="/length", method="POST", version="1.0") + "hello", answer(b"5", version=b"1.0", after=CLOSE), ends=True),
    row("6.1", "HTTP/1.0 gets no chunks", get(path="/chunked", version="1.0"), b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabcde", ends=True),
    row("6.1", "HTTP/1.0 with keep-alive gets no chunks, but the end", get("Connection: keep-alive", path="/chunked", version="1.0"), b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabcde", ends=True),
    row("RFC 9110 15.2", "HTTP/1.0 gets no 1xx", get(path="/early", version="1.0"), OLD, ends=True),
    row("RFC 9110 10.1.1", "HTTP/1.0 expects no 100", get("Expect: 100-continue", "Content-Length: 2", path="/continue", method="POST", version="1.0") + "ok", OLD, ends=True),
    row("RFC 9110 7.8", "HTTP/1.0 upgrades to nothing", get("Connection: upgrade", "Upgrade: rot13", path="/ok", version="1.0"), OLD, ends=True),
    row("9.6", "a client that sends no more is still answered", [PROBE, half_close], OK, ends=True),
    row("9.5", "a client that leaves within a head is not answered", ["GET /ok HTTP/1.1\r\nHost: ed", half_close], b"", ends=True),
    row("9.5", "a client that leaves before a head is not answered", [half_close], b"", ends=True),
    row("9.5", "a client that leaves within content is not answered", [post("hel", length=5), half_close], b"", ends=True),
    row("9.5", "a client that leaves within chunks is not answered", [chunks("5\r\nhello\r\n"), half_close], b"", ends=True),
    # Answers.
    row("6.3", "HEAD", get(path="/head", method="HEAD"), b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n"),
    row("6.3", "HEAD of any answer has no content", get(path="/nothing", method="HEAD"), b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"),
    row("6.3", "204", get(path="/204"), b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n"),
    row("6.3", "304", get(path="/304"), b'HTTP/1.1 304 Not Modified\r\netag: "x"\r\ncontent-length: 500\r\n\r\n'),
    row("6.3", "an empty answer", get(path="/empty"), answer(b"")),
    row("7.1", "an answer with trailers", get(path="/trailers"), chunked(b"ok", trailers=b"x-sum: 7\r\n")),
    row("RFC 9110 15.2", "103", get(path="/early"), b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n" + OK),
    row("RFC 9110 7.6.1", "connection-specific fields of the answer stay behind", get(path="/private"), answer(b"ok", b"x-end: 1")),
    row("RFC 9110 10.1.1", "Expect: 100-continue", [get("Expect: 100-continue", "Content-Length: 2", path="/continue", method="POST"), await_answer(b"100"), "ok"], b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    row("RFC 9110 10.1.1", "Expect: 100-continue, and the content at once", get("Expect: 100-continue", "Content-Length: 2", path="/continue", method="POST") + "ok", b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    # Tunnels.
    row("RFC 9110 7.8", "Upgrade that is accepted", [get("Connection: Upgrade", "Upgrade: rot13", path="/switch"), tunnel, half_close], SWITCHED + b"hELLO", ends=True),
    row("RFC 9110 7.8", "Upgrade with octets at once", [get("Connection: Upgrade", "Upgrade: rot13", path="/switch") + "Hello", await_answer(b"hELLO"), half_close], SWITCHED + b"hELLO", ends=True),
    row("RFC 9110 7.8", "Upgrade that is passed on", [get("Connection: Upgrade, X-A", "Upgrade: rot13", "X-A: b", path="/echo"), half_close], shown("GET /echo HTTP/1.1", "connection: upgrade", "upgrade: rot13", after=CLOSE), ends=True),
    row("RFC 9110 7.8", "Upgrade of a request with content is ignored", post("hello", "Connection: upgrade", "Upgrade: rot13"), shown("POST /echo HTTP/1.1", "content-length: 5", content=b"hello")),
    row("RFC 9110 9.3.6", "CONNECT", ["CONNECT edge.shop:80 HTTP/1.1\r\nHost: edge.shop:80\r\n\r\n", await_answer(b"\r\n\r\n"), get("Connection: close", path="/head", method="HEAD")], b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 500\r\nconnection: close\r\n\r\n", ends=True),
    row("RFC 9110 9.3.6", "CONNECT to nowhere", "CONNECT nowhere.shop:80 HTTP/1.1\r\nHost: nowhere.shop:80\r\n\r\n", fault("unknown_destination", close=True), ends=True),
    # RFC 9110 7.6.2.
    row("RFC 9110 7.6.2", "Max-Forwards counts down with OPTIONS", get("Max-Forwards: 5", path="/echo", method="OPTIONS"), shown("OPTIONS /echo HTTP/1.1", "max-forwards: 3")),
    row("RFC 9110 7.6.2", "Max-Forwards 0 ends here with TRACE", get("Max-Forwards: 0", path="/204", method="TRACE"), Begins(b"HTTP/1.1 200 OK\r\n")),
    row("RFC 9110 7.6.2", "Max-Forwards means nothing with GET", get("Max-Forwards: 0", path="/echo"), shown("GET /echo HTTP/1.1", "max-forwards: 0")),
]  # fmt: skip


def listen(client, received, wholes):
    """Reads as long as it is the beginning of what is wanted; True at the end of the connection."""
    while received[0] not in wholes and any(whole.startswith(received[0]) for whole in wholes):
        try:
            piece = client.socket.recv(65536)
        except ConnectionResetError:
            return True
        if not piece:
            return True
        received[0] += piece
    return False


def at_end(client):
    try:
        return client.socket.recv(65536) == b""
    except ConnectionResetError:
        return True


def play(address, steps, expected, ends):
    received = [b""]
    wholes = expected.wholes if isinstance(expected, (Cut, Begins, Either)) else [expected]
    with Http1(address) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for step in steps:
                step(client, received) if callable(step) else client.send(step)
            if not ends and not isinstance(expected, Cut):
                client.send(PROBE)
        if isinstance(expected, Cut):
            assert listen(client, received, wholes), received[0]
            assert received[0] not in wholes, received[0]
            return
        if isinstance(expected, Begins):
            while len(received[0]) < len(wholes[0]) and (piece := client.socket.recv(65536)):
                received[0] += piece
            assert received[0].startswith(wholes[0])
            return
        if not ends:
            wholes = [whole + OK for whole in wholes]
        listen(client, received, wholes)
        assert received[0] == wholes[0] or received[0] in wholes
        assert not ends or at_end(client)


@pytest.mark.parametrize(("sent", "expected", "ends"), SERVER)
def test_the_proxy_as_server(edge, sent, expected, ends):
    play(edge.web.outbound, sent, expected, ends)
    play(edge.web.outbound, [PROBE], OK, False)


def test_every_cut_of_a_request_gives_the_same(edge):
    text = octets(chunks("5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 7\r\n\r\n", "X-A: b"))
    expected = shown("POST /echo HTTP/1.1", "x-a: b", "transfer-encoding: chunked", content=b"hello!", trailers=b"x-sum: 7\r\n")
    with Http1(edge.web.outbound) as client:
        for at in range(1, len(text)):
            client.send(text[:at])
            client.send(text[at:])
            assert client.take(len(expected)) == expected, at


# ---- The proxy as client -----------------------------------------------------------------------------


class Scripts:
    """An application that plays the row's script for `/row`, and otherwise tells which connection it is."""

    def __init__(self):
        self.listener = Scripted(self.play)
        self.port = self.listener.port
        self.script = []
        self.numbers = itertools.count()
        self.peers = []
        self.heads = []

    def play(self, _, peer):
        given = Input(peer)
        given.number = None
        while True:
            head = given.until(b"\r\n\r\n")
            if given.number is None:
                given.number = next(self.numbers)
                self.peers.append(peer)
            self.heads.append(head)
            target = head.split(b" ")[1]
            if target == b"/ok":
                peer.sendall(sized(b"%d" % given.number))
                continue
            given.head = head
            for step in self.script:
                if callable(step):
                    step(given)
                else:
                    peer.sendall(octets(step))

    def retire(self):
        """Ends every connection; whoever uses one next finds it closed already."""
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
        self.peers.clear()
        self.heads.clear()
        self.numbers = itertools.count()

    def close(self):
        self.listener.close()


@pytest.fixture(scope="module")
def far(shared_mesh, edge):
    made = Scripts()
    shared_mesh.offer("far", made.port, app_protocol="http", env=ONE_WORKER)
    made.web = edge.web
    yield made
    made.close()


def hang_up(given):
    given.peer.shutdown(socket.SHUT_RDWR)
    raise EOFError


def tear(given):
    given.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    given.peer.close()
    raise EOFError


def until_gone(given):
    """Waits until the proxy ends the connection."""
    while given.peer.recv(65536):
        pass
    raise EOFError


def content(given):
    given.body(given.head)


def dribbled(text):
    def write(given):
        for octet in octets(text):
            given.peer.sendall(bytes([octet]))

    return write


def once(*steps):
    """What happens on the first connection only; later ones are answered."""

    def play(given):
        if given.number == 0:
            for step in steps:
                step(given) if callable(step) else given.peer.sendall(octets(step))
        else:
            given.peer.sendall(sized(b"again"))

    return play


def swap(given):
    while piece := given.buffer or given.peer.recv(65536):
        given.buffer = b""
        given.peer.sendall(piece.swapcase())
    raise EOFError


FAR = "Host: far.shop\r\n"
ASK = get(path="/row", host=FAR)
ASK_HEAD = get(path="/row", host=FAR, method="HEAD")
ASK_POST = get("Content-Length: 5", path="/row", host=FAR, method="POST") + "hello"
ASK_UPGRADE = get("Connection: upgrade", "Upgrade: rot13", path="/row", host=FAR)
LOST = fault("upstream_reset")
WRONG = fault("upstream_protocol")
GOOD = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD_CHUNKED = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def far_row(section, name, steps, expected, same=True, ask=ASK, ends=False):
    """A row of the second table; `same` says that the connection to the application is used again."""
    steps = steps if isinstance(steps, list) else [steps]
    ask = ask if isinstance(ask, list) else [ask]
    return pytest.param(steps, expected, same, ask, ends, id=f"{section} {name}")


def broken(section, name, sent, **more):
    return far_row(section, name, sent, WRONG, same=False, **more)


def status(line):
    return f"{line}\r\nContent-Length: 2\r\n\r\nok"


def with_field(line):
    return f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{line}\r\n\r\nok"


def with_length(lines, body="ok", version="1.1"):
    return f"HTTP/{version} 200 OK\r\n{lines}\r\n\r\n{body}"


BAD_STATUS_LINES = [
    ("HTTP/2.0", "HTTP/2.0 200 OK"),
    ("HTTP/0.9", "HTTP/0.9 200 OK"),
    ("HTTP/1.10", "HTTP/1.10 200 OK"),
    ("a version in lower case", "http/1.1 200 OK"),
    ("no version", "200 OK"),
    ("no status", "HTTP/1.1"),
    ("an empty status", "HTTP/1.1  OK"),
    ("two spaces before the status", "HTTP/1.1  200 OK"),
    ("a tab before the status", "HTTP/1.1\t200 OK"),
    ("a space in front", " HTTP/1.1 200 OK"),
    ("an empty line in front", "\r\nHTTP/1.1 200 OK"),
    ("a status of two digits", "HTTP/1.1 20 OK"),
    ("a status of four digits", "HTTP/1.1 2000 OK"),
    ("a status with a letter", "HTTP/1.1 2x0 OK"),
    ("a status with a sign", "HTTP/1.1 +20 OK"),
    ("a status below 100", "HTTP/1.1 099 OK"),
    ("a tab after the status", "HTTP/1.1 200\tOK"),
    ("a request", "GET / HTTP/1.1"),
    ("something else", "SSH-2.0-OpenSSH_9.6"),
]

BAD_ANSWER_FIELDS = [
    ("5", "a line without a colon", "X-A"),
    ("5", "an empty name", ": b"),
    ("5.1", "a name with a space", "X A: b"),
    ("5.1", "a name with NUL", "X\0A: b"),
    ("5.2", "a folded value", "X-A: b\r\n c"),
    ("5.5", "a value with NUL", "X-A: b\0c"),
    ("5.5", "a value with a control character", "X-A: b\x01c"),
    ("2.2", "a bare CR in a value", "X-A: b\rc"),
    ("2.2", "a bare LF after a value", "X-A: b\nX-B: c"),
]

BAD_ANSWER_LENGTHS = [
    ("6.3", "two Content-Lengths that differ", "Content-Length: 2\r\nContent-Length: 3"),
    ("6.3", "two Content-Lengths that are the same", "Content-Length: 2\r\nContent-Length: 2"),
    ("6.3", "Content-Length as a list that differs", "Content-Length: 2, 3"),
    ("6.3", "Content-Length with a sign", "Content-Length: +2"),
    ("6.3", "Content-Length below 0", "Content-Length: -2"),
    ("6.3", "Content-Length in hexadecimal", "Content-Length: 0x2"),
    ("6.3", "Content-Length of nothing", "Content-Length:"),
    ("6.3", "Content-Length above 64 bits", "Content-Length: 18446744073709551618"),
    ("6.3", "Content-Length and Transfer-Encoding", "Content-Length: 2\r\nTransfer-Encoding: chunked"),
    ("6.3", "Transfer-Encoding and Content-Length", "Transfer-Encoding: chunked\r\nContent-Length: 2"),
    ("6.1", "Transfer-Encoding gzip, chunked", "Transfer-Encoding: gzip, chunked"),
    ("6.1", "Transfer-Encoding chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    ("6.1", "Transfer-Encoding of nobody's", "Transfer-Encoding: xchunked"),
]

CUT_CHUNKS = [
    ("no chunk at all", ""),
    ("a size alone", "5\r\n"),
    ("half a chunk", "5\r\nhel"),
    ("a chunk without its CRLF", "5\r\nhello"),
    ("a chunk, but no last one", "5\r\nhello\r\n"),
    ("a last chunk without its empty line", "5\r\nhello\r\n0\r\n"),
    ("half a trailer section", "5\r\nhello\r\n0\r\nX-A: b\r\n"),
]

WRONG_CHUNKS = [
    ("a size that is no number", "xyz\r\nhello\r\n0\r\n\r\n"),
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("a size below 0", "-5\r\nhello\r\n0\r\n\r\n"),
    ("a size above 64 bits", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a size with 0x", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a bare LF after the size", "5\nhello\r\n0\r\n\r\n"),
    ("a bare LF after the data", "5\r\nhello\n0\r\n\r\n"),
    ("a chunk that is too long", "5\r\nhello!\r\n0\r\n\r\n"),
    ("a chunk that is too short", "6\r\nhello\r\n0\r\n\r\n"),
    ("an extension above the limit", "5;" + "a" * 300 + "\r\nhello\r\n0\r\n\r\n"),
    ("a trailer without a colon", "5\r\nhello\r\n0\r\nX-A\r\n\r\n"),
    ("a folded trailer", "5\r\nhello\r\n0\r\nX-A: b\r\n c\r\n\r\n"),
    ("too many trailers", "5\r\nhello\r\n0\r\n" + "X-A: b\r\n" * 257 + "\r\n"),
]

CUT_HEADS = [
    ("before any octet", ""),
    ("within the status line", "HTTP/1.1 2"),
    ("after the status line", "HTTP/1.1 200 OK\r\n"),
    ("within a field", "HTTP/1.1 200 OK\r\nContent-Le"),
    ("before the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"),
    ("within the empty line", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r"),
    ("after 103", "HTTP/1.1 103 Early Hints\r\n\r\n"),
    ("within the head after 103", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n"),
]
EARLY = b"HTTP/1.1 103 Early Hints\r\n\r\n"

CLIENT = [
    # RFC 9112 4: the status line.
    far_row("4", "an answer", GOOD, OK),
    far_row("4", "no reason phrase", status("HTTP/1.1 200 "), OK),
    far_row("4", "no reason phrase and no space", status("HTTP/1.1 200"), OK),
    far_row("4", "a reason phrase of anything", status("HTTP/1.1 200 Tr\xe8s bien, 200  OK"), OK),
    far_row("4", "a status of nobody's", status("HTTP/1.1 299 Odd"), answer(status=b"299 ")),
    far_row("RFC 9110 15", "a status above 599 is passed on", status("HTTP/1.1 999 Odd"), answer(status=b"999 ")),
    *[broken("4", name, status(line)) for name, line in BAD_STATUS_LINES],
    far_row("2.3", "HTTP/1.2 is HTTP/1.1 to one who knows no more", status("HTTP/1.2 200 OK"), OK),
    # RFC 9112 5: fields.
    *[broken(section, name, with_field(line)) for section, name, line in BAD_ANSWER_FIELDS],
    far_row("5.1", "a space before the colon is taken away", with_field("X-A : b"), answer(b"ok", after=[b"x-a: b"])),
    far_row("5", "blanks around a value", with_field("X-A: \t b c \t"), answer(b"ok", after=[b"x-a: b c"])),
    far_row("5", "an empty value", with_field("X-A:"), answer(b"ok", after=[b"x-a: "])),
    far_row("5.5", "a value above ASCII", with_field("X-A: caf\xe9"), answer(b"ok", after=[b"x-a: caf\xe9"])),
    far_row("5.3", "Set-Cookie twice", with_field("Set-Cookie: a=1\r\nSet-Cookie: b=2"), answer(b"ok", after=[b"set-cookie: a=1", b"set-cookie: b=2"])),
    far_row("RFC 9110 7.6.1", "connection-specific fields stay behind", with_field("Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=9\r\nProxy-Connection: x\r\nX-Hop: 1\r\nUpgrade: h2c"), OK),
    broken("5.4", "a head above the limit", with_field("X-A: " + "b" * 70_000)),
    broken("5.4", "too many fields", with_field("X-A: b\r\n" * 256 + "X-B: c")),
    far_row("5.4", "a long head", with_field("X-A: " + "b" * 60_000), answer(b"ok", after=[b"x-a: " + b"b" * 60_000])),
    broken("2.2", "lines that end with LF", GOOD.replace("\r\n", "\n")),
    # RFC 9112 6: framing.
    far_row("6.3", "Content-Length 0", with_length("Content-Length: 0", ""), answer(b"")),
    far_row("6.3", "Content-Length with zeros in front", with_length("Content-Length: 0002"), OK.replace(b": 2", b": 0002")),
    far_row("6.3", "no length: to the end of the connection", [with_length("X-A: b"), hang_up], chunked(b"ok", lines=[b"x-a: b"]), same=False),
    far_row("6.3", "no length in HTTP/1.0", [with_length("X-A: b", version="1.0"), hang_up], chunked(b"ok", lines=[b"x-a: b"]), same=False),
    far_row("6.3", "no length and no content", [with_length("X-A: b", ""), hang_up], Either(chunked(lines=[b"x-a: b"]), answer(b"", b"x-a: b")), same=False),
    *[broken(section, name, with_length(lines, "2\r\nok\r\n0\r\n\r\n")) for section, name, lines in BAD_ANSWER_LENGTHS],
    broken("6.1", "Transfer-Encoding in HTTP/1.0", with_length("Transfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n", "1.0")),
    far_row("7.1", "chunks", HEAD_CHUNKED + "2\r\nok\r\n0\r\n\r\n", chunked(b"ok")),
    far_row("7.1", "chunks with zeros, extensions and upper case", HEAD_CHUNKED + "000A;a=b\r\n0123456789\r\n00;c\r\n\r\n", chunked(b"0123456789")),
    far_row("7.1", "no chunk but the last", HEAD_CHUNKED + "0\r\n\r\n", Either(chunked(), answer(b""))),
    far_row("7.1.2", "trailers", HEAD_CHUNKED + "2\r\nok\r\n0\r\nX-Sum: 7\r\nX-End:1\r\n\r\n", chunked(b"ok", trailers=b"x-sum: 7\r\nx-end: 1\r\n")),
    far_row("RFC 9110 6.5.1", "trailers that may not be any are dropped", HEAD_CHUNKED + "2\r\nok\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nConnection: close\r\nX-Sum: 7\r\n\r\n", chunked(b"ok", trailers=b"x-sum: 7\r\n")),
    far_row("7.1", "a chunk octet by octet", dribbled(HEAD_CHUNKED + "1\r\nx\r\n0\r\nX-Sum: 7\r\n\r\n"), chunked(b"x", trailers=b"x-sum: 7\r\n")),
    far_row("6.3", "an answer octet by octet", dribbled("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"), answer(b"x")),
    *[far_row("7.1", f"the connection ends after {name}", [HEAD_CHUNKED + body, hang_up], Cut(chunked(b"hello"), chunked(b"hel", b"lo")), same=False) for name, body in CUT_CHUNKS],
    *[far_row("7.1", name, [HEAD_CHUNKED + body, until_gone], Cut(chunked(b"hello"), chunked(b"hel", b"lo")), same=False) for name, body in WRONG_CHUNKS],
    far_row("6.3", "the connection ends before the content that Content-Length counts", [with_length("Content-Length: 9"), hang_up], Cut(answer(b"ok       ")), same=False),
    far_row("6.3", "the connection ends before any content", [with_length("Content-Length: 9", ""), hang_up], Cut(answer(b"         ")), same=False),
    far_row("6.3", "the connection is reset within content", [with_length("Content-Length: 9"), tear], Cut(answer(b"ok       ")), same=False),
    far_row("6.3", "the connection is reset within content without a length", [with_length("X-A: b"), lambda given: given.peer.recv(0), tear], Cut(chunked(b"ok", lines=[b"x-a: b"])), same=False),
    *[far_row("8", f"the connection ends {name}", [text, hang_up], (EARLY if "103" in text else b"") + LOST, same=False) for name, text in CUT_HEADS],
    far_row("8", "the connection is reset before any octet", [tear], LOST, same=False),
    # What follows an answer is nobody's.
    far_row("6.3", "octets after the content", GOOD + "EXTRA", OK, same=False),
    far_row("6.3", "a second answer after the content", GOOD + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", OK, same=False),
    far_row("6.3", "octets after the last chunk", HEAD_CHUNKED + "2\r\nok\r\n0\r\n\r\nEXTRA", chunked(b"ok"), same=False),
    far_row("6.3", "HEAD with content", GOOD, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", same=False, ask=ASK_HEAD),
    far_row("6.3", "204 with octets behind it", "HTTP/1.1 204 No Content\r\n\r\nok", b"HTTP/1.1 204 No Content\r\n\r\n", same=False),
    far_row("6.3", "304 with octets behind it", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nok", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n", same=False),
    # Answers without content.
    far_row("6.3", "HEAD with Content-Length", with_length("Content-Length: 500", ""), b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n", ask=ASK_HEAD),
    far_row("6.3", "HEAD with Transfer-Encoding", HEAD_CHUNKED, b"HTTP/1.1 200 OK\r\n\r\n", ask=ASK_HEAD),
    far_row("6.3", "HEAD without a length", with_length("X-A: b", ""), b"HTTP/1.1 200 OK\r\nx-a: b\r\n\r\n", ask=ASK_HEAD),
    far_row("6.3", "204", "HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n"),
    far_row("RFC 9110 8.6", "204 with Content-Length, which is taken away", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    far_row("6.1", "204 with Transfer-Encoding, which is taken away", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"),
    far_row("6.3", "304 with Content-Length", "HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 500\r\n\r\n"),
    far_row("6.3", "304 without a length", "HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\netag: a\r\n\r\n"),
    far_row("6.3", "205 with Content-Length 0", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", answer(b"", status=b"205 Reset Content")),
    # Informational answers.
    far_row("RFC 9110 15.2", "103 twice", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: b\r\n\r\n" + GOOD, b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: b\r\n\r\n" + OK),
    far_row("RFC 9110 15.2", "100 that nobody asked for", "HTTP/1.1 100 Continue\r\n\r\n" + GOOD, b"HTTP/1.1 100 Continue\r\n\r\n" + OK),
    far_row("RFC 9110 15.2", "102 and a status of nobody's", "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 150 Odd\r\n\r\n" + GOOD, b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 150 \r\n\r\n" + OK),
    far_row("RFC 9110 8.6", "103 with Content-Length, which is taken away", "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\n" + GOOD, EARLY + OK),
    far_row("RFC 9110 15.2", "100 before and after the content of the request", ["HTTP/1.1 100 Continue\r\n\r\n", content, GOOD], b"HTTP/1.1 100 Continue\r\n\r\n" + OK, ask=ASK_POST),
    broken("RFC 9110 15.2.2", "101 that nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: rot13\r\n\r\n"),
    far_row("RFC 9110 7.8", "101 without Upgrade", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        fault("upstream_protocol", close=True), same=False, ask=[ASK_UPGRADE, half_close], ends=True),
    far_row("RFC 9110 7.8", "101", ["HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: rot13\r\n\r\n", swap], SWITCHED + b"hELLO", same=False, ask=[ASK_UPGRADE, tunnel, half_close], ends=True),
    far_row("RFC 9110 7.8", "101 with octets at once", ["HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: rot13\r\n\r\nearly", hang_up], SWITCHED + b"early", same=False, ask=ASK_UPGRADE, ends=True),
    far_row("RFC 9110 7.8", "103, then 101", ["HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: rot13\r\n\r\n", swap], EARLY + SWITCHED + b"hELLO", same=False, ask=[ASK_UPGRADE, lambda client, received: await_answer(b"rot13\r\n\r\n")(client, received), "Hello", await_answer(b"hELLO"), half_close], ends=True),
    far_row("9.6", "an upgrade that is ignored, and the connection ends", GOOD, OK_CLOSE, same=False, ask=ASK_UPGRADE, ends=True),
    # RFC 9112 9: the connection.
    far_row("9.3", "HTTP/1.1 goes on", GOOD, OK),
    far_row("9.6", "Connection: close, and the end", [with_field("Connection: close"), hang_up], OK, same=False),
    far_row("9.6", "Connection: close, but no end", with_field("Connection: close"), OK, same=False),
    far_row("9.6", "Connection: x, CLOSE", with_field("Connection: x, CLOSE"), OK, same=False),
    far_row("9.6", "keep-alive and close", with_field("Connection: keep-alive, close"), OK, same=False),
    far_row("9.3", "HTTP/1.0", with_length("Content-Length: 2", version="1.0"), OK, same=False),
    far_row("9.3", "HTTP/1.0 with keep-alive", with_length("Content-Length: 2\r\nConnection: Keep-Alive", version="1.0"), OK),
    far_row("9.3", "HTTP/1.0 with keep-alive and close", with_length("Content-Length: 2\r\nConnection: Keep-Alive, close", version="1.0"), OK, same=False),
    far_row("9.3", "HTTP/1.0 with keep-alive and no length", [with_length("Connection: keep-alive", version="1.0"), hang_up], chunked(b"ok"), same=False),
    far_row("9.3", "an answer, and the end without a word", [GOOD, hang_up], OK, same=False),
    far_row("9.3.1", "a connection that is new is not tried again", [once(hang_up)], LOST, same=False),
    # An answer before the request's end.
    far_row("9.5", "an answer before the content, and the end", ["HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", until_gone], b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 0\r\n\r\n", same=False, ask=get("Content-Length: 1000", path="/row", host=FAR, method="POST") + "hello", ends=True),
    far_row("9.5", "an answer to content that was not read", [GOOD, content], OK, ask=ASK_POST),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "expected", "same", "ask", "ends"), CLIENT)
def test_the_proxy_as_client(far, steps, expected, same, ask, ends):
    far.retire()
    far.script = steps
    play(far.web.outbound, ask, expected, ends)
    number = b"0" if same else b"1"
    play(far.web.outbound, [get(path="/ok", host=FAR)], answer(number), False)
    assert not far.listener.errors, far.listener.errors


def test_every_cut_of_an_answer_gives_the_same(far):
    far.retire()
    text = octets("HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD_CHUNKED + "1;a=b\r\nx\r\n0\r\nX-Sum: 7\r\n\r\n")
    cuts = iter(range(1, len(text)))

    def cut(given):
        at = next(cuts)
        given.peer.sendall(text[:at])
        given.peer.sendall(text[at:])

    far.script = [cut]
    expected = EARLY + chunked(b"x", trailers=b"x-sum: 7\r\n")
    with Http1(far.web.outbound) as client:
        for at in range(1, len(text)):
            client.send(ASK)
            assert client.take(len(expected)) == expected, at
    assert next(far.numbers) == 1, "the connection was not used again"


@pytest.mark.parametrize(("ask", "expected"), [(ASK, answer(b"again")), (ASK_POST, LOST)], ids=["GET", "POST"])
def test_a_connection_that_was_closing_is_replaced_where_that_is_safe(far, ask, expected):
    """RFC 9112 9.3.1: what may be repeated is sent once more, and nothing else is."""
    far.retire()
    far.script = [once(hang_up)]
    play(far.web.outbound, [get(path="/ok", host=FAR)], answer(b"0"), False)
    play(far.web.outbound, [ask], expected, False)
