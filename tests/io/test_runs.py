"""Runs on disk: what was stored comes back, while they grow and at the end."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

import rendered_runs
import threer.io
from stored_runs import H, W, make_update, write_run
from threer.config import StreamingConfig
from threer.errors import RunError, ThreerError
from threer.io.cameras import read_cameras
from threer.io.ply import read_ply
from threer.io.runs import RunWriter, Scene
from threer.io.runs.layout import pack_points, unpack_points
from threer.io.trajectory import read_tum
from threer.types import Pointmap, Update


def test_a_run_comes_back_in_the_order_of_the_source(tmp_path: Path) -> None:
    order = [0, 4, 8, 1, 2, 3, 5, 6, 7]
    scene = write_run(tmp_path / "run", order, precision="float32", chunk=4)
    assert len(scene) == 9
    assert sorted(p.name for p in (tmp_path / "run" / "frames").iterdir()) == [f"00000{k}.npz" for k in range(3)]
    for k in range(9):
        update, frame = make_update(k), scene.frame(k)
        assert update.points is not None
        assert (frame.index, frame.name, frame.timestamp) == (k, f"frame{k}.png", k / 5)
        np.testing.assert_array_equal(frame.points, update.points.xyz)
        np.testing.assert_array_equal(frame.conf, update.points.conf)
        np.testing.assert_allclose(frame.colours / 255, update.frame.image.permute(1, 2, 0), atol=0.5 / 255 + 1e-6)
        np.testing.assert_array_equal(frame.c2w, update.c2w)
        np.testing.assert_array_equal(frame.K, update.K)
        np.testing.assert_array_equal(frame.to_original, update.frame.to_original)
        assert frame.size.tolist() == [80, 60]
    np.testing.assert_array_equal(scene.trajectory.positions[:, 0], np.arange(9))
    np.testing.assert_array_equal(scene.trajectory.timestamps, np.arange(9) / 5)
    np.testing.assert_array_equal(scene.frame(-1).points, scene.frame(8).points)
    with pytest.raises(IndexError):
        scene.frame(9)


def test_cameras_of_a_run_in_another_order_are_in_that_of_the_source(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [0, 8, 4, 1, 2, 3, 5, 6, 7], chunk=2)
    assert read_cameras(tmp_path / "run" / "cameras.json").indices.tolist() == list(range(9))
    np.testing.assert_array_equal(read_tum(tmp_path / "run" / "trajectory.tum").positions[:, 0], np.arange(9))


@settings(max_examples=60, deadline=None)
@given(
    centre=st.floats(-1e6, 1e6),
    extent=st.floats(1e-3, 1e5),
    outlier=st.floats(1, 1e6),
    seed=st.integers(0, 1000),
)
def test_half_precision_is_relative_to_the_frames_median(
    centre: float, extent: float, outlier: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points = (centre + extent * rng.uniform(-1, 1, (5, 7, 3))).astype(np.float32)
    points[0, 0] *= outlier
    points[1, 1] = np.nan
    packed = pack_points(points, "float16")
    assert packed.values.dtype == np.float16
    again = unpack_points(packed)
    known = np.isfinite(points).all(axis=-1)
    assert np.isnan(again[~known]).all()
    wide = points[known].astype(np.float64)
    deviation = np.abs(wide - packed.offset)
    float32_rounding = 2.0**-22 * (np.abs(wide) + np.abs(packed.offset))
    allowed = 2.0**-11 * deviation + 2.0**-40 * deviation.max() + float32_rounding
    assert (np.abs(again[known] - wide) <= allowed).all()


def test_half_precision_runs(tmp_path: Path) -> None:
    scene = write_run(tmp_path / "run", [3])
    update, frame = make_update(3), scene.frame(0)
    assert update.points is not None
    np.testing.assert_allclose(frame.points, update.points.xyz, atol=3 * 2**-11)  # 300 units from the origin
    np.testing.assert_allclose(frame.conf, update.points.conf, rtol=2**-11)
    assert frame.points.dtype == frame.conf.dtype == np.float32


def test_huge_confidence_does_not_become_infinite(tmp_path: Path) -> None:
    update = make_update(0)
    assert update.points is not None
    update.points.conf[0, 0] = 1e9
    writer = RunWriter(tmp_path / "run", {})
    writer.on(update)
    assert np.isfinite(writer.finish("complete", {}).frame(0).conf).all()


def test_unknown_points_never_enter_the_cloud(tmp_path: Path) -> None:
    update = make_update(0)
    assert update.points is not None
    update.points.xyz[0] = 0  # 8 pixels at the origin
    update.points.xyz[1, :2, 0] = torch.tensor([torch.nan, torch.inf])
    update.points.conf[2, :3] = 0
    for precision in ("float16", "float32"):
        writer = RunWriter(tmp_path / precision, {}, precision=precision, keep=1.0)  # type: ignore[arg-type]
        writer.on(update)
        scene = writer.finish("complete", {})
        assert len(scene.cloud(keep=1.0)) == H * W - 8 - 2 - 3
        assert np.isnan(scene.frame(0).points[0]).all()
        assert np.isfinite(scene.frame(0).points[2, :3]).all(), "masked, but known"
        assert (scene.frame(0).conf[0] == 0).all()


def test_products_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "run"
    writer = RunWriter(
        out,
        {"streaming": StreamingConfig(), "source": tmp_path, "ratio": float("nan")},
        weights={"name": "mini", "sha256": "0a"},
        metric=True,
    )
    for index in (0, 1, 2):
        writer.on(make_update(index, camera=index != 1))
    writer.on(make_update(3, kind="dropped"))
    writer.on(make_update(2, kind="provisional"))
    writer.on(Update("failed", make_update(4).frame, message="all masked"))
    scene = writer.finish("complete", {"seconds": np.float32(2)})

    assert scene.metric
    assert scene.state == "complete"
    assert scene.settings["streaming"]["radius"] == 5
    assert scene.settings["ratio"] is None
    run = json.loads((out / "run.json").read_text())
    assert run["weights"] == {"name": "mini", "sha256": "0a"}
    assert run["versions"]["torch"] == torch.__version__
    assert scene.report["seconds"] == 2
    cloud = read_ply(out / "points.ply")
    counts = scene.report["counts"]
    assert counts == {
        "final": 3,
        "failed": 1,
        "dropped": 1,
        "correction": 0,
        "cameras_found": 2,
        "cameras_missing": 2,
        "points": len(cloud),
    }
    assert len(cloud) == pytest.approx(0.7 * 3 * H * W, rel=0.03)
    assert len(trimesh.load(out / "points.ply").vertices) == len(cloud)
    table = read_cameras(out / "cameras.json")
    assert table.indices.tolist() == [0, 1, 2, 4]
    assert table.cameras.found.tolist() == [True, False, True, False]
    assert len(read_tum(out / "trajectory.tum").timestamps) == 2
    assert np.isnan(scene.frame(3).points).all(), "the failed frame"


def test_depth_is_z_in_the_frames_own_camera(tmp_path: Path) -> None:
    angle = 0.3
    c2w = np.eye(4)
    c2w[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    c2w[:3, 3] = 1, 2, 3
    in_camera = torch.rand(H, W, 3, dtype=torch.float64) + torch.tensor([0, 0, 2.0])
    world = in_camera.numpy() @ c2w[:3, :3].T + c2w[:3, 3]
    update = dataclasses.replace(
        make_update(0), points=Pointmap(torch.from_numpy(world).float(), torch.full((H, W), 2.0)), c2w=c2w
    )
    assert update.points is not None
    update.points.xyz[0, 0] = torch.nan
    writer = RunWriter(tmp_path / "run", {}, precision="float32")
    writer.on(update)
    writer.on(make_update(1, camera=False))
    scene = writer.finish("complete", {})
    expected = in_camera[..., 2].numpy().copy()
    expected[0, 0] = np.nan
    np.testing.assert_allclose(scene.depth(0), expected, atol=1e-5)
    assert scene.depth(1).shape == (H, W)
    assert np.isnan(scene.depth(1)).all()


def test_a_run_can_be_read_while_it_grows_and_after_it_was_cut_off(tmp_path: Path) -> None:
    out = tmp_path / "run"
    writer = RunWriter(out, {}, chunk=2)
    assert len(Scene.open(out)) == 0
    assert len(Scene.open(out).cloud()) == 0
    for index in range(5):
        writer.on(make_update(index))
    scene = Scene.open(out)  # and the writer is never heard of again
    assert scene.state == "running"
    assert len(scene) == 4
    assert scene.report == {}
    assert len(scene.cloud(keep=1.0)) == 4 * H * W
    assert scene.cameras.found.all()
    assert len(read_cameras(out / "cameras.json").names) == 4
    assert len(read_tum(out / "trajectory.tum").timestamps) == 4


def test_a_run_without_frames(tmp_path: Path) -> None:
    scene = RunWriter(tmp_path / "run", {}).finish("failed", {})
    assert len(scene) == 0
    assert len(scene.cameras) == 0
    assert len(read_ply(tmp_path / "run" / "points.ply")) == 0
    RunWriter(tmp_path / "run", {})  # nothing to lose, so the folder can be used again


def test_frames_of_several_sizes(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {}, precision="float32")
    sizes = [(6, 8), (8, 6), (8, 6), (6, 8)]
    for index, size in enumerate(sizes):
        writer.on(make_update(index, size=size))
    scene = writer.finish("complete", {})
    assert [scene.frame(k).conf.shape for k in range(4)] == sizes
    assert len(scene.cloud(keep=1.0)) == 4 * 48


def test_saving_by_suffix(tmp_path: Path) -> None:
    scene = write_run(tmp_path / "run", [0, 1])
    for name in ("c.PLY", "t.tum", "c.json"):
        scene.save(tmp_path / name)
    assert len(read_ply(tmp_path / "c.PLY")) == len(scene.cloud())
    assert len(read_tum(tmp_path / "t.tum").timestamps) == 2
    assert len(read_cameras(tmp_path / "c.json").names) == 2
    with pytest.raises(RunError, match=r"c\.xyz.*\.ply, \.tum, \.json"):
        threer.io.write(scene, tmp_path / "c.xyz")


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="precision must be one of float16, float32"):
        RunWriter(tmp_path / "run", {}, precision="float8")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="chunk must be"):
        RunWriter(tmp_path / "run", {}, chunk=0)
    assert not (tmp_path / "run").exists()
    writer = RunWriter(tmp_path / "run", {})
    writer.on(make_update(0))
    with pytest.raises(ValueError, match="was final before"):
        writer.on(make_update(0))
    with pytest.raises(ValueError, match="is not the next"):
        writer.on(make_update(0, kind="correction"))
    wrong = dataclasses.replace(make_update(1), points=Pointmap(torch.zeros(2, 2, 3), torch.ones(2, 2)))
    with pytest.raises(ValueError, match=r"are \[2, 2\], not \[6, 8\]"):
        writer.on(wrong)
    scene = writer.finish("complete", {})
    for bad in ({"keep": 0}, {"keep": 1.1}, {"max_points": 0}):
        with pytest.raises(ThreerError):
            scene.cloud(**bad)


def test_clouds_have_normals_if_that_is_wanted(tmp_path: Path) -> None:
    scene = rendered_runs.write(tmp_path / "run", rendered_runs.updates(), normals=True)
    vertices = trimesh.load(tmp_path / "run" / "points.ply")
    written = np.stack(
        [vertices.metadata["_ply_raw"]["vertex"]["data"][name].reshape(-1) for name in ("nx", "ny", "nz")], axis=-1
    )
    for budget in (10**6, 3000):  # all, and the best of each voxel
        cloud = scene.cloud(keep=1.0, max_points=budget, normals=True)
        assert cloud.normals is not None
        known = np.isfinite(cloud.normals).all(axis=1)
        assert known.mean() > 0.9  # depth jumps between neighbours of far floors, too
        # A step along the normal leads straight away from the surface.
        step = cloud.xyz + 0.01 * cloud.normals
        off = rendered_runs.distance_to_room(step[known]) - rendered_runs.distance_to_room(cloud.xyz[known])
        assert np.quantile(np.abs(off - 0.01), 0.8) < 1e-4  # the rest is curved, or near an edge
    assert len(written) == len(vertices.vertices)
    assert np.quantile(np.abs(np.linalg.norm(written, axis=1) - 1), 0.95) < 1e-4
    assert scene.cloud().normals is None
