"""The comparison of all methods, with tiny networks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import full_size
from full_size import METHODS, markdown, measure

SCRIPT = str(full_size.__file__)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_for_every_frame(method: str, photos: Path) -> None:
    row = measure(method, str(photos), 5, "cpu", tiny=True)
    assert row["answered"] == row["frames"] == (2 if method == "dust3r" else 5)
    assert row["seconds"] > 0
    assert row["peak_mib"] >= row["loaded_mib"] > 100
    assert row["device_peak_mib"] is None
    assert f"| {method} | {row['size']} |" in markdown([row], "cpu", 1)


def test_each_method_has_a_process_of_its_own(photos: Path, tmp_path: Path) -> None:
    options = ["--tiny", "--threads", "1", "--methods", "dust3r"]
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, SCRIPT, str(photos), *options, "--out", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "| dust3r | 240×160 |" in done.stdout
    assert json.loads((out / "full_size.json").read_text())["methods"][0]["answered"] == 2


def test_a_failure_is_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--tiny", "--threads", "1", "--methods", "dust3r", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [SCRIPT, "/nowhere", *options])
    assert full_size.main() == 1
    assert "| dust3r | full_size: no such file or folder: /nowhere |" in capsys.readouterr().out
