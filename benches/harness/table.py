"""The one table at the end."""

from statistics import median

HEADER = """
CPU seconds (user + system) of the proxies, a pair: both, for 100,000 requests or connections (s/100k) or
for a GiB (s/GiB); latency rows: p50/p99 in µs added over no proxy; idle rows: resident MiB. Behind it in
brackets MiB: peak RSS, PSS at the end. Medians of {rounds} rounds. `!` marks failed requests, told below;
`-` what a peer can't do. The relay is a bare byte relay, in a pair without TLS.
"""


def medians(measurements):
    """By scenario and peer: the medians of what every good or marked measurement has."""
    grouped = {}
    for one in measurements:
        grouped.setdefault((one["scenario"], one["peer"]), []).append(one)
    result = {}
    for key, group in grouped.items():
        measured = [one for one in group if "cost" in one]
        fields = ("cost", "peak_rss_mib", "rss_mib", "pss_mib", "added_p50_us", "added_p99_us")
        summary = {name: median(values) for name in fields if (values := [one[name] for one in measured if name in one])}
        summary["failed"] = sum(one.get("failed", 0) for one in group)
        summary["errors"] = [one["error"] for one in group if "error" in one]
        result[key] = summary
    return result


def cell(scenario, summary):
    """What stands in a peer's column."""
    if summary is None:
        return "-"
    mark = "!" if summary["failed"] or summary["errors"] else ""
    if "cost" not in summary:
        return mark or "-"
    figure = f"{summary['cost']:.1f}" if scenario.kind == "idle" else f"{summary['cost']:.2f}"
    if scenario.kind == "latency":
        figure = f"{summary['added_p50_us']:.0f}/{summary['added_p99_us']:.0f}"
    return f"{figure}{mark} ({summary['peak_rss_mib']:.0f}, {summary['pss_mib']:.0f})"


def ratio(scenario, summary, other):
    """weft's figure divided by another's."""
    name = "added_p50_us" if scenario.kind == "latency" else "cost"
    if not summary or not other or not summary.get(name) or not other.get(name):
        return "-"
    return f"{summary[name] / other[name]:.2f}"


def render(scenarios, peers, measurements, rounds):
    """The table, and every failure below it."""
    summaries = medians(measurements)
    shown = [peer for peer in peers if any((scenario.name, peer) in summaries for scenario in scenarios)]
    against = [peer for peer in ("haproxy", "relay") if peer in shown and "weft" in shown]
    rows = [["scenario", "", *shown, *(f"weft÷{peer}" for peer in against), ""]]
    for scenario in scenarios:
        row = {peer: summaries.get((scenario.name, peer)) for peer in shown}
        cells = [cell(scenario, row[peer]) for peer in shown]
        ratios = [ratio(scenario, row.get("weft"), row[peer]) for peer in against]
        rows.append([scenario.name, scenario.unit, *cells, *ratios, scenario.about])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [HEADER.format(rounds=rounds).strip(), ""]
    for row in rows:
        left = [text.ljust(width) for text, width in zip(row[:2], widths, strict=False)]
        right = [text.rjust(width) for text, width in zip(row[2:-1], widths[2:-1], strict=True)]
        lines.append("  ".join([*left, *right, row[-1]]).rstrip())
    for one in measurements:
        if one.get("failed") or "error" in one:
            what = one.get("error") or f"{one['failed']} of {one['total']} failed: {one['failures']}"
            lines.append(f"! {one['scenario']} {one['peer']} round {one['round']}: {what}")
    return "\n".join(lines)
