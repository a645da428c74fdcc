"""Hosts made of network namespaces: joined by a bridge, with IPv4 and IPv6, and a capture on the wire."""

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mesh import APPS, PROXY, WEFT, Cli, bracketed
from process import Process, wait_until

PROXY_UID = 4143
ADMIN_PORT = 4191
_numbers = itertools.count(1)


def ip(*arguments):
    done = subprocess.run(["ip", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(map(str, arguments))}: {done.stderr}"
    return done.stdout


# Tells tests/run.sh whose a namespace is, so that one left by a killed run goes with the next.
OWNERS = Path("/run/weft-tests")


def add_namespace(name):
    OWNERS.mkdir(parents=True, exist_ok=True)
    (OWNERS / name).write_text(str(os.getpid()))
    ip("netns", "add", name)


def delete_namespace(name):
    for pid in ip("netns", "pids", name).split():
        subprocess.run(["kill", "-9", pid], capture_output=True)
    ip("netns", "del", name)
    (OWNERS / name).unlink(missing_ok=True)


class Host:
    """One namespace with an address of each family."""

    def __init__(self, net, name, number):
        self.net = net
        self.name = name
        self.namespace = f"{net.prefix}-{name}"
        self.ip4 = f"10.77.0.{number}"
        self.ip6 = f"fd00:77::{number}"
        add_namespace(self.namespace)
        end = f"{net.prefix}{number}"
        ip("link", "add", end, "netns", net.wire, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        ip("-n", net.wire, "link", "set", end, "master", "br0", "up")
        self._ip("link", "set", "lo", "up")
        self._ip("link", "set", "eth0", "up")
        self._ip("addr", "add", f"{self.ip4}/24", "dev", "eth0")
        self._ip("addr", "add", f"{self.ip6}/64", "dev", "eth0", "nodad")
        self._ip("route", "add", "default", "dev", "eth0")
        self._ip("-6", "route", "add", "default", "dev", "eth0")
        self._etc = Path("/etc/netns") / self.namespace
        self._etc.mkdir(parents=True)
        self.directory = net.directory / name
        self.directory.mkdir()

    def _ip(self, *arguments):
        ip("-n", self.namespace, *arguments)

    def address(self, family):
        return self.ip4 if family == 4 else self.ip6

    def resolve_with(self, server):
        """Names are asked of `server`, as in any host's resolv.conf."""
        (self._etc / "resolv.conf").write_text(f"nameserver {server}\noptions timeout:2 attempts:2\n")
        (self._etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")

    def prefix(self, uid=0):
        inside = ["ip", "netns", "exec", self.namespace]
        if uid:
            inside += ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "--pdeathsig", "KILL", "--"]
        return [str(part) for part in inside]

    def start(self, name, command, env=None, uid=0):
        """A program in this host for as long as the net lives."""
        return Process(f"{self.name}-{name}", command, self.net.directory, env, self.prefix(uid), self.directory)

    def run(self, *command, check=True, uid=0, timeout=120, env=None, stdin=None):
        done = subprocess.run(
            [*self.prefix(uid), *map(str, command)],
            capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})}, input=stdin,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"{command} in {self.name}: {done.stdout}{done.stderr}"
        return done

    def python(self, script, *arguments, **options):
        return self.run(sys.executable, APPS / script, *arguments, **options)

    def listens(self, port):
        """Waits until something in this host listens on a TCP port."""
        wait_until(lambda: f":{port} " in self.run("ss", "-Hltn").stdout, 60, f"port {port} of {self.name}")

    def rules(self):
        """All that interception could leave behind."""
        listings = (["nft", "list", "ruleset"], ["ip", "rule"], ["ip", "-6", "rule"], ["ip", "route", "show", "table", "all"])
        return "".join(self.run(*command).stdout for command in listings)

    def close(self):
        delete_namespace(self.namespace)
        shutil.rmtree(self._etc, ignore_errors=True)


class Net:
    """Hosts on one wire."""

    def __init__(self):
        self.prefix = f"wt{os.getpid() % 10000}{next(_numbers)}"
        self.directory = Path(tempfile.mkdtemp(prefix="weft-net-"))
        self.directory.chmod(0o755)
        self.wire = f"{self.prefix}-wire"
        self.hosts = []
        add_namespace(self.wire)
        ip("-n", self.wire, "link", "add", "br0", "type", "bridge")
        ip("-n", self.wire, "link", "set", "br0", "up")

    def host(self, name):
        made = Host(self, name, len(self.hosts) + 2)
        self.hosts.append(made)
        return made

    def program_for(self, program):
        """A copy of a program where an unprivileged user may reach it."""
        copy = self.directory / Path(program).name
        if not copy.exists():
            shutil.copy(program, copy)
            copy.chmod(0o755)
        return copy

    def capture(self):
        """Everything on the wire from now on, in a file."""
        file = self.directory / "wire.pcap"
        command = ["tcpdump", "-i", "br0", "-U", "-s", "0", "-B", "16384", "-Z", "root", "-w", file]
        process = Process("tcpdump", command, self.directory, prefix=["ip", "netns", "exec", self.wire])
        wait_until(lambda: "listening on" in process.text(), what="tcpdump")
        return process, file

    def close(self):
        for host in self.hosts:
            host.close()
        delete_namespace(self.wire)


class NetMesh:
    """A control plane and sidecars with interception, each in its own host."""

    def __init__(self, family):
        self.net = Net()
        self.family = family
        self.directory = self.net.directory
        self.control = self.net.host("control")
        self.control.resolve_with(self.control.ip4)
        self.dns = self.control.start("dns", [sys.executable, APPS / "dns.py", self.control.ip4, self.control.ip6])
        self.data_dir = self.directory / "control-plane"
        listen = f"{bracketed(self.control.address(family))}:4180"
        self.control_address = listen
        self.control.start("weft", [WEFT, "serve", "--data-dir", self.data_dir, "--listen", listen])
        self.weft = Cli(self.data_dir)
        wait_until(lambda: self.weft("get", "services", "-A", check=False).code == 0, what="the control plane")

    def sidecar(self, host, namespace="shop", ports=None, init=True, env=None, **labels):
        """A sidecar in `host`, as its own user, and the rules that lead everything through it."""
        host.resolve_with(self.control.ip4)
        data = self.directory / f"data-{host.name}"
        data.mkdir()
        os.chown(data, PROXY_UID, PROXY_UID)
        bundle = self.directory / "trust-bundle.pem"
        bundle.write_bytes((self.data_dir / "trust-bundle.pem").read_bytes())
        token = self.weft("token", "create", "--namespace", namespace, "--service-account", host.name).stdout.strip()
        labels = {"app": host.name, **labels}
        settings = {
            "WEFT_CONTROL_PLANE": self.control_address,
            "WEFT_TRUST_BUNDLE": str(bundle),
            "WEFT_TOKEN": token,
            "WEFT_WORKLOAD": host.name,
            "WEFT_NAMESPACE": namespace,
            "WEFT_SERVICE_ACCOUNT": host.name,
            "WEFT_LABELS": ",".join(f"{k}={v}" for k, v in labels.items()),
            "WEFT_ADDRESS": host.address(self.family),
            "WEFT_DATA_DIR": str(data),
            "WEFT_DNS_LISTEN": "127.0.0.1:4153,[::1]:4153",
            "WEFT_LOG": "info",
            "WEFT_ACCESS_LOG": "text",
            **(env or {}),
        }
        if ports:
            settings["WEFT_PORTS"] = ",".join(f"{k}={v}" for k, v in ports.items())
        program = self.net.program_for(PROXY)
        if init:
            self.init(host)
        process = host.start("proxy", [program, "run"], settings, PROXY_UID)

        def ready():
            process.must_live()
            return host.run("curl", "-sf", "-o", "/dev/null", f"http://127.0.0.1:{ADMIN_PORT}/ready", check=False).returncode == 0

        wait_until(ready, 20, f"{host.name}'s /ready")
        host.sidecar = process
        return process

    def init(self, host, *flags):
        return host.run(PROXY, "init", "--proxy-uid", PROXY_UID, "--dns", *flags)

    def apply(self, *documents):
        import yaml

        text = "\n---\n".join(d if isinstance(d, str) else yaml.safe_dump(d) for d in documents)
        self.weft("apply", "-f", "-", "--wait=20s", stdin=text)

    def virtual_ip(self, host, name, family):
        """What the application in `host` gets when it asks for a name."""
        script = "import socket,sys;print(socket.getaddrinfo(sys.argv[1],1,int(sys.argv[2]))[0][4][0])"
        number = {4: 2, 6: 10}[family]
        return host.run(sys.executable, "-c", script, name, number).stdout.strip()

    def close(self):
        self.net.close()
        from process import running

        for process in list(running):
            if process.log.parent == self.directory:
                process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
