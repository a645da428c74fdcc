"""A rate limit server that speaks Envoy's protocol (its own published messages) is asked about requests."""

import contextlib
import sys
import time
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from mesh import free_ports, service
from process import wait_until

# Last, because there are copies of other packages in it.
sys.path.append(str(Path(sys.prefix) / "envoy"))
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc  # noqa: E402

OK, OVER_LIMIT = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT


class Server(rls_pb2_grpc.RateLimitServiceServicer):
    """Lets each descriptor pass so many times."""

    def __init__(self, port):
        self.asked = []
        self.traces = []
        self.most = 3
        self.wait = 0
        self.port = port
        self.start()

    def start(self):
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        rls_pb2_grpc.add_RateLimitServiceServicer_to_server(self, self._server)
        assert self._server.add_insecure_port(f"127.0.0.1:{self.port}") == self.port
        self._server.start()

    def stop(self):
        self._server.stop(0).wait()

    def ShouldRateLimit(self, request, context):
        time.sleep(self.wait)
        self.traces += [value for key, value in context.invocation_metadata() if key == "traceparent"]
        answer = rls_pb2.RateLimitResponse(overall_code=OK)
        for descriptor in request.descriptors:
            key = (request.domain, tuple((entry.key, entry.value) for entry in descriptor.entries))
            self.asked.append(key)
            status = answer.statuses.add(code=OK)
            if self.asked.count(key) > self.most:
                status.code = answer.overall_code = OVER_LIMIT
                status.duration_until_reset.seconds = 42
        return answer


@pytest.fixture(scope="module")
def shop(shared_mesh):
    mesh = shared_mesh
    mesh.apply(service("orders"), service("limits", port=8081, app_protocol="grpc"))
    mesh.orders = mesh.instance("orders")
    mesh.server = Server(free_ports())
    mesh.limits = mesh.workload("limits", ports={"http": mesh.server.port})
    mesh.web = mesh.workload("web")
    mesh.wait_endpoints(mesh.web, 1)
    mesh.wait_port_up(mesh.limits, mesh.server.port)
    yield mesh
    mesh.server.stop()


@pytest.fixture
def server(shop):
    server = shop.server
    server.asked.clear()
    server.traces.clear()
    server.most, server.wait = 3, 0
    yield server
    shop.weft("delete", "InboundPolicy", "orders", "-n", "shop")


def limited(shop, **spec):
    header = {"type": "Header", "name": "user"}
    descriptors = [
        {"entries": [{"key": "user", "valueFrom": header}, {"key": "plan", "value": "free"}]},
        {"match": {"path": {"type": "Exact", "value": "/who"}}, "entries": [{"key": "who", "valueFrom": {"type": "Caller"}}]},
    ]
    limit = {
        "backendRef": {"name": "limits", "port": 8081},
        "domain": "shop",
        "descriptors": descriptors,
        "timeout": "2s",
        **spec,
    }
    policy = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "InboundPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "orders"}], "globalRateLimit": limit},
    }
    shop.apply(policy)


def test_the_server_decides(shop, server):
    limited(shop)
    assert [shop.web.get(user="anne").status for _ in range(5)] == [200, 200, 200, 429, 429]
    assert server.asked == [("shop", (("user", "anne"), ("plan", "free")))] * 5
    answer = shop.web.get(user="anne")
    assert (answer.fault, answer.header("retry-after")) == ("rate_limited", "42")
    # Another user is another descriptor; a request that none can be made of isn't asked about.
    assert shop.web.get(user="ben").status == 200
    asked = len(server.asked)
    assert [shop.web.get().status for _ in range(5)] == [200] * 5 and len(server.asked) == asked
    # The question belongs to the request's trace, and went through the mesh.
    assert all(len(trace.split("-")[1]) == 32 for trace in server.traces) and server.traces
    assert 'destination_service="limits"' in shop.orders.metrics()
    assert 'weft_rate_limit_answers_total{answer="over_limit"} 3' in shop.orders.metrics()


def test_descriptors_of_some_requests(shop, server):
    limited(shop)
    assert shop.web.get("/who", user="cleo").status == 200
    assert server.asked == [
        ("shop", (("user", "cleo"), ("plan", "free"))),
        ("shop", (("who", "spiffe://weft.local/ns/shop/sa/web"),)),
    ]


@contextlib.contextmanager
def down(server):
    server.stop()
    try:
        yield
    finally:
        server.start()


def test_requests_pass_without_a_server(shop, server):
    limited(shop)
    with down(server):
        assert [shop.web.get(user="dan").status for _ in range(5)] == [200] * 5
    wait_until(lambda: shop.web.get(user="eve").status and server.asked, what="the server to be asked again")


def test_requests_are_refused_without_a_server_where_asked(shop, server):
    limited(shop, failureMode="Deny")
    with down(server):
        answer = shop.web.get(user="dan")
        assert (answer.status, answer.fault) == (503, "rate_limit_unknown")
    wait_until(lambda: shop.web.get(user="eve").status == 200, what="the server to be asked again")


def test_a_server_that_hangs_is_not_waited_for(shop, server):
    limited(shop, failureMode="Deny", timeout="200ms")
    server.wait = 3
    answer = shop.web.get(user="fay")
    assert (answer.status, answer.fault) == (503, "rate_limit_unknown")
    server.wait = 0
    limited(shop, timeout="200ms")
    server.wait = 3
    assert shop.web.get(user="fay").status == 200
    server.wait = 0
