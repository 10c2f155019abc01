"""The documented example: a model of one file and one registry line goes through everything."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import threer
from threer.cli import main
from threer.io.runs import Scene
from threer.models import load_model, save_checkpoint
from threer.models.checkpoints import FAMILIES
from threer.types import Checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "toy_model.py"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
    monkeypatch.setitem(FAMILIES, "solo", None)  # so that the line is undone afterwards
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def test_it_is_saved_loaded_and_told_about(toy: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    model = toy["Solo"](toy["SoloConfig"](enc_depth=1)).eval()
    save_checkpoint(model, tmp_path / "solo", Checkpoint("mine", "solo", (), "MIT"))
    loaded = load_model(tmp_path / "solo")
    assert type(loaded).__name__ == "Solo"
    assert loaded.config.enc_depth == 1
    assert main(["models", "info", str(tmp_path / "solo"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["family"], told["licence"]) == ("solo", "MIT")
    model.half().float()
    with torch.no_grad():
        pictures = torch.rand(1, 2, 3, 64, 64)
        ours, theirs = model(pictures), loaded(pictures)
    assert torch.equal(ours[1].points.xyz, theirs[1].points.xyz)


def test_it_reconstructs(toy: dict, photos: Path, tmp_path: Path) -> None:
    toy["main"](str(photos), str(tmp_path / "out"))
    scene = Scene.open(tmp_path / "out")
    assert (len(scene), scene.settings["method"]) == (3, "solo")
    np.testing.assert_allclose(scene.cameras.c2w, np.tile(np.eye(4), (3, 1, 1)), atol=0.15)
    np.testing.assert_allclose(scene.cameras.K[:, 0, 0], 48, rtol=0.05)  # half of 48 over the tangent 0.5


def test_only_the_line_makes_it_known(photos: Path, tmp_path: Path) -> None:
    toy = runpy.run_path(str(EXAMPLE))
    save_checkpoint(toy["Solo"](toy["SoloConfig"]()), tmp_path / "solo", Checkpoint("mine", "solo", (), "MIT"))
    del FAMILIES["solo"]
    with pytest.raises(
        threer.ThreerError, match=r"is of the family 'solo', known here are slam3r, .*; import what adds it"
    ):
        load_model(tmp_path / "solo")
