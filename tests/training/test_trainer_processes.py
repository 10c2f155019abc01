"""Runs in several processes: killed and continued, two at a time, sharded. See `forked_runs.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parent / "forked_runs.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parents[1])}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((folder / "results.json").read_text())
    kills = results.pop("kills")
    assert all(code == 0 for codes in results.values() for code in codes), done.stderr[-3000:]
    assert kills >= 2, "the runs were over before they could be killed"
    return folder


def state(runs: Path, name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(runs / name / "state.pt", weights_only=True)
    return loaded


def test_a_run_killed_three_times_ends_with_the_same_bits(runs: Path) -> None:
    whole, killed = state(runs, "whole"), state(runs, "killed")
    assert whole["progress"]["step"] == killed["progress"]["step"] == 8
    assert whole["progress"]["samples"] == killed["progress"]["samples"] == 64
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, killed["model"][name]), name
    for a, b in zip(whole["ema"]["values"], killed["ema"]["values"], strict=True):
        assert torch.equal(a, b)
    assert whole["progress"]["scores"] == killed["progress"]["scores"]


@pytest.mark.parametrize("name", ["ddp", "fsdp"])
def test_two_processes_equal_one_on_the_same_global_batch(runs: Path, name: str) -> None:
    one, two = state(runs, "one"), state(runs, name)
    assert one["progress"]["samples"] == two["progress"]["samples"] == 16
    for tensor, other in zip(one["model"].values(), two["model"].values(), strict=True):
        torch.testing.assert_close(tensor, other, atol=1e-6, rtol=0)
    for score, value in one["progress"]["scores"].items():
        assert two["progress"]["scores"][score] == pytest.approx(value, abs=1e-5)


def test_the_compared_runs_have_learnt(runs: Path) -> None:
    one = state(runs, "one")
    moved = one["optimizers"][0]["state"]
    assert all(float(values["exp_avg_sq"].abs().max()) > 0 for values in moved.values())
