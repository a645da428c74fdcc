"""The control plane dies and comes back; sidecars go on."""

import itertools
import json
import random
import socket
import subprocess
import threading
import time

import pytest
import yaml

from mesh import assert_no_failure, service
from process import wait_until


@pytest.mark.slow
def test_kill_9_of_the_control_plane_under_load(mesh):
    mesh.apply(service("orders"))
    instances = [mesh.instance("orders", n) for n in (1, 2, 3)]
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 3)
    load = mesh.load(web, protocol="http1", rate=200, duration="60s")
    other = mesh.load(web, protocol="h2c", rate=200, duration="60s", streams=4)
    time.sleep(1)

    def holds(instance):
        """Whether the caller's sidecar has the instance among its endpoints."""
        return f":{instance.inbound[1]}\"" in json.dumps(web.config())

    assert all(map(holds, instances)), web.config()
    mesh.control_plane.kill()
    time.sleep(3)
    # An endpoint goes away while nobody can tell.
    instances[2].process.kill()
    instances[2].application.process.kill()
    time.sleep(2)
    mesh.control_plane.restart()
    restarted = time.monotonic()

    def gone():
        return not holds(instances[2])

    wait_until(gone, 15, "the dead endpoint's withdrawal")
    took = time.monotonic() - restarted
    print(f"the dead endpoint was gone {took:.2f} s after the restart")
    # 2 s is what is promised; the rest is for a machine that is busy with something else.
    assert took < 2 + 2, f"gone {took:.1f} s after the restart"
    wait_until(lambda: len(mesh.proxies()) == 3, what="everyone's return")
    time.sleep(1)
    for report in (load.stop(), other.stop()):
        assert_no_failure(report, 500)
    assert mesh.weft("get", "service", "orders", "-n", "shop", check=False).code == 0
    mesh.apply(service("orders", port=80), service("more"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_acknowledged_document_is_lost_over_kills(mesh, soak):
    """Documents are applied without pause while the control plane is killed at random moments."""
    rounds = 50 if soak else 10
    acknowledged, stop = [], threading.Event()

    def apply():
        for number in itertools.count():
            if stop.is_set():
                return
            name = f"doc-{number}"
            try:
                outcome = mesh.weft("apply", "-f", "-", stdin=yaml.safe_dump(service(name)), check=False, timeout=10)
            except subprocess.TimeoutExpired:
                continue
            if outcome.code == 0:
                acknowledged.append(name)

    writers = [threading.Thread(target=apply) for _ in range(1)]
    for writer in writers:
        writer.start()
    try:
        for number in range(rounds):
            had = len(acknowledged)
            wait_until(lambda: len(acknowledged) > had + 2, 20, "some acknowledged documents")
            time.sleep(random.Random(number).random() / 10)
            mesh.control_plane.kill()
            mesh.control_plane.restart()
            listed = mesh.weft("get", "services", "-A", "-o", "json").json()
            items = listed["items"] if isinstance(listed, dict) else listed
            there = {item["metadata"]["name"] for item in items}
            lost = set(acknowledged[:had]) - there
            assert not lost, f"round {number}: lost {sorted(lost)}"
    finally:
        stop.set()
        for writer in writers:
            writer.join(20)
    listed = mesh.weft("get", "services", "-A", "-o", "json").json()
    items = listed["items"] if isinstance(listed, dict) else listed
    assert not set(acknowledged) - {item["metadata"]["name"] for item in items}


def test_a_sidecar_restarted_while_the_control_plane_is_down_still_serves(mesh):
    mesh.apply(service("orders"))
    orders = mesh.instance("orders")
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 1)
    mesh.control_plane.kill()
    for workload in (web, orders):
        workload.process.stop()
        workload.process.start()
        workload.wait_ready()
    wait_until(lambda: web.get().status == 200, what="an answer")
    assert web.get().header("x-served-by") == "orders-1"
    mesh.control_plane.restart()
    wait_until(lambda: len(mesh.proxies()) == 2, 30, "everyone's return")


def test_a_sidecar_is_ready_only_with_an_identity_and_a_configuration(mesh):
    mesh.control_plane.kill()
    early = mesh.workload("early", token="not-asked-yet", wait=False)
    from mesh import http_get

    wait_until(lambda: http_get(early.admin, "/live")[0] == 200, what="/live")
    assert http_get(early.admin, "/ready")[0] == 503
    early.process.kill()
    mesh.control_plane.restart()
    late = mesh.workload("late")
    assert late.ready()


@pytest.mark.slow
def test_a_drain_loses_no_request(mesh):
    mesh.apply(service("orders"))
    instances = [mesh.instance("orders", n) for n in (1, 2)]
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 2)
    loads = [mesh.load(web, protocol=p, rate=200, duration="40s", url="http://orders.shop/?delay=20") for p in ("http1", "h2c")]
    time.sleep(1)
    for workload in instances:
        workload.process.signal(15)
        assert workload.process.wait(40) == 0, workload.process.tail()
        workload.process.start()
        workload.wait_ready()
        mesh.wait_endpoints(web, 2)
    for load in loads:
        assert_no_failure(load.stop(), 200)


def test_a_drain_waits_for_the_request_in_hand(mesh):
    mesh.apply(service("orders"))
    orders = mesh.instance("orders")
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 1)
    answers = []
    asking = threading.Thread(target=lambda: answers.append(web.get("/?delay=1500").status))
    before = orders.application.requests()
    asking.start()
    wait_until(lambda: orders.application.requests() > before, what="the request at the application")
    orders.process.signal(15)
    asking.join(10)
    assert answers == [200]
    assert orders.process.wait(15) == 0


def test_what_a_draining_workload_still_serves_may_call_on(mesh):
    mesh.apply(service("orders"), service("stock"))
    orders = mesh.instance("orders")
    mesh.instance("stock")
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 1)
    # The connections over which the application calls others, from before.
    calls = [orders.http1(), orders.http2()]
    wait_until(lambda: [call.get("/", "stock.shop").status for call in calls] == [200, 200], what="an answer of stock")
    answers = []
    asking = threading.Thread(target=lambda: answers.append(web.get("/?delay=6000").status))
    before = orders.application.requests()
    asking.start()
    wait_until(lambda: orders.application.requests() > before, what="the request at the application")
    orders.process.signal(15)
    wait_until(lambda: not accepts(orders.inbound), what="the inbound port to close")
    for call in calls * 10:
        assert call.get("/", "stock.shop").status == 200
    assert asking.is_alive(), "nothing was left to serve while the calls were made"
    for call in calls:
        call.close()
    asking.join(15)
    assert answers == [200]
    assert orders.process.wait(15) == 0


def accepts(address):
    with socket.socket() as one:
        return one.connect_ex(tuple(address)) == 0


def test_a_draining_caller_ends_its_clients_connections_in_order(mesh):
    mesh.apply(service("orders"))
    mesh.instance("orders")
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 1)
    http1, http2 = web.http1(), web.http2()
    assert http1.get("/").status == 200 and http2.get("/").status == 200
    http1.send("GET /?delay=800 HTTP/1.1\r\nHost: orders.shop\r\n\r\n")
    stream = http2.request(path="/?delay=800")
    time.sleep(0.2)
    web.process.signal(15)
    response = http1.read()
    assert response.status == 200 and response.header("connection") == "close", response
    assert http2.read(stream).status == 200
    assert http1.closed()
    assert web.process.wait(15) == 0


@pytest.mark.slow
def test_an_instance_that_dies_costs_no_request(mesh):
    """The caller's sidecar sends safely repeatable requests elsewhere."""
    mesh.apply(service("orders"))
    instances = [mesh.instance("orders", n) for n in (1, 2, 3)]
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 3)
    load = mesh.load(web, protocol="http1", rate=200, duration="30s")
    time.sleep(1)
    instances[0].application.process.kill()
    time.sleep(2)
    instances[1].process.signal(15)
    instances[1].process.wait(40)
    time.sleep(1)
    report = load.stop()
    broken = report["failed"]
    # A request that the dead application already had in hand may not be sent twice on a guess.
    assert broken <= 4, (report["failures"], report["faults"], report["samples"])
