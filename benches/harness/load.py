"""Load: h2load for requests on kept connections, the testkit for everything else."""

import json
import re
from dataclasses import dataclass, field

from net import LOAD_CORE, ONE_HOP, PAIR
from processes import Failed, Process, run, wait_until
from servers import BULK_CONNECTIONS

RATE = 2_000
WARM_CONNECTIONS = 32


@dataclass
class Outcome:
    """What came of a load."""

    # Requests or connections.
    total: int
    failed: int
    # What failed, by kind.
    failures: dict = field(default_factory=dict)
    # p50 and p99 in µs, counted from when a request was due.
    latency: dict = field(default_factory=dict)


class Load:
    """Makes a scenario's load in the client's host."""

    def __init__(self, net, testkit, directory, quick):
        self.net, self.testkit, self.directory, self.quick = net, testkit, directory, quick

    def address(self, scenario, direct=False):
        """Where the client calls; straight to the server when there is no proxy to intercept it."""
        host = self.net.server_address if direct or scenario.called else PAIR if scenario.pair else ONE_HOP
        return f"{host}:{scenario.port}"

    def amount(self, scenario):
        """How much a measurement takes."""
        return scenario.quick if self.quick else scenario.amount

    def warm(self, scenario, direct=False):
        """A little of the same load, until none of it fails: the path is there and its pools are full.

        Returns how many requests failed before.
        """
        last, failed = None, 0

        def passes():
            nonlocal last, failed
            last = self._little(scenario, direct)
            failed += last.failed
            return last.failed == 0 and last.total > 0

        try:
            wait_until(passes, "a path without failures")
        except Failed as failure:
            raise Failed(f"{failure}; last: {last}") from None
        return failed

    def _little(self, scenario, direct):
        address = self.address(scenario, direct)
        if scenario.wire != "tcp":
            connections = min(scenario.connections, WARM_CONNECTIONS)
            return self._h2load(scenario, address, 4 * connections * scenario.streams, connections, seconds=5)
        if scenario.kind == "bulk":
            return self._bulk(scenario, address, seconds=15)
        return self._tcp(address, "exchange", "--connections", 8, seconds=5)

    def measure(self, scenario, direct=False):
        """The load itself."""
        address, amount = self.address(scenario, direct), self.amount(scenario)
        if scenario.kind == "requests":
            return self._h2load(scenario, address, amount, scenario.connections)
        if scenario.kind == "bulk":
            return self._bulk(scenario, address)
        if scenario.kind == "new" and scenario.wire == "tcp":
            return self._tcp(address, "exchange", "--connections", 16, "--total", amount)
        options = ["--connections", scenario.connections, "--duration", f"{amount}s"]
        if scenario.kind == "new":
            options += ["--close"]
        else:
            options += ["--rate", RATE, "--settle", "500ms", "--protocol", scenario.wire, "--streams", scenario.streams]
        return self._testkit("load", "--url", f"http://{address}{scenario.path}", "--connect", address, *options)

    def hold(self, scenario):
        """Opens a scenario's connections, and returns who holds them, and what failed."""
        kind = "hold" if scenario.wire == "tcp" else "hold-http"
        command = [self.testkit, "tcp-load", "--connect", self.address(scenario), "--kind", kind]
        command += ["--connections", scenario.connections]
        holder = Process("holder", command, self.directory, self.net.client, LOAD_CORE)
        holder.log.write_text("")

        def report():
            holder.must_live()
            text = holder.text()
            return text.endswith("\n") and text

        try:
            return holder, parse_report(wait_until(report, "the connections", 60))
        except BaseException:
            holder.stop()
            raise

    def _h2load(self, scenario, address, requests, connections, seconds=60):
        command = ["h2load", f"http://{address}{scenario.path}", "-n", requests, "-c", connections]
        command += ["-m", scenario.streams]
        if scenario.wire == "http1":
            command += ["--h1"]
        if scenario.post:
            body = self.directory / f"post-{scenario.post}"
            body.write_bytes(b"\0" + (scenario.post - 5).to_bytes(4, "big") + b"m" * (scenario.post - 5))
            command += ["-d", body]
        if scenario.path.startswith("/grpc"):
            command += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
        return parse_h2load(run(command, self.net.client, LOAD_CORE, seconds).stdout)

    def _bulk(self, scenario, address, seconds=90):
        kind = scenario.name.rsplit("-", 1)[1]
        each = self.amount(scenario) // BULK_CONNECTIONS
        return self._tcp(address, kind, "--connections", BULK_CONNECTIONS, "--bytes", each, seconds=seconds)

    def _tcp(self, address, kind, *options, seconds=60):
        return self._testkit("tcp-load", "--connect", address, "--kind", kind, *options, seconds=seconds)

    def _testkit(self, *arguments, seconds=60):
        return parse_report(run([self.testkit, *arguments], self.net.client, LOAD_CORE, seconds).stdout)


def parse_h2load(text):
    """h2load's summary. A request that has no answer of 2xx has failed."""
    total = re.search(r"^requests: (\d+) total", text, re.MULTILINE)
    good = re.search(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text, re.MULTILINE)
    parts = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
    if not (total and good and parts):
        raise Failed(f"h2load said: {text[-300:]}")
    names = ("status_3xx", "status_4xx", "status_5xx", "failed", "errored", "timeout")
    counts = [*good.groups()[1:], *parts.groups()]
    failures = {name: int(count) for name, count in zip(names, counts, strict=True) if int(count)}
    return Outcome(int(total[1]), int(total[1]) - int(good[1]), failures)


def parse_report(text):
    """The testkit's JSON report."""
    report = json.loads(text)
    failures = dict(report["failures"])
    latency = {name: report["latency_microseconds"][name] for name in ("p50", "p99")}
    return Outcome(report["total"], report["failed"], failures, latency)
