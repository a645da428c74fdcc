"""Every file under deploy/examples/ is applied and tried, as a user would who has read it."""

from pathlib import Path

import pytest

from process import wait_until
from tlsbackend import Ca, TlsServer

EXAMPLES = Path(__file__).resolve().parents[2] / "deploy" / "examples"


@pytest.fixture(scope="module")
def shop(shared_mesh):
    """Instances for all examples, and a caller."""
    mesh = shared_mesh
    mesh.web = mesh.workload("web")
    for app, labels in (
        ("orders-query", {"app": "orders-query"}),
        ("orders-command", {"app": "orders-command"}),
        ("orders-v1", {"app": "orders", "version": "v1"}),
        ("orders-v2", {"app": "orders", "version": "v2"}),
        ("pricing-v1", {"app": "pricing", "version": "v1"}),
        ("pricing-v2", {"app": "pricing", "version": "v2"}),
    ):
        setattr(mesh, app.replace("-", "_"), mesh.instance(app, labels=labels))
    yield mesh


@pytest.fixture
def example(shop):
    """Applies an example, with words replaced, and takes it away again."""
    applied = []

    def apply(name, *endpoints, **replace):
        text = (EXAMPLES / name).read_text()
        for old, new in replace.items():
            assert old in text
            text = text.replace(old, new)
        shop.weft("validate", "-f", "-", stdin=text)
        shop.weft("apply", "--wait=20s", "-f", "-", stdin=text)
        applied.append(text)
        for host in endpoints:
            shop.wait_endpoints(shop.web, 1, host)

    yield apply
    for text in reversed(applied):
        shop.weft("delete", "-f", "-", stdin=text, check=False)


def by(shop, *arguments, url="http://orders.shop/"):
    """Who answers a curl through the caller's sidecar."""
    answer = shop.web.curl("-s", "-o", "/dev/null", "-D", "-", *arguments, url).stdout.decode()
    headers = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)
    return (headers.get("x-served-by") or headers.get("weft-fault", "")).rsplit("-", 1)[0]


def test_egress_by_tls(shop, example):
    ca = Ca(shop.directory, "system")
    server = TlsServer(shop, "payments", ca.sign("payments", "DNS:localhost"))
    bursar = shop.workload("bursar", env={"SSL_CERT_FILE": str(ca.certificate)})
    example("egress-tls.yaml", **{"api.example.com": "localhost", "targetPort: 443": f"targetPort: {server.port}"})

    def seen(caller):
        answer = caller.curl("-s", "-o", "/dev/null", "-D", "-", "http://payments.shop:443/charges").stdout.decode()
        headers = dict(line.split(": ", 1) for line in answer.splitlines() if ": " in line)
        return headers.get("seen") or headers.get("weft-fault")

    wait_until(lambda: seen(bursar) == "HTTP/1.1 localhost localhost https", 15, "the way out")
    # Another's system doesn't trust that CA. The name has an IPv6 address too, where nobody listens: which of the
    # two was tried last says why there is no answer.
    faults = {seen(shop.web) for _ in range(12)}
    assert "peer_identity" in faults and faults <= {"peer_identity", "connect_failed"}, faults


def test_resilience(shop, example):
    example("resilience.yaml", "orders.shop")
    failing = shop.orders_v1.application
    failing.trouble(status=503)
    status = ("-w", "%{http_code}", "-o", "/dev/null", "-s")
    # The first instance fails always: reads are answered by the other, writes by whoever was asked.
    assert {shop.web.curl(*status, "http://orders.shop/").stdout for _ in range(10)} == {b"200"}
    failing.trouble()
    told = shop.weft("explain", "--from", "shop/web", "http://orders.shop/").stdout
    assert "TrafficPolicy/shop/orders, XBackendTrafficPolicy/shop/orders" in told and "at most 2 after 500, 502, 503" in told


def test_health(shop, example):
    example("health.yaml", "orders.shop")
    ill = shop.orders_v1.application
    ill.trouble(status=503)

    def states():
        told = shop.weft("explain", "--from", "shop/web", "http://orders.shop/", "-o", "json").json()
        return sorted(endpoint["state"] for endpoint in told["backends"][0]["endpoints"])

    wait_until(lambda: states() == ["unhealthy", "usable"], what="the ill instance to be found")
    assert {by(shop) for _ in range(10)} == {"orders-v2"}
    ill.trouble()


def test_limits(shop, example):
    example("limits.yaml", "orders.shop")
    search = ("-w", "%{http_code}", "-o", "/dev/null", "-s", "-H", "user: anne", "http://orders.shop/search")
    # Five a second for each instance, of which another example may have had one left out.
    seen = [shop.web.curl(*search).stdout for _ in range(30)]
    assert 5 <= seen.count(b"200") < 30 and set(seen) == {b"200", b"429"}
    assert by(shop) in ("orders-v1", "orders-v2")
    table = shop.weft("get", "inboundpolicies", "-n", "shop").stdout
    assert "Enforce" in table and "True" in table


def test_global_limit(shop, example):
    # Nobody counts there, so requests pass.
    example("global-limit.yaml", "orders.shop")
    assert by(shop, "-H", "user: anne") in ("orders-v1", "orders-v2")
    answers = shop.orders_v1.metrics() + shop.orders_v2.metrics()
    assert 'weft_rate_limit_answers_total{answer="unknown"}' in answers


def test_faults(shop, example):
    example("canary.yaml", "orders.shop", "orders-v1.shop", "orders-v2.shop")
    example("faults.yaml", **{"name: orders}\n  faults": "name: orders-v1}\n  faults", "percent: 50": "percent: 0", "percent: 10,": "percent: 100,"})
    seen = {by(shop, "-H", "chaos: yes") for _ in range(20)}
    assert seen == {"orders-v2", "fault_injected"}
    assert {by(shop) for _ in range(20)} == {"orders-v1", "orders-v2"}


def test_every_example_is_tried():
    here = Path(__file__).read_text()
    assert [f.name for f in EXAMPLES.glob("*.yaml") if f'"{f.name}"' not in here] == []


def test_cqrs(shop, example):
    example("cqrs.yaml", "orders-query.shop", "orders-command.shop")
    assert by(shop) == by(shop, "-I") == "orders-query"
    assert by(shop, "-d", "item=1") == by(shop, "-X", "DELETE") == by(shop, "-X", "PUT") == "orders-command"
    told = shop.weft("explain", "--from", "shop/web", "-X", "DELETE", "http://orders.shop/list").stdout
    assert "HTTPRoute/shop/orders rule 1 (writes) -> shop/orders-command:80 100.0 %" in told
    assert "method DELETE is not GET" in told


def test_canary(shop, example):
    example("canary.yaml", "orders-v1.shop", "orders-v2.shop")
    seen = [by(shop) for _ in range(60)]
    assert 3 <= seen.count("orders-v2") <= 9 and set(seen) == {"orders-v1", "orders-v2"}, seen


def test_blue_green(shop, example):
    example("blue-green.yaml", "orders-v1.shop", "orders-v2.shop")
    assert {by(shop) for _ in range(5)} == {"orders-v1"}
    text = (EXAMPLES / "blue-green.yaml").read_text()
    swapped = text.replace("weight: 100", "weight: X").replace("weight: 0", "weight: 100").replace("weight: X", "weight: 0")
    shop.weft("apply", "--wait=20s", "-f", "-", stdin=swapped)
    assert {by(shop) for _ in range(5)} == {"orders-v2"}


def test_mirror(shop, example):
    example("mirror.yaml", "orders-v1.shop", "orders-v2.shop")

    def shadowed():
        lines = shop.web.metrics().splitlines()
        counted = [line for line in lines if line.startswith("weft_requests_total{") and 'destination_service="orders-v2"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in counted)

    before = shadowed()
    assert {by(shop) for _ in range(5)} == {"orders-v1"}
    wait_until(lambda: shadowed() == before + 5, 10, "the copies")


def test_preview(shop, example):
    example("preview.yaml", "orders-v1.shop", "orders-v2.shop")
    assert (by(shop, "-H", "x-preview: v2"), by(shop), by(shop, "-H", "x-preview: v3")) == ("orders-v2", "orders-v1", "orders-v1")
    told = shop.weft("explain", "--from", "shop/web", "-H", "x-preview: v3", "http://orders.shop/").stdout
    assert 'header x-preview is "v3" and not "v2"' in told


def test_grpc_methods(shop, example):
    example("grpc-methods.yaml", "pricing-v1.shop", "pricing-v2.shop")
    call = ("--http2-prior-knowledge", "-X", "POST", "-H", "content-type: application/grpc")

    def served(method):
        # As a gRPC client does it: HTTP/2 to the sidecar, the service's name as authority.
        address = f"http://127.0.0.1:{shop.web.outbound[1]}/shop.Pricing/{method}"
        return by(shop, "--noproxy", "*", *call, "-H", "Host: pricing.shop", url=address)

    assert (served("Quote"), served("List")) == ("pricing-v2", "pricing-v1")
    told = shop.weft("explain", "--from", "shop/web", "-X", "POST", "http://pricing.shop/shop.Pricing/Quote").stdout
    assert "GRPCRoute/shop/pricing rule 0 (quotes) -> shop/pricing-v2:80 100.0 %" in told


def test_egress(shop, example):
    outside = shop.application("outside")
    name = "localhost"
    port = outside.port
    example("egress.yaml", **{"rates.example.com": name, "targetPort: 80": f"targetPort: {port}"})
    wait_until(lambda: by(shop, url="http://rates.shop/today") == "outside", 15, "the way out")
    answer = shop.web.curl("-s", "-o", "/dev/null", "-w", "%{http_code}", "http://rates.shop/today?delay=5000")
    assert answer.stdout == b"504"


