"""What explain says will become of a request is what becomes of it."""

import random

import pytest

from mesh import backend, http_route, service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

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


def test_explain_agrees_with_what_the_proxy_did(mesh, soak):
    """Route, rule, cluster and status class of random requests under random routes; 5,000 with --soak."""
    mesh.apply(service("site", selector={"app": "none"}), service("v1"), service("v2"), service("empty"))
    for name in ("v1", "v2"):
        mesh.instance(name)
    web = mesh.workload("web")
    for name in ("v1", "v2"):
        mesh.wait_endpoints(web, 1, f"{name}.shop")
    rng = random.Random(11)
    seen = set()
    for _ in range(50 if soak else 6):
        routes = [http_route(name, "site", [any_rule(rng) for _ in range(rng.randint(1, 4))]) for name in "ab"[: rng.randint(1, 2)]]
        mesh.apply(*routes)
        with web.http1() as client:
            for _ in range(100 if soak else 40):
                method, target = rng.choice(METHODS), rng.choice(PATHS) + rng.choice(["", "?q=1", "?q=2"])
                header = rng.choice(["", "1", "2"])
                trace = f"{rng.getrandbits(128) | 1:032x}"
                lines = f"traceparent: 00-{trace}-00f067aa0ba902b7-00\r\n" + (f"x-v: {header}\r\n" if header else "")
                client.send(f"{method} {target} HTTP/1.1\r\nHost: site.shop\r\n{lines}\r\n")
                status = client.read(method).status
                arguments = ["-H", f"x-v: {header}"] if header else []
                told = mesh.weft(
                    "explain", "--from", "shop/web", "-X", method, "-o", "json", *arguments, f"http://site.shop{target}"
                ).json()
                (done,) = mesh.weft("explain", "--from", "shop/web", "--trace-id", trace, "-o", "json").json()["requests"]
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
    if outcome["kind"] != "forward":
        assert (outcome["status"], outcome.get("fault")) == (done["status"], done["fault"]), what
        return
    shares = {b["cluster"]: b["fault"] for b in told["backends"] if b["weight"]}
    if done["fault"] is None:
        assert done["cluster"] in shares and shares[done["cluster"]] is None and done["status"] == 200, what
    else:
        assert done["fault"] in shares.values(), what
