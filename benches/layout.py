#!/usr/bin/env python3
"""Finds the functions that a sidecar uses, so that the linker puts them side by side (proxy/build.rs).

    ./benches/layout.py DIRECTORY

DIRECTORY holds weft, weft-proxy and weft-testkit of a release build (target/release). A pair of sidecars starts
under callgrind (Debian's valgrind), rests, and then carries a little of every load. Written is proxy/layout.txt: the
linker's names of what an idle sidecar has called, an empty line, and those of what only traffic calls. What in a name
changes with compiler or version is a star. A name that no longer exists does no harm, and one that is missing costs
up to 64 KiB of an idle sidecar's memory: so this is to be run again when much has changed.
"""

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pair import SCENARIOS, Pair, wait_until

TARGET = Path(__file__).resolve().parents[1] / "proxy/layout.txt"
# How long a sidecar rests before what it did counts as what an idle one does; sweeps and renewals run in it.
REST_SECONDS = 15


def wrapped(programs, directory):
    """The programs, with a weft-proxy that runs under callgrind."""
    for name in ("weft", "weft-testkit"):
        (directory / name).symlink_to(programs / name)
    wrapper = directory / "weft-proxy"
    output = f"--callgrind-out-file={directory}/calls.%p"
    wrapper.write_text(f'#!/bin/sh\nexec valgrind -q --tool=callgrind --demangle=no {output} {programs}/weft-proxy "$@"\n')
    wrapper.chmod(0o755)


def dump(directory, sidecars):
    """Has each sidecar write down what it has called since it was asked last."""
    before = len(list(directory.glob("calls.*.*")))
    for child in sidecars:
        subprocess.run(["callgrind_control", "--dump", str(child.pid)], check=True, capture_output=True)
    wait_until(lambda: len(list(directory.glob("calls.*.*"))) >= before + len(sidecars), "callgrind's dumps")
    return functions(directory)


def functions(directory):
    """The names in all dumps there are, without the number of a recursion."""
    names = set()
    for path in directory.glob("calls.*.*"):
        found = re.findall(r"^c?fn=\(\d+\) (\S+)", path.read_text(), re.MULTILINE)
        names.update(name.split("'")[0] for name in found)
    return names


def pattern(symbol):
    """A name as it stands in any build: without the compiler's hash of it, and versions of crates."""
    symbol = re.sub(r"17h[0-9a-f]{16}E.*$", "17h*", symbol)
    if symbol.startswith("_R"):
        symbol = re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", re.sub(r"\.\d+$", "", symbol)) + "*"
    return re.sub(r"aws_lc_\d+_\d+_\d+_", "aws_lc_*_", symbol)


def main():
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    programs = Path(sys.argv[1]).resolve()
    listed = subprocess.run(["nm", programs / "weft-proxy"], check=True, capture_output=True, text=True).stdout
    text = {line.split()[-1] for line in listed.splitlines() if line.split()[-2] in ("t", "T", "W", "w")}
    with tempfile.TemporaryDirectory(prefix="weft-layout-") as name:
        directory = Path(name)
        wrapped(programs, directory)
        pair = Pair(directory, {})
        try:
            time.sleep(REST_SECONDS)
            idle = dump(directory, pair.sidecars)
            for arguments in SCENARIOS.values():
                pair.measure(arguments, 1)
            everything = dump(directory, pair.sidecars)
        finally:
            pair.stop()
    groups = [sorted({pattern(one) for one in group & text}) for group in (idle, everything)]
    traffic = [one for one in groups[1] if one not in groups[0]]
    TARGET.write_text("\n".join([*groups[0], "", *traffic]) + "\n")
    print(f"{len(groups[0])} functions of an idle sidecar, {len(traffic)} of traffic")


if __name__ == "__main__":
    main()
