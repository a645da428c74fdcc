"""Endpoints come and go; the mesh is large; neither is felt."""

import random
import time

import pytest

from mesh import assert_no_failure, endpoint_slice, free_ports, service
from process import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# Of every 20 endpoints each slice holds; several slices, as Kubernetes does it.
IN_A_SLICE = 10
# How long an endpoint that was taken from its slice still accepts connections, as a pod that
# terminates does.
GRACE_SECONDS = 2.0


def test_200_endpoints_come_and_go_under_load(mesh, soak):
    first = free_ports(200)
    application = mesh.application("many", first, ports=200)
    document = service("many", target=80)
    del document["spec"]["selector"]
    slices = {}
    for start in range(0, 200, IN_A_SLICE):
        slices[start] = set(range(first + start, first + start + IN_A_SLICE))

    def documents(start):
        """One slice a port, since a slice has one port number for all its addresses."""
        return slice_of(start)

    def slice_of(start):
        return [
            endpoint_slice(f"many-{port}", "many", ["127.0.0.1"] if port in slices[start] else [], port)
            for port in range(first + start, first + start + IN_A_SLICE)
        ]

    mesh.apply(document, *[d for start in slices for d in documents(start)])
    web = mesh.workload("web")
    mesh.wait_endpoints(web, 20, "many.shop")
    seconds = 60 if soak else 15
    loads = [
        mesh.load(web, url="http://many.shop/", protocol=p, rate=300, duration=f"{seconds + 60}s", connections=8)
        for p in ("http1", "h2c")
    ]
    rng = random.Random(7)
    closing, changes = [], 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        start = rng.choice(list(slices))
        changed = []
        # Each apply changes several endpoints, so that 50 changes a second don't need 50 processes.
        for port in rng.sample(range(first + start, first + start + IN_A_SLICE), 5):
            if port in slices[start]:
                slices[start].discard(port)
                closing.append((time.monotonic() + GRACE_SECONDS, port))
            elif port not in [p for _, p in closing]:
                if port in closed(application, mesh):
                    application.open(port)
                    closed(application, mesh).discard(port)
                slices[start].add(port)
            changed.append(endpoint_slice(f"many-{port}", "many", ["127.0.0.1"] if port in slices[start] else [], port))
        mesh.apply(*changed, wait=False)
        changes += len(changed)
        while closing and closing[0][0] < time.monotonic():
            _, port = closing.pop(0)
            if not any(port in ports for ports in slices.values()):
                application.shut(port)
                closed(application, mesh).add(port)
        behind = changes / 50 - (time.monotonic() - began)
        if behind > 0:
            time.sleep(behind)
    rate = changes / (time.monotonic() - began)
    for load in loads:
        assert_no_failure(load.stop(), seconds * 250)
    print(f"{rate:.1f} changes a second")
    assert rate > 40, f"only {rate:.0f} changes a second were made"


_closed = {}


def closed(application, mesh):
    return _closed.setdefault(id(mesh), set())


def test_a_sidecar_holds_only_what_it_uses(mesh, soak):
    """10,000 services in the mesh and 10 in use cost a sidecar no more than 10 services."""
    instances = [mesh.instance("used")]
    for number in range(10):
        mesh.apply(service(f"s{number}", selector={"app": "used"}), wait=False)

    def use(workload):
        for number in range(10):
            wait_until(lambda: workload.get("/", f"s{number}.shop").status == 200, what=f"s{number}")

    def settled(workload):
        use(workload)
        time.sleep(2)
        return workload.process.rss_mib()

    few = settled(mesh.workload("few"))
    for start in range(10, 10_000, 1000):
        end = min(start + 1000, 10_000)
        mesh.apply(*[service(f"s{n}", selector={"app": "used"}) for n in range(start, end)], wait=False)
    many = settled(mesh.workload("many"))
    assert many - few < 5, f"{few:.1f} MiB with 10 services, {many:.1f} MiB with 10,000"
    assert instances[0].process.rss_mib() < few + 5
