"""Measures weft and other proxies side by side; benches/run.sh starts it."""

import argparse
import contextlib
import json
import os
import platform
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import peers as known_peers
from certificates import Certificates
from load import Load
from measure import direct, measure
from net import Net
from processes import Failed, run
from scenarios import ALL, BY_NAME, QUICK
from servers import Servers, own
from table import render

ROOT = Path(__file__).resolve().parents[2]
FILES_MAX = 250_000


def arguments():
    """What to measure, from the command line."""
    parser = argparse.ArgumentParser(prog="benches/run.sh", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{' '.join(QUICK)}, haproxy and relay, 2 short rounds")
    parser.add_argument("--rounds", type=int, help="how often each peer does each scenario [default: 3]")
    parser.add_argument("--json", type=Path, default=ROOT / "target/bench.json", metavar="FILE", help="every single figure")
    names = f"scenarios: {' '.join(BY_NAME)}; peers: {' '.join(known_peers.ALL)} [default: all]"
    parser.add_argument("names", nargs="*", metavar="scenario|peer", help=names)
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BY_NAME and name not in known_peers.ALL]
    if unknown:
        parser.error(f"neither a scenario nor a peer: {' '.join(unknown)}")
    chosen = [scenario for scenario in ALL if scenario.name in options.names]
    default = [BY_NAME[name] for name in QUICK] if options.quick else ALL
    options.scenarios = chosen or list(default)
    options.peers = [name for name in known_peers.ALL if name in options.names]
    if not options.peers:
        options.peers = ["weft", "haproxy", "relay"] if options.quick else list(known_peers.ALL)
    options.rounds = options.rounds or (2 if options.quick else 3)
    return options


def machine():
    """On what it was measured."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {"cpu": model[1] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release()}


def commit():
    """The source's commit; `+` when the tree has changes."""
    git = ["git", "-C", ROOT, "-c", f"safe.directory={ROOT}"]
    head = run([*git, "rev-parse", "HEAD"], check=False).stdout.strip()
    changed = run([*git, "status", "--porcelain", "--untracked-files=no"], check=False).stdout.strip()
    return head + ("+" if changed else "")


def raise_file_limit():
    """As many open files as may be: the programs inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, FILES_MAX), hard):
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return


def say(text):
    """Progress, beside the table."""
    print(text, file=sys.stderr, flush=True)


def interleaved(options, peers, load):
    """Every measurement, as it is made: in a round each peer once a scenario, in an order that rotates."""
    for number in range(options.rounds):
        for scenario in options.scenarios:
            baseline, error = {}, None
            if scenario.kind == "latency":
                try:
                    baseline = direct(scenario, load)
                except Failed as failure:
                    error = f"without a proxy: {failure}"
            turn = number % len(peers)
            for peer in peers[turn:] + peers[:turn]:
                if not peer.supports(scenario):
                    continue
                figures = measure(peer, scenario, load, baseline) if error is None else {"error": error}
                shown = figures.get("error") or f"{figures['cost']:.2f}, {figures['failed']} failed"
                say(f"round {number + 1} {scenario.name} {peer.name}: {shown}")
                yield {"scenario": scenario.name, "peer": peer.name, "round": number + 1, **figures}


def main():
    options = arguments()
    programs = Path(os.environ.get("WEFT_PROGRAMS", ROOT / "target/release")).resolve()
    lacking = [name for name in ("weft", "weft-proxy", "weft-testkit") if not (programs / name).exists()]
    if lacking or os.cpu_count() < 2:
        raise Failed(f"{', '.join(lacking)} not in {programs}" if lacking else "it takes two cores: load and proxies")
    raise_file_limit()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    known_peers.configure(programs)
    started, measurements = time.time(), []
    with contextlib.ExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix=f"weft-bench-{os.getpid()}-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        net = Net()
        stack.callback(net.close)
        testkit = own(programs / "weft-testkit", directory)
        load = Load(net, testkit, directory, options.quick)
        bulk = {load.amount(scenario) for scenario in ALL if scenario.kind == "bulk"}
        stack.callback(Servers(net, testkit, directory, max(bulk)).stop)
        certificates = Certificates(directory / "certificates")
        peers = []
        for name in options.peers:
            peers.append(known_peers.ALL[name](net, directory, certificates))
            stack.callback(peers[-1].close)
        versions = {peer.name: peer.version() for peer in peers}
        for one in interleaved(options, peers, load):
            measurements.append(one)
    print(render(options.scenarios, options.peers, measurements, options.rounds))
    document = {
        "machine": machine(), "commit": commit(), "started": started, "seconds": time.time() - started,
        "quick": options.quick, "rounds": options.rounds, "versions": versions, "measurements": measurements,
    }  # fmt: skip
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    say(f"{document['seconds']:.0f} s; every figure: {options.json}")
    return 1 if any(one.get("failed") or "error" in one for one in measurements) else 0


try:
    sys.exit(main())
except Failed as failure:
    sys.exit(f"benches/run.sh: {failure}")
except KeyboardInterrupt:
    sys.exit(130)
