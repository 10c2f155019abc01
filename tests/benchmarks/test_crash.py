"""A killed process costs nothing but time: the benchmark in small, killed between first and last file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "crash.py"


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_killed_runs_end_like_one_that_was_left_alone() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kind", "write", "--kills", "4", "--frames", "16"],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "4 of 4 killed runs ended like the one that was left alone"
    assert sum(" killed " in line for line in lines[1:-1]) == 4
    saved = [int(line.split("saved at frame ")[1].split(":")[0]) for line in lines[1:-1]]
    assert saved == sorted(saved)
    assert saved[0] < 5, "before the beginning is reconstructed"
    assert saved[-1] > 10
