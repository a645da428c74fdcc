#!/usr/bin/env python3
"""What a pair of sidecars costs: CPU per request and peak memory, for builds or settings side by side.

    ./benches/pair.py [--rounds N] [--seconds S] [--instances N] [--rate N] [--churn]
                      NAME=DIRECTORY[,VARIABLE=VALUE...][,@FILE...] ...

DIRECTORY holds weft, weft-proxy and weft-testkit (target/release). Each VARIABLE is set for the sidecars alone. Each
FILE is applied beside the Service "bench" in the namespace "bench", which takes the load; see benches/policies/.
Variants take turns within one run; only their ratios count, because these machines are noisy. With several workers
(NAME=DIRECTORY,WEFT_WORKERS=2) it is told how evenly they share the load, and with --churn also once half of the
connections came and went. Without --rate requests come as fast as they are answered, so that whoever has more
workers finds less waiting each time one looks.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

SCENARIOS = {
    "HTTP/1, 32 connections": ["--protocol", "http1", "--connections", "32"],
    "HTTP/2, 8 × 32 streams": ["--protocol", "h2c", "--connections", "8", "--streams", "32"],
    "HTTP/2, 4 × 64 streams": ["--protocol", "h2c", "--connections", "4", "--streams", "64"],
    "HTTP/1, 16 KiB bodies": ["--protocol", "http1", "--connections", "32", "--method", "POST", "--body-bytes", "16384"],
}
# When loads begin, how long they last, and with how many connections. From second 8 on those are left that stay.
CHURN = {
    "HTTP/1, 32 connections left of 68": (["--protocol", "http1"], [(0, 14, 16), (0.3, 3, 24), (4, 10, 16), (5, 2, 12)]),
    "HTTP/2, 4 × 64 streams left of 8": (
        ["--protocol", "h2c", "--streams", "64"],
        [(0, 14, 2), (0.3, 3, 3), (4, 10, 2), (5, 2, 1)],
    ),
}
CHURNED = (8, 13)
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: bench, namespace: bench}
spec:
  selector: {app: bench}
  ports: [{name: http, port: 80, targetPort: http}]
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"waited {seconds} s for {what}")


class Pair:
    """A control plane, an application, and the sidecars of the application and of its caller."""

    def __init__(self, programs, variables, policies=(), instances=1):
        self.programs, self.children = Path(programs), []
        self.directory = tempfile.TemporaryDirectory(prefix="weft-bench-")
        self.variables = {**os.environ, **variables}
        control, admin, application, *ports = free_ports(6 + 3 * instances)
        self.data = f"{self.directory.name}/control-plane"
        self.cli = {**os.environ, "WEFT_DATA_DIR": self.data}
        listen = ["--listen", f"127.0.0.1:{control}", "--admin", f"127.0.0.1:{admin}"]
        self.start("weft", "serve", *listen, env=self.cli)
        self.start("weft-testkit", "serve", "--listen", f"127.0.0.1:{application}")
        wait_until(lambda: self.weft("get", "services", "-A", check=False).returncode == 0, "the control plane")
        self.weft("apply", "-f", "-", input=SERVICE)
        for policy in policies:
            self.weft("apply", "-f", policy)
        listens = [ports[at : at + 3] for at in range(0, len(ports), 3)]
        roles = [("caller", "caller"), *(("bench", f"bench-{number}") for number in range(instances))]
        self.sidecars = [
            self.sidecar(role, workload, control, own, application) for (role, workload), own in zip(roles, listens)
        ]
        self.outbound = listens[0][0]
        wait_until(self.serves, "an answer through both sidecars")

    def start(self, program, *arguments, env=None):
        log = open(f"{self.directory.name}/{program}-{len(self.children)}.log", "wb")
        child = subprocess.Popen([self.programs / program, *arguments], env=env, stdout=log, stderr=log)
        self.children.append(child)
        return child

    def sidecar(self, name, workload, control, listens, application):
        outbound, inbound, admin = listens
        token = self.weft("token", "create", "--namespace", "bench", "--service-account", name).stdout.strip()
        return self.start(
            "weft-proxy",
            env={
                **self.variables,
                "WEFT_CONTROL_PLANE": f"127.0.0.1:{control}", "WEFT_TRUST_BUNDLE": f"{self.data}/trust-bundle.pem",
                "WEFT_TOKEN": token, "WEFT_WORKLOAD": workload, "WEFT_NAMESPACE": "bench", "WEFT_SERVICE_ACCOUNT": name,
                "WEFT_LABELS": f"app={name}", "WEFT_PORTS": f"http={application}", "WEFT_ADDRESS": "127.0.0.1",
                "WEFT_OUTBOUND_LISTEN": f"127.0.0.1:{outbound}", "WEFT_INBOUND_LISTEN": f"127.0.0.1:{inbound}",
                "WEFT_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            },
        )  # fmt: skip

    def weft(self, *arguments, check=True, input=None):
        done = [self.programs / "weft", *arguments]
        return subprocess.run(done, env=self.cli, check=check, input=input, text=True, capture_output=True)

    def serves(self):
        request = urllib.request.Request(f"http://127.0.0.1:{self.outbound}/", headers={"Host": "bench.bench"})
        try:
            return urllib.request.urlopen(request, timeout=2).status == 200
        except urllib.error.HTTPError:
            return False

    def cpu(self):
        """Seconds of user and system time of all sidecars."""
        ticks = 0
        for child in self.sidecars:
            ticks += sum(map(int, Path(f"/proc/{child.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def workers(self):
        """Ticks of each worker of each sidecar."""
        ticks = []
        for child in self.sidecars:
            threads = [task.read_text() for task in Path(f"/proc/{child.pid}/task").glob("*/stat")]
            of = [thread.rsplit(")", 1)[1].split()[11:13] for thread in threads if "(worker-" in thread]
            ticks.append([sum(map(int, one)) for one in of])
        return ticks

    def peak(self):
        """MiB at the most, of all sidecars."""
        lines = [line for child in self.sidecars for line in Path(f"/proc/{child.pid}/status").read_text().splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

    def load(self, options, seconds):
        """The command that loads the pair."""
        load = [self.programs / "weft-testkit", "load", "--url", "http://bench.bench/"]
        return [*load, "--connect", f"127.0.0.1:{self.outbound}", "--duration", f"{seconds}s", *options]

    def measure(self, options, seconds):
        """CPU microseconds a request."""
        before, worked = self.cpu(), self.workers()
        load = self.load(options, seconds)
        report = json.loads(subprocess.run(load, check=True, capture_output=True, text=True).stdout)
        if report["ok"] != report["total"]:
            raise SystemExit(f"requests failed: {report}")
        self.spread = self.off_even(worked)
        return (self.cpu() - before) / report["total"] * 1e6

    def off_even(self, before):
        """How far a worker's CPU since `before` is off the even share, at most."""
        off = 0
        for now, then in zip(self.workers(), before):
            did = [b - a for a, b in zip(then, now)]
            if sum(did) > 0:
                even = sum(did) / len(did)
                off = max(off, *(abs(one - even) / even for one in did))
        return off

    def churn(self, options, plan):
        """How far a worker's CPU is off the even share once connections came and went."""
        began, loads = time.monotonic(), []
        until = lambda second: time.sleep(max(0, began + second - time.monotonic()))
        for at, seconds, connections in plan:
            until(at)
            load = self.load([*options, "--connections", str(connections)], seconds)
            loads.append(subprocess.Popen(load, stdout=subprocess.DEVNULL))
        until(CHURNED[0])
        before = self.workers()
        until(CHURNED[1])
        off = self.off_even(before)
        if any([load.wait() for load in loads]):
            raise SystemExit("a load failed")
        return off

    def stop(self):
        for child in reversed(self.children):
            child.send_signal(signal.SIGTERM)
        for child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.directory.cleanup()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--instances", type=int, default=1, help="sidecars that the load is balanced over")
    parser.add_argument("--rate", type=int, help="requests a second, instead of as many as are answered")
    parser.add_argument("--churn", action="store_true", help="also how several workers share what is left of connections")
    parser.add_argument("variants", nargs="+", metavar="NAME=DIRECTORY[,VARIABLE=VALUE...][,@FILE...]")
    options = parser.parse_args()
    variants = {}
    for text in options.variants:
        name, rest = text.split("=", 1)
        programs, *settings = rest.split(",")
        policies = [one[1:] for one in settings if one.startswith("@")]
        variables = dict(one.split("=", 1) for one in settings if not one.startswith("@"))
        variants[name] = (programs, variables, policies)

    costs, spreads, peaks = {}, {}, {name: [] for name in variants}
    for _ in range(options.rounds):
        for name, variant in variants.items():
            pair = Pair(*variant, options.instances)
            try:
                for scenario, arguments in SCENARIOS.items():
                    rate = ["--rate", str(options.rate)] if options.rate else []
                    cost = pair.measure([*arguments, *rate], options.seconds)
                    costs.setdefault(scenario, {}).setdefault(name, []).append(cost)
                    spreads.setdefault(scenario, {}).setdefault(name, []).append(pair.spread)
                for scenario, plan in CHURN.items() if options.churn else ():
                    spreads.setdefault(scenario, {}).setdefault(name, []).append(pair.churn(*plan))
                peaks[name].append(pair.peak())
            finally:
                pair.stop()

    first = next(iter(variants))
    print(f"CPU µs a request, all sidecars; median of {options.rounds}, and ratio to {first}")
    for scenario, by_name in costs.items():
        base = statistics.median(by_name[first])
        cells = [f"{name} {statistics.median(c):.1f} ({statistics.median(c) / base:.2f})" for name, c in by_name.items()]
        print(f"{scenario:26} " + "   ".join(cells))
    for scenario, by_name in spreads.items():
        if any(map(any, by_name.values())):
            cells = [f"{name} {max(seen):.0%}" for name, seen in by_name.items()]
            print(f"{scenario:26} a worker's CPU off the even share, at most: " + "   ".join(cells))
    print("peak MiB of all            " + "   ".join(f"{name} {statistics.median(p):.1f}" for name, p in peaks.items()))


if __name__ == "__main__":
    main()
