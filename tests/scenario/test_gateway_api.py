"""Gateway API for mesh (GAMMA): each test is named after the conformance test or the feature that it stands for.

Where the upstream suite looks at status and backend, these look at Location, path and every header as well.
"""

import json
import subprocess
import sys

import pytest

from gateway import GatewayMesh, grant, numbered, ref, route
from mesh import TESTKIT
from process import wait_until

pytestmark = [pytest.mark.netns, pytest.mark.slow, pytest.mark.timeout(300)]

ECHO = "http://echo"


@pytest.fixture(scope="module")
def net(stubs):
    mesh = GatewayMesh(stubs)
    try:
        yield mesh
    finally:
        mesh.close()


@pytest.fixture
def applied(net):
    """Applies documents and takes them away again."""
    documents = {}

    def apply(*more):
        if more:
            net.apply(*more)
        for document in more:
            metadata = document["metadata"]
            documents[document["kind"], metadata["namespace"], metadata["name"]] = document

    yield apply
    for document in documents.values():
        net.remove(document)


def rule(to=None, *matches, **more):
    out = {**more}
    if to:
        out["backendRefs"] = [ref(to)] if isinstance(to, str) else to
    if matches:
        out["matches"] = list(matches)
    return out


def path(value, kind="PathPrefix", **more):
    return {"path": {"type": kind, "value": value}, **more}


def echo_route(*rules, **more):
    return route("HTTPRoute", "echo", *rules, **more)


# ---- which request goes where


def test_mesh_basic(net):
    """MeshBasic: without a route a service is reached by its name, as by its virtual IP."""
    assert net.curl(f"{ECHO}/").by in ("v1", "v2")
    address = net.virtual_ip(net.client, "echo", 4)
    assert address.startswith("240.")
    assert net.curl(f"http://{address}/").by in ("v1", "v2")


def test_mesh_traffic_split(net, applied):
    """MeshTrafficSplit: by path prefix to one version or the other."""
    applied(echo_route(rule("echo-v1", path("/v1")), rule("echo-v2", path("/v2"))))
    assert {net.curl(f"{ECHO}/v1").by for _ in range(5)} == {"v1"}
    assert {net.curl(f"{ECHO}/v2/x").by for _ in range(5)} == {"v2"}
    assert (net.curl(f"{ECHO}/v3").status, net.curl(f"{ECHO}/v3").by) == (404, "no_route")


def test_http_route_simple_same_namespace(net, applied):
    applied(echo_route(rule("echo-v1")))
    answer = net.curl(f"{ECHO}/any")
    assert (answer.status, answer.by, answer.seen["path"]) == (200, "v1", "/any")


def test_http_route_matching(net, applied):
    """HTTPRouteMatching, MeshHTTPRouteQueryParamMatching, method matching: the most specific match wins."""
    query = {"queryParams": [{"name": "animal", "value": "whale"}]}
    both = {
        "queryParams": [{"name": "animal", "value": "whale"}, {"name": "size", "type": "RegularExpression", "value": "[0-9]+"}]
    }
    applied(
        echo_route(
            rule("echo-v1"),
            rule("echo-v2", path("/v2")),
            rule("echo-v1", path("/v2/exact", "Exact")),
            rule("echo-v2", {"headers": [{"name": "version", "value": "two"}]}),
            rule("echo-v2", path("/q", **query)),
            rule("echo-v1", path("/q", **both)),
            rule("echo-v2", {"method": "DELETE"}),
        )
    )
    expected = {
        "/": "v1", "/v2": "v2", "/v2/": "v2", "/v2example": "v1", "/v2/exact": "v1", "/v2/exact/": "v2",
        "/q": "v1", "/q?animal=whale": "v2", "/q?animal=dog": "v1", "/q?animal=whale&size=12": "v1",
        "/q?animal=whale&size=big": "v2", "/q?animal=%77hale": "v2", "/q?animal=dog&animal=whale": "v1",
    }  # fmt: skip
    assert {target: net.curl(f"{ECHO}{target}").by for target in expected} == expected
    assert net.curl(f"{ECHO}/", "-H", "Version: two").by == "v2"
    assert net.curl(f"{ECHO}/", "-X", "DELETE").by == "v2"


def test_matches_across_routes(net, applied):
    """HTTPRouteMatchingAcrossRoutes: rules of several routes are one list; equal ones are the older route's."""
    older = echo_route(rule("echo-v1"), rule("echo-v1", path("/same")), name="z-older")
    younger = echo_route(rule("echo-v2", path("/more")), rule("echo-v2", path("/same")), name="a-younger")
    applied(older)
    # Creation times are seconds.
    wait_until(
        lambda: (
            net.weft("get", "httproute", "z-older", "-n", "shop", "-o", "json").json()["metadata"]["creationTimestamp"] < now()
        ),
        5,
    )
    applied(younger)
    assert [net.curl(f"{ECHO}{target}").by for target in ("/", "/more", "/same")] == ["v1", "v2", "v1"]


def now():
    import datetime

    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_named_rules_are_told(net, applied):
    """MeshHTTPRouteNamedRouteRule: a rule's name is kept, and shown by explain."""
    applied(echo_route(rule("echo-v1", path("/a"), name="first"), rule("echo-v2", name="second")))
    told = explain(net, f"{ECHO}/b")
    assert (told["route"]["rule"], told["route"]["rule_name"]) == (1, "second")
    assert net.curl(f"{ECHO}/b").by == "v2"


@pytest.mark.parametrize("how", ["single", "kept", "streams"])
def test_http_route_weight(net, applied, how):
    """HTTPRouteWeight: 70 to 30 over 500 requests, ten times, whatever the connections are like."""
    ask = {
        "single": lambda: net.count(f"{ECHO}/", 500, "-H", "Connection: close"),
        "kept": lambda: net.count(f"{ECHO}/", 500),
        "streams": lambda: net.count_streams("echo", 500, 20),
    }[how]
    applied(echo_route(rule([ref("echo-v1", 70), ref("echo-v2", 30)])))
    for _ in range(10):
        counts = ask()
        assert sum(counts.values()) == 500, counts
        assert 325 <= counts["v1"] <= 375, counts


def test_weight_zero_and_nothing_at_all(net, applied):
    applied(
        echo_route(
            rule([ref("echo-v1", 0), ref("echo-v2", 1)], path("/one")),
            rule([ref("echo-v1", 0), ref("echo-v2", 0)], path("/none")),
            rule(None, path("/empty")),
            rule("gone", path("/gone")),
            rule([ref("echo-v1", 1), ref("gone", 1)], path("/half")),
        )
    )
    assert {net.curl(f"{ECHO}/one").by for _ in range(5)} == {"v2"}
    for target in ("/none", "/empty", "/gone"):
        answer = net.curl(f"{ECHO}{target}")
        assert (answer.status, answer.by) == (500, "backend_invalid"), target
    seen = [net.curl(f"{ECHO}/half").by for _ in range(20)]
    assert 8 <= seen.count("v1") <= 12 and seen.count("v1") + seen.count("backend_invalid") == 20, seen


def test_mesh_ports(net, applied):
    """MeshPorts: a route with a port is that port's alone."""
    double = numbered("double", 8080, group="echo")
    double["spec"]["ports"].append({"name": "other", "port": 8090, "targetPort": 8080})
    applied(double)
    applied(route("HTTPRoute", "double", rule("echo-v1"), name="by-port", port=80))
    applied(route("HTTPRoute", "double", rule("echo-v2"), name="by-name", sectionName="other"))
    assert {net.curl("http://double/").by for _ in range(4)} == {"v1"}
    assert {net.curl("http://double:8090/").by for _ in range(4)} == {"v2"}


def test_mesh_frontend(net, applied):
    """MeshFrontend: a route is of the service's front; one that is called by an endpoint's address sees none."""
    applied(echo_route(rule("echo-v1", filters=[header_filter("response", set={"x-by": "route"})])))
    assert net.curl(f"{ECHO}/").header("x-by") == "route"
    for host in (net.v1, net.v2):
        answer = net.curl(f"http://{host.ip4}:8080/")
        assert (answer.by, answer.header("x-by")) == (host.name, None)


def test_mesh_frontend_hostname(net, applied):
    """MeshFrontendHostname: the address decides, not Host; a route's own host names do look at it."""
    applied(echo_route(rule("echo-v1")))
    answer = net.curl(f"{ECHO}/", "-H", "Host: elsewhere.example")
    assert (answer.by, dict(answer.seen["headers"])["host"]) == ("v1", "elsewhere.example")


def test_hostnames(net, applied):
    applied(
        echo_route(rule("echo-v1"), name="exact", hostnames=["a.example"]),
        echo_route(rule("echo-v2"), name="star", hostnames=["*.example"]),
    )

    def by(host):
        return net.curl(f"{ECHO}/", "-H", f"Host: {host}").by

    assert [by(h) for h in ("a.example", "A.example:80", "b.example", "c.b.example", "example", "echo")] == [
        "v1", "v1", "v2", "v2", "no_route", "no_route",
    ]  # fmt: skip


def test_mesh_consumer_route(net, applied):
    """MeshConsumerRoute: routes of a client's namespace are for that namespace, and come before the service's."""
    url = "http://echo.shop/"
    producer = echo_route(rule("echo-v1"), name="producer")
    consumer = route(
        "HTTPRoute", "echo", rule([ref("echo-v2", namespace="shop")]), namespace="desk", parent_namespace="shop", name="consumer"
    )
    applied(producer)
    assert (net.curl(url).by, net.curl(url, host=net.guest).by) == ("v1", "v1")
    applied(consumer)
    assert (net.curl(url).by, net.curl(url, host=net.guest).by) == ("v1", "v2")
    net.remove(consumer)
    wait_until(lambda: net.curl(url, host=net.guest).by == "v1", 5)
    net.apply(consumer)


def test_reference_grant(net, applied):
    """HTTPRouteReferenceGrant: what another namespace offers needs its word."""
    applied(numbered("ledger", 8080, namespace="bank", app="none"))
    to_bank = echo_route(rule([ref("ledger", namespace="bank")]))
    applied(to_bank)
    assert net.curl(f"{ECHO}/").by == "backend_invalid"
    applied(grant("HTTPRoute", "shop", "bank"))
    wait_until(lambda: net.curl(f"{ECHO}/").by == "no_endpoint", 5, "the grant")


def test_unknown_destinations_are_refused_where_policy_says_so(net, applied):
    """An address and a name outside the mesh, by HTTP and as opaque bytes; services go on."""
    net.control.start("outside", [TESTKIT, "serve", "--name", "outside", "--listen", "0.0.0.0:7000"])
    net.control.listens(7000)
    outside = f"http://{net.control.ip4}:7000/"
    assert net.curl(outside).by == "outside"
    policy = {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "OutboundPolicy",
        "metadata": {"name": "closed", "namespace": "shop"},
        "spec": {"targetRefs": [{"group": "", "kind": "Namespace", "name": "shop"}], "unknownDestinations": "Refuse"},
    }
    applied(policy)
    assert net.client.run("curl", "-s", "-m", "5", outside, check=False).returncode in (7, 52, 56)
    asked = net.curl(outside, "--proxy", "http://127.0.0.1:4140")
    assert (asked.status, asked.by) == (403, "destination_refused")
    told = explain(net, outside)
    assert told["destination"]["kind"] == "refused" and "OutboundPolicy/shop/closed" in told["destination"]["note"]
    assert (told["outcome"]["fault"], told["outcome"]["status"]) == ("destination_refused", 403)
    assert net.curl(f"{ECHO}/").by in ("v1", "v2")


# ---- what a rule changes


def header_filter(of, **modifier):
    lines = {
        key: value if key == "remove" else [{"name": n, "value": v} for n, v in value.items()] for key, value in modifier.items()
    }
    kind = {"request": "RequestHeaderModifier", "response": "ResponseHeaderModifier"}[of]
    return {"type": kind, kind[0].lower() + kind[1:]: lines}


def test_http_route_request_header_modifier(net, applied):
    modifier = header_filter("request", set={"x-set": "new"}, add={"x-add": "more"}, remove=["x-remove"])
    backend_only = header_filter("request", set={"x-backend": "v2"})
    applied(
        echo_route(
            rule("echo-v1", path("/rule"), filters=[modifier]),
            rule([ref("echo-v2", filters=[backend_only])], path("/backend")),
        )
    )
    sent = ["-H", "X-Set: old", "-H", "X-Add: one", "-H", "X-Remove: gone", "-H", "X-Other: kept"]
    answer = net.curl(f"{ECHO}/rule", *sent)
    assert answer.by == "v1"
    assert [tuple(h) for h in answer.seen["headers"] if h[0] == "x-add"] == [("x-add", "one"), ("x-add", "more")]
    seen = answer.seen_headers("x-add")
    assert seen == {"host": "echo", "x-set": "new", "x-other": "kept"}
    assert net.curl(f"{ECHO}/backend").seen_headers() == {"host": "echo", "x-backend": "v2"}


def test_http_route_response_header_modifier(net, applied):
    plain = {name for name, _ in net.curl(f"{ECHO}/").headers}
    modifier = header_filter("response", set={"x-served-by": "hidden"}, add={"x-add": "more"}, remove=["content-type"])
    applied(echo_route(rule("echo-v1", filters=[modifier])))
    for protocol in ("--http1.1", "--http2-prior-knowledge"):
        answer = net.curl(f"{ECHO}/", protocol)
        assert (answer.header("x-served-by"), answer.header("x-add")) == ("hidden", "more")
        names = {name for name, _ in answer.headers}
        assert {n.lower() for n in names} - {"transfer-encoding"} == {n.lower() for n in plain} - {
            "content-type",
            "transfer-encoding",
        } | {"x-add"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_http_route_redirect_status(net, applied, status):
    """HTTPRoute303Redirect, 307, 308 and the core ones."""
    redirect = {"type": "RequestRedirect", "requestRedirect": {"hostname": "example.org", "statusCode": status}}
    applied(echo_route(rule(None, filters=[redirect])))
    answer = net.curl(f"{ECHO}/a/b?c=d")
    assert (answer.status, answer.header("location")) == (status, "http://example.org/a/b?c=d")
    assert {name.lower() for name, _ in answer.headers} == {"location", "content-length"}
    h2 = net.curl(f"{ECHO}/", "--http2-prior-knowledge", "-X", "POST", "-d", "body")
    assert (h2.status, h2.header("location")) == (status, "http://example.org/")


def test_http_route_redirects(net, applied):
    """HTTPRouteRedirectPort, Scheme, Path, HostAndStatus: the exact Location."""
    prefix = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/replaced"}
    full = {"type": "ReplaceFullPath", "replaceFullPath": "/whole"}
    cases = {
        "/port": ({"port": 8083}, "http://echo:8083/port/x?q=1"),
        "/scheme": ({"scheme": "https"}, "https://echo/scheme/x?q=1"),
        "/scheme-port": ({"scheme": "https", "port": 8443}, "https://echo:8443/scheme-port/x?q=1"),
        "/default-port": ({"scheme": "https", "port": 443}, "https://echo/default-port/x?q=1"),
        "/http": ({"scheme": "http", "port": 80}, "http://echo/http/x?q=1"),
        "/host": ({"hostname": "example.org", "port": 8080}, "http://example.org:8080/host/x?q=1"),
        "/prefix": ({"path": prefix}, "http://echo/replaced/x?q=1"),
        "/full": ({"path": full}, "http://echo/whole?q=1"),
    }
    rules = [
        rule(None, path(match), filters=[{"type": "RequestRedirect", "requestRedirect": redirect}])
        for match, (redirect, _) in cases.items()
    ]
    applied(echo_route(*rules))
    seen = {match: net.curl(f"{ECHO}{match}/x?q=1") for match in cases}
    assert {m: a.header("location") for m, a in seen.items()} == {m: expect for m, (_, expect) in cases.items()}
    assert {a.status for a in seen.values()} == {302}


def test_http_route_rewrite(net, applied):
    """HTTPRouteRewritePath and Host: the exact path and host that the backend saw."""

    def rewrite(**fields):
        return [{"type": "URLRewrite", "urlRewrite": fields}]

    def prefix(value):
        return {"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": value}}

    applied(
        echo_route(
            rule("echo-v1", path("/prefix/one"), filters=rewrite(**prefix("/one"))),
            rule("echo-v1", path("/strip"), filters=rewrite(**prefix("/"))),
            rule("echo-v1", path("/full"), filters=rewrite(path={"type": "ReplaceFullPath", "replaceFullPath": "/one"})),
            rule("echo-v2", path("/host"), filters=rewrite(hostname="one.example.org")),
            rule(
                "echo-v2",
                path("/both"),
                filters=[*rewrite(hostname="two.example", **prefix("/x")), header_filter("request", set={"a": "b"})],
            ),
        )
    )
    expected = {
        "/prefix/one/two?q=%20": "/one/two?q=%20", "/prefix/one": "/one", "/strip/a/b": "/a/b", "/strip": "/", "/strip/": "/",
        "/strip?x": "/?x", "/full/a/b?c": "/one?c", "/host/a": "/host/a", "/both/y": "/x/y",
    }  # fmt: skip
    seen = {asked: net.curl(f"{ECHO}{asked}").seen for asked in expected}
    assert {asked: s["path"] + (f"?{s['query']}" if s["query"] is not None else "") for asked, s in seen.items()} == expected
    hosts = {asked: dict(s["headers"])["host"] for asked, s in seen.items()}
    assert hosts.pop("/host/a") == "one.example.org" and hosts.pop("/both/y") == "two.example"
    assert set(hosts.values()) == {"echo"}
    assert dict(seen["/both/y"]["headers"])["a"] == "b"


def test_http_route_request_mirror(net, applied):
    """HTTPRouteRequestMirror, Multiple and Percentage: copies arrive, and nobody waits for them."""

    def mirror(to, **share):
        return {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": to, "port": 80}, **share}}

    applied(
        echo_route(
            rule("echo-v1", path("/all"), filters=[mirror("echo-v2"), mirror("echo-v2")]),
            rule("echo-v1", path("/some"), filters=[mirror("echo-v2", percent=20)]),
            rule("echo-v1", path("/none"), filters=[mirror("echo-v2", percent=0)]),
            rule("echo-v1", path("/gone"), filters=[mirror("gone")]),
        )
    )
    before = net.requests(net.v2)
    body = "x" * 100_000
    answer = net.client.run("curl", "-sSi", "-m", "20", "--data-binary", "@-", f"{ECHO}/all", stdin=body)
    assert '"name":"v1' in answer.stdout and '"body_length":100000' in answer.stdout
    wait_until(lambda: net.requests(net.v2) == before + 2, 10, "both copies")
    before = net.requests(net.v2)
    assert net.count(f"{ECHO}/some", 400) == {"v1": 400}
    assert net.count(f"{ECHO}/none", 50) == {"v1": 50}
    assert net.curl(f"{ECHO}/gone").by == "v1"
    wait_until(lambda: 40 <= net.requests(net.v2) - before <= 125, 10, "a fifth of the copies")
    # A shadow that hangs holds nobody up.
    applied(echo_route(rule("echo-v1", filters=[mirror("echo-v2")])))
    quick = net.client.run("curl", "-sS", "-o", "/dev/null", "-w", "%{time_total}", f"{ECHO}/")
    assert float(quick.stdout) < 5


def test_cors(net, applied):
    """HTTPRouteCORS: preflights are answered by the proxy, other requests reach the application."""
    cors = {
        "allowOrigins": ["https://www.foo.com", "https://*.bar.com"], "allowMethods": ["GET", "OPTIONS"],
        "allowHeaders": ["x-header-1"], "exposeHeaders": ["x-header-3"], "maxAge": 3600, "allowCredentials": True,
    }  # fmt: skip
    applied(echo_route(rule("echo-v1", filters=[{"type": "CORS", "cors": cors}])))
    before = net.requests(net.v1)
    ask = ["-X", "OPTIONS", "-H", "Access-Control-Request-Method: GET", "-H", "Origin: https://a.bar.com"]
    preflight = net.curl(f"{ECHO}/", *ask)
    allowed = {name.lower(): value for name, value in preflight.headers if name.lower().startswith("access-control-")}
    assert preflight.status == 200
    assert allowed == {
        "access-control-allow-origin": "https://a.bar.com", "access-control-allow-credentials": "true",
        "access-control-expose-headers": "x-header-3", "access-control-allow-methods": "GET, OPTIONS",
        "access-control-allow-headers": "x-header-1", "access-control-max-age": "3600",
    }  # fmt: skip
    assert net.requests(net.v1) == before
    simple = net.curl(f"{ECHO}/", "-H", "Origin: https://www.foo.com")
    assert (simple.by, simple.header("access-control-allow-origin")) == ("v1", "https://www.foo.com")
    foreign = net.curl(f"{ECHO}/", "-H", "Origin: https://evil.test")
    assert (foreign.by, foreign.header("access-control-allow-origin")) == ("v1", None)


def test_http_route_timeouts(net, applied):
    """HTTPRouteTimeoutRequest and BackendTimeout: 504, and in time."""
    applied(
        echo_route(
            rule("echo-v1", path("/request"), timeouts={"request": "500ms"}),
            rule("echo-v1", path("/backend"), timeouts={"request": "10s", "backendRequest": "500ms"}),
            rule("echo-v1", path("/none"), timeouts={"request": "0s"}),
        )
    )
    for protocol in ("--http1.1", "--http2-prior-knowledge"):
        for target, fault in (("/request", "request_timeout"), ("/backend", "backend_timeout")):
            late = net.curl(f"{ECHO}{target}?delay=3000", protocol)
            assert (late.status, late.by) == (504, fault), (protocol, target)
            assert net.curl(f"{ECHO}{target}?delay=10", protocol).by == "v1"
        assert net.curl(f"{ECHO}/none?delay=700", protocol).by == "v1"
    # An answer that began can only be cut.
    cut = net.client.run("curl", "-sS", "-m", "20", f"{ECHO}/request?pieces=100&every=100", check=False)
    assert cut.returncode != 0 and "piece 1" in cut.stdout and "piece 9" not in cut.stdout


# ---- gRPC, TCP and TLS


def grpc_calls(net, target, times=1, method="Unary", metadata=()):
    """Which version answers a number of calls over one channel."""
    script = (
        "import sys,json,grpc,echo_pb2 as p,echo_pb2_grpc as g;"
        "stub=g.EchoStub(grpc.insecure_channel(sys.argv[1]));out=[]\n"
        "for n in range(int(sys.argv[2])):\n"
        "  try:\n"
        "    _,call=getattr(stub,sys.argv[3]).with_call(p.Message(text='x'),timeout=10,metadata=json.loads(sys.argv[4]))\n"
        "    head=dict(call.initial_metadata());out.append([head['served-by'],head['x-seen']])\n"
        "  except grpc.RpcError as e: out.append([e.code().name,''])\n"
        "print(json.dumps(out))"
    )
    command = (sys.executable, "-c", script, target, str(times), method, json.dumps(list(metadata)))
    return [tuple(c) for c in json.loads(net.client.run(*command, env=net.stubs).stdout)]


def test_grpc_route_weight(net, applied):
    """MeshGRPCRouteWeight: by call, not by connection."""
    applied(route("GRPCRoute", "rpc", rule([ref("rpc-v1", 70), ref("rpc-v2", 30)])))
    for _ in range(3):
        served = [by for by, _ in grpc_calls(net, "rpc:80", 200)]
        assert len(served) == 200 and 130 <= served.count("v1") <= 150, served.count("v1")


def test_grpc_route_method_and_headers(net, applied):
    """GRPCExactMethodMatching, HeaderMatching and MeshGRPCRouteRequestHeaderModifier."""
    applied(
        route(
            "GRPCRoute",
            "rpc",
            rule(
                "rpc-v1",
                {"method": {"service": service_name(), "method": "Unary"}},
                filters=[header_filter("request", set={"x-ask": "modified"})],
            ),
            rule("rpc-v2", {"method": {"service": service_name()}, "headers": [{"name": "to", "value": "two"}]}),
        )
    )
    assert grpc_calls(net, "rpc:80", metadata=[("x-ask", "sent")]) == [("v1", "modified")]
    assert grpc_calls(net, "rpc:80", method="Ended") == [("UNIMPLEMENTED", "")]


def service_name():
    import echo_pb2

    return echo_pb2.DESCRIPTOR.services_by_name["Echo"].full_name


def test_an_http_route_gives_way_to_a_grpc_route(net, applied):
    http = route("HTTPRoute", "rpc", rule("rpc-v1"), name="http")
    applied(http, route("GRPCRoute", "rpc", rule("rpc-v2"), name="grpc"))
    assert grpc_calls(net, "rpc:80", 3) == [("v2", "")] * 3
    shown = net.weft("get", "httproute", "http", "-n", "shop", "-o", "json").json()
    accepted = shown["status"]["parents"][0]["conditions"][0]
    assert (accepted["type"], accepted["status"], accepted["reason"]) == ("Accepted", "False", "Conflicted")


RAW = "import socket,sys;s=socket.create_connection((sys.argv[1],80),5);s.sendall(b'hi');s.settimeout(5);print(s.recv(100).decode())"


def raw(net, name):
    told = net.client.run(sys.executable, "-c", RAW, name, check=False)
    return told.stdout.strip() or "refused"


def test_tcp_route(net, applied):
    """TCPRoute: connections by weight."""
    assert {raw(net, "raw") for _ in range(6)} <= {"v1 hi", "v2 hi"}
    applied(route("TCPRoute", "raw", rule([ref("raw-v1", 3), ref("raw-v2", 1)])))
    seen = [raw(net, "raw") for _ in range(20)]
    assert 14 <= seen.count("v1 hi") <= 16 and seen.count("v2 hi") == 20 - seen.count("v1 hi"), seen
    applied(route("TCPRoute", "raw", rule("raw-v2")))
    assert {raw(net, "raw") for _ in range(4)} == {"v2 hi"}
    applied(route("TCPRoute", "raw", rule([ref("raw-v1", 0)])))
    assert raw(net, "raw") == "refused"


def test_tls_route(net, applied):
    """TLSRouteSimpleSameNamespace: by server name, passed through unopened."""
    for host in (net.v1, net.v2):
        key, certificate = net.directory / f"{host.name}.key", net.directory / f"{host.name}.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={host.name}", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        command = ["openssl", "s_server", "-accept", "9200", "-cert", certificate, "-key", key, "-www", "-quiet"]
        host.start("tls", command)
        host.listens(9200)
    applied(
        numbered("secret", 9200, port=443, group="echo"),
        numbered("secret-v1", 9200, port=443, app="v1"),
        numbered("secret-v2", 9200, port=443, app="v2"),
    )
    wait_until(lambda: {9200} <= net.ports_up("v1") and {9200} <= net.ports_up("v2"), 20, "port 9200")
    applied(
        route("TLSRoute", "secret", rule([ref("secret-v1", port=443)]), name="one", hostnames=["one.example"]),
        route("TLSRoute", "secret", rule([ref("secret-v2", port=443)]), name="rest", hostnames=["*.example"]),
    )

    def subject(name):
        asked = net.client.run(
            "openssl",
            "s_client",
            "-connect",
            "secret:443",
            *(["-servername", name] if name else ["-noservername"]),
            stdin="",
            check=False,
        )
        lines = [line for line in asked.stdout.splitlines() if line.startswith("subject=")]
        return lines[0].split("CN")[1].strip(" =") if lines else None

    names = ("one.example", "two.example", "example.org")
    assert [subject(n) for n in (*names, None)] == ["v1", "v2", None, None]
    told = [explain(net, "https://secret:443/", "-H", f"host: {name}") for name in names]
    assert [one["route"] and one["route"]["name"] for one in told[:2]] == ["TLSRoute/shop/one", "TLSRoute/shop/rest"]
    assert told[0]["candidates"][1]["verdict"] == "shadowed"
    assert told[2]["outcome"]["fault"] == "no_route" and "is not one.example" in told[2]["candidates"][0]["because"][0]
    assert "not TLS" in explain(net, "http://secret:443/")["candidates"][0]["because"][0]


# ---- what happens to it, told


def explain(net, url, *arguments, **options):
    command = ["explain", "--from", "shop/client", "-o", "json", *arguments, url]
    return net.weft(*command, **options).json()


def test_explain_says_what_becomes_of_a_request_and_what_became_of_one(net, applied):
    applied(echo_route(rule("echo-v1", path("/a"), name="reads"), rule([ref("echo-v2", 1), ref("gone", 1)], path("/b"))))
    told = explain(net, f"{ECHO}/a")
    assert told["destination"] == {"kind": "service", "name": "shop/echo:80"}
    assert told["route"] == {"name": "HTTPRoute/shop/route", "rule": 0, "rule_name": "reads", "match": 0}
    assert [c["verdict"] for c in told["candidates"]] == ["matches", "does not match"]
    assert told["candidates"][1]["because"] == ["path /a does not begin with the elements of /b"]
    assert told["backends"][0]["endpoints"][0]["sidecar"] == "spiffe://weft.local/ns/shop/sa/v1"
    assert explain(net, f"{ECHO}/c")["outcome"]["fault"] == "no_route"
    text = net.weft("explain", "--from", "client", "-n", "shop", f"{ECHO}/b").stdout
    assert "shop/echo-v2:80 50.0 %, shop/gone:80 50.0 %" in text and "BackendNotFound" in text
    assert "there is no Service shop/gone" in text

    trace = "0af7651916cd43dd8448eb211c80319c"
    net.curl(f"{ECHO}/a?secret", "-H", f"traceparent: 00-{trace}-b7ad6b7169203331-01")
    done = net.weft("explain", "--from", "shop/client", "--trace-id", trace, "-o", "json").json()["requests"]
    assert [(d["status"], d["route"], d["rule"], d["cluster"]) for d in done] == [
        (200, "HTTPRoute/shop/route", 0, "shop/echo-v1:80")
    ]
    unknown = net.weft("explain", "--from", "shop/client", "--trace-id", "1" * 32).stdout
    assert "no request of trace" in unknown
    nobody = net.weft("explain", "--from", "shop/nobody", ECHO, check=False)
    assert nobody.code == 1 and "no proxy shop/nobody is connected" in nobody.stderr


def test_a_change_can_be_taken_back(net, applied):
    applied(echo_route(rule("echo-v1")))
    revision = net.weft("history", "-o", "json").json()["revisions"][0]["revision"]
    net.apply(echo_route(rule("echo-v2")))
    assert net.curl(f"{ECHO}/").by == "v2"
    told = net.weft("rollback", str(revision), "--wait=20s").stdout
    assert "HTTPRoute" in told and "acknowledged by" in told
    assert net.curl(f"{ECHO}/").by == "v1"
    assert net.weft("history", "-o", "json").json()["revisions"][0]["cause"] == f"rollback to {revision}"


def test_route_status_is_shown(net, applied):
    applied(echo_route(rule("gone")))
    table = net.weft("get", "httproutes", "-n", "shop").stdout
    assert "True" in table and "False (BackendNotFound)" in table
    described = net.weft("describe", "httproute", "route", "-n", "shop").stdout
    assert "there is no Service shop/gone" in described


def test_routes_of_a_service_are_listed_together(net, applied):
    consumer = route(
        "HTTPRoute", "echo", rule([ref("echo-v2", namespace="shop")]), namespace="desk", parent_namespace="shop", name="consumer"
    )
    applied(echo_route(rule("echo-v1"), name="producer"), consumer, route("GRPCRoute", "rpc", rule("rpc-v1"), name="calls"))

    def listed(*arguments):
        rows = net.weft("get", "routes", *arguments).stdout.splitlines()[1:]
        return [tuple(row.split()[:3]) for row in rows]

    assert listed("-n", "shop", "--for", "echo") == [("desk", "consumer", "HTTPRoute"), ("shop", "producer", "HTTPRoute")]
    assert listed("--for", "shop/rpc") == [("shop", "calls", "GRPCRoute")]
    assert len(listed("-A")) == 3
    assert net.weft("get", "routes", "calls", check=False).code == 2


def test_a_change_closes_no_connection(net, applied):
    """One connection sees the old rules and then the new ones."""
    applied(echo_route(rule("echo-v1")))
    script = (
        "import http.client,sys;c=http.client.HTTPConnection('echo',80,timeout=20)\n"
        "for line in sys.stdin:\n"
        "  c.request('GET','/');print(c.sock.getsockname()[1],c.getresponse().read().decode().split('\"name\":\"')[1][:2],flush=True)\n"
    )
    command = [str(part) for part in (*net.client.prefix(), sys.executable, "-c", script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:

        def ask():
            client.stdin.write("\n")
            client.stdin.flush()
            return client.stdout.readline().split()

        port, by = ask()
        net.apply(echo_route(rule("echo-v2")))
        assert (by, ask()) == ("v1", [port, "v2"])
        client.stdin.close()


# ---- 20 mistakes, each of which explain names

BASE = {"group": "", "kind": "Service", "name": "echo"}


def whole(**spec):
    """A route with this spec."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "wrong", "namespace": "shop"},
        "spec": {"parentRefs": [BASE], "rules": [rule("echo-v1")], **spec},
    }


def moved(document, namespace):
    return {**document, "metadata": {**document["metadata"], "namespace": namespace}}


GRPC_BESIDE = route("GRPCRoute", "echo", rule("echo-v2"), name="beside")
RIGHT = echo_route(rule("echo-v1"), name="right")
MISTAKES = [
    ("a backend that isn't there", [whole(rules=[rule("gone")])], {}, "there is no Service shop/gone"),
    ("no grant", [numbered("ledger", 80, namespace="bank"), whole(rules=[rule([ref("ledger", namespace="bank")])])], {}, "no ReferenceGrant allows"),
    ("a backend of another kind", [whole(rules=[rule([{"group": "a.test", "kind": "Bucket", "name": "b"}])])], {}, "a backend can't be a a.test/Bucket"),
    ("all weights 0", [whole(rules=[rule([ref("echo-v1", 0)])])], {}, "the rule has no backend, or all weights are 0"),
    ("no backend", [whole(rules=[rule(None, path("/"))])], {}, "the rule has no backend, or all weights are 0"),
    ("one of two backends gone", [whole(rules=[rule([ref("echo-v1"), ref("gone")])])], {}, "BackendNotFound"),
    ("a rule in another's shadow", [whole(rules=[rule("echo-v1"), rule("echo-v2")])], {}, "shadowed"),
    ("the wrong host name", [whole(hostnames=["other.example"])], {}, "host echo is not other.example"),
    ("a host name with a star", [whole(hostnames=["*.shop"])], {}, "host echo is not *.shop"),
    ("the wrong path", [whole(rules=[rule("echo-v1", path("/b"))])], {}, "path /a does not begin with the elements of /b"),
    ("an exact path", [whole(rules=[rule("echo-v1", path("/a/", "Exact"))])], {}, "path /a is not /a/"),
    ("an expression that isn't whole", [whole(rules=[rule("echo-v1", path("/", "RegularExpression"))])], {}, "path /a does not match ^(?:/)$"),
    ("the wrong method", [whole(rules=[rule("echo-v1", {"method": "POST"})])], {}, "method GET is not POST"),
    ("a header that isn't sent", [whole(rules=[rule("echo-v1", {"headers": [{"name": "x-a", "value": "1"}]})])], {}, "header x-a is not there"),
    ("another header value", [whole(rules=[rule("echo-v1", {"headers": [{"name": "x-b", "value": "1"}]})])], {"-H": "x-b: 2"}, 'header x-b is "2" and not "1"'),
    ("a parameter that isn't sent", [whole(rules=[rule("echo-v1", {"queryParams": [{"name": "q", "value": "1"}]})])], {}, "query parameter q is not there"),
    ("a consumer's route in the wrong namespace", [RIGHT, moved(whole(parentRefs=[{**BASE, "namespace": "shop"}], rules=[rule([ref("echo-v2", namespace="shop")])]), "bank")], {}, "for clients of namespace bank"),
    ("a more specific kind beside it", [whole(), GRPC_BESIDE], {}, "Conflicted"),
    ("another port of the service", [numbered("two", 8080, port=81, group="echo"), whole(parentRefs=[{**BASE, "name": "two"}])], {"url": "http://two:80/a"}, "the service has no port 80"),
    ("a service that isn't there", [], {"url": "http://nobody.shop/a"}, "no service of the mesh has that name"),
]  # fmt: skip


@pytest.mark.parametrize(("documents", "how", "cause"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_explain_names_the_mistake(net, applied, documents, how, cause):
    applied(*documents)
    header = ["-H", how["-H"]] if "-H" in how else []
    told = net.weft("explain", "--from", "shop/client", *header, how.get("url", f"{ECHO}/a")).stdout
    assert cause in told, told
