"""Two versions of an application behind virtual IPs, and clients of two namespaces, for Gateway API's tests."""

import json
import sys

from mesh import APPS, TESTKIT
from netns import NetMesh
from process import wait_until

GATEWAY = "gateway.networking.k8s.io/v1"


def numbered(name, target, port=80, namespace="shop", app_protocol=None, **selector):
    """A Service of one port."""
    entry = {"name": "main", "port": port, "targetPort": target}
    if app_protocol:
        entry["appProtocol"] = app_protocol
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": selector, "ports": [entry]},
    }


def ref(name, weight=1, port=80, **more):
    return {"name": name, "port": port, "weight": weight, **more}


def route(kind, parent, *rules, name="route", namespace="shop", parent_namespace=None, hostnames=None, **parent_fields):
    """A route with one Service as its parent."""
    parent_ref = {"group": "", "kind": "Service", "name": parent, **parent_fields}
    if parent_namespace:
        parent_ref["namespace"] = parent_namespace
    spec = {"parentRefs": [parent_ref], "rules": list(rules)}
    if hostnames:
        spec["hostnames"] = hostnames
    return {
        "apiVersion": GATEWAY if kind != "TCPRoute" else "gateway.networking.k8s.io/v1alpha2",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def grant(kind, from_namespace, namespace):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "grant", "namespace": namespace},
        "spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": from_namespace}],
            "to": [{"group": "", "kind": "Service"}],
        },
    }


class Answer:
    """What curl got, head and body."""

    def __init__(self, text):
        head, _, self.body = text.replace("\r\n", "\n").partition("\n\n")
        status, *lines = head.split("\n")
        self.status = int(status.split()[1])
        self.headers = [tuple(line.split(": ", 1)) if ": " in line else (line.rstrip(":"), "") for line in lines]

    def header(self, name):
        """Every value of a header, joined; nothing where it isn't there."""
        values = [value for key, value in self.headers if key.lower() == name]
        return ", ".join(values) if values else None

    @property
    def seen(self):
        """What the application saw of the request."""
        return json.loads(self.body.splitlines()[0])

    @property
    def by(self):
        """Which version answered, or why none did."""
        if fault := self.header("weft-fault"):
            return fault
        return self.seen["name"].split("-")[0] if self.body.startswith("{") else None

    def seen_headers(self, *without):
        """Headers as the application saw them, but for those that curl and tracing put there."""
        ours = {"user-agent", "accept", "traceparent", "tracestate", *without}
        return {name: value for name, value in map(tuple, self.seen["headers"]) if name not in ours}


class GatewayMesh(NetMesh):
    """Hosts `client` (shop), `guest` (desk), `v1` and `v2` (shop)."""

    def __init__(self, stubs):
        super().__init__(4)
        self.stubs = {"PYTHONPATH": str(stubs)}
        self.client, self.guest, self.v1, self.v2 = (self.net.host(n) for n in ("client", "guest", "v1", "v2"))
        for host in (self.v1, self.v2):
            self.sidecar(host, group="echo")
        self.sidecar(self.client)
        self.sidecar(self.guest, namespace="desk")
        self.apply(
            numbered("echo", 8080, group="echo"),
            numbered("echo-v1", 8080, app="v1"),
            numbered("echo-v2", 8080, app="v2"),
            numbered("rpc", 9000, group="echo", app_protocol="kubernetes.io/h2c"),
            numbered("rpc-v1", 9000, app="v1", app_protocol="kubernetes.io/h2c"),
            numbered("rpc-v2", 9000, app="v2", app_protocol="kubernetes.io/h2c"),
            numbered("raw", 9100, group="echo"),
            numbered("raw-v1", 9100, app="v1"),
            numbered("raw-v2", 9100, app="v2"),
        )
        for host in (self.v1, self.v2):
            program = [TESTKIT, "serve", "--name", host.name, "--listen", "0.0.0.0:8080", "--admin", "127.0.0.1:8081"]
            host.start("app", program)
            host.start("grpc", [sys.executable, APPS / "grpc_server.py", "0.0.0.0:9000", host.name], self.stubs)
            # Says its name to whoever connects, after it was spoken to.
            host.start("raw", [sys.executable, APPS / "raw.py", "9100", host.name])
            for port in (8080, 9000, 9100):
                host.listens(port)
        for name in ("v1", "v2"):
            wait_until(lambda name=name: self.ports_up(name) >= {8080, 9000, 9100}, 30, f"the ports of {name}")

    def ports_up(self, name):
        listed = self.weft("proxies", "-o", "json").json()
        return {port for e in listed if e["name"] == f"shop/{name}" for port in e["portsUp"]}

    def curl(self, url, *arguments, host=None, check=True):
        command = ["curl", "-sSi", "-m", "20", "--path-as-is", *arguments, url]
        return Answer((host or self.client).run(*command, check=check).stdout)

    def count(self, url, times, *arguments):
        """How often each version answers, over one curl's connections."""
        numbered_url = f"{url}{'&' if '?' in url else '?'}n=[1-{times}]"
        return self._counts("curl", "-sS", "-m", "60", *arguments, numbered_url)

    def count_streams(self, host, times, at_once):
        """The same for streams side by side on one connection."""
        return self._counts(sys.executable, str(APPS / "h2_streams.py"), host, str(times), str(at_once))

    def _counts(self, *command):
        counts = {}
        for line in self.client.run(*command, timeout=90).stdout.splitlines():
            if line.startswith("{"):
                name = json.loads(line)["name"].split("-")[0]
                counts[name] = counts.get(name, 0) + 1
        return counts

    def requests(self, host):
        """How many requests its application has seen."""
        return json.loads(host.run("curl", "-sS", "http://127.0.0.1:8081/").stdout)["requests"]

    def remove(self, document):
        self.weft("delete", document["kind"], document["metadata"]["name"], "-n", document["metadata"]["namespace"])
