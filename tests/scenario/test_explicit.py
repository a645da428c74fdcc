"""Explicit mode: the sidecar as an ordinary HTTP proxy, without root."""

import json
import os
import subprocess
import sys

import pytest

from mesh import APPS, free_ports, service
from process import wait_until
from wire import Http1, Http2

NAMES = ["orders", "orders.shop", "orders.shop.svc", "orders.shop.svc.cluster.local", "ORDERS.Shop", "orders.shop:80", "orders:80"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_service_is_found_by_each_of_its_names(shop, name):
    response = shop.web.get("/", name)
    assert response.status == 200, response
    assert response.echoed("host") == name
    assert shop.web.http2().get("/", name).status == 200


@pytest.mark.parametrize("name", NAMES)
def test_absolute_form_means_the_same(shop, name):
    with shop.web.http1() as client:
        client.send(f"GET http://{name}/a?b=c HTTP/1.1\r\nHost: elsewhere.shop\r\n\r\n")
        response = client.read()
    assert response.status == 200
    # RFC 9112 3.2.2: the target's authority replaces Host.
    assert response.echoed("host") == name
    assert response.json()["target"] == "/a?b=c"


def test_both_instances_answer_in_turns(shop):
    seen = [shop.web.get().header("x-served-by") for _ in range(60)]
    for name in ("orders-1", "orders-2"):
        assert seen.count(name) >= 10, seen


def test_a_request_arrives_as_it_was_sent(shop):
    with shop.web.http1() as client:
        client.send(
            "PUT /a%2Fb//c/../d?x=%20&y HTTP/1.1\r\nHost: orders.shop\r\nX-Two: a\r\nX-Two: b\r\nContent-Length: 5\r\n\r\nhello"
        )
        seen = client.read().json()
    assert seen["target"] == "/a%2Fb//c/../d?x=%20&y"
    assert seen["method"] == "PUT" and seen["version"] == "HTTP/1.1" and seen["body_length"] == 5
    assert [v for k, v in seen["headers"] if k == "x-two"] in (["a", "b"], ["a, b"])


def test_http2_arrives_as_http2(shop):
    seen = shop.web.http2().get("/h2").json()
    assert seen["version"] == "HTTP/2.0" and seen["target"].endswith("/h2")


def test_hop_by_hop_headers_stop_here(shop):
    response = shop.web.get(
        "/", connection="keep-alive, X-Private", x_private="secret", keep_alive="timeout=5",
        proxy_connection="keep-alive", te="trailers, deflate", weft_hop_port="22", weft_hop_source="root", x_public="yes",
    )  # fmt: skip
    names = {name for name, _ in response.json()["headers"]}
    assert "x-public" in names
    assert not names & {"x-private", "keep-alive", "proxy-connection"}, names
    assert not [name for name in names if name.startswith("weft-hop-")], names
    assert not [name for name, _ in response.headers if name.startswith("weft-hop-")], response.headers


def test_a_thousand_requests_on_one_connection(shop):
    with shop.web.http1() as client:
        for number in range(1000):
            assert client.get(f"/{number}").json()["path"] == f"/{number}"


def test_pipelined_requests_are_answered_in_order(shop):
    with shop.web.http1() as client:
        request = "GET /{}?delay={} HTTP/1.1\r\nHost: orders.shop\r\n\r\n"
        client.send("".join(request.format(n, 50 if n == 0 else 0) for n in range(20)))
        assert [client.read().json()["path"] for _ in range(20)] == [f"/{n}" for n in range(20)]


def test_head_has_the_headers_and_no_body(shop):
    with shop.web.http1() as client:
        client.send("HEAD /bytes/1000 HTTP/1.1\r\nHost: orders.shop\r\n\r\n")
        assert client.read("HEAD").status == 200
        # Were there a body, the next response would not parse.
        assert client.get("/after").json()["path"] == "/after"


def test_http_1_0_is_answered_and_closed(shop):
    with shop.web.http1() as client:
        client.send("GET /old HTTP/1.0\r\nHost: orders.shop\r\n\r\n")
        response = client.read_head()
        assert response.status == 200
        assert response.header("transfer-encoding") is None, "HTTP/1.0 knows no chunks"
        body = json.loads(client.rest())
    assert body["path"] == "/old"


def test_http_1_0_may_be_kept_alive(shop):
    with shop.web.http1() as client:
        client.send("GET /bytes/10?status=200 HTTP/1.0\r\nHost: orders.shop\r\nConnection: keep-alive\r\n\r\n")
        response = client.read_head()
        assert response.status == 200
        assert response.header("content-length") or "close" in (response.header("connection") or "close")


def test_chunks_and_trailers_go_both_ways(shop):
    with shop.web.http1() as client:
        client.send("POST /?trailers=1 HTTP/1.1\r\nHost: orders.shop\r\nTransfer-Encoding: chunked\r\n")
        client.send("TE: trailers\r\nTrailer: x-sum\r\n\r\n5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\nX-Sum: 11\r\n\r\n")
        response = client.read()
    seen = response.json()
    assert seen["body_length"] == 11
    assert ["x-sum", "11"] in seen["trailers"]
    assert ("x-trailer", "end") in response.trailers


def test_http2_trailers_go_both_ways(shop):
    client = shop.web.http2()
    stream = client.request("POST", "/?trailers=1", headers=[("te", "trailers")], end=False)
    client.data(stream, b"hello")
    client.h2.send_headers(stream, [("x-sum", "5")], end_stream=True)
    client.flush()
    response = client.read(stream)
    assert ["x-sum", "5"] in response.json()["trailers"]
    assert ("x-trailer", "end") in response.trailers


def test_a_body_is_passed_on_piece_by_piece(shop):
    with shop.web.http1() as client:
        client.send("GET /?pieces=3&every=300 HTTP/1.1\r\nHost: orders.shop\r\n\r\n")
        assert client.read_head().status == 200
        client.read_chunk()
        client.socket.settimeout(1)
        # Each must come while the response is still going on.
        assert b"piece 0" in client.read_chunk()
        assert b"piece 1" in client.read_chunk()


def test_many_requests_at_once_on_one_http2_connection(shop):
    client = shop.web.http2()
    streams = [client.request(path=f"/{n}?delay={100 - n}") for n in range(100)]
    for number, stream in enumerate(streams):
        assert client.read(stream).json()["path"] == f"/{number}"


def test_connect_opens_a_tunnel(shop):
    with shop.web.http1() as client:
        client.send("CONNECT orders.shop:80 HTTP/1.1\r\nHost: orders.shop:80\r\n\r\n")
        assert client.read("CONNECT").status == 200
        assert client.get("/inside").json()["path"] == "/inside"


def test_a_connection_that_goes_somewhere_is_no_way_elsewhere(shop):
    """A CONNECT of HTTP/2 in a tunnel is meant for whoever is at its end; the sidecar doesn't dial for it."""
    elsewhere = shop.application("elsewhere")
    with shop.web.http1() as tunnel:
        tunnel.send("CONNECT orders.shop:80 HTTP/1.1\r\nHost: orders.shop:80\r\n\r\n")
        assert tunnel.read("CONNECT").status == 200
        client = Http2(shop.web.outbound, tunnel=tunnel.socket)
        assert client.get("/inside").json()["path"] == "/inside"
        stream = client.request("CONNECT", authority=f"127.0.0.1:{elsewhere.port}", end=False)
        client.data(stream, b"GET /dialled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        response = client.read(stream)
        assert (response.status, response.fault) == (403, "destination_refused"), response
        assert client.get("/after").json()["path"] == "/after"
    assert elsewhere.requests() == 0


def test_curl_uses_it_as_its_proxy(shop):
    assert json.loads(shop.web.curl("http://orders.shop/a").stdout)["path"] == "/a"
    assert json.loads(shop.web.curl("-p", "http://orders.shop/b").stdout)["path"] == "/b"
    answer = shop.web.curl("-T", "-", "-H", "Expect: 100-continue", "http://orders.shop/c").stdout
    assert json.loads(answer)["method"] == "PUT"


def test_what_the_mesh_does_not_know_is_passed_through(shop):
    outside = shop.application("outside")
    answer = json.loads(shop.web.curl(f"http://127.0.0.1:{outside.port}/x").stdout)
    assert answer["name"] == "outside"
    with shop.web.http1() as client:
        client.send(f"CONNECT 127.0.0.1:{outside.port} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.read("CONNECT").status == 200
        assert client.get("/y").json()["name"] == "outside"


def test_an_unknown_service_is_said_to_be_unknown(shop):
    response = shop.web.get("/", "nothing.shop")
    assert response.status in (502, 503), response
    assert response.fault == "unknown_destination"
    assert response.body.count(b"\n") <= 1 and response.body, "a one-line plain-text body"


def test_a_service_without_endpoints_is_503(shop):
    shop.apply(service("empty"))
    response = shop.web.get("/", "empty.shop")
    assert (response.status, response.fault) == (503, "no_endpoint")
    client = shop.web.http2()
    stream = client.request("POST", "/a.B/C", "empty.shop", [("content-type", "application/grpc"), ("te", "trailers")])
    grpc = client.read(stream)
    assert (grpc.status, grpc.header("grpc-status"), grpc.fault) == (200, "14", "no_endpoint")
    assert grpc.body == b""


def test_an_endpoint_without_a_sidecar_is_reached_in_plaintext(shop):
    from mesh import endpoint_slice

    plain = shop.application("plain")
    document = service("plain")
    del document["spec"]["selector"]
    shop.apply(document, endpoint_slice("plain-1", "plain", ["127.0.0.1"], plain.port))
    response = shop.web.get("/", "plain.shop")
    assert response.header("x-served-by") == "plain"


@pytest.fixture(scope="module")
def grpc_results(shop, stubs):
    port = free_ports()
    shop.program("grpc", [sys.executable, APPS / "grpc_server.py", f"127.0.0.1:{port}", "echo"], {"PYTHONPATH": str(stubs)})
    shop.offer("echo", port)
    proxy = f"127.0.0.1:{shop.web.outbound[1]}"

    def run(*arguments, **env):
        done = subprocess.run(
            [sys.executable, APPS / "grpc_client.py", *arguments],
            env={**os.environ, "PYTHONPATH": str(stubs), **env}, capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return {
        "by authority": run(proxy, "echo.shop"),
        "by http_proxy": run("echo.shop:80", http_proxy=f"http://{proxy}"),
    }


GRPC_CASES = ["unary", "large_message", "server_stream", "client_stream", "bidirectional", "deadline", "cancellation", "failure"]  # fmt: skip


@pytest.mark.parametrize("way", ["by authority", "by http_proxy"])
@pytest.mark.parametrize("case", GRPC_CASES)
def test_grpc(grpc_results, way, case):
    assert grpc_results[way][case] == "ok", grpc_results[way][case]


def test_websocket_over_http1(shop):
    port = free_ports()
    shop.program("websocket", [sys.executable, APPS / "websocket.py", "serve", "127.0.0.1", port])
    shop.offer("chat", port)
    host, outbound = shop.web.outbound
    command = [sys.executable, APPS / "websocket.py", "ask", "ws://chat.shop/room", host, str(outbound)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == "ok\n", done.stderr


def test_readiness_liveness_and_metrics_are_told(shop):
    from mesh import http_get

    assert http_get(shop.web.admin, "/live")[0] == 200
    assert http_get(shop.web.admin, "/ready")[0] == 200
    shop.web.get()

    def counted():
        text = shop.web.metrics()
        assert "weft_" in text and 'direction="outbound"' in text, text[:500]
        return True

    wait_until(counted, 5, "the metrics")


def test_the_access_log_has_a_line_for_each_request(shop):
    shop.web.get("/seen-in-the-log")
    wait_until(lambda: "/seen-in-the-log" in shop.web.process.text(), 5, "the access log")
    assert "orders" in shop.web.process.text()


def test_a_direct_connection_to_the_inbound_port_is_not_a_way_in(shop):
    """Plain HTTP at the mTLS port, without interception: it has no original destination to go to."""
    with Http1(shop.orders[0].inbound) as client:
        before = shop.orders[0].application.requests()
        client.send("GET / HTTP/1.1\r\nHost: orders.shop\r\nConnection: close\r\n\r\n")
        client.rest()
    assert shop.orders[0].application.requests() == before


def test_an_idle_sidecar_takes_little_memory(shop):
    """8.6 MiB where this was written. Without the order that the linker puts functions in it was 11.6, and 15.2 before."""
    idle = shop.workload("idle")
    assert idle.process.rss_mib() < 11
