"""Rules that change again and again under load: nothing fails, nothing goes astray, nothing is closed."""

import time

import pytest

from mesh import assert_no_failure, backend, http_route, service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


def test_route_changes_under_load(mesh, soak):
    """500 changes in a minute with --soak, as many a second for ten seconds without it."""
    mesh.apply(service("site", selector={"app": "none"}), service("v1"), service("v2"))
    v1, v2 = mesh.instance("v1"), mesh.instance("v2")
    web = mesh.workload("web")
    for name in ("v1", "v2"):
        mesh.wait_endpoints(web, 1, f"{name}.shop")
    to = {name: http_route("site", "site", [{"backendRefs": [backend(name)]}]) for name in ("v1", "v2")}
    mesh.apply(to["v1"])
    assert web.get(host="site.shop").header("x-served-by") == "v1-1"
    changes, seconds = (500, 60) if soak else (84, 10)
    loads = [
        mesh.load(web, url="http://site.shop/", protocol=protocol, rate=400, duration=f"{seconds + 60}s", connections=8)
        for protocol in ("http1", "h2c")
    ]
    began, memory = time.monotonic(), []
    # One connection over all changes: were it closed for one, the next answer would not come.
    with web.http1() as client:
        for number in range(changes):
            name = ("v1", "v2")[number % 2]
            mesh.apply(to[name])
            client.send("GET / HTTP/1.1\r\nHost: site.shop\r\n\r\n")
            # What was acknowledged is in force for the next request.
            assert client.read("GET").header("x-served-by") == f"{name}-1"
            if number in (changes // 4, changes - 1):
                memory.append(web.process.rss_mib())
            due = began + (number + 1) * seconds / changes
            time.sleep(max(0.0, due - time.monotonic()))
    took = time.monotonic() - began
    reports = [load.stop() for load in loads]
    for report in reports:
        assert_no_failure(report, at_least=400 * seconds // 2)
    assert v1.application.requests() > 0 and v2.application.requests() > 0
    assert memory[1] < memory[0] + 4, memory
    print(f"{changes} changes in {took:.1f} s, {sum(r['total'] for r in reports)} requests, memory {memory} MiB")
