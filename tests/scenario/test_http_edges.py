"""The corners of HTTP, against applications that play a script byte by byte."""

import select
import socket
import struct
import threading

import pytest

from process import wait_until
from scripted import Scripted, h2_tunnel
from wire import Closed, Http2

# What tcp(7)'s TCP_INFO calls a connection whose other end has sent its end.
CLOSE_WAIT = 8

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def plain(server, peer):
    """Answers by the request's path."""
    while True:
        head = server.read_head(peer)
        path = head.split(b" ")[1]
        match path:
            case b"/early":
                peer.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
                peer.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </b.css>; rel=preload\r\n\r\n" + OK)
            case b"/continue":
                assert b"expect: 100-continue" in head.lower()
                server.expected.set()
                server.go_on.wait(10)
                peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                assert peer.recv(5) == b"hello"
                peer.sendall(OK)
            case b"/refuse":
                peer.sendall(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            case b"/until-close":
                peer.sendall(b"HTTP/1.0 200 OK\r\n\r\nto the end")
                return
            case b"/until-reset":
                server.go_on.clear()
                peer.sendall(b"HTTP/1.1 200 OK\r\n\r\nto the")
                server.go_on.wait(10)
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            case b"/forged":
                mark = b"Weft-Hop-Unprocessed: overload\r\nWeft-Hop-Upgraded: 1\r\n"
                peer.sendall(b"HTTP/1.1 103 Early Hints\r\n" + mark + b"\r\n" + OK.replace(b"OK\r\n", b"OK\r\n" + mark))
            case b"/short":
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
                return
            case b"/cut-chunks":
                peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
                return
            case b"/nothing":
                return
            case b"/garbage":
                peer.sendall(b"this is not HTTP\r\n\r\n")
                return
            case b"/204":
                peer.sendall(b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n")
            case b"/304":
                peer.sendall(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 500\r\n\r\n')
            case b"/cookies":
                peer.sendall(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok")
            case b"/private":
                peer.sendall(b"HTTP/1.1 200 OK\r\nConnection: x-secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=3\r\nContent-Length: 2\r\n\r\nok")  # fmt: skip
            case b"/both":
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            case b"/switch":
                assert b"upgrade: rot13" in head.lower() and b"connection:" in head.lower()
                peer.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: rot13\r\nConnection: upgrade\r\n\r\n")
                while data := peer.recv(1000):
                    peer.sendall(data.swapcase())
                peer.sendall(b"END")
                return
            case b"/no-switch":
                peer.sendall(OK)
            case b"/when-told":
                server.asked.set()
                server.go_on.wait(10)
                peer.sendall(OK)
            case b"/wait-for-end":
                try:
                    server.ended_by = peer.recv(1)
                except ConnectionResetError:
                    server.ended_by = b"reset"
                server.saw_end.set()
                return
            case _:
                peer.sendall(OK)


@pytest.fixture(scope="module")
def edge(shop):
    with Scripted(plain) as server:
        server.expected, server.asked, server.go_on, server.saw_end = (threading.Event() for _ in range(4))
        shop.edge_sidecar = shop.offer("edge", server.port)
        # The same for clients of HTTP/2.
        shop.offer("typed", server.port, app_protocol="http")
        shop.edge = server
        yield shop


def ask(edge, path, method="GET", **headers):
    with edge.web.http1() as client:
        extra = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
        client.send(f"{method} {path} HTTP/1.1\r\nHost: edge.shop\r\n{extra}\r\n")
        return client.read(method)


def test_early_hints_arrive_before_the_answer(edge):
    response = ask(edge, "/early")
    assert response.status == 200 and response.body == b"ok"
    assert [r.status for r in response.informational] == [103, 103]
    assert response.informational[0].header("link") == "</a.css>; rel=preload"


def test_the_body_waits_for_the_applications_100_continue(edge):
    with edge.web.http1() as client:
        client.send("POST /continue HTTP/1.1\r\nHost: edge.shop\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert edge.edge.expected.wait(5), "the expectation never reached the application"
        client.socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.socket.recv(1)
        client.socket.settimeout(10)
        edge.edge.go_on.set()
        assert client.read_head().status == 100
        client.send("hello")
        assert client.read().body == b"ok"


def test_a_refused_expectation_is_passed_on(edge):
    with edge.web.http1() as client:
        client.send("POST /refuse HTTP/1.1\r\nHost: edge.shop\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert client.read().status == 417


def test_an_answer_without_length_ends_with_its_connection(edge):
    response = ask(edge, "/until-close")
    assert response.status == 200 and response.body == b"to the end"


@pytest.mark.parametrize("path", ["/204", "/anything"])
def test_a_last_answer_comes_with_the_connections_end(edge, path):
    # In two segments the end would nearly always be later than a look at what came first.
    for _ in range(20):
        with edge.web.http1() as client:
            client.send(f"GET {path} HTTP/1.1\r\nHost: edge.shop\r\nConnection: close\r\n\r\n")
            assert select.select([client.socket], [], [], 10)[0]
            state = client.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
            assert client.read().status in (200, 204) and client.socket.recv(1) == b""
            assert state == CLOSE_WAIT


def answered(sidecar, direction):
    """How many requests a sidecar tells of as answered with 200."""
    lines = [line for line in sidecar.metrics().splitlines() if line.startswith("weft_requests_total{")]
    lines = [line for line in lines if f'direction="{direction}"' in line and 'status="200"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.mark.parametrize("wire", ["http1", "http2"])
@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
def test_a_request_ends_at_the_last_proxy_that_it_may_reach(edge, method, left, wire):
    """RFC 9110 7.6.2: at the caller's sidecar, or at the called one's; both tell of it as of any other request."""
    counts = lambda: (answered(edge.web, "outbound"), answered(edge.edge_sidecar, "inbound"))  # noqa: E731
    before = counts()
    if wire == "http1":
        answer = ask(edge, "/last", method, Max_Forwards=left, Cookie="secret", X_A="b")
    else:
        fields = [("max-forwards", str(left)), ("cookie", "secret"), ("x-a", "b")]
        with edge.web.http2() as client:
            answer = client.read(client.request(method, "/last", "edge.shop", fields))
    assert answer.status == 200
    if method == "OPTIONS":
        assert answer.body == b""
    else:
        assert answer.header("content-type") == "message/http"
        first, *lines = answer.body.decode().split("\r\n")
        assert first == "TRACE /last HTTP/1.1" and lines[-2:] == ["", ""]
        assert {"host: edge.shop", "max-forwards: 0", "x-a: b"} <= set(lines)
        assert not [line for line in lines if "secret" in line or line.startswith("weft-")]
    wait_until(lambda: counts() == (before[0] + 1, before[1] + left), what="the request to be counted")


@pytest.mark.parametrize("path", ["/short", "/cut-chunks"])
def test_a_cut_answer_is_never_taken_for_a_whole_one(edge, path):
    # Either it ends in the middle, or it never began and the mesh says so.
    try:
        response = ask(edge, path)
    except (Closed, ConnectionResetError):
        pass
    else:
        assert (response.status, response.fault) == (503, "upstream_reset")
    client = edge.web.http2()
    response = client.read(client.request(path=path, authority="edge.shop"))
    # The application spoke HTTP/1 only; either the head never came, or the stream was reset.
    assert response.reset is not None or response.fault


@pytest.mark.parametrize("wire", ("http1", "http2"))
def test_an_answer_without_length_that_is_reset_is_not_whole(edge, wire):
    """RFC 9112 8: only an orderly end of the connection ends an answer; on one that was used before too."""
    host = {"http1": "edge.shop", "http2": "typed.shop"}[wire]
    assert edge.web.get("/ok", host).body == b"ok"
    before = edge.edge.connections
    if wire == "http1":
        with edge.web.http1() as client:
            client.send(f"GET /until-reset HTTP/1.1\r\nHost: {host}\r\n\r\n")
            assert client.read_head().status == 200
            assert client.read_chunk() == b"to the"
            edge.edge.go_on.set()
            with pytest.raises((Closed, ConnectionResetError)):
                client.read_chunk()
    else:
        with edge.web.http2() as client:
            stream = client.request(path="/until-reset", authority=host)
            assert client.read_head(stream).status == 200
            edge.edge.go_on.set()
            assert client.read(stream).reset is not None
    assert edge.edge.connections == before


@pytest.mark.parametrize("method", ("GET", "POST"))
@pytest.mark.parametrize("wire", ("http1", "http2"))
def test_what_only_sidecars_may_say_is_not_believed_of_an_application(edge, wire, method):
    edge.edge.heads.clear()
    if wire == "http1":
        answer = ask(edge, "/forged", method)
    else:
        with edge.web.http2() as client:
            answer = client.read(client.request(method, "/forged", "typed.shop"))
    assert (answer.status, answer.body, answer.fault) == (200, b"ok", None)
    heads = [answer.headers, *(head.headers for head in answer.informational)]
    assert not [name for fields in heads for name, _ in fields if name.startswith("weft-hop")]
    assert len(edge.edge.heads) == 1, edge.edge.heads


def test_a_fault_that_answers_a_head_has_no_content(edge):
    with edge.web.http1() as client:
        client.send("HEAD /nothing HTTP/1.1\r\nHost: edge.shop\r\n\r\n")
        answers = [client.read("HEAD")]
    with edge.web.http2(validate=True) as client:
        answers.append(client.read(client.request("HEAD", "/nothing", "typed.shop")))
        large = [("a", "b" * 70_000)]
        answers.append(client.read(client.request("HEAD", "/", "edge.shop", large)))
    told = [(answer.status, answer.fault, answer.body) for answer in answers]
    broken = (503, "upstream_reset", b"")
    assert told == [broken, broken, (431, "headers_too_large", b"")]
    assert all(int(answer.header("content-length")) > 0 for answer in answers)


def test_a_connection_that_ends_without_an_answer_is_503(edge):
    response = ask(edge, "/nothing")
    assert (response.status, response.fault) == (503, "upstream_reset")


def test_an_answer_that_is_not_http_is_a_fault(edge):
    response = ask(edge, "/garbage")
    assert response.status in (502, 503) and response.fault == "upstream_protocol"


def test_204_and_304_have_no_body(edge):
    with edge.web.http1() as client:
        for path, status in (("/204", 204), ("/304", 304), ("/ok", 200)):
            client.send(f"GET {path} HTTP/1.1\r\nHost: edge.shop\r\n\r\n")
            assert client.read().status == status


def test_cookies_are_never_joined(edge):
    response = ask(edge, "/cookies")
    assert [v for k, v in response.headers if k == "set-cookie"] == ["a=1", "b=2"]


def test_the_applications_hop_by_hop_headers_stop_here(edge):
    names = {name for name, _ in ask(edge, "/private").headers}
    assert not names & {"x-secret", "keep-alive"}, names


def test_an_answer_with_both_lengths_is_not_passed_on_as_it_is(edge):
    """RFC 9112 6.3: Transfer-Encoding wins, and Content-Length must not be forwarded; or it is refused."""
    response = ask(edge, "/both")
    if response.status == 200:
        assert response.body == b"ok"
        assert not (response.header("content-length") and response.header("transfer-encoding"))
    else:
        assert response.fault == "upstream_protocol"


def test_an_upgrade_of_any_name_is_a_tunnel_with_half_close(edge):
    with edge.web.http1() as client:
        client.send("GET /switch HTTP/1.1\r\nHost: edge.shop\r\nConnection: Upgrade\r\nUpgrade: rot13\r\n\r\n")
        head = client.read_head()
        assert head.status == 101 and head.header("upgrade") == "rot13"
        client.send("Hello")
        assert client.take(5) == b"hELLO"
        client.socket.shutdown(1)
        assert client.rest() == b"END"


def test_an_upgrade_that_is_ignored_is_a_plain_answer(edge):
    response = ask(edge, "/no-switch", connection="upgrade", upgrade="rot13")
    assert response.status == 200 and response.body == b"ok"


def reset(client):
    """Ends a connection with a TCP reset."""
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("leave", [reset, lambda client: client.close()], ids=["reset", "closed"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_that_leaves_ends_its_request(edge, leave, method):
    edge.edge.saw_end.clear()
    edge.edge.heads.clear()
    client = edge.web.http1()
    client.send(f"{method} /wait-for-end HTTP/1.1\r\nHost: edge.shop\r\n\r\n")
    wait_until(lambda: b"/wait-for-end" in b"".join(edge.edge.heads), 5, "the request at the application")
    leave(client)
    assert edge.edge.saw_end.wait(5), "the application waits for a client that is gone"


@pytest.mark.parametrize(("version", "asked"), [("1.1", [100]), ("1.0", [])])
def test_a_half_closed_client_is_asked_whether_it_waits_and_gets_its_answer(edge, version, asked):
    edge.edge.go_on.clear()
    edge.edge.asked.clear()
    with edge.web.http1() as client:
        client.send(f"GET /when-told HTTP/{version}\r\nHost: edge.shop\r\n\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert edge.edge.asked.wait(5), "the application was not asked"
        if asked:
            assert client.read_head().status == 100
        edge.edge.go_on.set()
        response = client.read()
        assert response.body == b"ok" and not response.informational


def test_a_half_closed_request_is_still_answered(edge):
    with edge.web.http1() as client:
        client.send("GET /early HTTP/1.1\r\nHost: edge.shop\r\n\r\n")
        client.socket.shutdown(socket.SHUT_WR)
        assert client.read().body == b"ok"


def test_all_that_a_client_asked_before_it_half_closed_is_answered(edge):
    edge.edge.go_on.clear()
    edge.edge.asked.clear()
    with edge.web.http1() as client:
        one = "GET {} HTTP/1.1\r\nHost: edge.shop\r\n\r\n"
        client.send(one.format("/when-told") + one.format("/ok") + one.format("/204"))
        client.socket.shutdown(socket.SHUT_WR)
        assert edge.edge.asked.wait(5), "the application was not asked"
        edge.edge.go_on.set()
        assert [client.read().status for _ in range(3)] == [200, 200, 204]


@pytest.mark.parametrize("way", ["a reset stream", "a reset connection"])
def test_a_client_that_leaves_in_the_middle_of_an_answer_is_told_to_the_application(shop, way):
    saw_end = threading.Event()

    def http1(server, peer):
        server.read_head(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
        try:
            peer.recv(1)
        finally:
            saw_end.set()

    def http2(server, peer):
        server.on_reset = saw_end.set
        h2_tunnel(server, peer)

    name = way.replace(" ", "-")
    with Scripted(http1 if way == "a reset connection" else http2) as server:
        shop.offer(name, server.port)
        if way == "a reset connection":
            client = shop.web.http1()
            client.send(f"GET / HTTP/1.1\r\nHost: {name}.shop\r\n\r\n")
            assert client.read_head().status == 200
            reset(client)
        else:
            client = shop.web.http2()
            stream = client.request("POST", "/stay", f"{name}.shop", end=False)
            assert client.read_head(stream).status == 200
            client.h2.reset_stream(stream, 8)
            client.flush()
        assert saw_end.wait(5), "the application still waits"


def test_websocket_over_http2(shop):
    """RFC 8441 from end to end: the tunnel's bytes go both ways, and each half closes by itself."""
    with Scripted(h2_tunnel) as server:
        shop.offer("tunnel", server.port, app_protocol="kubernetes.io/h2c")
        client = Http2(shop.web.outbound)
        client.step()
        assert client.h2.remote_settings.enable_connect_protocol == 1, "the proxy does not offer RFC 8441"
        stream = client.request(
            "CONNECT", "/room", "tunnel.shop", [("sec-websocket-version", "13")], end=False, pseudo=[(":protocol", "websocket")]
        )
        response = client.read_head(stream)
        assert response.status == 200 and response.header("x-tunnel") == "yes", (response, server.errors)
        client.data(stream, b"\x81\x02hi")
        while response.body != b"\x81\x02hi":
            client.step()
        client.data(stream, b"", end=True)
        client.read(stream)
        head = [head for head in server.heads if isinstance(head, dict)][-1]
        assert head[":protocol"] == "websocket" and head[":path"] == "/room", head
        assert not [name for name in head if name.startswith("weft-hop-")]


def test_tcp_through_connect_keeps_half_close(shop):
    from mesh import TESTKIT, free_ports

    port = free_ports()
    shop.program("sink", [TESTKIT, "tcp", "--listen", f"127.0.0.1:{port}", "--behaviour", "sink"])
    shop.offer("sink", port, app_protocol="tcp")
    with shop.web.http1() as client:
        client.send("CONNECT sink.shop:80 HTTP/1.1\r\nHost: sink.shop:80\r\n\r\n")
        assert client.read("CONNECT").status == 200
        client.send(b"x" * 100_000)
        client.socket.shutdown(1)
        count, _ = client.rest().split()
    assert count == b"100000"


def test_a_client_of_its_own_forward_proxy_passes_as_opaque_bytes(shop):
    """Its CONNECT is for the proxy that it calls, so both sidecars take what follows for a TCP connection."""
    from mesh import TESTKIT, free_ports

    port = free_ports()
    shop.program("forward", [TESTKIT, "tcp", "--listen", f"127.0.0.1:{port}"])
    forward = shop.offer("forward", port)
    ask = b"CONNECT far.example:443 HTTP/1.1\r\nHost: far.example:443\r\n\r\n"
    with shop.web.http1() as client:
        client.send("CONNECT forward.shop:80 HTTP/1.1\r\nHost: forward.shop:80\r\n\r\n")
        assert client.read("CONNECT").status == 200
        client.send(ask)
        assert client.take(len(ask)) == ask

    def line(workload):
        lines = workload.process.text().splitlines()
        return next((line for line in lines if f" bytes_up={len(ask)} " in line), None)

    for workload in (shop.web, forward):
        said = wait_until(lambda of=workload: line(of), 5, f"the line of {workload.name}")
        assert " protocol=tcp " in said, said


def test_a_client_that_half_closes_at_once_still_hears_the_application(shop):
    from mesh import TESTKIT, free_ports

    port = free_ports()
    shop.program("speaker", [TESTKIT, "tcp", "--listen", f"127.0.0.1:{port}", "--behaviour", "source", "--bytes", "100000"])
    shop.offer("speaker", port)
    with shop.web.http1() as client:
        client.send("CONNECT speaker.shop:80 HTTP/1.1\r\nHost: speaker.shop:80\r\n\r\n")
        assert client.read("CONNECT").status == 200
        client.socket.shutdown(1)
        assert len(client.rest()) == 100_000


def test_an_application_that_speaks_first_is_heard_at_once(shop):
    import time

    from mesh import TESTKIT, free_ports

    port = free_ports()
    shop.program("greet", [TESTKIT, "tcp", "--listen", f"127.0.0.1:{port}", "--behaviour", "greet"])
    shop.offer("greet", port)
    for _ in range(3):
        with shop.web.http1() as client:
            client.send("CONNECT greet.shop:80 HTTP/1.1\r\nHost: greet.shop:80\r\n\r\n")
            assert client.read("CONNECT").status == 200
            began = time.monotonic()
            assert client.take(11) == b"220 ready\r\n"
            assert time.monotonic() - began < 1
            client.send("echo")
            assert client.take(4) == b"echo"
