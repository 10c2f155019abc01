"""Statistics of pictures: right for pictures whose statistics are known, and printed for generated clips."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import looks


def test_statistics_are_those_that_were_put_in() -> None:
    rng = np.random.default_rng(0)
    steps = np.linspace(0.2, 0.8, 64) + np.zeros((5, 64, 1))
    noisy = steps + rng.normal(0, 0.01, steps.shape)
    found = looks.looks(np.repeat(noisy[..., None], 3, axis=-1), np.array([1.0, 2.0, 3.0, np.nan]))
    assert found["mean brightness"] == "0.50 0.50 0.50"
    assert found["contrast (deviation)"] == "0.18 0.18 0.18"
    assert float(found["noise (Immerkær, × 1000)"].split()[1]) == pytest.approx(10, rel=0.05)
    assert found["depth (m, over pixels)"] == "1.2 2.0 2.8"
    assert found["over-exposed pixels"] == "0.0%"
    half = np.zeros((1, 4, 4, 3))
    half[:, :, :2] = 1
    found = looks.looks(half, np.ones(1))
    assert (found["over-exposed pixels"], found["black pixels (below 0.05)"]) == ("50.0%", "50.0%")


def test_generated_clips_are_measured_without_a_walk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(looks, "find_office", lambda: None)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)
    looks.main(["--clips", "1", "--frames", "2", "--size", "16"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| 16×16 | hand-held | plain |"
    assert len(lines) == 10
    assert all(line.count("|") == 4 for line in lines)
