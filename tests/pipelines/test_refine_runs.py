"""Depth maps re-fitted, and whole runs refined."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from threer.cli.app import run as cli
from threer.config import ReconstructConfig, RefineConfig
from threer.data.synthetic.clips import WALK, Clip, render_clip
from threer.errors import RunError, ThreerError
from threer.evaluation.trajectory import ate
from threer.io.runs import RunWriter, Scene, lock_folder
from threer.io.runs.layout import StoredFrame
from threer.io.sources import open_source
from threer.pipelines.reconstruct import _refined
from threer.pipelines.refine import second_run
from threer.pipelines.refine.apply import refine
from threer.pipelines.refine.refit import Correction, Samples, between, corrected_points, depth_of, fit, sample
from threer.pipelines.refine.second_run import REFINED
from threer.types import Frame, Pointmap, Trajectory, Update

SIZE = 32, 24


def frame_with(depth: np.ndarray, c2w: np.ndarray | None = None) -> StoredFrame:
    height, width = depth.shape
    c2w = np.eye(4) if c2w is None else c2w
    K = np.array([[40.0, 0, 31.5], [0, 40, 23.5], [0, 0, 1]])  # of an original twice as large
    affine = np.array([[2.0, 0, 0.5], [0, 2, 0.5]])
    v, u = np.mgrid[:height, :width]
    rays = np.stack([(2 * u + 0.5 - 31.5) / 40, (2 * v + 0.5 - 23.5) / 40, np.ones_like(depth)], axis=-1)
    points = (rays * depth[..., None]) @ c2w[:3, :3].T + c2w[:3, 3]
    conf = np.where(np.isfinite(depth), 2.0, 0.0).astype(np.float32)
    colours = np.zeros((height, width, 3), np.uint8)
    size = np.array([64, 48])
    return StoredFrame("f", 0, 0.0, points.astype(np.float32), conf, colours, c2w, K, size, affine)


def smooth_depth() -> np.ndarray:
    v, u = np.mgrid[: SIZE[1], : SIZE[0]]
    return 3 + 0.02 * u + 0.01 * v


def test_scale_of_a_frame_is_found_among_wrong_points() -> None:
    rng = np.random.default_rng(0)
    frame = frame_with(smooth_depth() / 1.7)
    pixels = rng.uniform([4, 4], [58, 42], (60, 2))
    column, row = np.round((pixels - 0.5) / 2).astype(int).T
    sparse = smooth_depth()[row, column]
    sparse[::4] *= 3
    correction = fit(sample(frame, pixels, sparse), SIZE)
    assert correction is not None
    assert correction.scale == pytest.approx(1.7, rel=0.02)
    points = corrected_points(frame, correction, np.eye(4), frame.K)
    assert np.allclose(points[..., 2], smooth_depth(), rtol=0.03)


def test_a_smooth_error_of_depth_is_undone_and_noise_alone_bends_nothing() -> None:
    rng = np.random.default_rng(1)
    pixel = rng.uniform(0, [SIZE[0] - 1, SIZE[1] - 1], (300, 2))
    mapped = rng.uniform(2, 4, 300)
    bend = 0.15 * (pixel[:, 0] / SIZE[0] - 0.5)
    noise = np.exp(rng.normal(0, 0.01, 300))
    bent = fit(Samples(pixel, mapped, 2 * mapped * np.exp(bend) * noise), SIZE)
    assert bent is not None
    assert bent.shape is not None
    factor = bent.factor(mapped, pixel, SIZE)
    assert np.abs(np.log(factor / (2 * np.exp(bend)))).max() < 0.03
    plain = fit(Samples(pixel, mapped, 2 * mapped * noise), SIZE)
    assert plain is not None
    assert plain.shape is None


def test_points_lie_on_the_rays_of_the_new_camera_and_the_unknown_stay_unknown() -> None:
    depth = smooth_depth()
    depth[3, 5] = np.nan
    frame = frame_with(depth)
    c2w = np.eye(4)
    c2w[:3, :3] = Rotation.from_rotvec([0, 0.3, 0]).as_matrix()
    c2w[:3, 3] = 1, 2, 3
    K = frame.K.copy()
    K[0, 0] = K[1, 1] = 50
    points = corrected_points(frame, Correction(2.0, None), c2w, K)
    moved = dataclasses.replace(frame, points=points, c2w=c2w, K=K)
    assert np.allclose(depth_of(moved), 2 * depth, equal_nan=True)
    local = (points[10, 20] - c2w[:3, 3]) @ c2w[:3, :3]
    pixel = (K @ local / local[2])[:2]
    assert np.allclose(pixel, [2 * 20 + 0.5, 2 * 10 + 0.5], atol=1e-4)
    assert np.isnan(points[3, 5]).all()


def test_samples_are_not_taken_at_edges_or_outside() -> None:
    depth = np.where(np.arange(SIZE[0]) < 16, 2.0, 5.0) * np.ones((SIZE[1], 1))
    pixels = np.array([[10.0, 20.0], [32.0, 20.0], [60.0, 20.0], [-5.0, 3.0], [500.0, 20.0]])
    found = sample(frame_with(depth), pixels, np.ones(5))
    assert found.mapped.tolist() == pytest.approx([2, 5])


def test_frames_without_points_take_the_scale_of_their_neighbours() -> None:
    found = between([None, Correction(2.0, None), None, Correction(8.0, None)])
    assert [c.scale for c in found] == pytest.approx([2, 2, 4, 8])
    assert [c.scale for c in between([None, None])] == [1, 1]


@pytest.fixture(scope="module")
def clip() -> Clip:
    motion = dataclasses.replace(WALK.motion, step=(0.12, 0.16))
    return render_clip(5, 8, (320, 240), dataclasses.replace(WALK, antialias=False, motion=motion))


@pytest.fixture(autouse=True)
def small_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture of the cloud takes longer than all the rest, and is tested where it is made."""
    monkeypatch.setattr(second_run, "overview", lambda *_: np.zeros((2, 2, 3), np.uint8))


def write_disturbed(
    clip: Clip, folder: Path, degrees: float = 2.0, share: float = 0.05, noise: bool = False
) -> Scene:
    """A run whose pictures are the clip's, with cameras and depths that are off; ``noise`` instead of pictures."""
    rng = np.random.default_rng(0)
    shown = folder / "pictures"
    shown.mkdir(parents=True)
    centres = clip.c2w[:, :3, 3].double().numpy()
    spread = float(np.sqrt(np.square(centres - centres.mean(axis=0)).sum(axis=1).mean()))
    for k, image in enumerate(clip.images):
        picture = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(rng.integers(0, 255, picture.shape, np.uint8) if noise else picture).save(
            shown / f"{k}.png"
        )
    settings = {"method": "test", "source": str(shown), "fingerprint": open_source(shown).fingerprint()}
    writer = RunWriter(folder / "run", settings, precision="float32")
    for k in range(len(clip)):
        c2w = clip.c2w[k].double().numpy().copy()
        c2w[:3, :3] = c2w[:3, :3] @ Rotation.from_rotvec(np.radians(degrees) * rng.normal(size=3) / 1.7).as_matrix()
        c2w[:3, 3] += share * spread * rng.normal(size=3)
        K = clip.K[k].double().numpy()
        depth = clip.depth[k].double().numpy()[::4, ::4] * np.exp(0.1 * rng.normal())
        v, u = np.mgrid[:240:4, :320:4]
        rays = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(depth)], axis=-1)
        points = (rays * depth[..., None]) @ c2w[:3, :3].T + c2w[:3, 3]
        conf = 1 + rng.random(depth.shape)
        affine = np.array([[4.0, 0, 0], [0, 4, 0]])
        image = clip.images[k][:, ::4, ::4]
        frame = Frame(image, k, k / 5, f"{k:03d}.png", (320, 240), affine)
        pointmap = Pointmap(torch.from_numpy(points).float(), torch.from_numpy(conf).float())
        writer.on(Update("final", frame, points=pointmap, c2w=c2w, K=K))
    return writer.finish("complete", {"seconds": {"total": 1.0}, "skipped": [], "notes": []})


def error(scene: Scene, clip: Clip) -> float:
    times = np.arange(len(clip), dtype=float)
    return ate(Trajectory(times, scene.cameras.c2w), Trajectory(times, clip.c2w.double().numpy())).rmse_m


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in [*(folder / "frames").iterdir(), folder / "cameras.json"]}


def test_a_run_is_refined_beside_itself(clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scene = write_disturbed(clip, tmp_path)
    before = contents(scene.path)
    done = refine(scene)
    assert done.verdict.accepted, done.verdict.why
    assert contents(scene.path) == before
    assert error(done.scene, clip) < error(scene, clip) / 3
    assert done.scene.path == scene.path / REFINED.name
    assert done.scene.state == "complete"
    for path in (scene.path, done.scene.path):
        told = Scene.open(path).report[REFINED.name]
        assert told["accepted"]
        assert told["held_back_px"][1] < told["held_back_px"][0]
    assert not list(scene.path.glob(".*.part"))

    known, now = scene.frame(4), done.scene.frame(4)
    assert np.array_equal(now.conf, known.conf)
    assert np.array_equal(now.colours, known.colours)
    true = clip.depth[:, ::4, ::4].double().numpy()
    sizes = np.array(
        [[np.nanmedian(run.depth(k) / true[k]) for k in range(len(clip))] for run in (scene, done.scene)]
    )
    assert np.log(sizes[1]).std() < 0.4 * np.log(sizes[0]).std()

    with pytest.raises(RunError, match="holds a refined run already"):
        refine(scene)
    with pytest.raises(RunError, match="is refined already"):
        refine(done.scene)
    assert cli(["refine", str(scene.path), "--overwrite"]) == 0
    told = capsys.readouterr().err
    assert f"refined   {done.scene.path}" in told
    assert "px before" in told
    assert np.array_equal(Scene.open(done.scene.path).cameras.c2w, done.scene.cameras.c2w)


def test_what_does_not_help_is_not_written(clip: Clip, tmp_path: Path) -> None:
    scene = write_disturbed(clip, tmp_path, noise=True)
    before = contents(scene.path)
    done = refine(scene)
    assert not done.verdict.accepted
    assert done.scene is scene
    assert contents(scene.path) == before
    assert not (scene.path / REFINED.name).exists()
    assert Scene.open(scene.path).report[REFINED.name]["why"] == done.verdict.why


def test_errors_are_told_before_anything_is_done(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = write_disturbed(clip, tmp_path)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="no refined run"):
        refine(scene, taken, RefineConfig(overwrite=True))
    with pytest.raises(ThreerError, match="seed"):
        RefineConfig(seed=-1)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(ThreerError, match=r"threer\[refine\]"):
        refine(scene)


def test_reconstruct_refines_what_is_complete_and_never_fails_for_it(clip: Clip, tmp_path: Path) -> None:
    scene = write_disturbed(clip, tmp_path)
    with lock_folder(scene.path) as lock:
        assert _refined(scene, ReconstructConfig(), lock) is scene
        gone = scene.path.parent / "pictures"
        gone.rename(tmp_path / "moved")
        assert _refined(scene, ReconstructConfig(refine=True), lock) is scene
        assert "cannot be read" in Scene.open(scene.path).report[REFINED.name]["why"]
        (tmp_path / "moved").rename(gone)
        refined = _refined(Scene.open(scene.path), ReconstructConfig(refine=True), lock)
    assert refined.path == scene.path / REFINED.name
    REFINED.discard(scene.path)
    assert not refined.path.exists()
    (scene.path / REFINED.name).mkdir()
    (scene.path / REFINED.name / "thesis.txt").write_text("mine")
    REFINED.discard(scene.path)
    assert (scene.path / REFINED.name / "thesis.txt").exists()
