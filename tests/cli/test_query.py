"""`threer query` on a run of CUT3R, from reconstruction to picture and film."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from threer.cli import main
from threer.config import SourceConfig
from threer.io.runs import Scene
from threer.io.sources import open_source
from threer.models.checkpoints import save_checkpoint
from threer.pipelines.query import RememberedScene
from threer.types import Checkpoint
from tiny_cut3r import tiny_cut3r

RESETS = 3
COUNT = 5


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five images at 32×32, whose state was reset after three."""
    root = tmp_path_factory.mktemp("run")
    model = tiny_cut3r()
    save_checkpoint(model, root / "tiny", Checkpoint("tiny", "cut3r", (), "Apache-2.0", metric=True))
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(COUNT):
        picture = Image.fromarray(rng.integers(0, 255, (5, 10, 3), dtype=np.uint8))
        picture.resize((100, 50)).save(root / "images" / f"{i}.png")
    arguments = ["reconstruct", str(root / "images"), "-o", str(root / "out"), "--weights", str(root / "tiny")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
        intrinsics = ["--intrinsics", "90,90,49.5,24.5"]
        assert main([*arguments, *intrinsics, "--device", "cpu", "--reset-every", str(RESETS)]) == 0
    return root / "out"


def picture_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_the_run_is_metric_and_remembers(out: Path) -> None:
    scene = Scene.open(out)
    assert scene.metric
    assert scene.report["segments"] == 2
    assert (out / "state.safetensors").is_file()


def test_a_frame_is_looked_through_and_moved(out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = tmp_path / "here.png", tmp_path / "there.png"
    assert main(["query", str(out), "--frame", "3", "-o", str(here)]) == 0
    message = capsys.readouterr().err
    assert "only frames from 2 on are remembered" in message
    assert str(here) in message
    remembered = RememberedScene.open(Scene.open(out))
    c2w, lens = remembered.scene.cameras.c2w[3], remembered.lens(3)
    np.testing.assert_array_equal(picture_of(here), remembered.query(c2w, lens.K, lens.size).rgb)
    assert main(["query", str(out), "--frame", "3", "--move", "-1,0.5,2", "-o", str(there)]) == 0
    moved = c2w.copy()
    moved[:3, 3] += -1 * c2w[:3, 0] + 0.5 * c2w[:3, 1] + 2 * c2w[:3, 2]
    np.testing.assert_array_equal(picture_of(there), remembered.query(moved, lens.K, lens.size).rgb)


def test_a_pose_is_written_as_in_trajectories(out: Path, tmp_path: Path) -> None:
    picture = tmp_path / "pose.png"
    assert main(["query", str(out), "--pose", "1,2,3,0,0.6,0,0.8", "-o", str(picture)]) == 0
    remembered = RememberedScene.open(Scene.open(out))
    c2w = np.eye(4)
    c2w[:3] = [[0.28, 0, 0.96, 1], [0, 1, 0, 2], [-0.96, 0, 0.28, 3]]
    lens = remembered.lens(2)
    want = remembered.query(c2w, lens.K, lens.size).rgb
    np.testing.assert_allclose(picture_of(picture).astype(int), want.astype(int), atol=1)


def test_a_film_flies_through(out: Path, tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    assert main(["query", str(out), "--fly-through", str(film), "--seconds", "0.5"]) == 0
    frames = list(open_source(film, SourceConfig()))
    assert len(frames) == 12
    assert frames[0].image.shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{out}"], "nothing to make"),
        (["{out}", "--frame", "1", "--fly-through", "film.mp4"], "no picture to make"),
        (["{out}", "-o", "view.jpg"], "ends in .png"),
        (["{out}", "-o", "view.png", "--pose", "0,0,0,0,0,0,1", "--move", "1,0,0"], "give one of them"),
        (["{out}", "-o", "view.png", "--pose", "0,0,0,0,0,0,0"], "quaternion that is not zero"),
        (["{out}", "-o", "view.png", "--frame", "7"], "has no frame 7; there are: 0 to 4"),
        (["{out}", "-o", "view.png", "--pose", "0,0,0,1e-200,0,0,0"], "quaternion that is not zero"),
        (["{out}", "-o", "view.png", "--pose", "1e30,0,0,0,0,0,1"], "too far away"),
        (["{out}", "-o", "view.png", "--device", "abacus"], "unknown device 'abacus'; valid: auto, cpu"),
        (["{out}", "--fly-through", "film.mp4", "--seconds", "0"], "seconds must be positive"),
        (["{out}", "--fly-through", "film.mp4", "--seconds", "inf"], "at most 3600, got inf"),
        (["{out}", "--fly-through", "film.xyz"], "film.xyz"),
        (["nowhere", "-o", "view.png"], "not a run folder"),
        (["{out}", "-o", "/no/such/folder/view.png"], "/no/such/folder/view.png"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str], words: str, out: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["query", *(a.format(out=out) for a in arguments)]) == 1
    (*_, error) = capsys.readouterr().err.strip().splitlines()
    assert error.startswith("threer: ")
    assert words in error
    assert not list(tmp_path.iterdir())


def test_second_pass_ends_in_final_frames(out: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
    images, weights, again = out.parent / "images", out.parent / "tiny", tmp_path / "again"
    arguments = ["reconstruct", str(images), "-o", str(again), "--weights", str(weights), "--device", "cpu"]
    assert main([*arguments, "--second-pass"]) == 0
    scene = Scene.open(again)
    assert scene.report["counts"]["final"] == len(scene) == COUNT
    assert RememberedScene.open(scene).begun == 0


def test_a_pose_needs_the_lens_of_a_frame_only(
    out: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cameras = Scene.open(out).cameras
    lost = replace(cameras, c2w=np.full_like(cameras.c2w, np.nan))
    monkeypatch.setattr(Scene, "cameras", lost)
    arguments = ["query", str(out), "-o", str(tmp_path / "view.png")]
    assert main(arguments) == 1
    assert "the camera of frame 2 was not found" in capsys.readouterr().err
    assert main([*arguments, "--pose", "0,0,0,0,0,0,1"]) == 0
    monkeypatch.setattr(Scene, "cameras", replace(lost, K=np.full_like(cameras.K, np.nan)))
    assert main([*arguments, "--pose", "0,0,0,0,0,0,1"]) == 1
    assert "focal length of frame 2 was not found" in capsys.readouterr().err
