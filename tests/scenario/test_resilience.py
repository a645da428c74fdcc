"""Retries, budgets, circuit breakers, outliers and balancers, with applications that get into trouble."""

import hashlib
import socket
import threading
import time

import h2.config
import h2.connection
import h2.events
import pytest

from mesh import applying, backend, endpoint_slice, http_route, service
from process import wait_until

INSTANCES = 4


@pytest.fixture(scope="module")
def shop(shared_mesh):
    mesh = shared_mesh
    mesh.apply(service("orders"))
    mesh.orders = [mesh.instance("orders", n) for n in range(INSTANCES)]
    mesh.web = mesh.workload("web")
    mesh.wait_endpoints(mesh.web, INSTANCES)
    return mesh


@pytest.fixture
def applied(shop):
    with applying(shop) as apply:
        yield apply
        for instance in shop.orders:
            instance.application.trouble()
    # What was left out for failing comes back by itself; a test must not wait for it.
    caller(shop, anew=True)


def caller(shop, anew=False):
    """The sidecar that calls; a new one knows nothing of the endpoints."""
    if anew:
        shop.web.process.stop()
        shop.web.process.start()
        shop.web.wait_ready()
        shop.wait_endpoints(shop.web, INSTANCES)
    return shop.web


def traffic(name="orders", **spec):
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "orders"}], **spec},
    }


def backend_traffic(**spec):
    return {
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1",
        "kind": "XBackendTrafficPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "orders"}], **spec},
    }


def budget(percent, count):
    rate = {"count": count, "interval": "1s"}
    return backend_traffic(retryConstraint={"budget": {"percent": percent, "interval": "10s"}, "minRetryRate": rate})


def retried(**retry):
    timeouts = retry.pop("timeouts", None)
    rule = {"backendRefs": [backend("orders")], "retry": {"backoff": "1ms", **retry}}
    if timeouts:
        rule["timeouts"] = timeouts
    return http_route("orders", "orders", [rule])


NO_EJECTION = {"outlierDetection": {"consecutiveFailures": 0}}


def trouble(shop, *which, **how):
    for number in which or range(INSTANCES):
        shop.orders[number].application.trouble(**how)


def seen(shop):
    return [instance.application.requests() for instance in shop.orders]


def answers(shop, count, path="/", **headers):
    return [shop.web.get(path, **headers) for _ in range(count)]


def counts(values):
    return {value: values.count(value) for value in values}


def metric(shop, name, **labels):
    lines = [line for line in shop.web.metrics().splitlines() if line.startswith(name + "{")]
    lines = [line for line in lines if all(f'{key}="{value}"' in line for key, value in labels.items())]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


# ---- retries


def test_without_a_rule_an_answer_is_an_answer(shop, applied):
    applied(traffic(**NO_EJECTION))
    trouble(shop, status=503, percent=50)
    before = sum(seen(shop))
    statuses = counts([answer.status for answer in answers(shop, 40)])
    # Each instance spreads its share by itself.
    assert set(statuses) == {200, 503} and 16 <= statuses[503] <= 24, statuses
    assert sum(seen(shop)) == before + 40


def test_codes_that_a_rule_names_are_tried_again(shop, applied):
    applied(traffic(**NO_EJECTION), retried(codes=[503], attempts=4), budget(100, 1000))
    trouble(shop, status=503, percent=50)
    before, retries = sum(seen(shop)), metric(shop, "weft_retries_total")
    got = answers(shop, 40)
    assert {answer.status for answer in got} == {200}
    more = sum(seen(shop)) - before - 40
    assert more > 10 and metric(shop, "weft_retries_total") - retries == more
    # Another code is the answer.
    trouble(shop, status=500, percent=50)
    assert set(counts([answer.status for answer in answers(shop, 20)])) == {200, 500}


def test_attempts_end(shop, applied):
    applied(traffic(**NO_EJECTION), retried(codes=[503], attempts=2), budget(100, 1000))
    trouble(shop, status=503)
    before = sum(seen(shop))
    answer = shop.web.get()
    assert (answer.status, answer.fault, sum(seen(shop)) - before) == (503, None, 3)


@pytest.mark.parametrize("version", ["http1", "http2"])
def test_a_body_is_sent_again_while_it_is_small(shop, applied, version):
    applied(traffic(**NO_EJECTION), retried(codes=[503], attempts=6), budget(100, 1000))
    trouble(shop, status=503, percent=50)
    flags = ["--http1.1"] if version == "http1" else ["--http2-prior-knowledge"]

    def post(size):
        body = bytes(n % 251 for n in range(size))
        path = shop.directory / f"body-{size}"
        path.write_bytes(body)
        url = f"http://127.0.0.1:{shop.web.outbound[1]}/"
        ask = ["-x", "", "--noproxy", "*", "-H", "Host: orders.shop", *flags, "--data-binary", f"@{path}"]
        done = shop.web.curl(*ask, "-w", "\n%{http_code}", url)
        answer, _, status = done.stdout.decode().rpartition("\n")
        return int(status), hashlib.sha256(body).hexdigest() in answer

    assert {post(60_000) for _ in range(10)} == {(200, True)}
    # A larger one is gone when the answer comes: it is the client's.
    assert {status for status, _ in (post(300_000) for _ in range(10))} == {200, 503}


def test_the_budget_is_spent(shop, applied):
    applied(traffic(**NO_EJECTION), retried(codes=[503], attempts=3), budget(0, 0))
    trouble(shop, status=503)
    before = sum(seen(shop))
    got = answers(shop, 10)
    assert {(answer.status, answer.fault) for answer in got} == {(503, "retry_budget_spent")}
    assert sum(seen(shop)) - before == 10
    assert metric(shop, "weft_requests_total", fault="retry_budget_spent") >= 10


def test_who_fails_is_left_out_also_when_the_budget_is_spent(shop, applied):
    applied(retried(codes=[503], attempts=3), budget(0, 0))
    trouble(shop, 1, status=503)
    before = seen(shop)[1]
    got = counts([(answer.status, answer.fault) for answer in answers(shop, 60)])
    assert got == {(200, None): 55, (503, "retry_budget_spent"): 5}
    assert seen(shop)[1] - before == 5


def test_a_budget_bounds_what_retries_add(shop, applied):
    applied(traffic(**NO_EJECTION), retried(codes=[503], attempts=10), budget(20, 0))
    trouble(shop, status=503)
    before = sum(seen(shop))
    answers(shop, 500)
    retries = sum(seen(shop)) - before - 500
    # What the sidecar was asked before counts too while it is not ten seconds ago, and how much that was
    # differs: its endpoints are asked for until each has answered.
    share = metric(shop, "weft_requests_total") // 5
    assert 90 <= retries <= share, (retries, share)


def test_an_attempt_that_takes_too_long_is_tried_elsewhere(shop, applied):
    applied(traffic(**NO_EJECTION), retried(attempts=2, timeouts={"backendRequest": "300ms"}), budget(100, 1000))
    trouble(shop, 0, delay=5000)
    started = time.monotonic()
    assert {answer.status for answer in answers(shop, 20)} == {200}
    assert time.monotonic() - started < 15
    trouble(shop, delay=5000)
    answer = shop.web.get()
    assert (answer.status, answer.fault) == (504, "backend_timeout")


def test_the_time_of_the_whole_request_ends_its_attempts(shop, applied):
    limits = {"request": "500ms", "backendRequest": "200ms"}
    applied(traffic(**NO_EJECTION), retried(attempts=9, timeouts=limits), budget(100, 1000))
    trouble(shop, delay=5000)
    started = time.monotonic()
    answer = shop.web.get()
    assert (answer.status, answer.fault) == (504, "request_timeout")
    assert time.monotonic() - started < 2


def test_a_grpc_clients_own_deadline_is_kept(shop, applied):
    trouble(shop, delay=5000)
    applied(traffic(**NO_EJECTION))
    started = time.monotonic()
    with shop.web.http2() as client:
        asked = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "200m")]
        answer = client.get("/grpc/1", headers=asked)
    assert (answer.header("grpc-status"), answer.fault) == ("4", "request_timeout")
    assert time.monotonic() - started < 2


# ---- limits


def at_once(shop, count, path):
    got = [None] * count

    def ask(number):
        got[number] = shop.web.get(path)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return got


def test_a_breaker_opens_at_its_limits(shop, applied):
    applied(traffic(circuitBreaker={"maxRequests": 2, "maxPendingRequests": 2, "queueTimeout": "200ms"}))
    started = time.monotonic()
    got = counts([(answer.status, answer.fault) for answer in at_once(shop, 8, "/?delay=1000")])
    # Two are served, two wait in vain, four are turned away at once.
    assert got == {(200, None): 2, (503, "circuit_open"): 6}
    assert time.monotonic() - started < 5
    assert metric(shop, "weft_requests_total", fault="circuit_open") >= 6


def test_who_waits_is_served_in_turn(shop, applied):
    applied(traffic(circuitBreaker={"maxRequests": 1, "maxPendingRequests": 9, "queueTimeout": "10s"}))
    started = time.monotonic()
    assert {answer.status for answer in at_once(shop, 5, "/?delay=200")} == {200}
    assert time.monotonic() - started >= 1


# ---- balancing


def test_a_key_keeps_its_instance(shop, applied):
    rows = [
        ({"type": "Header", "name": "X-User"}, lambda key: {"x-user": key}),
        ({"type": "Cookie", "name": "user"}, lambda key: {"cookie": f"a=b; user={key}; c=d"}),
    ]
    for hash_key, headers in rows:
        applied(traffic(loadBalancing={"algorithm": "ConsistentHash", "hashKey": hash_key}))
        homes = {}
        for key in map(str, range(64)):
            by = {shop.web.get("/", **headers(key)).header("x-served-by") for _ in range(3)}
            assert len(by) == 1, (key, by)
            homes[key] = by.pop()
        assert len(set(homes.values())) == INSTANCES, homes
        # Without the key it goes anywhere.
        assert len({answer.header("x-served-by") for answer in answers(shop, 40)}) > 1
    applied(traffic(loadBalancing={"algorithm": "ConsistentHash", "hashKey": {"type": "Path"}}))
    assert len({answer.header("x-served-by") for answer in answers(shop, 10, "/one?a=b")}) == 1


def sticky(**persistence):
    rule = {"backendRefs": [backend("orders")], "sessionPersistence": persistence}
    return http_route("orders", "orders", [rule])


def test_a_session_by_cookie_stays(shop, applied):
    applied(sticky(sessionName="cart"))
    homes = set()
    for _ in range(12):
        first = shop.web.get()
        name, _, rest = first.header("set-cookie").partition("=")
        value, _, attributes = rest.partition("; ")
        assert (name, attributes) == ("cart", "Path=/; HttpOnly; SameSite=Lax")
        home = first.header("x-served-by")
        homes.add(home)
        for _ in range(5):
            again = shop.web.get("/", cookie=f"a=b; cart={value}")
            assert (again.header("x-served-by"), again.header("set-cookie")) == (home, None)
    assert len(homes) > 1
    # A session of nobody is a new one.
    made_up = shop.web.get("/", cookie="cart=00000000000000ff.1.1")
    assert made_up.status == 200 and made_up.header("set-cookie")


def test_a_session_by_header_moves_with_its_instance(shop, applied):
    applied(sticky(type="Header", sessionName="x-cart", absoluteTimeout="1h"), traffic(**NO_EJECTION))
    first = shop.web.get()
    session, home = first.header("x-cart"), first.header("x-served-by")
    assert {shop.web.get("/", x_cart=session).header("x-served-by") for _ in range(10)} == {home}
    one = next(one for one in shop.orders if one.application.name == home)
    one.application.shut(one.application.port)
    try:
        wait_until(lambda: shop.web.get("/", x_cart=session).header("x-served-by") not in (home, None), 10, "another instance")
        moved = shop.web.get("/", x_cart=session)
        assert moved.status == 200 and moved.header("x-cart") not in (session, None)
    finally:
        one.application.open(one.application.port)
        shop.wait_port_up(one, one.application.port)


def test_a_session_of_the_services_own_policy(shop, applied):
    session = {"type": "Header", "absoluteTimeout": "1h"}
    policy = backend_traffic(sessionPersistence=session)
    applied(policy)
    name = "weft-shop-orders"
    first = shop.web.get()
    home = first.header("x-served-by")
    kept = {name: first.header(name)}
    assert {shop.web.get("/", **kept).header("x-served-by") for _ in range(10)} == {home}
    # A rule's own session comes first.
    applied(policy, sticky(type="Header", sessionName="x-cart"))
    first = shop.web.get()
    assert first.header("x-cart") and not first.header(name)


def test_a_session_keeps_its_backend(shop, applied):
    parts = [service(f"orders-{n}", selector={"app": "orders", "number": str(n)}) for n in (0, 1)]
    persistence = {"sessionName": "cart"}

    def split(weights):
        refs = [backend(f"orders-{n}", weight) for n, weight in enumerate(weights)]
        return http_route("orders", "orders", [{"backendRefs": refs, "sessionPersistence": persistence}])

    numbered = [shop.instance("orders", f"n{n}", labels={"number": str(n)}) for n in (0, 1)]
    try:
        applied(*parts, split([1, 1]))
        shop.wait_endpoints(shop.web, 2)
        first = shop.web.get()
        cookie = first.header("set-cookie").split(";")[0]
        home = first.header("x-served-by")
        assert {shop.web.get("/", cookie=cookie).header("x-served-by") for _ in range(20)} == {home}
        # New sessions go elsewhere, those that are there end by themselves.
        mine = 0 if home.endswith("n0") else 1
        applied(split([int(mine != 0), int(mine != 1)]))
        assert {shop.web.get("/", cookie=cookie).header("x-served-by") for _ in range(20)} == {home}
        assert home not in {answer.header("x-served-by") for answer in answers(shop, 20)}
    finally:
        for one in numbered:
            one.process.stop()
            one.application.process.kill()


def test_round_robin(shop, applied):
    applied(traffic(loadBalancing={"algorithm": "RoundRobin"}))
    by = counts([answer.header("x-served-by") for answer in answers(shop, 40)])
    assert set(by.values()) == {10}, by


def test_whoever_is_chosen_is_asked_though_there_is_no_connection_yet(shop, applied):
    applied(traffic(loadBalancing={"algorithm": "RoundRobin"}))
    shop.web.process.stop()
    shop.web.process.start()
    shop.web.wait_ready()
    by = counts([answer.header("x-served-by") for answer in answers(shop, 8)])
    assert sorted(by.values()) == [2] * INSTANCES, by


@pytest.mark.slow
def test_an_instance_that_fails_fast_gets_next_to_nothing(shop, applied):
    """Issue's bar: under 2 % after 5 s. By default, without any policy."""
    trouble(shop, 1, status=500)
    load = shop.load(shop.web, protocol="http1", rate=400, duration="9s")
    time.sleep(5)
    before = seen(shop)
    report = load.report()
    after = [now - then for now, then in zip(seen(shop), before)]
    share = after[1] / sum(after)
    print(f"after 5 s the failing one got {after[1]} of {sum(after)} requests ({share:.2%}); {report['failed']} failed in all")
    assert share < 0.02, after


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [{"loadBalancing": {"algorithm": "PeakEWMA"}}, {"outlierDetection": {"latencyFactor": 3}}],
    ids=["peak-ewma", "latency"],
)
def test_a_slow_instance_is_avoided(shop, applied, policy):
    """Issue's bar: p99 within twice the healthy one's 5 s after an instance became 200 times slower."""
    applied(traffic(**policy))
    caller(shop, anew=True)

    def load():
        """A report, and the share of requests after 5 s that went to the one that may be slow."""
        url = "http://orders.shop/?delay=5"
        load = shop.load(shop.web, url=url, protocol="http1", connections=16, rate=300, duration="11s", settle="5s")
        time.sleep(5)
        before = seen(shop)
        report = load.report()
        after = [now - then for now, then in zip(seen(shop), before)]
        return report, after[2] / sum(after)

    healthy, _ = load()
    trouble(shop, 2, delay=1000)
    report, share = load()
    healthy, slow = (one["latency_microseconds"]["p99"] / 1000 for one in (healthy, report))
    print(f"p99 {healthy:.1f} ms healthy, {slow:.1f} ms with one of {INSTANCES} 200 times slower, which got {share:.2%} after 5 s")
    assert report["failed"] == 0
    # With fewer than one in a hundred there, the others' latency is the p99. Time itself decides no test.
    assert share < 0.01, share


def test_an_endpoint_that_takes_connections_and_drops_them_is_left_out(shop):
    """Without a sidecar, so that nobody but the caller's own can tell."""
    bad = socket.create_server(("127.0.0.1", 0))
    accepted = []

    def drop_all():
        while True:
            try:
                connection, _ = bad.accept()
            except OSError:
                return
            accepted.append(1)
            connection.close()

    threading.Thread(target=drop_all, daemon=True).start()
    good = shop.application("good")
    outside = service("outside", selector={"app": "none"})
    outside["spec"]["ports"][0].pop("targetPort")
    slices = []
    for name, port in (("good", good.port), ("bad", bad.getsockname()[1])):
        one = endpoint_slice(name, "outside", ["127.0.0.1"], port)
        slices.append(one)
    shop.apply(outside, *slices)
    try:
        statuses = [wire_post(shop) for _ in range(60)]
        # Five in a row are enough; a POST that may have been seen is not sent again.
        assert statuses.count(503) == 5 and statuses.count(200) == 55, counts(statuses)
        assert len(accepted) == 5
    finally:
        bad.close()
        for document in (outside, *slices):
            shop.weft("delete", document["kind"], document["metadata"]["name"], "-n", "shop")


def test_a_server_without_a_sidecar_is_not_asked_whether_it_is_there(shop):
    """Servers of gRPC end connections with more than a few PINGs, however long their streams are silent."""
    listener = socket.create_server(("127.0.0.1", 0))
    events = []

    def serve():
        connection, _ = listener.accept()
        engine = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        engine.initiate_connection()
        connection.sendall(engine.data_to_send())
        while data := connection.recv(65536):
            events.extend(engine.receive_data(data))
            connection.sendall(engine.data_to_send())

    threading.Thread(target=serve, daemon=True).start()
    outside = service("silent", selector={"app": "none"}, app_protocol="kubernetes.io/h2c")
    slices = endpoint_slice("silent", "silent", ["127.0.0.1"], listener.getsockname()[1])
    shop.apply(outside, slices)

    def seen_of(kind):
        return sum(isinstance(event, kind) for event in events)

    try:
        with shop.web.http2(timeout=20) as client:
            client.request("GET", "/", "silent.shop")
            client.flush()
            wait_until(lambda: seen_of(h2.events.RequestReceived) == 1, 10, "the request")
            # Many turns of what watches over sidecars.
            time.sleep(3)
            assert seen_of(h2.events.PingReceived) == 1, "the one that a connection begins with"
    finally:
        listener.close()
        for document in (outside, slices):
            shop.weft("delete", document["kind"], document["metadata"]["name"], "-n", "shop")


def wire_post(shop):
    with shop.web.http1() as client:
        client.send("POST / HTTP/1.1\r\nHost: outside.shop\r\nContent-Length: 2\r\n\r\nhi")
        return client.read("POST").status


def test_explain_says_what_is_in_force(shop, applied):
    applied(retried(codes=[503], attempts=2), traffic(**NO_EJECTION), budget(7, 1))
    told = shop.weft("explain", "--from", "shop/web", "http://orders.shop/").stdout
    assert "at most 2 after 503 and failures without an answer, the first within 1ms" in told
    assert "TrafficPolicy/shop/orders, XBackendTrafficPolicy/shop/orders" in told
    listed = shop.weft("get", "xbackendtrafficpolicies", "-n", "shop").stdout
    assert "7 %" in listed and "True" in listed
