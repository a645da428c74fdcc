"""Retries don't multiply over the depth of a call tree: a leaf in trouble gets little more than its callers were asked."""

import json

import pytest

from mesh import TESTKIT, backend, free_ports, http_call, http_get, http_route, service

pytestmark = pytest.mark.slow

NAMES = ["front", "middle", "back", "leaf"]


@pytest.fixture(scope="module")
def tree(shared_mesh):
    """front -> middle -> back -> leaf: each calls the next for each request, and passes the trace on."""
    mesh = shared_mesh
    mesh.apply(*(service(name) for name in NAMES))
    mesh.apps = {}
    for position, name in enumerate(NAMES):
        port, side_door = free_ports(), ("127.0.0.1", free_ports())
        proxy = mesh.workload(name, "shop", {"app": name}, {"http": port})
        command = [TESTKIT, "serve", "--name", name, "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{side_door[1]}"]
        if position + 1 < len(NAMES):
            call = f"http://{NAMES[position + 1]}.shop/"
            command += ["--call", call, "--via", f"127.0.0.1:{proxy.outbound[1]}"]
        mesh.apps[name] = mesh.program(f"app-{name}", command)
        mesh.apps[name].side_door = side_door
        mesh.wait_port_up(proxy, port)
        mesh.leaf = proxy
    mesh.web = mesh.workload("web")
    mesh.wait_endpoints(mesh.web, 1, "front.shop")
    return mesh


def retried(name):
    rule = {"backendRefs": [backend(name)], "retry": {"codes": [500, 502, 503, 504], "attempts": 3, "backoff": "1ms"}}
    return http_route(name, name, [rule])


def budget(name, percent):
    return {
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
        "kind": "XBackendTrafficPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": name}],
            "retryConstraint": {"budget": {"percent": percent}, "minRetryRate": {"count": 1000 if percent == 100 else 0}},
        },
    }


def counted(tree, name):
    return json.loads(http_get(tree.apps[name].side_door, "/count")[1])["requests"]


def trouble(tree, percent):
    status = 503 if percent else 0
    assert http_call("PUT", tree.apps["leaf"].side_door, f"/trouble/{status}/0/{percent}")[0] == 200


def load_on_the_leaf(tree, percent):
    """Requests that the leaf saw for each that was made to the front."""
    trouble(tree, percent)
    before = counted(tree, "leaf")
    report = tree.load(tree.web, url="http://front.shop/", protocol="http1", connections=8, rate=200, duration="5s").report()
    trouble(tree, 0)
    return (counted(tree, "leaf") - before) / report["total"], report


@pytest.mark.parametrize("percent", [50, 100], ids=["fails-half", "fails-always"])
def test_a_leaf_in_trouble(tree, percent):
    tree.apply(*(retried(name) for name in NAMES))
    within, report = load_on_the_leaf(tree, percent)
    failed = report["failed"] / report["total"]
    tree.apply(*(budget(name, 100) for name in NAMES))
    without, _ = load_on_the_leaf(tree, percent)
    for name in NAMES:
        tree.weft("delete", "xbackendtrafficpolicy", name, "-n", "shop")
    print(f"{percent} % fail: {within:.2f} times the requests on the leaf, {failed:.0%} failed at the front; {without:.2f} times without a budget")
    assert within <= 1.3
    assert without > within


def test_a_leaf_that_is_down(tree):
    tree.apply(*(retried(name) for name in NAMES))
    leaf = tree.apps["leaf"]
    leaf.stop()
    try:
        seen = attempts_at(tree)
        report = tree.load(tree.web, url="http://front.shop/", protocol="http1", connections=8, rate=200, duration="5s").report()
        load = (attempts_at(tree) - seen) / report["total"]
    finally:
        leaf.start()
    print(f"down: {load:.2f} attempts at the leaf for each request of the front")
    assert load <= 1.3


def attempts_at(tree):
    """What the leaf's own sidecar was asked for."""
    lines = [line for line in tree.leaf.metrics().splitlines() if line.startswith("weft_requests_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if 'direction="inbound"' in line)
