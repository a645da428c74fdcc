"""A mesh of real programs on this machine: a control plane, sidecars in explicit mode, applications."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

import wire
from process import Process, running, wait_until

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(os.environ.get("WEFT_PROGRAMS", ROOT / "target/release"))
WEFT = PROGRAMS / "weft"
PROXY = PROGRAMS / "weft-proxy"
TESTKIT = PROGRAMS / "weft-testkit"
APPS = Path(__file__).parent / "apps"
NAMESPACE = "shop"

_next_port = 10_000 + (os.getpid() * 97) % 15_000


def free_ports(count=1):
    """Ports in a row below the ephemeral range that nobody listens on now."""
    global _next_port
    while True:
        first = _next_port
        _next_port = first + count if first + count < 30_000 else 10_000
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0")):
                        probe = stack.enter_context(socket.socket(family))
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((host, port))
                        probe.close()
                return first
            except OSError:
                continue


def http_get(address, path, timeout=5):
    """Status and text of a side door (admin ports): no proxy in between."""
    return http_call("GET", address, path, timeout=timeout)


def http_call(method, address, path, body=None, timeout=5):
    request = urllib.request.Request(f"http://{address[0]}:{address[1]}{path}", body, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@dataclass
class Outcome:
    """What a run of the CLI gave."""

    code: int
    stdout: str
    stderr: str

    def json(self):
        return json.loads(self.stdout)


class Cli:
    """`weft` against one control plane's socket."""

    def __init__(self, data_dir, prefix=()):
        self.data_dir = data_dir
        self.prefix = prefix

    def __call__(self, *arguments, stdin="", check=True, timeout=60):
        command = [*map(str, self.prefix), str(WEFT), *map(str, arguments)]
        done = subprocess.run(
            command,
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, "WEFT_DATA_DIR": str(self.data_dir)},
        )
        outcome = Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert not check or outcome.code == 0, f"{' '.join(command)}\n{outcome.stdout}{outcome.stderr}"
        return outcome


class ControlPlane:
    """`weft serve`."""

    def __init__(self, directory, *flags, host="127.0.0.1", prefix=(), port=None, env=None):
        self.directory = Path(directory)
        self.data_dir = self.directory / "control-plane"
        self.host = host
        self.port = port or free_ports()
        self.admin = (host, free_ports())
        self.cli = Cli(self.data_dir)
        self._command = [
            WEFT, "serve", "--data-dir", self.data_dir,
            "--listen", f"{bracketed(host)}:{self.port}", "--admin", f"{bracketed(host)}:{self.admin[1]}",
            *flags,
        ]  # fmt: skip
        self._prefix = prefix
        self._env = env
        self.process = Process("control-plane", self._command, directory, env, prefix)
        if not prefix:
            self.wait_ready()

    @property
    def address(self):
        return f"{bracketed(self.host)}:{self.port}"

    @property
    def trust_bundle(self):
        return self.data_dir / "trust-bundle.pem"

    def wait_ready(self):
        def ready():
            self.process.must_live()
            return self.cli("get", "services", "-A", check=False).code == 0

        wait_until(ready, what="the control plane")

    def kill(self):
        self.process.kill()

    def restart(self):
        """Starts it again, on the same data and ports."""
        self.process.start()
        self.wait_ready()

    def token(self, namespace, service_account, *flags):
        made = self.cli("token", "create", "--namespace", namespace, "--service-account", service_account, *flags)
        return made.stdout.strip()


def field(entry, name):
    """A field of a JSON document, in snake or camel case."""
    head, *rest = name.split("_")
    return entry.get(name, entry.get(head + "".join(word.title() for word in rest)))


def bracketed(host):
    return f"[{host}]" if ":" in host else host


class Workload:
    """A sidecar in explicit mode on loopback, for an application at `ports`."""

    def __init__(
        self, mesh, name, namespace=NAMESPACE, labels=None, ports=None, service_account=None, env=None, token=None, wait=True,
        prefix=(),
    ):  # fmt: skip
        self.mesh = mesh
        self.name = name
        self.namespace = namespace
        self.service_account = service_account or name
        self.ports = ports or {}
        first = free_ports(3)
        self.outbound = ("127.0.0.1", first)
        self.inbound = ("127.0.0.1", first + 1)
        self.admin = ("127.0.0.1", first + 2)
        self.data_dir = mesh.directory / f"data-{namespace}-{name}"
        token = token if token is not None else mesh.control_plane.token(namespace, self.service_account)
        labels = {"app": name, **(labels or {})}
        self.env = {
            "WEFT_CONTROL_PLANE": mesh.control_plane.address,
            "WEFT_TRUST_BUNDLE": str(mesh.control_plane.trust_bundle),
            "WEFT_TOKEN": token,
            "WEFT_WORKLOAD": name,
            "WEFT_NAMESPACE": namespace,
            "WEFT_SERVICE_ACCOUNT": self.service_account,
            "WEFT_LABELS": ",".join(f"{k}={v}" for k, v in labels.items()),
            "WEFT_ADDRESS": "127.0.0.1",
            "WEFT_INBOUND_PORT": str(self.inbound[1]),
            "WEFT_DATA_DIR": str(self.data_dir),
            "WEFT_OUTBOUND_LISTEN": f"127.0.0.1:{self.outbound[1]}",
            "WEFT_INBOUND_LISTEN": f"127.0.0.1:{self.inbound[1]}",
            "WEFT_ADMIN_LISTEN": f"127.0.0.1:{self.admin[1]}",
            "WEFT_LOG": "info",
            "WEFT_ACCESS_LOG": "text",
            **(env or {}),
        }  # fmt: skip
        if self.ports:
            self.env["WEFT_PORTS"] = ",".join(f"{k}={v}" for k, v in self.ports.items())
        self.process = Process(f"proxy-{namespace}-{name}", [PROXY, "run"], mesh.directory, self.env, prefix)
        if wait:
            self.wait_ready()

    @property
    def spiffe_id(self):
        return f"spiffe://weft.local/ns/{self.namespace}/sa/{self.service_account}"

    def ready(self):
        return http_get(self.admin, "/ready")[0] == 200

    def wait_ready(self):
        def ready():
            self.process.must_live()
            return self.ready()

        wait_until(ready, what=f"{self.name}'s /ready")

    def get(self, target="/", host="orders.shop", **headers):
        """GET through this sidecar, on a connection of its own."""
        return wire.get(self.outbound, target, host, **headers)

    def http1(self, timeout=10):
        return wire.Http1(self.outbound, timeout)

    def http2(self, timeout=10, validate=False):
        return wire.Http2(self.outbound, timeout, validate)

    def metrics(self):
        status, text = http_get(self.admin, "/metrics")
        assert status == 200
        return text

    def config(self):
        status, text = http_get(self.admin, "/config")
        assert status == 200, text
        return json.loads(text)

    def curl(self, *arguments, check=True, timeout=300):
        done = subprocess.run(
            ["curl", "-sS", "--noproxy", "", "-x", f"http://127.0.0.1:{self.outbound[1]}", *map(str, arguments)],
            capture_output=True,
            timeout=timeout,
        )
        assert not check or done.returncode == 0, done.stderr.decode()
        return done


class Application:
    """The testkit's HTTP application."""

    def __init__(self, mesh, name, port, ports=1, host="127.0.0.1", flags=()):
        self.name = name
        self.port = port
        self.host = host
        self.side_door = (host, free_ports())
        command = [
            TESTKIT, "serve", "--name", name, "--listen", f"{bracketed(host)}:{port}",
            "--ports", ports, "--admin", f"{bracketed(host)}:{self.side_door[1]}", *flags,
        ]  # fmt: skip
        self.process = Process(f"app-{name}", command, mesh.directory)
        wait_until(lambda: http_get(self.side_door, "/count")[0] == 200, what=f"application {name}")

    def requests(self):
        return json.loads(http_get(self.side_door, "/count")[1])["requests"]

    def connections(self):
        return json.loads(http_get(self.side_door, "/count")[1])["connections"]

    def trouble(self, status=0, delay=0, percent=100):
        """Has it answer a share of all requests with a status, or late (milliseconds); none ends that."""
        percent = percent if status or delay else 0
        assert http_call("PUT", self.side_door, f"/trouble/{status}/{delay}/{percent}")[0] == 200

    def open(self, port):
        assert http_call("PUT", self.side_door, f"/ports/{self.host}:{port}")[0] == 200

    def shut(self, port):
        assert http_call("DELETE", self.side_door, f"/ports/{self.host}:{port}")[0] == 200


class Load:
    """The testkit's load, beside the test."""

    def __init__(self, mesh, connect, url="http://orders.shop/", protocol="http1", duration="60s", **flags):
        given = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not True]
        given += [f"--{name.replace('_', '-')}" for name, value in flags.items() if value is True]
        self.report_file = mesh.directory / f"load-{len(mesh.loads)}.json"
        command = [
            TESTKIT, "load", "--url", url, "--connect", f"{bracketed(connect[0])}:{connect[1]}",
            "--protocol", protocol, "--duration", duration, *given,
        ]  # fmt: skip
        mesh.loads.append(self)
        self.process = Process(f"load-{len(mesh.loads)}", command, mesh.directory)

    def stop(self):
        """Ends it now and returns its report."""
        self.process.signal(signal.SIGINT)
        return self.report()

    def report(self, seconds=400):
        """Waits for its end and returns its report."""
        self.process.wait(seconds)
        lines = [line for line in self.process.text().splitlines() if line.startswith("{")]
        assert lines, f"no report:\n{self.process.tail()}"
        return json.loads(lines[-1])


def assert_no_failure(report, at_least=1):
    assert report["failed"] == 0, (
        f"{report['failed']} of {report['total']} failed: {report['failures']} {report['faults']} {report['samples']}"
    )
    assert report["total"] >= at_least, f"only {report['total']} requests were made"


class Mesh:
    """Everything of one test; ends with it."""

    def __init__(self, directory, *flags, env=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.loads = []
        self.processes = []
        self.control_plane = ControlPlane(self.directory, *flags, env=env)
        self.weft = self.control_plane.cli

    def workload(self, name, *arguments, **options):
        workload = Workload(self, name, *arguments, **options)
        return workload

    def application(self, name, port=None, **options):
        application = Application(self, name, port or free_ports(options.get("ports", 1)), **options)
        return application

    def program(self, name, command, env=None):
        """Any other program of the test."""
        process = Process(name, command, self.directory, env)
        return process

    def load(self, workload, **options):
        load = Load(self, workload.outbound, **options)
        return load

    def apply(self, *documents, wait=True, check=True):
        """Applies texts or values as the documents of one file."""
        texts = [d if isinstance(d, str) else yaml.safe_dump(d, sort_keys=False) for d in documents]
        flags = ["--wait=20s"] if wait else []
        return self.weft("apply", "-f", "-", *flags, stdin="\n---\n".join(texts), check=check)

    def instance(self, service, number=1, namespace=NAMESPACE, labels=None, **options):
        """One instance of a service: the testkit's application and its sidecar, offered and known."""
        name = f"{service}-{number}"
        application = self.application(name)
        workload = self.workload(
            name, namespace, {"app": service, **(labels or {})}, {"http": application.port}, service, **options
        )
        workload.application = application
        return workload

    def offer(self, name, port, namespace=NAMESPACE, app_protocol=None, **options):
        """A sidecar and a Service before an application that already listens on `port`."""
        self.apply(service(name, namespace, app_protocol=app_protocol))
        workload = self.workload(name, namespace, ports={"http": port}, **options)
        self.wait_port_up(workload, port)
        return workload

    def wait_port_up(self, workload, port):
        def up():
            entry = self.proxy(f"{workload.namespace}/{workload.name}")
            return entry and port in field(entry, "ports_up")

        wait_until(up, what=f"port {port} of {workload.name} to be offered")

    def proxy(self, name):
        """The entry of NAMESPACE/WORKLOAD in `weft proxies`, or None."""
        found = [entry for entry in self.proxies() if entry["name"] == name]
        return found[0] if found else None

    def wait_endpoints(self, caller, count, host="orders.shop", seconds=15):
        """Waits until the caller's requests have reached `count` instances."""
        seen = set()

        def reached():
            seen.add(caller.get("/", host).header("x-served-by"))
            return len(seen - {None}) >= count

        wait_until(reached, seconds, f"{count} endpoints of {host}")

    def proxies(self):
        return self.weft("proxies", "-o", "json").json()

    def close(self):
        for process in [one for one in running if one.log.parent == self.directory]:
            process.kill()


@contextlib.contextmanager
def applying(mesh):
    """A function that applies documents, which are taken away again in the end."""
    keys = []

    def apply(*documents):
        keys.extend((one["kind"], one["metadata"]["name"]) for one in documents)
        if documents:
            mesh.apply(*documents)

    yield apply
    for kind, name in dict.fromkeys(keys):
        mesh.weft("delete", kind, name, "-n", NAMESPACE)


def service(name, namespace=NAMESPACE, port=80, target="http", app_protocol=None, selector=None, **spec):
    """A Service document."""
    entry = {"name": "http", "port": port, "targetPort": target}
    if app_protocol:
        entry["appProtocol"] = app_protocol
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": selector or {"app": name}, "ports": [entry], **spec},
    }


def http_route(name, parent, rules, namespace=NAMESPACE, port=None):
    """An HTTPRoute document attached to a Service."""
    parent_ref = {"group": "", "kind": "Service", "name": parent}
    if port:
        parent_ref["port"] = port
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"parentRefs": [parent_ref], "rules": rules},
    }


def backend(name, weight=1, port=80, **more):
    return {"name": name, "port": port, "weight": weight, **more}


def endpoint_slice(name, service_name, addresses, port, namespace=NAMESPACE, ready=True):
    """An EndpointSlice document of one port."""
    family = "IPv6" if addresses and ":" in addresses[0] else "IPv4"
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service_name},
        },
        "addressType": family,
        "ports": [{"name": "http", "port": port}],
        "endpoints": [{"addresses": [a], "conditions": {"ready": ready}} for a in addresses],
    }
