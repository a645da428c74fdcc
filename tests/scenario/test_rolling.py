"""A rolling restart: every instance and its sidecar are told to end at once, as an orchestrator does it, and come again."""

import signal

import pytest

from mesh import field, service
from process import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

INSTANCES = 4
RATE = 500
LOADS = [
    {"protocol": "http1", "connections": 8},
    {"protocol": "http1", "connections": 8, "method": "POST", "body_bytes": 1000},
    {"protocol": "h2c", "connections": 2, "streams": 8},
    {"protocol": "h2c", "connections": 2, "streams": 8, "method": "POST", "url": "http://orders.shop/grpc/1"},
]


def test_a_rolling_restart_loses_and_repeats_nothing(mesh, soak):
    """2,000 requests a second, GET and POST, HTTP/1 and gRPC; 3 rounds, 100 with --soak."""
    mesh.apply(service("orders"))
    orders = [mesh.instance("orders", number) for number in range(INSTANCES)]
    web = mesh.workload("web")
    mesh.wait_endpoints(web, INSTANCES)
    counted = -sum(one.application.requests() for one in orders)
    loads = [mesh.load(web, rate=RATE, duration="3000s", **options) for options in LOADS]
    wait_until(lambda: sum(one.application.requests() for one in orders) > RATE, 20, "the load")
    rounds = 100 if soak else 3
    for _ in range(rounds):
        for one in orders:
            restart(mesh, one)
            counted += served(one.application)
    reports = [load.stop() for load in loads]
    counted += sum(one.application.requests() for one in orders)
    total, failed = (sum(report[name] for report in reports) for name in ("total", "failed"))
    print(f"{rounds} rounds: {total} requests, {failed} failed, {counted} counted by the applications")
    assert failed == 0, [(report["failures"], report["faults"], report["samples"]) for report in reports]
    # Neither one less nor one more: nothing was answered by anybody else, nothing was done twice.
    assert counted == total


def restart(mesh, one):
    """Ends both, and waits until both are back before the next, as a rollout does."""
    one.process.signal(signal.SIGTERM)
    one.application.process.signal(signal.SIGTERM)
    assert one.application.process.wait(40) == 0
    assert one.process.wait(40) == 0
    one.application.process.start()
    one.process.start()
    one.wait_ready()

    def offered():
        entry = mesh.proxy(f"shop/{one.name}")
        return entry and one.application.port in field(entry, "ports_up")

    wait_until(offered, 20, f"{one.name} to be offered again")


def served(application):
    """What the application counted in the life that just ended."""
    lines = [line for line in application.process.text().splitlines() if line.startswith("served ")]
    return int(lines[-1].split()[1])
