"""What explain says will become of a request is what becomes of it."""

import json
import random

import grpc
import pytest

from mesh import backend, http_route, service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

PATHS = ["/", "/a", "/a/", "/a/b", "/ab", "/b", "/c/d"]
METHODS = ["GET", "POST", "DELETE"]


def any_match(rng):
    match = {}
    if rng.random() < 0.7:
        kind = rng.choice(["Exact", "PathPrefix", "RegularExpression"])
        match["path"] = {"type": kind, "value": rng.choice(["/a.*", "/[bc].*"]) if kind == "RegularExpression" else rng.choice(PATHS)}
    if rng.random() < 0.3:
        match["method"] = rng.choice(METHODS)
    if rng.random() < 0.4:
        match["headers"] = [{"name": "x-v", "value": rng.choice("12")}]
    if rng.random() < 0.3:
        match["queryParams"] = [{"name": "q", "value": rng.choice("12")}]
    return match


def any_rule(rng):
    rule = {"matches": [any_match(rng) for _ in range(rng.randint(1, 2))]}
    if rng.random() < 0.15:
        rule["filters"] = [{"type": "RequestRedirect", "requestRedirect": {"hostname": "other.example"}}]
        return rule
    names = rng.sample(["v1", "v2", "gone", "empty"], rng.randint(1, 2))
    rule["backendRefs"] = [backend(name, rng.choice([0, 1, 3])) for name in names]
    return rule


class Asking:
    """What `weft explain` asks, over one connection to the control plane: a process each would take far longer."""

    def __init__(self, data_dir):
        from weft.v1alpha1 import admin_pb2, admin_pb2_grpc

        self.messages = admin_pb2
        # A path is no authority, which grpcio would send otherwise.
        options = [("grpc.default_authority", "localhost")]
        self.stub = admin_pb2_grpc.AdminStub(grpc.insecure_channel(f"unix:{data_dir}/weft.sock", options))

    def request(self, method, url, headers):
        headers = [self.messages.RequestHeader(name=name, value=value) for name, value in headers]
        asked = self.messages.ExplainRequest(proxy="shop/web", method=method, url=url, headers=headers)
        return json.loads(self.stub.Explain(asked, timeout=10).json)

    def trace(self, trace_id):
        asked = self.messages.ExplainRequest(proxy="shop/web", trace_id=trace_id)
        return json.loads(self.stub.Explain(asked, timeout=10).json)["requests"]


def test_explain_agrees_with_what_the_proxy_did(mesh, soak, stubs):
    """Route, rule, cluster and status class of 1,000 random requests under random routes; of 100,000 with --soak."""
    asking = Asking(mesh.control_plane.data_dir)
    mesh.apply(service("site", selector={"app": "none"}), service("v1"), service("v2"), service("empty"))
    for name in ("v1", "v2"):
        mesh.instance(name)
    web = mesh.workload("web")
    for name in ("v1", "v2"):
        mesh.wait_endpoints(web, 1, f"{name}.shop")
    rng = random.Random(11)
    seen = set()
    for _ in range(1000 if soak else 10):
        routes = [http_route(name, "site", [any_rule(rng) for _ in range(rng.randint(1, 4))]) for name in "ab"[: rng.randint(1, 2)]]
        mesh.apply(*routes)
        with web.http1() as client:
            for _ in range(100):
                method, target = rng.choice(METHODS), rng.choice(PATHS) + rng.choice(["", "?q=1", "?q=2"])
                header = rng.choice(["", "1", "2"])
                trace = f"{rng.getrandbits(128) | 1:032x}"
                lines = f"traceparent: 00-{trace}-00f067aa0ba902b7-00\r\n" + (f"x-v: {header}\r\n" if header else "")
                client.send(f"{method} {target} HTTP/1.1\r\nHost: site.shop\r\n{lines}\r\n")
                status = client.read(method).status
                headers = [("x-v", header)] if header else []
                told = asking.request(method, f"http://site.shop{target}", headers)
                (done,) = asking.trace(trace)
                what = (method, target, header, told, done, routes)
                assert done["status"] == status, what
                route = told.get("route") or {}
                assert (route.get("name"), route.get("rule")) == (done["route"], done["rule"]), what
                agrees(told, done, what)
                seen.add((told["outcome"]["kind"], done["status"]))
        mesh.weft("delete", "httproute", "a", "-n", "shop")
        mesh.weft("delete", "httproute", "b", "-n", "shop", check=False)
    # Every kind of outcome came up.
    assert {("forward", 200), ("redirect", 302), ("fault", 404), ("fault", 500)} <= seen, seen


def agrees(told, done, what):
    """Status class and cluster: with several backends, those that explain shows with a share."""
    outcome = told["outcome"]
    shares = {b["cluster"]: b["fault"] for b in told.get("backends", []) if b["weight"]}
    if outcome["kind"] == "forward":
        if done["fault"] is None:
            assert done["cluster"] in shares and shares[done["cluster"]] is None and done["status"] == 200, what
        else:
            assert done["fault"] in shares.values(), what
    else:
        assert outcome["status_class"] == f"{done['status'] // 100}xx", what
        # Where no backend can serve, the one that is drawn says why.
        assert done["fault"] in {outcome.get("fault"), *shares.values()}, what
