"""The demo, as an unprivileged user sees it."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from mesh import PROXY, ROOT, WEFT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
NOBODY = 65534


@pytest.fixture
def own():
    """A copy of the project with its programs built, that nobody may read and write."""
    directory = Path(tempfile.mkdtemp(prefix="weft-demo-"))
    directory.chmod(0o755)
    files = subprocess.run(["git", "ls-files", "-z", "deploy"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, files.decode().split("\0")):
        target = directory / "weft" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
    programs = directory / "programs"
    programs.mkdir()
    for program in (WEFT, PROXY):
        shutil.copy(program, programs)
    home = directory / "home"
    home.mkdir()
    if os.getuid() == 0:
        subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", directory], check=True)
    yield directory
    shutil.rmtree(directory)


def test_the_demo_runs_as_an_unprivileged_user_and_shows_what_it_says(own):
    lower = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--"] if os.getuid() == 0 else []
    done = subprocess.run(
        [*lower, own / "programs" / "weft", "demo"],
        cwd=own, capture_output=True, text=True, timeout=200,
        env={"HOME": str(own / "home"), "PATH": os.environ["PATH"], "TMPDIR": str(own / "home")},
    )  # fmt: skip
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-3000:]
    end = "\n".join(text.splitlines()[-25:])
    split = re.search(r"split seen: ([\d.]+) % / ([\d.]+) % of (\d+) requests", end)
    assert split, end
    assert 87 <= float(split[1]) <= 93 and 7 <= float(split[2]) <= 13 and int(split[3]) >= 900, end
    assert re.search(r"under load: 0 failed of \d+ requests", end), end
    assert len(set(re.findall(r"spiffe://\S+/ns/\S+/sa/\S+", end))) >= 2, end
    assert re.search(r"\b[0-9a-f]{32}\b", text), "no trace id"
    left = subprocess.run(["pgrep", "-f", str(own)], capture_output=True, text=True).stdout.split()
    assert not left, f"left running: {left}"
