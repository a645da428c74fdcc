"""What a workload takes: rate limits, and how much its application can do at once; and who finds out that an
endpoint is ill."""

import itertools
import time

import pytest

from mesh import applying, backend, http_route, service
from process import wait_until

INSTANCES = 2


@pytest.fixture(scope="module")
def shop(shared_mesh):
    mesh = shared_mesh
    mesh.apply(service("orders"))
    mesh.orders = [mesh.instance("orders", n) for n in range(INSTANCES)]
    mesh.web = mesh.workload("web")
    mesh.batch = mesh.workload("batch")
    for caller in (mesh.web, mesh.batch):
        mesh.wait_endpoints(caller, INSTANCES)
    return mesh


@pytest.fixture
def applied(shop):
    with applying(shop) as apply:
        yield apply
    for instance in shop.orders:
        instance.application.trouble()


def policy(kind, of="orders", **spec):
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": of, "namespace": "shop"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": of}], **spec},
    }


NAMES = itertools.count()


def limit(requests=1, interval="1h", burst=10, **more):
    """Tokens that come so seldom that the burst is all there is. Of another name each time: a limit that goes and
    comes again is the same."""
    return {"name": f"few-{next(NAMES)}", "requests": requests, "interval": interval, "burst": burst, **more}


def limited(*limits):
    """The instances take turns, so that each bucket's part is certain."""
    turns = policy("TrafficPolicy", loadBalancing={"algorithm": "RoundRobin"})
    return policy("InboundPolicy", rateLimits=list(limits)), turns


def statuses(caller, count, path="/", **headers):
    got = [caller.get(path, **headers).status for _ in range(count)]
    return {status: got.count(status) for status in got}


# ---- rate limits


def test_a_rate_limit_is_for_each_instance(shop, applied):
    applied(*limited(limit()))
    assert statuses(shop.web, 40) == {200: 20, 429: 20}
    answer = shop.web.get()
    assert (answer.status, answer.fault) == (429, "rate_limited")
    # One token an hour.
    assert 3000 < int(answer.header("retry-after")) <= 3600
    # Nobody is left out for it, and nothing was sent twice.
    assert sum(instance.application.requests() for instance in shop.orders) >= 20
    assert 'fault="rate_limited"' in shop.orders[0].metrics()


def test_each_caller_has_a_bucket(shop, applied):
    applied(*limited(limit(key=[{"type": "Caller"}])))
    assert statuses(shop.web, 30) == {200: 20, 429: 10}
    assert statuses(shop.batch, 30) == {200: 20, 429: 10}


def test_some_callers_alone(shop, applied):
    applied(*limited(limit(callers=[{"namespace": "shop", "serviceAccount": "batch"}])))
    assert statuses(shop.batch, 30) == {200: 20, 429: 10}
    assert statuses(shop.web, 30) == {200: 30}


def test_each_value_of_a_header_has_a_bucket(shop, applied):
    applied(*limited(limit(key=[{"type": "Header", "name": "User"}])))
    assert statuses(shop.web, 30, user="anne") == {200: 20, 429: 10}
    assert statuses(shop.web, 30, user="ben") == {200: 20, 429: 10}
    assert statuses(shop.web, 30) == {200: 30}


def test_one_route_alone(shop, applied):
    rules = [
        {"matches": [{"path": {"type": "PathPrefix", "value": "/reports"}}], "backendRefs": [backend("orders")]},
    ]
    reports = http_route("reports", "orders", rules)
    rest = http_route("rest", "orders", [{"backendRefs": [backend("orders")]}])
    applied(reports, rest, *limited(limit(routes=[{"name": "reports"}])))
    assert statuses(shop.web, 30, "/reports/1") == {200: 20, 429: 10}
    assert statuses(shop.web, 30) == {200: 30}
    # The called side knows the route too.
    assert 'route="HTTPRoute/shop/reports"' in shop.orders[0].metrics()


def test_some_paths_alone(shop, applied):
    match = {"path": {"type": "Exact", "value": "/search"}, "method": "GET"}
    applied(*limited(limit(match=match)))
    assert statuses(shop.web, 30, "/search") == {200: 20, 429: 10}
    assert statuses(shop.web, 30, "/search/1") == {200: 30}


def test_tokens_come_back(shop, applied):
    applied(*limited(limit(requests=20, interval="1s", burst=1)))
    start, served = time.monotonic(), 0
    while time.monotonic() < start + 2:
        served += statuses(shop.web, 1).get(200, 0)
    # Twenty a second of each instance, and the first ones.
    assert served <= 20 * INSTANCES * (time.monotonic() - start) + INSTANCES
    assert served > 20


def test_a_limit_that_goes_is_gone(shop, applied):
    few = limit(burst=1)
    applied(*limited(few))
    assert statuses(shop.web, 10)[429] == 8
    # A push that doesn't change it fills no bucket; one that does begins anew.
    applied(*limited(few, limit(burst=100)))
    assert statuses(shop.web, 10) == {429: 10}
    applied(*limited({**few, "burst": 2}))
    assert statuses(shop.web, 10)[429] == 6


# ---- how much at once


@pytest.fixture
def busy(shop):
    """A service of one instance that works on 8 things at once, 20 ms each: 400 a second."""
    application = shop.application("busy", flags=["--workers", 8, "--work", "20ms"])
    shop.apply(service("busy"))
    workload = shop.workload("busy", ports={"http": application.port})
    workload.application = application
    shop.wait_endpoints(shop.web, 1, "busy.shop")
    shop.wait_endpoints(shop.batch, 1, "busy.shop")
    yield workload
    shop.weft("delete", "service", "busy", "-n", "shop")
    workload.process.stop()
    application.process.stop()


def concurrency(workload, name):
    lines = [line for line in workload.metrics().splitlines() if line.startswith(f"weft_concurrency_{name}{{")]
    return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0


def loads(shop, important, others):
    """Requests a second of both callers for some seconds, and what became of them."""
    url = "http://busy.shop/"
    running = [
        shop.load(shop.web, url=url, rate=important, connections=32, duration="8s", settle="3s"),
        shop.load(shop.batch, url=url, rate=others, connections=256, duration="8s", settle="3s"),
    ]
    return [one.report() for one in running]


def test_overload_by_three(shop, applied, busy):
    """Capacity 400 a second, 1,200 come, 40 of them important."""
    unloaded, _ = loads(shop, 40, 1)
    important = {"priority": "High", "callers": [{"namespace": "shop", "serviceAccount": "web"}]}
    applied(policy("InboundPolicy", "busy", concurrency={"mode": "Enforce"}, priorities=[important]))
    below = loads(shop, 40, 280)
    assert sum(one["failed"] for one in below) == 0, below
    high, others = loads(shop, 40, 1160)
    goodput = (high["ok"] + others["ok"]) / 8 / 400
    p99 = [one["latency_microseconds"]["p99"] / 1000 for one in (unloaded, high)]
    print(f"\ngoodput {goodput:.2f} of capacity; p99 of the important {p99[1]:.1f} ms, unloaded {p99[0]:.1f} ms;"
          f" of the others {others['ok']} of {others['total']} were served")  # fmt: skip
    assert high["failed"] <= high["total"] / 100, high
    assert others["faults"].keys() == {"overload"}, others
    assert goodput > 0.8, (high, others)
    assert concurrency(busy, "limit") >= 4


def test_by_default_it_is_observed(shop, busy):
    # As many at once as is certain to be too many.
    load = shop.load(shop.batch, url="http://busy.shop/", connections=64, duration="4s")
    wait_until(lambda: concurrency(busy, "exceeded_total") > 0, what="requests beyond the limit")
    report = load.report()
    assert report["failed"] == 0, report
    assert concurrency(busy, "limit") > 0


def test_overload_says_when_to_come_back(shop, applied, busy):
    spec = {"mode": "Enforce", "min": 1, "max": 1, "maxPendingRequests": 0}
    applied(policy("InboundPolicy", "busy", concurrency=spec))
    load = shop.load(shop.batch, url="http://busy.shop/", connections=4, duration="30s")
    try:
        seen = []

        def refused():
            seen.append(shop.web.get(host="busy.shop"))
            return seen[-1].status == 503

        wait_until(refused, what="a refusal")
        assert (seen[-1].fault, seen[-1].header("retry-after")) == ("overload", "1")
    finally:
        load.stop()


def test_whoever_waits_is_in_the_queue_once(shop, applied, busy):
    # So that there are connections to the application which are free.
    shop.load(shop.batch, url="http://busy.shop/", connections=8, duration="1s").report()
    # A queue that stands allows a 25th of the time.
    spec = {"mode": "Enforce", "min": 1, "max": 1, "maxPendingRequests": 5, "queueTimeout": "30s"}
    important = {"priority": "High", "callers": [{"namespace": "shop", "serviceAccount": "web"}]}
    applied(policy("InboundPolicy", "busy", concurrency=spec, priorities=[important]))
    load = shop.load(shop.batch, url="http://busy.shop/", connections=4, duration="30s")
    try:
        # One is served, at most four wait, so nobody has to make room.
        assert {shop.web.get(host="busy.shop").status for _ in range(40)} == {200}
    finally:
        load.stop()
    assert 'fault="overload"' not in busy.metrics()


# ---- health checks


def checked(**check):
    thresholds = {"interval": "100ms", "timeout": "1s", "unhealthyThreshold": 2, "healthyThreshold": 2}
    outliers = {"consecutiveFailures": 0}
    return policy("TrafficPolicy", outlierDetection=outliers, healthCheck={**thresholds, **check})


def served_by(shop, count=20):
    """Which instances answer."""
    return {shop.web.get().header("x-served-by") for _ in range(count)}


def states(shop):
    explained = shop.weft("explain", "--from", "shop/web", "http://orders.shop/", "-o", "json").json()
    return sorted(endpoint["state"] for endpoint in explained["backends"][0]["endpoints"])


@pytest.mark.parametrize(
    "check",
    [
        {"type": "HTTP", "http": {"path": "/well"}},
        {"type": "GRPC", "grpc": {"service": "shop.Orders"}},
    ],
    ids=["http", "grpc"],
)
def test_who_is_ill_gets_nothing(shop, applied, check):
    applied(checked(**check))
    first = shop.orders[0].application
    wait_until(lambda: 'weft_health_checks_total{result="passed"}' in shop.web.metrics(), what="checks")
    assert served_by(shop) == {"orders-0", "orders-1"}
    first.trouble(status=503)
    wait_until(lambda: states(shop) == ["unhealthy", "usable"], what="the ill one to be found")
    assert served_by(shop) == {"orders-1"}
    assert "unhealthy" in shop.weft("explain", "--from", "shop/web", "http://orders.shop/").stdout
    first.trouble()
    wait_until(lambda: states(shop) == ["usable", "usable"], what="it to be well again")
    assert served_by(shop) == {"orders-0", "orders-1"}


def test_all_ill_is_nobody_ill(shop, applied):
    applied(checked(type="HTTP", http={"path": "/well", "expectedStatuses": [418]}))
    wait_until(lambda: states(shop) == ["unhealthy", "unhealthy"], what="both to be found ill")
    assert served_by(shop) == {"orders-0", "orders-1"}


def test_a_check_without_an_answer_has_failed(shop, applied):
    applied(checked(type="HTTP", timeout="200ms"))
    shop.orders[1].application.trouble(delay=600)
    wait_until(lambda: states(shop) == ["unhealthy", "usable"], what="the slow one to be found")
    assert served_by(shop) == {"orders-0"}


def test_a_port_that_takes_connections_is_well(shop, applied):
    applied(checked(type="TCP"))
    wait_until(lambda: states(shop) == ["usable", "usable"], what="both to be well")
    before = passed(shop)
    wait_until(lambda: passed(shop) > before + 5, what="checks")
    assert states(shop) == ["usable", "usable"]


def passed(shop):
    lines = shop.web.metrics().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('weft_health_checks_total{result="passed"'))


# ---- faults on purpose


def injected(*faults):
    return policy("FaultInjectionPolicy", faults=list(faults))


def test_requests_fail_on_purpose(shop, applied):
    applied(injected({"abort": {"percent": 50, "httpStatus": 418}}))
    before = sum(instance.application.requests() for instance in shop.orders)
    got = statuses(shop.web, 400)
    assert set(got) == {200, 418} and 140 <= got[418] <= 260, got
    # What fails on purpose reaches nobody, and isn't tried again.
    assert sum(instance.application.requests() for instance in shop.orders) == before + got[200]
    refused = next(answer for answer in iter(shop.web.get, None) if answer.status == 418)
    assert refused.fault == "fault_injected"


def test_only_what_matches_fails_on_purpose(shop, applied):
    match = {"path": {"type": "PathPrefix", "value": "/pay"}, "headers": [{"name": "chaos", "value": "yes"}]}
    applied(injected({"match": match, "abort": {"httpStatus": 500}}, {"match": {"method": "PUT"}, "delay": {"duration": "1s"}}))
    assert statuses(shop.web, 5, "/pay/1", chaos="yes") == {500: 5}
    assert statuses(shop.web, 5, "/pay/1") == {200: 5}
    assert statuses(shop.web, 5, "/", chaos="yes") == {200: 5}


def test_requests_of_a_route_fail_on_purpose(shop, applied):
    reads = {"name": "reads", "matches": [{"method": "GET"}], "backendRefs": [backend("orders")]}
    rules = [reads, {"backendRefs": [backend("orders")]}]
    of_route = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "orders"}
    chaos = injected({"abort": {"httpStatus": 418}})
    chaos["spec"]["targetRefs"] = [{**of_route, "sectionName": "reads"}]
    applied(http_route("orders", "orders", rules), chaos)
    assert statuses(shop.web, 5) == {418: 5}
    with shop.web.http1() as client:
        client.send("PUT / HTTP/1.1\r\nHost: orders.shop\r\nContent-Length: 0\r\n\r\n")
        assert client.read().status == 200
    told = shop.weft("explain", "--from", "shop/web", "http://orders.shop/").stdout
    assert "the rule: FaultInjectionPolicy/shop/" in told
    listed = shop.weft("get", "faultinjectionpolicies", "-n", "shop").stdout
    assert "HTTPRoute/orders:reads" in listed and "True" in listed, listed


def test_requests_wait_on_purpose_and_their_time_goes_on(shop, applied):
    rule = {"backendRefs": [backend("orders")], "timeouts": {"request": "300ms"}}
    only = {"match": {"path": {"type": "Exact", "value": "/late"}}}
    applied(injected({**only, "delay": {"duration": "100ms"}}))
    start = time.monotonic()
    assert shop.web.get("/late").status == 200 and time.monotonic() - start >= 0.1
    applied(http_route("orders", "orders", [rule]), injected({**only, "delay": {"duration": "1m"}}))
    answer = shop.web.get("/late")
    assert (answer.status, answer.fault) == (504, "request_timeout")
    assert shop.web.get("/").status == 200


def test_grpc_calls_fail_on_purpose(shop, applied):
    applied(injected({"abort": {"grpcStatus": 10}}))
    connection = shop.web.http2()
    try:
        headers = [("content-type", "application/grpc"), ("te", "trailers")]
        answer = connection.read(connection.request("POST", "/shop.Orders/List", headers=headers))
    finally:
        connection.close()
    assert (answer.status, answer.header("grpc-status"), answer.fault) == (200, "10", "fault_injected")


# ---- hedging


def test_a_slow_request_is_hedged(shop, applied):
    applied(policy("TrafficPolicy", hedging={"percentile": 90}, outlierDetection={"consecutiveFailures": 0}))
    statuses(shop.web, 100)
    slow, fast = (instance.application for instance in shop.orders)
    slow.trouble(delay=5000)
    before = (slow.requests(), fast.requests())
    start = time.monotonic()
    got = [shop.web.get().header("x-served-by") for _ in range(10)]
    assert set(got) == {"orders-1"}
    # The first attempt was at the slow one at times, and its answer was not waited for.
    assert slow.requests() > before[0] and fast.requests() == before[1] + 10
    assert time.monotonic() - start < 5
    # Who might do something twice is not hedged.
    slow.trouble(delay=300)
    posts = [shop.web.curl("-X", "POST", "-d", "1", "http://orders.shop/") for _ in range(6)]
    assert len(posts) == 6
    assert slow.requests() + fast.requests() <= sum(before) + 10 + 10 + 6


def test_hedges_are_in_the_budget(shop, applied):
    spent = {
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
        "kind": "XBackendTrafficPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"group": "", "kind": "Service", "name": "orders"}],
            "retryConstraint": {"budget": {"percent": 0, "interval": "10s"}, "minRetryRate": {"count": 0, "interval": "1s"}},
        },
    }
    applied(policy("TrafficPolicy", hedging={"percentile": 50}, outlierDetection={"consecutiveFailures": 0}), spent)
    statuses(shop.web, 100)
    before = sum(instance.application.requests() for instance in shop.orders)
    for instance in shop.orders:
        instance.application.trouble(delay=50)
    assert statuses(shop.web, 20) == {200: 20}
    assert sum(instance.application.requests() for instance in shop.orders) == before + 20


# ---- deadlines


def test_what_nobody_waits_for_any_more_reaches_no_application(shop, applied, busy):
    """The only place is taken for longer than the request has time."""
    spec = {"mode": "Enforce", "min": 1, "max": 1, "queueTimeout": "10s"}
    rule = {"backendRefs": [backend("busy")], "timeouts": {"request": "100ms"}}
    hurried = {"matches": [{"path": {"type": "Exact", "value": "/hurried"}}], **rule}
    patient = {"backendRefs": [backend("busy")]}
    applied(policy("InboundPolicy", "busy", concurrency=spec), http_route("busy", "busy", [hurried, patient]))
    busy.application.trouble(delay=1500)
    before = busy.application.requests()
    waiting = shop.web.http1()
    try:
        waiting.send(b"GET / HTTP/1.1\r\nhost: busy.shop\r\n\r\n")
        wait_until(lambda: busy.application.requests() == before + 1, what="the place to be taken")
        answer = shop.web.get("/hurried", host="busy.shop")
        assert (answer.status, answer.fault) == (504, "request_timeout")
        assert waiting.read().status == 200
        assert busy.application.requests() == before + 1
    finally:
        waiting.close()
