"""Sidecars with several workers: they serve as one does, and wait for their turns on the cores."""

import os
from pathlib import Path

import pytest

from mesh import assert_no_failure, service
from process import wait_until


def schedules(workload, workers):
    """The scheduling policy and niceness of a sidecar's first thread, and of each of its workers."""
    tasks = Path(f"/proc/{workload.process.child.pid}/task")
    names = {(task / "comm").read_text().strip(): int(task.name) for task in tasks.iterdir()}
    threads = ["weft-proxy", *(f"worker-{index}" for index in range(workers))]
    # The admin port is up before the workers are.
    assert set(threads) <= set(names), names
    return [(os.sched_getscheduler(names[name]), os.getpriority(os.PRIO_PROCESS, names[name])) for name in threads]


def settled(mesh, workload, workers):
    """The same, once every worker has begun to serve."""
    mesh.apply(service("orders"))
    mesh.instance("orders")
    mesh.wait_endpoints(workload, 1)
    assert_no_failure(mesh.load(workload, duration="1s", connections=4 * workers).report(), 1)
    return schedules(workload, workers)


@pytest.mark.parametrize("niceness", [-20, 0, 5, 19])
def test_several_workers_wait_for_their_turns(mesh, niceness):
    web = mesh.workload("web", env={"WEFT_WORKERS": "2"}, prefix=["nice", "-n", str(niceness)])
    # The first thread is not on a request's way.
    expected = [(os.SCHED_OTHER, niceness), (os.SCHED_BATCH, niceness), (os.SCHED_BATCH, niceness)]
    wait_until(lambda: schedules(web, 2) == expected, what="both workers to wait for their turns")


def test_workers_keep_the_policy_that_was_chosen_for_them(mesh):
    web = mesh.workload("web", env={"WEFT_WORKERS": "2"}, prefix=["chrt", "--idle", "0"])
    assert settled(mesh, web, 2) == [(os.SCHED_IDLE, 0)] * 3


def test_a_single_worker_takes_its_core_at_once(mesh):
    web = mesh.workload("web", env={"WEFT_WORKERS": "1"})
    assert settled(mesh, web, 1) == [(os.SCHED_OTHER, 0)] * 2


@pytest.mark.parametrize("load", [{"protocol": "http1", "connections": 16}, {"protocol": "h2c", "connections": 4, "streams": 16}])
def test_several_workers_serve_as_one_does(mesh, load):
    mesh.apply(service("orders"))
    orders = mesh.instance("orders", env={"WEFT_WORKERS": "3"})
    web = mesh.workload("web", env={"WEFT_WORKERS": "2"})
    mesh.wait_endpoints(web, 1)
    report = mesh.load(web, duration="2s", **load).report()
    assert_no_failure(report, 100)
    for workload, workers in ((web, 2), (orders, 3)):
        assert schedules(workload, workers)[1:] == [(os.SCHED_BATCH, 0)] * workers
