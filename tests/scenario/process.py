"""Processes of a test: started with a log file, ended with the test, whatever happens."""

import os
import signal
import subprocess
import time
from pathlib import Path

# A test run that is killed takes its processes with it.
TIED_TO_THE_TEST = ["setpriv", "--pdeathsig", "KILL", "--"]

# Every process started and not yet reaped, for the logs of a failed test and the check at the end.
running = []


def wait_until(condition, seconds=15, what="the condition"):
    """Waits until `condition()` is true and returns its value; an AssertionError counts as not yet."""
    end = time.monotonic() + seconds
    last = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except (AssertionError, OSError) as error:
            last = error
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}; last: {last!r}")
        time.sleep(0.02)


class Ended(Exception):
    """A program ended that should have lived; waiting any longer is no use."""


class Process:
    """A child with its output in a file."""

    def __init__(self, name, command, directory, env=None, prefix=(), cwd=None):
        self.name = name
        self.log = Path(directory) / f"{name}.log"
        self.command = [str(part) for part in (*TIED_TO_THE_TEST, *prefix, *command)]
        self._env = {**os.environ, **(env or {})}
        self._cwd = cwd
        self.child = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
            )
        running.append(self)

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def must_live(self):
        if not self.alive():
            raise Ended(f"{self.name} ended with {self.child.returncode}:\n{self.tail()}")

    def signal(self, number):
        if self.alive():
            self.child.send_signal(number)

    def kill(self):
        """As `kill -9`."""
        self.signal(signal.SIGKILL)
        return self.wait(10)

    def wait(self, seconds):
        """Waits for the end and returns the exit status."""
        status = self.child.wait(seconds)
        if self in running:
            running.remove(self)
        return status

    def stop(self, seconds=10):
        """Asks it to end, and makes it when it does not."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(seconds)
        except subprocess.TimeoutExpired:
            return self.kill()

    def text(self):
        return self.log.read_text(errors="replace")

    def tail(self, lines=40):
        return "\n".join(self.text().splitlines()[-lines:])

    def _status_kib(self, field):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise AssertionError(f"{self.name}: no {field} in /proc/{self.pid}/status")

    def rss_mib(self):
        """Memory in RAM now."""
        return self._status_kib("VmRSS") / 1024

    def peak_rss_mib(self):
        """The most memory that it ever had in RAM."""
        return self._status_kib("VmHWM") / 1024


def stop_all():
    """Ends what is left; returns the names of it."""
    left = [process.name for process in running]
    for process in list(running):
        process.kill()
    return left
