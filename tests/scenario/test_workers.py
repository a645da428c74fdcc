"""Sidecars with several workers: they serve as one does, and wait for their turns on the cores."""

import os
from pathlib import Path

import pytest

from mesh import assert_no_failure, service
from process import wait_until


def threads(workload):
    """The names of a sidecar's threads, with their scheduling policies and nicenesses."""
    tasks = Path(f"/proc/{workload.process.child.pid}/task")
    return {
        (task / "comm").read_text().strip(): (
            os.sched_getscheduler(int(task.name)),
            os.getpriority(os.PRIO_PROCESS, int(task.name)),
        )
        for task in tasks.iterdir()
    }


@pytest.mark.parametrize("niceness", [-20, 0, 5, 19])
def test_several_workers_wait_for_their_turns(mesh, niceness):
    web = mesh.workload("web", env={"WEFT_WORKERS": "2"}, prefix=["nice", "-n", str(niceness)])

    def waiting():
        own = {name: of for name, of in threads(web).items() if name.startswith("worker-")}
        return own == {"worker-0": (os.SCHED_BATCH, niceness), "worker-1": (os.SCHED_BATCH, niceness)}

    # The admin port is up before the workers are.
    wait_until(waiting, what="both workers to wait for their turns")
    # The control thread is not on a request's way.
    assert threads(web)["weft-proxy"] == (os.SCHED_OTHER, niceness)


def test_workers_keep_the_policy_that_was_chosen_for_them(mesh):
    web = mesh.workload("web", env={"WEFT_WORKERS": "2"}, prefix=["chrt", "--idle", "0"])
    assert threads(web)["worker-1"] == (os.SCHED_IDLE, 0)


def test_a_single_worker_takes_its_core_at_once(mesh):
    web = mesh.workload("web", env={"WEFT_WORKERS": "1"})
    assert threads(web)["worker-0"] == (os.SCHED_OTHER, 0)


@pytest.mark.parametrize("load", [{"protocol": "http1", "connections": 16}, {"protocol": "h2c", "connections": 4, "streams": 16}])
def test_several_workers_serve_as_one_does(mesh, load):
    mesh.apply(service("orders"))
    orders = mesh.instance("orders", env={"WEFT_WORKERS": "3"})
    web = mesh.workload("web", env={"WEFT_WORKERS": "2"})
    mesh.wait_endpoints(web, 1)
    report = mesh.load(web, duration="2s", **load).report()
    assert_no_failure(report, 100)
    assert all(policy == os.SCHED_BATCH for name, (policy, _) in threads(orders).items() if name.startswith("worker-"))
