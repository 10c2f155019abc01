"""Lenses from the settings to the run: what is undone, what is told, one focal length or many."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import threer
from threer.cli import main
from threer.config import ReconstructConfig, StreamingConfig
from threer.errors import RunError, ThreerError
from threer.geometry.projection import centred_intrinsics, unproject
from threer.io.cameras import read_cameras
from threer.io.runs import Scene
from threer.models.checkpoints import save_checkpoint
from threer.models.slam3r import SLAM3R
from threer.pipelines.cameras import CameraTracker
from threer.types import Checkpoint, Frame, Pointmap

NUMBERS = (50.0, 51.0, 29.5, 19.5)
PINCUSHION = (0.6, 0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def weights(model: SLAM3R, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_checkpoint(model, folder, Checkpoint("tiny", "slam3r", (), "Apache-2.0"))
    return folder


@pytest.fixture
def config(weights: Path, monkeypatch: pytest.MonkeyPatch) -> ReconstructConfig:
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
    streaming = StreamingConfig(stride=1, radius=2, init_frames=3, init_min_conf=0, scene_frames=3)
    return ReconstructConfig(weights=str(weights), streaming=streaming, device="cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    x, y = np.meshgrid(np.arange(60), np.arange(40))
    for i in range(5):
        picture = np.stack([x * 4, y * 6, (x + y + 5 * i) % 256], axis=-1).astype(np.uint8)
        Image.fromarray(picture).save(images / f"frame{i}.png")
    return images


def test_a_run_keeps_the_distortion_and_trusts_nothing_that_was_not_seen(
    folder: Path, tmp_path: Path, config: ReconstructConfig
) -> None:
    told = []

    class Listener:
        def on(self, update):
            told.append(update)

    out = tmp_path / "out"
    scene = threer.reconstruct(
        folder, out, config, intrinsics=NUMBERS, distortion=PINCUSHION, observers=[Listener()]
    )
    plain = threer.reconstruct(folder, tmp_path / "plain", config, intrinsics=NUMBERS)
    for cameras in (scene.cameras, read_cameras(out / "cameras.json").cameras):
        np.testing.assert_allclose(cameras.distortion, np.tile(PINCUSHION, (5, 1)))
        np.testing.assert_allclose(cameras.K, np.tile([[50, 0, 29.5], [0, 51, 19.5], [0, 0, 1]], (5, 1, 1)))
        assert not cameras.fisheye
    assert plain.cameras.distortion is None
    assert "distortion_model" not in json.loads((tmp_path / "plain" / "cameras.json").read_text())["frames"][0]
    # A network's 32×32 image is the middle 40×40 of the picture; the lens leaves its corners black.
    frame, whole = scene.frame(1), plain.frame(1)
    black = (frame.colours < 10).all(axis=-1)
    assert black[0, 0]
    assert not black[16, 16]
    assert (frame.conf[0, 0], whole.conf[0, 0] > 0) == (0, True)
    assert (frame.conf[4:-4, 12:-12] > 0).all()
    assert told[1].points.conf[0, 0] == 0


def test_fisheye_is_told(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    lens = {"intrinsics": NUMBERS, "distortion": (-0.05, 0.0, 0.0, 0.0), "fisheye": True}
    scene = threer.reconstruct(folder, tmp_path / "out", config, **lens)
    assert scene.cameras.fisheye
    assert read_cameras(tmp_path / "out" / "cameras.json").cameras.fisheye


def test_a_file_of_intrinsics_counts_by_what_it_says(
    folder: Path, tmp_path: Path, weights: Path, config: ReconstructConfig
) -> None:
    (tmp_path / "K.txt").write_text("50 0 29.5\n0 51 19.5\n0 0 1\n")
    out = tmp_path / "out"
    arguments = ["reconstruct", str(folder), "-o", str(out), "--weights", str(weights), "--device", "cpu"]
    arguments += ["--stride", "1", "--radius", "2", "--init-frames", "3", "--init-min-conf", "0"]
    lens = ["--intrinsics", str(tmp_path / "K.txt"), "--distortion", "-0.1,0.02,0,0"]
    assert main([*arguments, *lens]) == 0
    scene = Scene.open(out)
    assert scene.settings["intrinsics"] == [50, 51, 29.5, 19.5]
    np.testing.assert_allclose(scene.cameras.distortion[0], [-0.1, 0.02, 0, 0])
    (tmp_path / "K.txt").write_text("55 0 29.5\n0 51 19.5\n0 0 1\n")
    changed = {"intrinsics": tmp_path / "K.txt", "distortion": (-0.1, 0.02, 0.0, 0.0)}
    with pytest.raises(RunError, match="intrinsics is"):
        threer.reconstruct(folder, out, config, resume=True, **changed)


def seen_with(focal: float) -> tuple[Frame, Pointmap]:
    depth = 2 + torch.rand(32, 32, generator=torch.Generator().manual_seed(0)).double()
    points = unproject(depth, torch.from_numpy(centred_intrinsics(focal, 32, 32)))
    frame = Frame(torch.zeros(3, 32, 32), 0, 0.0, "f", (32, 32), np.eye(2, 3))
    return frame, Pointmap(points.float(), torch.ones(32, 32))


def test_one_focal_length_for_all_or_one_for_each() -> None:
    for shared, expected in ((True, (30, 35, 30)), (False, (30, 40, 25))):
        tracker = CameraTracker(shared=shared)
        found = []
        for focal in (30.0, 40.0, 25.0):
            frame, points = seen_with(focal)
            tracker.observe(points)
            found.append(tracker.track(frame, points, points)[1][0, 0])
        np.testing.assert_allclose(found, expected, rtol=1e-3)
    frame, points = seen_with(3000.0)  # no lens of a camera: the others' is taken
    assert tracker.track(frame, points, points)[1][0, 0] == pytest.approx(30, rel=1e-3)


def test_focal_lengths_of_a_run(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    own = threer.reconstruct(folder, tmp_path / "own", config, focal="per-image").cameras.K[:, 0, 0]
    one = threer.reconstruct(folder, tmp_path / "one", config, focal="shared").cameras.K[:, 0, 0]
    assert len(set(np.round(own[np.isfinite(own)], 6))) > len(set(np.round(one[np.isfinite(one)], 6)))
    with pytest.raises(ThreerError, match="focal must be"):
        ReconstructConfig(focal="both")  # type: ignore[arg-type]
