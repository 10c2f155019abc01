"""The tables that a checkpoint's card gets."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import checkpoint

from threer.data.synthetic import ClipStyle
from threer.evaluation.scores import Score
from threer.models.registry import packaged_folder


def test_the_tables_are_written_beside_the_weights_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = shutil.copytree(packaged_folder(), tmp_path / "weights") / "slam3r-mini"
    (weights / "README.md").write_text(f"# slam3r-mini\n\nA card.\n{checkpoint.HEADING}\nold tables\n")
    for name, value in {"FRAMES": 14, "SIZE": (112, 112), "STYLE": ClipStyle(), "CLOUD": 2000}.items():
        monkeypatch.setattr(checkpoint, name, value)
    asked = []

    def office(folder: Path, *_: object) -> tuple[list[Score], None]:
        asked.append(folder / "color")
        return [Score("threer", 0.111, 0.9, 0.05, 0.2, 0.3)], None

    monkeypatch.setattr(checkpoint, "score_office", office)
    monkeypatch.setattr("sys.argv", ["checkpoint.py", str(weights), "--clips", "1", "--office", "walk", "--write"])
    assert checkpoint.main() == 0
    card = (weights / "README.md").read_text()
    assert card.startswith("# slam3r-mini\n\nA card.\n")
    assert card.count(checkpoint.HEADING) == 1
    assert "old tables" not in card
    assert card.count("| mean ") == card.count("| constant depth |") == 2  # of the pipeline, of the network
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:-1] for line in card.splitlines() if line.startswith("| ")
    }
    alone, helped = rows["with copies of the first"], rows["with the other views"]
    assert alone != helped
    assert asked == [Path("walk/color")]
    assert "| threer | 0.111 |" in card
    assert all(0 < float(value) < 1 for value in alone + helped)
    assert card.strip().endswith(capsys.readouterr().out.strip()[-40:])


def test_a_window_is_what_the_network_saw_with_its_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FRAMES", 14)
    monkeypatch.setattr(checkpoint, "SIZE", (160, 112))
    monkeypatch.setattr(checkpoint, "STYLE", ClipStyle())
    run, truth = checkpoint.film_and_reconstruct(7, packaged_folder() / "slam3r-mini", "slam3r")
    batch = checkpoint.window(run, truth, 5)
    middle = checkpoint.SPREAD * 2
    assert torch.allclose(batch.c2w[0, 0], torch.from_numpy(truth.c2w[middle]).float())
    # the truth of the middle frame, cut to its central square
    square = torch.from_numpy(truth.depth[middle][:, 24:136]).float()
    assert torch.allclose(batch.depth[0, 0], square, atol=1e-4)
    assert batch.K[0, 0, 0, 2] == pytest.approx(truth.K[0, 2] - 24, abs=0.51)


def test_walks_without_a_result_do_not_count() -> None:
    a, b = Score("threer", 0.1, 0.9, float("nan"), 0.2, 0.3), Score("threer", 0.3, 0.7, 0.05, 0.2, 0.3)
    (mean,) = checkpoint.average([[a], [b]])
    assert (mean.abs_rel, mean.ate_share) == (pytest.approx(0.2), pytest.approx(0.05))
    assert np.isfinite(mean.missing_cameras)
