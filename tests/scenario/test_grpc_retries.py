"""Retries of gRPC calls, whose status is in the head of an answer that fails at once, by a server of grpcio."""

import time
from concurrent import futures

import grpc
import pytest

from mesh import backend, free_ports, http_route


class Flaky(grpc.GenericRpcHandler):
    """Fails so many times with a status, and says when to come back."""

    def __init__(self):
        self.calls = []
        self.fails, self.code, self.pushback = 0, grpc.StatusCode.UNAVAILABLE, None

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.call)

    def call(self, request, context):
        attempts = dict(context.invocation_metadata()).get("grpc-previous-rpc-attempts")
        self.calls.append(attempts)
        if len(self.calls) <= self.fails:
            if self.pushback:
                context.set_trailing_metadata((("grpc-retry-pushback-ms", self.pushback),))
            context.abort(self.code, "not now")
        return b"done"


@pytest.fixture(scope="module")
def shop(shared_mesh):
    mesh = shared_mesh
    mesh.flaky = Flaky()
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[mesh.flaky])
    port = free_ports()
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    server.start()
    rule = {"backendRefs": [backend("flaky")], "retry": {"codes": [503], "attempts": 2, "backoff": "1ms"}}
    mesh.offer("flaky", port, app_protocol="grpc")
    mesh.apply(http_route("flaky", "flaky", [rule]))
    mesh.web = mesh.workload("web")
    yield mesh
    server.stop(0)


def call(shop, **how):
    flaky = shop.flaky
    flaky.calls.clear()
    flaky.fails, flaky.code, flaky.pushback = 0, grpc.StatusCode.UNAVAILABLE, None
    for name, value in how.items():
        setattr(flaky, name, value)
    target = f"{shop.web.outbound[0]}:{shop.web.outbound[1]}"
    # No retries of its own, and no proxy of the environment's.
    options = [("grpc.default_authority", "flaky.shop"), ("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(target, options) as channel:
        try:
            return channel.unary_unary("/shop.Flaky/Call")(b"", timeout=20)
        except grpc.RpcError as error:
            return error.code()


def test_a_status_of_grpc_is_compared_as_that_of_http(shop):
    assert call(shop, fails=2) == b"done"
    assert shop.flaky.calls == [None, "1", "2"]
    assert call(shop, fails=3) == grpc.StatusCode.UNAVAILABLE and len(shop.flaky.calls) == 3


def test_another_status_is_the_answer(shop):
    assert call(shop, fails=1, code=grpc.StatusCode.NOT_FOUND) == grpc.StatusCode.NOT_FOUND
    assert len(shop.flaky.calls) == 1


def test_a_server_says_when_to_come_back(shop):
    start = time.monotonic()
    assert call(shop, fails=1, pushback="300") == b"done"
    assert time.monotonic() - start >= 0.3 and len(shop.flaky.calls) == 2


@pytest.mark.parametrize("never", ["-1", "later"])
def test_a_server_says_not_to_come_back(shop, never):
    assert call(shop, fails=1, pushback=never) == grpc.StatusCode.UNAVAILABLE
    assert len(shop.flaky.calls) == 1
