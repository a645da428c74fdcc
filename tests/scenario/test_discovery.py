"""What a sidecar is told: on demand, as deltas, each resource for itself."""

import queue

import pytest

from fake import Attached, enroll, hello
from mesh import field, service
from process import wait_until

pytestmark = pytest.mark.usefixtures("stubs")


@pytest.fixture
def sidecar(shared_mesh, tmp_path):
    """A sidecar that the test plays."""
    made = []

    def attach(name, **more):
        identity = enroll(shared_mesh.control_plane, tmp_path, "shop", name)
        stream = Attached(shared_mesh.control_plane, identity, hello(name, **more))
        made.append(stream)
        wait_until(lambda: shared_mesh.proxy(f"shop/{name}"), what=f"{name} in `weft proxies`")
        return stream

    yield attach
    for stream in made:
        stream.close()


def quiet(stream, seconds=1):
    """Asserts that nothing is pushed for a while."""
    try:
        push = stream.pushes.get(timeout=seconds)
    except queue.Empty:
        return
    raise AssertionError(f"pushed without need: {[(r.type, r.name) for r in push.resources]}")


def drain(stream, wanted):
    """Takes pushes until all of `wanted` are held."""
    wait_until(lambda: all(key in stream.held for key in wanted), what=f"{wanted}")
    while not stream.pushes.empty():
        stream.pushes.get()


def test_a_rejected_resource_is_shown_and_the_others_go_on(shared_mesh, sidecar):
    pb = None
    shared_mesh.apply(service("alpha"), service("beta"), wait=False)
    stream = sidecar("picky")
    pb = stream.pb
    alpha, beta = (pb.SERVICE, "shop/alpha"), (pb.SERVICE, "shop/beta")
    stream.subscribe(alpha, beta)
    drain(stream, [alpha, beta])
    first = stream.held[alpha].version
    stream.reject[alpha] = "the test does not like it"
    shared_mesh.apply(service("alpha", port=81), wait=False)

    def shown():
        rejected = field(shared_mesh.proxy("shop/picky"), "rejected")
        return rejected and rejected[0]

    rejection = wait_until(shown, what="the rejection in `weft proxies`")
    assert "shop/alpha" in rejection["resource"] and rejection["field"] == "spec.test"
    assert rejection["reason"] == "the test does not like it"
    assert stream.held[alpha].version == first
    table = shared_mesh.weft("proxies").stdout
    assert "picky" in table and "the test does not like it" in table, table
    shared_mesh.apply(service("beta", port=82), wait=False)
    wait_until(lambda: b"R" in stream.held[beta].body or port_of(stream.held[beta]) == 82, what="beta's new version")
    outcome = shared_mesh.weft("apply", "-f", "-", "--wait=5s", stdin=_yaml(service("alpha", port=83)), check=False)
    assert outcome.code == 1 and "picky" in outcome.stderr + outcome.stdout, outcome
    stream.reject.clear()
    shared_mesh.apply(service("alpha", port=84))
    assert not field(shared_mesh.proxy("shop/picky"), "rejected")


def port_of(resource):
    from weft.v1alpha1 import discovery_pb2

    message = discovery_pb2.Service()
    message.ParseFromString(resource.body)
    return message.ports[0].port


def _yaml(document):
    import yaml

    return yaml.safe_dump(document)


def test_only_what_was_asked_for_and_changed_is_pushed(shared_mesh, sidecar):
    shared_mesh.apply(service("gamma"), service("delta"), wait=False)
    stream = sidecar("frugal")
    gamma = (stream.pb.SERVICE, "shop/gamma")
    stream.subscribe(gamma)
    drain(stream, [gamma])
    quiet(stream, 0.5)
    shared_mesh.apply(service("delta", port=81), wait=False)
    quiet(stream)
    shared_mesh.apply(service("gamma"), wait=False)
    quiet(stream)
    shared_mesh.apply(service("gamma", port=81), wait=False)
    wait_until(lambda: port_of(stream.held[gamma]) == 81, what="gamma's new version")


def test_what_is_not_there_is_answered_too_and_comes_when_it_is(shared_mesh, sidecar):
    stream = sidecar("early")
    later = (stream.pb.SERVICE, "shop/later")
    stream.subscribe(later)
    drain(stream, [later])
    assert stream.held[later].version == "" and stream.held[later].body == b""
    shared_mesh.apply(service("later"), wait=False)
    wait_until(lambda: stream.held[later].version, what="the service that is there now")
    shared_mesh.weft("delete", "service", "later", "-n", "shop")
    wait_until(lambda: stream.held[later].version == "", what="the service's end")


def test_what_is_held_is_not_sent_again(shared_mesh, sidecar):
    shared_mesh.apply(service("held"), wait=False)
    stream = sidecar("returning")
    held = (stream.pb.SERVICE, "shop/held")
    stream.subscribe(held)
    drain(stream, [held])
    version = stream.held[held].version
    known = [stream.pb.ResourceVersion(type=held[0], name=held[1], version=version)]
    stream.close()
    wait_until(lambda: not shared_mesh.proxy("shop/returning"), what="the end of the first stream")
    again = sidecar("returning", known=known)
    while not again.pushes.empty():
        pushed = again.pushes.get()
        assert held not in [(r.type, r.name) for r in pushed.resources], "sent although it is held"
    shared_mesh.apply(service("held", port=81), wait=False)
    wait_until(lambda: held in again.held and port_of(again.held[held]) == 81, what="the change")


def test_versions_are_the_same_after_a_restart_of_the_control_plane(shared_mesh, sidecar):
    shared_mesh.apply(service("steady"), wait=False)
    stream = sidecar("watcher")
    steady = (stream.pb.SERVICE, "shop/steady")
    stream.subscribe(steady)
    drain(stream, [steady])
    before = stream.held[steady].version
    stream.close()
    shared_mesh.control_plane.kill()
    shared_mesh.control_plane.restart()
    again = sidecar("watcher")
    again.subscribe(steady)
    drain(again, [steady])
    assert again.held[steady].version == before


def test_a_workload_is_listed_while_its_sidecar_is_connected(shared_mesh, sidecar):
    stream = sidecar("passing", labels={"app": "passing"})
    assert "passing" in shared_mesh.weft("get", "workloads", "-n", "shop").stdout
    stream.close()
    wait_until(lambda: "passing" not in shared_mesh.weft("get", "workloads", "-A").stdout, what="its end")


def test_a_drain_is_told_and_withdraws_the_workload(shared_mesh, sidecar):
    shared_mesh.apply(service("leaving"), wait=False)
    leaver = sidecar("leaving", labels={"app": "leaving"}, named_ports={"http": 8080}, ports_up=[8080])
    watcher = sidecar("looking")
    cluster = (watcher.pb.CLUSTER, "shop/leaving:80")
    watcher.subscribe(cluster)

    def endpoints():
        message = watcher.pb.Cluster()
        message.ParseFromString(watcher.held[cluster].body)
        return len(message.endpoints)

    drain(watcher, [cluster])
    wait_until(lambda: endpoints() == 1, what="the endpoint")
    leaver.send(goodbye=watcher.pb.Goodbye())
    wait_until(lambda: endpoints() == 0, 2, "the withdrawal")
