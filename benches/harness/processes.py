"""Programs of a run: started in a host and on a core, ended with the run, and what they cost."""

import os
import signal
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A measurement can't be made; the text says why."""


def wait_until(condition, what, seconds=20):
    """Waits until `condition()` is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {seconds} s for {what}")
        time.sleep(0.02)


def prefix(host=None, core=None, gid=0):
    """What stands before a command. Each part replaces itself by the next, so the process stays the same."""
    command = ["ip", "netns", "exec", host.namespace] if host else []
    command += ["setpriv", *(["--regid", gid, "--clear-groups"] if gid else []), "--pdeathsig", "KILL", "--"]
    command += ["taskset", "-c", core] if core is not None else []
    return [str(part) for part in command]


class Process:
    """A child with its output in a file."""

    def __init__(self, name, command, directory, host=None, core=None, gid=0, env=None):
        self.name = name
        self.log = Path(directory) / f"{name}.log"
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                [*prefix(host, core, gid), *map(str, command)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **(env or {})},
            )  # fmt: skip

    def must_live(self):
        """Fails when the program has ended."""
        if self.child.poll() is not None:
            end = "\n".join(self.text().splitlines()[-8:])
            raise Failed(f"{self.name} ended with {self.child.returncode}: {end}")

    def text(self):
        """All it has written."""
        return self.log.read_text(errors="replace")

    def stop(self, seconds=5):
        """Asks it to end, and makes it when it does not."""
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()

    def cpu_seconds(self):
        """User and system time so far, of all its threads."""
        fields = Path(f"/proc/{self.child.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def _kib(self, file, field):
        for line in Path(f"/proc/{self.child.pid}/{file}").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise Failed(f"{self.name}: no {field} in /proc/PID/{file}")

    def memory(self):
        """MiB: resident at most, resident now, and its share of that now."""
        return {
            "peak_rss_mib": self._kib("status", "VmHWM") / 1024,
            "rss_mib": self._kib("status", "VmRSS") / 1024,
            "pss_mib": self._kib("smaps_rollup", "Pss") / 1024,
        }


def total_cpu(processes):
    """CPU seconds of all of them."""
    return sum(process.cpu_seconds() for process in processes)


def total_memory(processes):
    """Memory of all of them, by kind."""
    each = [process.memory() for process in processes]
    return {kind: sum(one[kind] for one in each) for kind in each[0]} if each else {}


def run(command, host=None, core=None, seconds=60, check=True, **options):
    """Runs a program to its end and returns what came of it."""
    command = [*prefix(host, core), *map(str, command)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **options)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command)}: not done within {seconds} s") from None
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stdout}{done.stderr}".strip())
    return done
