"""HTTPRoute: which request goes where, and what a caller sees when nowhere."""

import pytest

from mesh import backend, free_ports, http_route, service


@pytest.fixture(scope="module")
def versions(shared_mesh):
    """Service `site` with the backends `v1` and `v2`, one instance each."""
    mesh = shared_mesh
    mesh.apply(
        service("site", selector={"app": "v1"}),
        service("v1"),
        service("v2"),
    )
    mesh.v1 = mesh.instance("v1")
    mesh.v2 = mesh.instance("v2")
    mesh.web = mesh.workload("web")
    mesh.wait_endpoints(mesh.web, 1, "v1.shop")
    mesh.wait_endpoints(mesh.web, 1, "v2.shop")
    mesh.wait_endpoints(mesh.web, 1, "site.shop")
    yield mesh


@pytest.fixture
def route(versions):
    """Applies rules for `site` and takes them away again."""

    def apply(*rules):
        versions.apply(http_route("site", "site", list(rules)))

    yield apply
    versions.weft("delete", "httproute", "site", "-n", "shop")


def rule(to, *matches):
    return {"matches": list(matches), "backendRefs": [backend(to)]} if matches else {"backendRefs": [backend(to)]}


def path(value, kind="PathPrefix"):
    return {"path": {"type": kind, "value": value}}


def who(mesh, target="/", method="GET", **headers):
    with mesh.web.http1() as client:
        extra = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
        client.send(f"{method} {target} HTTP/1.1\r\nHost: site.shop\r\n{extra}\r\n")
        response = client.read(method)
    return (response.header("x-served-by") or response.fault or "").removesuffix("-1")


def test_paths_are_matched_by_element_and_the_most_specific_wins(versions, route):
    route(
        rule("v1", path("/")),
        rule("v2", path("/a")),
        rule("v1", path("/a/b/c", "Exact")),
        rule("v2", path("/re[0-9]+/x", "RegularExpression")),
    )
    expected = {
        "/": "v1", "/ab": "v1", "/a": "v2", "/a/": "v2", "/a/b": "v2", "/a?x=/z": "v2", "/a/b/c": "v1",
        "/a/b/c/d": "v2", "/re12/x": "v2", "/re12/xy": "v1", "/rex/x": "v1", "/A": "v1",
    }  # fmt: skip
    assert {target: who(versions, target) for target in expected} == expected


def test_methods_and_headers_must_all_hold(versions, route):
    route(
        rule("v1"),
        rule("v2", {"method": "DELETE"}),
        rule(
            "v2",
            {
                "headers": [
                    {"name": "X-Canary", "value": "yes"},
                    {"name": "x-user", "type": "RegularExpression", "value": "[ab].*"},
                ]
            },
        ),
    )
    assert who(versions) == "v1"
    assert who(versions, method="DELETE") == "v2"
    assert who(versions, x_canary="yes") == "v1"
    assert who(versions, x_canary="yes", x_user="anna") == "v2"
    assert who(versions, x_canary="yes", x_user="carl") == "v1"


def test_the_same_holds_over_http2(versions, route):
    route(rule("v1"), rule("v2", {**path("/two"), "headers": [{"name": "x-a", "value": "b"}]}))
    client = versions.web.http2()
    assert client.get("/two", "site.shop", [("x-a", "b")]).header("x-served-by") == "v2-1"
    assert client.get("/two", "site.shop").header("x-served-by") == "v1-1"


def test_weights_split_the_requests(versions, route):
    route({"backendRefs": [backend("v1", 90), backend("v2", 10)]})
    report = versions.load(versions.web, url="http://site.shop/", duration="6s", connections=4, rate=300).report()
    assert report["failed"] == 0, report
    share = report["split"].get("v2-1", 0) / report["total"]
    assert 0.07 <= share <= 0.13, report["split"]


def test_weight_zero_gets_nothing(versions, route):
    route({"backendRefs": [backend("v1", 0), backend("v2", 1)]})
    assert {who(versions) for _ in range(20)} == {"v2"}


def test_no_match_is_404(versions, route):
    route(rule("v2", path("/only")))
    response = versions.web.get("/other", "site.shop")
    assert (response.status, response.fault) == (404, "no_route")
    headers = [("content-type", "application/grpc"), ("te", "trailers")]
    client = versions.web.http2()
    grpc = client.read(client.request("POST", "/a.B/C", "site.shop", headers))
    assert (grpc.status, grpc.header("grpc-status"), grpc.fault) == (200, "12", "no_route")


def test_a_backend_that_is_not_there_is_500_for_its_share(versions, route):
    route({"backendRefs": [backend("missing")]})
    response = versions.web.get("/", "site.shop")
    assert (response.status, response.fault) == (500, "backend_invalid")
    listed = versions.weft("get", "httproute", "site", "-n", "shop", "-o", "json").json()
    conditions = {c["type"]: c for p in listed["status"]["parents"] for c in p["conditions"]}
    assert conditions["ResolvedRefs"]["status"] == "False"
    assert conditions["ResolvedRefs"]["reason"] == "BackendNotFound"
    assert conditions["Accepted"]["status"] == "True"
    route({"backendRefs": [backend("v1"), backend("missing")]})
    seen = {who(versions) for _ in range(60)}
    assert seen == {"v1", "backend_invalid"}


def test_a_changed_route_holds_for_open_connections(versions, route):
    route(rule("v1"))
    with versions.web.http1() as client:
        assert client.get("/", "site.shop").header("x-served-by") == "v1-1"
        route(rule("v2"))
        assert client.get("/", "site.shop").header("x-served-by") == "v2-1"


def test_the_ends_know_each_other_by_their_certificates(versions):
    """`config` and `proxies` name the identities that the load above went between."""
    entries = {entry["name"]: entry for entry in versions.proxies()}
    from mesh import field

    assert field(entries["shop/web"], "spiffe_id") == "spiffe://weft.local/ns/shop/sa/web"
    assert field(entries["shop/v1-1"], "spiffe_id") == "spiffe://weft.local/ns/shop/sa/v1"
    assert "spiffe://weft.local/ns/shop/sa/v1" in versions.weft("config", "shop/web").stdout


def test_an_external_name_is_reached_by_its_address(versions):
    outside = versions.application("outside")
    document = service("elsewhere", type="ExternalName", externalName="localhost")
    del document["spec"]["selector"]
    document["spec"]["ports"] = [{"name": "http", "port": outside.port}]
    versions.apply(document)
    response = versions.web.get("/", f"elsewhere.shop:{outside.port}")
    assert response.header("x-served-by") == "outside", response


def test_an_endpoint_is_offered_only_while_its_port_accepts(versions):
    from process import wait_until

    port = free_ports()
    versions.apply(service("late"))
    versions.workload("late", ports={"http": port})
    assert versions.web.get("/", "late.shop").fault == "no_endpoint"
    late = versions.application("late", port)
    wait_until(lambda: versions.web.get("/", "late.shop").status == 200, 5, "the port's offer")
    late.shut(port)
    wait_until(lambda: versions.web.get("/", "late.shop").fault == "no_endpoint", 5, "the port's withdrawal")
