"""Fixtures and the rules of the run."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import process
from mesh import PROGRAMS, PROXY, TESTKIT, WEFT, Mesh, service


def pytest_addoption(parser):
    parser.addoption("--soak", action="store_true", help="run the long forms of the long tests")
    parser.addoption("--quick", action="store_true", help="leave out what is marked slow")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than about ten seconds; left out by --quick")
    config.addinivalue_line("markers", "netns: needs network namespaces and nftables")
    for program in (WEFT, PROXY, TESTKIT):
        if not program.exists():
            raise pytest.UsageError(f"{program} is missing: run ./tests/run.sh, or set WEFT_PROGRAMS ({PROGRAMS})")


def namespaces_work():
    """Whether this user may make network namespaces and rules in them, with several user ids."""
    script = "ip netns list && nft list ruleset && setpriv --reuid 65534 --regid 65534 --clear-groups true"
    return subprocess.run(["sh", "-c", f"[ $(id -u) = 0 ] && {script}"], capture_output=True).returncode == 0


def pytest_collection_modifyitems(config, items):
    no_namespaces = None if namespaces_work() else pytest.mark.skip(reason="NO NETWORK NAMESPACES: not root here")
    for item in items:
        if config.getoption("--quick") and item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="--quick"))
        if no_namespaces and item.get_closest_marker("netns"):
            item.add_marker(no_namespaces)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for one in process.running:
            if not one.name.startswith("load-"):
                report.sections.append((f"end of {one.name}'s log ({one.log})", one.tail(25)))


def pytest_sessionfinish():
    left = process.stop_all()
    if left:
        print(f"\nprocesses left by tests, now killed: {left}")


def pytest_terminal_summary(terminalreporter):
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} SCENARIOS WERE SKIPPED, reasons above", yellow=True)


@pytest.fixture(scope="session")
def soak(pytestconfig):
    """Whether the long forms are asked for."""
    return pytestconfig.getoption("--soak")


def _directory(tmp_path_factory, name):
    return tmp_path_factory.mktemp(name.replace("/", "-")[:40])


@pytest.fixture
def mesh(request, tmp_path_factory):
    """A control plane of this test's own; `mesh.param` gives it flags."""
    flags = getattr(request, "param", ())
    made = Mesh(_directory(tmp_path_factory, request.node.name.split("[")[0]), *flags)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared_mesh(request, tmp_path_factory):
    """A control plane for a file's tests."""
    made = Mesh(_directory(tmp_path_factory, request.module.__name__))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shop(shared_mesh):
    """Service `orders` with two instances, called by `web`."""
    shared_mesh.apply(service("orders"))
    shared_mesh.orders = [shared_mesh.instance("orders", n) for n in (1, 2)]
    shared_mesh.web = shared_mesh.workload("web")
    shared_mesh.wait_endpoints(shared_mesh.web, 2)
    return shared_mesh


@pytest.fixture(scope="session")
def stubs(tmp_path_factory):
    """Python modules made from the project's and the tests' protobuf files."""
    import sys
    from importlib.resources import files

    from grpc_tools import protoc

    out = tmp_path_factory.mktemp("stubs")
    root = Path(__file__).resolve().parents[2]
    sources = [root / "proto/proto", Path(__file__).parent / "apps"]
    protos = [p for source in sources for p in source.rglob("*.proto")]
    arguments = ["protoc", *(f"-I{s}" for s in sources), f"-I{files('grpc_tools') / '_proto'}"]
    arguments += [f"--python_out={out}", f"--grpc_python_out={out}", *map(str, protos)]
    assert protoc.main(arguments) == 0
    sys.path.insert(0, str(out))
    os.environ["PYTHONPATH"] = str(out)
    yield out
    shutil.rmtree(out, ignore_errors=True)
