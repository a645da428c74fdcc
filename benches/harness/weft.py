"""weft whole: control plane, identities from it, `weft-proxy init` for the interception."""

import json
import os

from net import LOAD_CORE, ONE_HOP, PAIR, PROXY_CORE, PROXY_GID
from peer import Peer
from processes import Process, run, wait_until
from servers import COUNT, ECHO, PORTS, SOURCE


def documents(server):
    """Service `plain` for the server without a sidecar, `paired` for the one with."""

    def port(number):
        described = {"name": f"p{number}", "port": number, "targetPort": number}
        return {**described, "appProtocol": "tcp"} if number in (ECHO, COUNT, SOURCE) else described

    def service(name, address, **spec):
        metadata = {"name": name, "namespace": "bench"}
        spec = {"clusterIP": address, "ports": [port(number) for number in PORTS], **spec}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "plain", "namespace": "bench", "labels": {"kubernetes.io/service-name": "plain"}},
        "addressType": "IPv4",
        "ports": [{"name": f"p{number}", "port": number} for number in PORTS],
        "endpoints": [{"addresses": [server], "conditions": {"ready": True}}],
    }
    return [service("plain", ONE_HOP), service("paired", PAIR, selector={"app": "server"}), endpoints]


class Weft(Peer):
    """The control plane lives as long as the run, sidecars as long as a measurement."""

    name = "weft"
    programs = None

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.data = self.directory / "control-plane"
        self.control_plane = None

    def version(self):
        return run([self.programs / "weft-proxy", "version"]).stdout.strip()

    def _weft(self, *arguments, check=True, **options):
        environment = {**os.environ, "WEFT_DATA_DIR": str(self.data)}
        return run([self.programs / "weft", *arguments], check=check, env=environment, **options)

    def _serve(self):
        serve = [self.programs / "weft", "serve", "--data-dir", self.data]
        self.control_plane = Process("control-plane", serve, self.directory, self.net.control, LOAD_CORE)

        def up():
            self.control_plane.must_live()
            return self._weft("get", "services", "-A", check=False).returncode == 0

        wait_until(up, "the control plane")
        applied = "\n---\n".join(json.dumps(document) for document in documents(self.net.server_address))
        self._weft("apply", "-f", "-", input=applied)

    def start(self, scenario, processes):
        if self.control_plane is None:
            self._serve()
        sides = [] if scenario.called else [("client", self.net.client, "10.78.1.2", self.net.client_address)]
        if scenario.pair or scenario.called:
            sides.append(("server", self.net.server, "10.78.2.2", self.net.server_address))
        for name, host, control, address in sides:
            token = self._weft("token", "create", "--namespace", "bench", "--service-account", name).stdout.strip()
            settings = {
                "WEFT_CONTROL_PLANE": f"{control}:4180",
                "WEFT_TRUST_BUNDLE": str(self.data / "trust-bundle.pem"),
                "WEFT_TOKEN": token,
                "WEFT_WORKLOAD": name,
                "WEFT_NAMESPACE": "bench",
                "WEFT_SERVICE_ACCOUNT": name,
                "WEFT_LABELS": f"app={name}",
                "WEFT_ADDRESS": address,
            }
            run([self.programs / "weft-proxy", "init", "--proxy-gid", PROXY_GID], host)
            command = [self.programs / "weft-proxy", "run"]
            process = Process(f"weft-{name}", command, self.directory, host, PROXY_CORE, PROXY_GID, settings)
            processes.append(process)
        for process, (_, host, _, _) in zip(processes, sides, strict=True):

            def up(process=process, host=host):
                process.must_live()
                ready = run(["curl", "-sf", "-o", "/dev/null", "http://127.0.0.1:4191/ready"], host, check=False)
                return ready.returncode == 0

            wait_until(up, f"{process.name}'s /ready")

    def close(self):
        if self.control_plane is not None:
            self.control_plane.stop()
