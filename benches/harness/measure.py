"""One measurement: a peer in a scenario, once."""

import time

from processes import Failed, total_cpu, total_memory


def measure(peer, scenario, load, baseline):
    """The figures of one measurement, or the error that kept it from being made.

    `baseline` is the latency without any proxy, of the same round; empty where latency isn't measured.
    """
    processes = []
    try:
        peer.start(scenario, processes)
        refused = load.warm(scenario)
        kinds = {"idle": idle, "latency": latency}
        figures = kinds.get(scenario.kind, loaded)(scenario, load, processes)
        added = {f"added_{name}": figures[name] - value for name, value in baseline.items()}
        return {**figures, **added, "warm_up_failed": refused}
    except (Failed, OSError, ValueError) as failure:
        return {"error": str(failure) or repr(failure)}
    finally:
        peer.stop(processes)


def idle(scenario, load, processes):
    """Memory with connections that do nothing."""
    holder, outcome = load.hold(scenario)
    try:
        memory = total_memory(processes)
        return {**told(outcome), **memory, "cost": memory["rss_mib"]}
    finally:
        holder.stop()


def loaded(scenario, load, processes):
    """CPU and memory under load."""
    return under_load(scenario, load, processes)[0]


def latency(scenario, load, processes):
    """The same, and how long answers took."""
    figures, outcome = under_load(scenario, load, processes)
    return {**figures, **microseconds(outcome)}


def under_load(scenario, load, processes):
    """The figures of the processes, and what came of the load."""
    before, start = total_cpu(processes), time.monotonic()
    outcome = load.measure(scenario)
    seconds, cpu = time.monotonic() - start, total_cpu(processes) - before
    for process in processes:
        process.must_live()
    if outcome.total == 0:
        raise Failed("nothing was asked")
    amount = load.amount(scenario) / 1024**3 if scenario.kind == "bulk" else outcome.total / 100_000
    figures = {**told(outcome), **total_memory(processes), "seconds": seconds, "cpu_seconds": cpu, "cost": cpu / amount}
    return figures, outcome


def microseconds(outcome):
    """A load's latencies, by the names they have in the figures."""
    return {f"{name}_us": value for name, value in outcome.latency.items()}


def told(outcome):
    """How many there were, and what failed."""
    return {"total": outcome.total, "failed": outcome.failed, "failures": outcome.failures}


def direct(scenario, load):
    """The latency without a proxy."""
    load.warm(scenario, direct=True)
    outcome = load.measure(scenario, direct=True)
    if outcome.failed:
        raise Failed(f"{scenario.name} without a proxy: {outcome.failures}")
    return microseconds(outcome)
