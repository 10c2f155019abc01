"""From files to a run folder, with a tiny network: what is written, what is said when something is wrong."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import threer
from threer.config import ReconstructConfig, StreamingConfig
from threer.errors import CheckpointError, ReconstructionError, RunError, SourceError, ThreerError
from threer.io.runs import Scene
from threer.io.video import write_video
from threer.models.checkpoints import save_checkpoint
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.slam3r import SLAM3R
from threer.pipelines.reconstruct import Start
from threer.types import Checkpoint, Update

COUNT = 16


@pytest.fixture(scope="module")
def weights(model: SLAM3R, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    save_checkpoint(model, folder, Checkpoint("tiny", "slam3r", (), "Apache-2.0"))
    return folder


@pytest.fixture
def config(weights: Path) -> ReconstructConfig:
    streaming = StreamingConfig(stride=1, radius=2, init_frames=3, init_min_conf=0, scene_frames=3)
    return ReconstructConfig(weights=str(weights), streaming=streaming, device="cpu")


@pytest.fixture(autouse=True)
def no_picture(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than everything else; one test looks at it."""
    if "draws" not in request.keywords:
        monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)


def picture(index: int) -> np.ndarray:
    x, y = np.meshgrid(np.arange(60), np.arange(40))
    return np.stack([x * 4 % 256, y * 6, (x + y + 5 * index) % 256], axis=-1).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    images = tmp_path / "images"
    images.mkdir()
    for i in range(COUNT):
        Image.fromarray(picture(i)).save(images / f"frame{i}.png")  # unpadded: natural order is needed
    return images


@pytest.mark.draws
def test_a_folder_becomes_a_run(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    out = tmp_path / "out"
    scene = threer.reconstruct(folder, out, config)
    assert len(scene) == COUNT
    assert scene.state == "complete"
    assert scene.table.names == tuple(f"frame{i}.png" for i in range(COUNT))
    for name in ("run.json", "report.json", "cameras.json", "trajectory.tum", "points.ply", "preview.png"):
        assert (out / name).stat().st_size > 0, name
    cloud = trimesh.load(out / "points.ply")
    assert len(cloud.vertices) == scene.report["counts"]["points"] > 0
    assert Image.open(out / "preview.png").size == (1280, 720)
    report = json.loads((out / "report.json").read_text())
    assert report["stride"] == 1
    assert report["counts"]["final"] == COUNT
    run = json.loads((out / "run.json").read_text())
    assert run["weights"]["licence"] == "Apache-2.0"
    assert run["settings"]["streaming"]["scene_frames"] == 3


def test_known_intrinsics_come_back_in_original_pixels(
    folder: Path, tmp_path: Path, config: ReconstructConfig
) -> None:
    scene = threer.reconstruct(folder, tmp_path / "out", config, intrinsics=(50.0, 51.0, 29.5, 19.5))
    for K in scene.cameras.K:
        np.testing.assert_allclose(K, [[50, 0, 29.5], [0, 51, 19.5], [0, 0, 1]])


def test_observers_hear_of_every_frame_in_order(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    heard: list[Update] = []

    class Listener:
        def on(self, update: Update) -> None:
            heard.append(update)

    started = []
    threer.reconstruct(folder, tmp_path / "out", config, observers=[Listener()], on_start=started.append)
    assert [u.frame.index for u in heard] == list(range(COUNT))
    assert started[0].expected == COUNT
    assert started[0].checkpoint.name == "tiny"


def test_a_video_is_sampled_and_timed(tmp_path: Path, config: ReconstructConfig) -> None:
    video = tmp_path / "clip.mp4"
    write_video(video, [picture(i) for i in range(40)], fps=20)
    scene = threer.reconstruct(video, tmp_path / "out", config, fps=5)
    assert len(scene) == 10
    np.testing.assert_allclose(np.diff(scene.table.timestamps), 0.2, atol=0.03)


def test_a_damaged_image_is_skipped_and_named(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    (folder / "frame7.png").write_bytes(b"not an image at all")
    scene = threer.reconstruct(folder, tmp_path / "out", config)
    assert len(scene) == COUNT - 1
    (skipped,) = scene.report["skipped"]
    assert "frame7.png" in skipped["name"]


def test_one_frame_is_too_few(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    with pytest.raises(ReconstructionError, match="one frame"):
        threer.reconstruct(folder / "frame0.png", tmp_path / "out", config)
    assert Scene.open(tmp_path / "out").state == "failed"
    threer.reconstruct(folder, tmp_path / "out", config)  # nothing was lost there, so it can be used again


def test_interruption_keeps_what_was_final(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    class Impatient:
        def on(self, update: Update) -> None:
            if update.frame.index == 8:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct(folder, tmp_path / "out", config, observers=[Impatient()])
    scene = Scene.open(tmp_path / "out")
    assert scene.state == "interrupted"
    assert len(scene) == 9
    assert len(scene.cloud()) > 0
    assert (tmp_path / "out" / "points.ply").is_file()


class Stop:
    """Interrupts the run when a frame is final."""

    def __init__(self, index: int) -> None:
        self._index = index

    def on(self, update: Update) -> None:
        if update.frame.index == self._index:
            raise KeyboardInterrupt


def assert_same_run(a: Path, b: Path) -> None:
    for name in ("points.ply", "cameras.json", "trajectory.tum", "frames/000000.npz"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name
    assert sorted(p.name for p in a.iterdir()) == sorted(p.name for p in b.iterdir())
    reports = [Scene.open(out).report for out in (a, b)]
    for name in ("counts", "skipped", "notes", "stride"):
        assert reports[0][name] == reports[1][name]


@pytest.mark.parametrize("save_every", [0.0, None])
def test_a_run_that_was_stopped_goes_on(
    folder: Path, tmp_path: Path, config: ReconstructConfig, save_every: float | None
) -> None:
    (folder / "frame3.png").write_bytes(b"not an image at all")
    config = dataclasses.replace(config, save_every=save_every)
    threer.reconstruct(folder, tmp_path / "whole", config)
    out = tmp_path / "out"
    for stop in (5, 11):
        with pytest.raises(KeyboardInterrupt):
            threer.reconstruct(folder, out, config, observers=[Stop(stop)], resume=stop > 5)
    assert (out / "resume").is_dir() == (save_every is not None)
    started: list[Start] = []
    threer.reconstruct(folder, out, config, resume=True, on_start=started.append)
    assert started[0].done == (11 if save_every is not None else 0)
    assert_same_run(out, tmp_path / "whole")


def test_a_complete_run_is_given_back(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    out = tmp_path / "out"
    threer.reconstruct(folder, out, config, resume=True)  # nothing there: it begins
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix != ".lock"}
    started: list[Start] = []
    scene = threer.reconstruct(folder, out, config, resume=True, on_start=started.append)
    assert len(scene) == COUNT
    assert not started
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_only_the_same_run_is_resumed(
    folder: Path, tmp_path: Path, config: ReconstructConfig, model: SLAM3R
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct(folder, out, config, observers=[Stop(5)])
    other = copy.deepcopy(model)
    other.l2w.bridge.bias.data += 0.01
    save_checkpoint(other, tmp_path / "other", Checkpoint("tiny", "slam3r", (), "Apache-2.0"))
    for changes, message in (
        ({"keep": 0.5}, r"keep is 0\.5, the run was begun with 0\.7"),
        (
            {"streaming": dataclasses.replace(config.streaming, radius=3)},
            r"streaming\.radius is 3, .* begun with 2",
        ),
        ({"weights": str(tmp_path / "other")}, "weights tiny are not those of the run"),
    ):
        with pytest.raises(RunError, match=message):
            threer.reconstruct(folder, out, config, resume=True, **changes)
    with pytest.raises(RunError, match=r"holds a run already \(interrupted\).* resume"):
        threer.reconstruct(folder, out, config)
    with pytest.raises(ThreerError, match="give one of them"):
        threer.reconstruct(folder, out, config, resume=True, overwrite=True)
    with pytest.raises(ThreerError, match="save_every"):
        threer.reconstruct(folder, out, config, save_every=-1)
    (folder / "frame15.png").unlink()
    with pytest.raises(RunError, match="is not, or no longer, the source of the run"):
        threer.reconstruct(folder, out, config, resume=True)
    assert Scene.open(out).state == "interrupted", "nothing was touched"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(
    folder: Path, tmp_path: Path, config: ReconstructConfig, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    config = dataclasses.replace(config, save_every=0.0)
    threer.reconstruct(folder, tmp_path / "whole", config)
    out = tmp_path / "out"
    final: list[Update] = []

    class Refuse:
        def on(self, update: Update) -> None:
            final.append(update)
            if update.frame.index == 8:
                monkeypatch.setattr(os, "fsync", refuse)

    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with pytest.raises(RunError, match=r"disk is full" if number == errno.ENOSPC else "Read-only file system"):
        threer.reconstruct(folder, out, config, observers=[Refuse()])
    assert len(Scene.open(out)) == 8, "all that were final before"
    assert not list(out.rglob(".*part*"))
    monkeypatch.undo()
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
    threer.reconstruct(folder, out, config, resume=True)
    assert_same_run(out, tmp_path / "whole")


def test_a_finished_run_is_not_replaced_unasked(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    threer.reconstruct(folder, tmp_path / "out", config)
    with pytest.raises(RunError, match="holds a run"):
        threer.reconstruct(folder, tmp_path / "out", config)
    threer.reconstruct(folder, tmp_path / "out", config, overwrite=True)


def test_the_same_input_gives_the_same_files(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    for name in ("a", "b"):
        threer.reconstruct(folder, tmp_path / name, config)
    for name in ("points.ply", "cameras.json", "trajectory.tum"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_wrong_input_is_said_plainly(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    out = tmp_path / "out"
    with pytest.raises(SourceError, match=r"nowhere\.mp4"):
        threer.reconstruct(tmp_path / "nowhere.mp4", out, config)
    with pytest.raises(CheckpointError, match="unknown weights"):
        threer.reconstruct(folder, out, config, weights="slam4r")
    with pytest.raises(ThreerError, match="positive fx"):
        threer.reconstruct(folder, out, config, intrinsics=(0, 1, 2, 3))
    with pytest.raises(ThreerError, match="fps"):
        threer.reconstruct(folder, out, config, fps=-1)


def test_weights_of_another_system_are_refused(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    other = tmp_path / "dust3r-tiny"
    network = DUSt3R(
        DUSt3RConfig(image_size=32, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=1, dec_heads=2)
    )
    save_checkpoint(network, other, Checkpoint("dust3r-tiny", "dust3r", (), "Apache-2.0"))
    with pytest.raises(ThreerError, match="another system"):
        threer.reconstruct(folder, tmp_path / "out", config, weights=str(other), method="slam3r")


def test_dust3r_streams_what_is_more_than_a_pair(folder: Path, tmp_path: Path, config: ReconstructConfig) -> None:
    torch.manual_seed(0)
    sizes = DUSt3RConfig(image_size=32, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=1, dec_heads=2)
    save_checkpoint(DUSt3R(sizes), tmp_path / "pairs", Checkpoint("pairs", "dust3r", (), "Apache-2.0"))
    streaming = dataclasses.replace(config.streaming, track_min_conf=0)
    config = dataclasses.replace(
        config, weights=str(tmp_path / "pairs"), streaming=streaming, max_frames=8, save_every=0.0
    )
    started: list[Start] = []
    scene = threer.reconstruct(folder, tmp_path / "whole", config, on_start=started.append)
    assert started[0].method == scene.settings["method"] == "dust3r-stream"
    assert "one frame after the other" in started[0].why
    assert len(scene) == scene.report["counts"]["final"] == 8
    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct(folder, tmp_path / "out", config, observers=[Stop(5)], method="dust3r-stream")
    threer.reconstruct(folder, tmp_path / "out", config, method="dust3r-stream", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "out")


@pytest.mark.parametrize("device", ["xyz", "", "cuda:x", "cpu:0", "cuda:99", "mps:1"])
def test_a_device_that_is_not_here_is_said_plainly(
    device: str, folder: Path, tmp_path: Path, config: ReconstructConfig
) -> None:
    with pytest.raises(ThreerError, match="device"):
        threer.reconstruct(folder, tmp_path / "out", config, device=device)


def test_the_source_folder_is_not_written_into(folder: Path, config: ReconstructConfig) -> None:
    with pytest.raises(RunError, match="is the source itself"):
        threer.reconstruct(folder, folder, config)
    assert len(list(folder.iterdir())) == COUNT


def test_a_failure_while_finishing_is_marked(
    folder: Path, tmp_path: Path, config: ReconstructConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from threer.io.runs import RunWriter

    finish = RunWriter.finish

    def fails_at_first(self: RunWriter, state: Any, report: Any) -> Scene:
        if state == "complete":
            raise RunError("the disk is full")
        return finish(self, state, report)

    monkeypatch.setattr(RunWriter, "finish", fails_at_first)
    with pytest.raises(RunError, match="disk is full"):
        threer.reconstruct(folder, tmp_path / "out", config)
    scene = Scene.open(tmp_path / "out")
    assert scene.state == "failed"
    assert len(scene) == COUNT
