"""The demo, in small: film, reconstruction with the packaged weights, scores, pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from threer.apps import demo
from threer.errors import RunError
from threer.io.runs import Scene


def test_demo_films_reconstructs_scores_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "FRAMES", 14)
    monkeypatch.setattr(demo, "SIZE", (96, 72))
    monkeypatch.setattr(demo, "CLOUD", 2000)
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
    assert demo.demo(tmp_path / "demo", seed=9) == 0
    out = tmp_path / "demo"
    scene = Scene.open(out / "run")
    assert scene.state == "complete"
    assert len(scene) == 14
    scores = json.loads((out / "scores.json").read_text())["scores"]
    assert [s["name"] for s in scores] == ["threer", "mean pointmap", "constant depth"]
    assert all(0 < s["abs_rel"] < 1 and 0 < s["delta_1_25"] <= 1 for s in scores)
    assert scores[0]["abs_rel"] != scores[1]["abs_rel"]
    with Image.open(out / "frames.png") as picture:
        assert picture.height == 3 * 2 * 112, "three rows at twice the network's size"
    assert (out / "walk.mp4").stat().st_size > 0
    assert "Look at:" in capsys.readouterr().out


def test_a_place_where_nothing_can_be_written_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match="file"):
        demo.demo(tmp_path / "file", seed=9)
