"""When the mesh says no: for each reason the status in HTTP and in gRPC, `weft-fault`, and the same word in metrics,
span and access log."""

import contextlib
import os
import socket
import struct

import pytest

from collector import Collector, attributes, telemetry
from mesh import applying, backend, endpoint_slice, free_ports, http_route, service
from process import wait_until
from scripted import Scripted

SERVICE = [{"group": "", "kind": "Service", "name": "orders"}]


def own(kind, **spec):
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"targetRefs": SERVICE, **spec},
    }


def budget(percent, count):
    constraint = {"budget": {"percent": percent, "interval": "10s"}, "minRetryRate": {"count": count, "interval": "1s"}}
    return {
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
        "kind": "XBackendTrafficPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"targetRefs": SERVICE, "retryConstraint": constraint},
    }


def routed(to="orders", **rule):
    return http_route("orders", "orders", [{"backendRefs": [backend(to)], **rule}])


def refusing():
    target = {"group": "", "kind": "Namespace", "name": "shop"}
    document = own("OutboundPolicy", unknownDestinations="Refuse")
    document["spec"]["targetRefs"] = [target]
    return document


def gone(scripted, peer):
    """Reads a request, and closes without an answer."""
    scripted.read_head(peer)


@pytest.fixture(scope="module")
def shop(shared_mesh):
    mesh = shared_mesh
    mesh.collector = Collector("grpc")
    env = telemetry(mesh.collector.port, "grpc")
    mesh.broken = Scripted(gone)
    mesh.apply(
        service("orders"),
        service("empty"),
        service("closed", selector={"app": "nobody"}),
        endpoint_slice("closed", "closed", ["127.0.0.1"], free_ports()),
        service("broken", selector={"app": "nobody"}, app_protocol="http"),
        endpoint_slice("broken", "broken", ["127.0.0.1"], mesh.broken.port),
    )
    mesh.orders = mesh.instance("orders", env=env)
    mesh.web = mesh.workload("web", env=env)
    mesh.wait_endpoints(mesh.web, 1)
    yield mesh
    mesh.broken.close()
    mesh.collector.close()


@contextlib.contextmanager
def held(shop):
    """The application has one request in hand."""
    before = shop.orders.application.requests()
    shop.orders.application.trouble(delay=60_000)
    busy = shop.web.http1(timeout=90)
    busy.send(b"GET /held HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
    try:
        wait_until(lambda: shop.orders.application.requests() == before + 1, what="a request in hand")
        yield
    finally:
        # By a reset, which is seen at once: a client that closes is asked first whether it still waits.
        busy.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        busy.close()
        shop.orders.application.trouble()


@contextlib.contextmanager
def troubled(shop, **how):
    shop.orders.application.trouble(**how)
    try:
        yield
    finally:
        shop.orders.application.trouble()


@contextlib.contextmanager
def spent(shop):
    """The only token is taken."""
    assert shop.web.get().status in (200, 429)
    yield


def calm(_):
    return contextlib.nullcontext()


def slow(shop):
    return troubled(shop, delay=2000)


def failing(shop):
    return troubled(shop, status=503)


ONCE = {"mode": "Enforce", "min": 1, "max": 1}
ASKED = {
    "backendRef": {"name": "empty", "port": 80},
    "domain": "d",
    "failureMode": "Deny",
    "descriptors": [{"entries": [{"key": "a", "value": "b"}]}],
}
TOKENS = [{"name": "one", "requests": 1, "interval": "1h"}]
ONE = {"maxRequests": 1, "maxPendingRequests": 0}
QUEUE = {"maxRequests": 1, "maxPendingRequests": 9, "queueTimeout": "100ms"}
NEVER = {"path": {"type": "Exact", "value": "/never"}}
LONG = {"grpc-timeout": "100m"}

HURRIED = http_route(
    "orders", "orders",
    [
        {"matches": [{"path": {"type": "Exact", "value": "/held"}}], "backendRefs": [backend("orders")]},
        {"backendRefs": [backend("orders")], "timeouts": {"request": "100ms"}},
    ],
)  # fmt: skip

# Reason, what it takes, HTTP status, gRPC status, documents, and how else the request is special.
ROWS = {
    "no route matches": ("no_route", calm, 404, 12, [routed(matches=[NEVER])], {}),
    "a backend is missing": ("backend_invalid", calm, 500, 14, [routed(to="nowhere")], {}),
    "no endpoint": ("no_endpoint", calm, 503, 14, [], {"host": "empty.shop"}),
    "nobody listens": ("connect_failed", calm, 503, 14, [], {"host": "closed.shop"}),
    "the connection breaks": ("upstream_reset", calm, 503, 14, [], {"host": "broken.shop", "method": "POST", "grpc": False}),
    "the request's time": ("request_timeout", slow, 504, 4, [routed(timeouts={"request": "100ms"})], {}),
    "the attempt's time": ("backend_timeout", slow, 504, 4, [routed(timeouts={"backendRequest": "100ms"})], {}),
    "the gRPC client's time": ("request_timeout", slow, None, 4, [], {"headers": LONG}),
    "the budget for retries": (
        "retry_budget_spent", failing, 503, 14, [routed(retry={"codes": [503]}), budget(0, 0)], {},
    ),
    "requests on their way": ("circuit_open", held, 503, 14, [own("TrafficPolicy", circuitBreaker=ONE)], {}),
    "time in the queue": ("circuit_open", held, 503, 14, [own("TrafficPolicy", circuitBreaker=QUEUE)], {}),
    "a rate limit": (
        "rate_limited", spent, 429, 8, [own("InboundPolicy", rateLimits=TOKENS)], {"retry_after": range(3000, 3601)},
    ),
    "no rate limit server": ("rate_limit_unknown", calm, 503, 14, [own("InboundPolicy", globalRateLimit=ASKED)], {}),
    "the application is full": (
        "overload", held, 503, 14,
        [own("InboundPolicy", concurrency={**ONCE, "maxPendingRequests": 0})], {"retry_after": range(1, 2)},
    ),
    "time before the application": (
        "overload", held, 503, 14,
        [own("InboundPolicy", concurrency={**ONCE, "queueTimeout": "100ms"})], {"retry_after": range(1, 2)},
    ),
    "a deadline before the application": (
        "request_timeout", held, 504, 4,
        [own("InboundPolicy", concurrency={**ONCE, "queueTimeout": "10s"}), HURRIED], {},
    ),
    "a fault on purpose": (
        "fault_injected", calm, 418, None, [own("FaultInjectionPolicy", faults=[{"abort": {"httpStatus": 418}}])], {},
    ),
    "a fault of gRPC on purpose": (
        "fault_injected", calm, None, 9, [own("FaultInjectionPolicy", faults=[{"abort": {"grpcStatus": 9}}])], {},
    ),
    "what is no service": ("destination_refused", calm, 403, 7, [refusing()], {"host": "elsewhere.test"}),
}  # fmt: skip


def cases():
    for name, row in ROWS.items():
        for wire, status in (("http", row[2]), ("grpc", row[3])):
            if status is not None and row[5].get(wire, True):
                yield pytest.param(row, wire, id=f"{name} ({wire})")


@pytest.fixture
def applied(shop):
    with applying(shop) as apply:
        yield apply
    # What was left out comes back by itself; no row must wait for it.
    wait_until(lambda: shop.web.get().status == 200, what="all to be as before")


def ask(shop, wire, special, trace):
    """A request of this trace."""
    host, method = special.get("host", "orders.shop"), special.get("method", "GET")
    headers = {"traceparent": f"00-{trace}-{'1' * 16}-01", **special.get("headers", {})}
    if wire == "http":
        with shop.web.http1() as connection:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            connection.send(f"{method} / HTTP/1.1\r\nhost: {host}\r\n{lines}content-length: 0\r\n\r\n".encode())
            return connection.read(method)
    grpc = [("content-type", "application/grpc"), ("te", "trailers"), *headers.items()]
    with shop.web.http2() as connection:
        return connection.read(connection.request("POST", "/shop.Orders/List", host, grpc))


def counted(shop, fault):
    lines = shop.web.metrics().splitlines()
    lines = [line for line in lines if line.startswith("weft_requests_total{") and f'fault="{fault}"' in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'direction="outbound"' in line)


@pytest.mark.parametrize(("row", "wire"), cases())
def test_the_mesh_says_no(shop, applied, row, wire):
    fault, prepared, status, grpc_status, documents, special = row
    applied(*documents)
    trace = os.urandom(16).hex()
    with prepared(shop):
        before = counted(shop, fault)
        answer = ask(shop, wire, special, trace)
        # A request is counted once its answer is out, which its client may see first.
        wait_until(lambda: counted(shop, fault) > before, what="the request to be counted")
        assert counted(shop, fault) == before + 1
    assert answer.fault == fault
    if wire == "http":
        assert answer.status == status
        assert answer.body.startswith(f"weft: {fault}: ".encode()) and answer.body.count(b"\n") == 1
    else:
        assert (answer.status, answer.header("grpc-status"), answer.body) == (200, str(grpc_status), b"")
        assert answer.header("grpc-message").startswith(f"weft: {fault}: ")
    retry_after = answer.header("retry-after")
    assert (int(retry_after) in special["retry_after"]) if "retry_after" in special else retry_after is None

    def span():
        seen = [attributes(span) for _, span in shop.collector.of(trace)]
        return [known for known in seen if known.get("weft.fault") == fault]

    wait_until(span, 10, "a span with the fault")
    lines = lambda: [line for line in shop.web.process.text().splitlines() if trace in line]  # noqa: E731
    wait_until(lambda: any(f"fault={fault}" in line for line in lines()), 10, "the fault in the access log")


GRPC_UNREAD = {
    "malformed_request": (13, "u@orders.shop", []),
    "headers_too_large": (8, "orders.shop", [("a", "b" * 70_000)]),
}


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("fault", GRPC_UNREAD)
def test_a_call_that_nobody_could_read_is_told_of_as_a_call(shop, fault, last):
    status, authority, fields = GRPC_UNREAD[fault]
    grpc = [("content-type", "application/grpc"), ("te", "trailers")]
    before = counted(shop, fault)
    with shop.web.http2() as connection:
        headers = [*fields, *grpc] if last else [*grpc, *fields]
        answer = connection.read(connection.request("POST", "/shop.Orders/List", authority, headers))
        # Nothing that was in flight suffers.
        assert connection.read(connection.request()).status == 200
    assert (answer.status, answer.header("grpc-status"), answer.body, answer.fault) == (200, str(status), b"", fault)
    assert answer.header("grpc-message").startswith(f"weft: {fault}: ")
    wait_until(lambda: counted(shop, fault) == before + 1, what="the call to be counted")
    counts = [line for line in shop.web.metrics().splitlines() if line.startswith("weft_requests_total{")]
    assert any(f'grpc_status="{status}",fault="{fault}"' in line for line in counts), counts


def test_connections_on_their_way(shop, applied):
    """A connection of opaque bytes beyond the limit is reset, and counted."""
    applied(own("TrafficPolicy", circuitBreaker={"maxConnections": 1}))

    def refused():
        lines = [line for line in shop.web.metrics().splitlines() if line.startswith("weft_tcp_connections_total{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'fault="circuit_open"' in line)

    connect = b"CONNECT orders.shop:80 HTTP/1.1\r\nhost: orders.shop:80\r\n\r\n\x00opaque"
    with shop.web.http1() as first, shop.web.http1() as second:
        first.send(connect)
        wait_until(lambda: shop.orders.application.connections() > 0, what="a connection")
        open_before = refused()
        second.send(connect)
        wait_until(lambda: refused() == open_before + 1, what="a connection that was refused")


UNREAD = {
    "malformed_request": (400, b"GET / HTTP/1.1\r\nhost: orders.shop\r\nno colon\r\n\r\n"),
    "target_too_large": (414, b"GET /" + b"b" * 200_000 + b" HTTP/1.1\r\nhost: orders.shop\r\n\r\n"),
    "headers_too_large": (431, b"GET / HTTP/1.1\r\nhost: orders.shop\r\na: " + b"b" * 200_000 + b"\r\n\r\n"),
}


@pytest.mark.parametrize("fault", UNREAD)
def test_a_request_that_nobody_could_read_is_told_of_too(shop, fault):
    status, octets = UNREAD[fault]
    before = counted(shop, fault)
    with shop.web.http1() as connection:
        connection.send(octets)
        answer = connection.read()
    assert (answer.status, answer.fault) == (status, fault)
    assert answer.body.startswith(f"weft: {fault}: ".encode()) and answer.body.count(b"\n") == 1
    wait_until(lambda: counted(shop, fault) == before + 1, what="the request to be counted")

    def span():
        seen = [attributes(span) for _, span in shop.collector.spans]
        return [known for known in seen if known.get("weft.fault") == fault and known["network.protocol.version"] == "1.1"]

    wait_until(span, 10, "a span with the fault")
    assert {known["http.response.status_code"] for known in span()} == {status}
    text = f"fault={fault} method=_OTHER "
    lines = lambda: [line for line in shop.web.process.text().splitlines() if text in line]  # noqa: E731
    wait_until(lines, 10, "the fault in the access log")
    assert f"status={status}" in lines()[0], lines()
