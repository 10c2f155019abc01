"""Corrections of a run on disk: kept beside its frames, applied when these are read, and never lost or doubled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from stored_runs import make_update, write_run
from threer.errors import RunError
from threer.geometry.sim3_paths import exp, interpolate, log
from threer.io.cameras import read_cameras
from threer.io.ply import read_ply
from threer.io.runs import Progress, RunWriter, Scene
from threer.io.runs.corrections import moved_cameras
from threer.io.runs.placing import Placement, place, unplace
from threer.io.trajectory import read_tum
from threer.types import Moves, Sim3, Update


def sim3(seed: int) -> Sim3:
    generator = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(generator.normal(0, 0.5, 3)).as_matrix()
    return Sim3(float(np.exp(generator.normal(0, 0.3))), turn, generator.normal(0, 2, 3))


def correction(version: int, indices: list[int]) -> Update:
    moves = Moves(np.array(indices), tuple(sim3(10 * version + k) for k in range(len(indices))))
    return Update("correction", make_update(indices[-1]).frame, version, moves=moves)


FIRST, SECOND = correction(1, [0, 3, 5]), correction(2, [4, 8])


def write(writer: RunWriter, upto: int = 12) -> None:
    for k in range(len(writer), upto):
        writer.on(make_update(k))
        if k == 5:
            writer.on(FIRST)
        if k == 8:
            writer.on(SECOND)


def expected(index: int) -> Sim3 | None:
    """Both together, worked out one by one."""
    total = None
    for update in (FIRST, SECOND):
        assert update.moves is not None
        if index <= update.moves.last:
            (move,) = interpolate(update.moves.indices, update.moves.sim3, [index])
            total = move if total is None else move.after(total)
    return total


def close_to(points: np.ndarray, move: Sim3 | None, wanted: np.ndarray) -> None:
    moved = points if move is None else move.apply(points.astype(np.float64))
    np.testing.assert_allclose(wanted, moved, rtol=1e-5, atol=1e-3)


def test_frames_are_read_where_corrections_left_them_and_where_they_were_before(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {}, precision="float32", chunk=4)
    write(writer)
    during = Scene.open(tmp_path / "run")
    assert len(during) == 12
    scene = writer.finish("complete", {})
    first = Scene.open(tmp_path / "run", corrected=False)
    for k in range(12):
        update, move = make_update(k), expected(k)
        assert (move is None) == (k > 8)
        np.testing.assert_array_equal(first.frame(k).points, update.points.xyz)  # type: ignore[union-attr]
        np.testing.assert_array_equal(first.frame(k).c2w, update.c2w)
        for shown in (scene, during):
            close_to(first.frame(k).points, move, shown.frame(k).points)
            close_to(first.frame(k).c2w[:3, 3], move, shown.frame(k).c2w[:3, 3])
        np.testing.assert_allclose(np.linalg.det(scene.frame(k).c2w[:3, :3]), 1, atol=1e-9)
        grown = 1.0 if move is None else move.scale
        np.testing.assert_allclose(scene.depth(k), grown * first.depth(k), rtol=1e-3, atol=1e-2)
    assert scene.report["counts"]["correction"] == 2

    # What is written at the end is corrected.
    centres = scene.cameras.c2w[:, :3, 3]
    np.testing.assert_allclose(read_tum(tmp_path / "run" / "trajectory.tum").positions, centres, atol=1e-6)
    np.testing.assert_allclose(read_cameras(tmp_path / "run" / "cameras.json").cameras.c2w[:, :3, 3], centres)
    cloud = read_ply(tmp_path / "run" / "points.ply").xyz
    np.testing.assert_allclose(np.sort(cloud, 0), np.sort(scene.cloud().xyz, 0))
    assert not np.allclose(np.sort(cloud, 0), np.sort(first.cloud().xyz, 0))


def test_cameras_that_are_moved_stay_where_they_were_for_others() -> None:
    c2w = np.tile(np.eye(4), (3, 1, 1))
    moved = moved_cameras(c2w, [sim3(1), None, sim3(2)])
    assert np.array_equal(c2w, np.tile(np.eye(4), (3, 1, 1)))
    assert np.array_equal(moved[1], np.eye(4))
    np.testing.assert_allclose(moved[[0, 2], :3, 3], [sim3(1).t, sim3(2).t])
    np.testing.assert_allclose(moved[0, :3, :3], sim3(1).R)


@pytest.mark.parametrize("saved", [3, 6, 9])
@pytest.mark.parametrize("cut", [7, 12])
def test_a_run_that_goes_on_ends_as_one_that_was_left_alone(tmp_path: Path, saved: int, cut: int) -> None:
    whole = RunWriter(tmp_path / "whole", {}, chunk=4)
    write(whole)
    whole.finish("complete", {})
    writer = RunWriter(tmp_path / "run", {}, chunk=4)
    write(writer, saved)
    progress = writer.sync()
    write(writer, max(cut, saved))
    writer.sync()
    writer.close()  # killed
    seen = Scene.open(tmp_path / "run")
    again = RunWriter(tmp_path / "run", {}, chunk=4, resume=progress)
    # Before they come again, frames and corrections of the first process are as it left them.
    for k in range(len(seen)):
        np.testing.assert_array_equal(Scene.open(tmp_path / "run").frame(k).points, seen.frame(k).points)
    write(again)
    again.finish("complete", {})
    for name in ("corrections.json", "cameras.json", "trajectory.tum", "points.ply", "frames/000001.npz"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    counts = json.loads((tmp_path / "run" / "report.json").read_text())["counts"]
    assert counts == json.loads((tmp_path / "whole" / "report.json").read_text())["counts"]


def test_corrections_come_in_order_once_and_go_with_the_run(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {})
    write(writer, 6)
    for wrong in (FIRST, correction(3, [1]), Update("correction", make_update(0).frame, 2)):
        with pytest.raises(ValueError, match="is not the next after 1"):
            writer.on(wrong)
    writer.finish("complete", {})
    write_run(tmp_path / "run", range(2), overwrite=True)
    assert not (tmp_path / "run" / "corrections.json").exists()
    with pytest.raises(RunError, match="lost corrections"):
        RunWriter(tmp_path / "run", {}, resume=Progress(0, 2, {"correction": 1}))


def test_a_run_that_dies_before_its_first_chunk_is_there_and_goes_on(tmp_path: Path) -> None:
    """A correction is on disk at once, frames with their chunk."""
    writer = RunWriter(tmp_path / "run", {})
    write(writer, 6)
    writer.close()  # killed
    scene = Scene.open(tmp_path / "run")
    assert len(scene) == 0
    assert len(scene.corrections) == 1
    again = RunWriter(tmp_path / "run", {}, resume=Progress(), precision="float32")
    write(again)
    assert again.finish("complete", {}).report["counts"]["correction"] == 2


@pytest.mark.parametrize("error", [RunError, KeyboardInterrupt])
def test_no_frame_is_on_disk_without_a_correction_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """The disk refuses, or Ctrl-C comes, while a correction is written: it is written before the next chunk."""

    def refuse(*_: object) -> None:
        raise error

    writer = RunWriter(tmp_path / "run", {}, precision="float32", chunk=4)
    write(writer, 5)
    writer.on(make_update(5))
    with monkeypatch.context() as patch:
        patch.setattr("threer.io.runs.writer.write_corrections", refuse)
        with pytest.raises(error):
            writer.on(FIRST)
        writer.on(make_update(6))
        with pytest.raises(error):
            writer.on(make_update(7))
        assert len(Scene.open(tmp_path / "run")) == 4
    writer.on(make_update(8))
    assert len(Scene.open(tmp_path / "run")) == 8
    scene = writer.finish("failed", {})
    assert FIRST.moves is not None
    for k in (0, 5, 6, 8):
        move = interpolate(FIRST.moves.indices, FIRST.moves.sim3, [k])[0] if k <= 5 else None
        close_to(make_update(k).points.xyz.numpy(), move, scene.frame(k).points)  # type: ignore[union-attr]


@pytest.mark.parametrize("camera", [True, False])
def test_scale_comes_on_top_of_corrections(tmp_path: Path, camera: bool) -> None:
    writer = RunWriter(tmp_path / "run", {}, precision="float32")
    for k in range(10):
        writer.on(make_update(k, camera=camera or k != 2))
    writer.on(FIRST)
    before = writer.finish("complete", {})
    metres = sim3(7)
    scene = place(tmp_path / "run", Placement(metres, "a test"))
    for k in range(10):
        close_to(before.frame(k).points, metres, scene.frame(k).points)
        np.testing.assert_allclose(scene.frame(k).c2w[:3, 3], metres.apply(before.frame(k).c2w[:3, 3]))
    assert scene.cameras.found.tolist() == [camera or k != 2 for k in range(10)]
    np.testing.assert_allclose(read_cameras(tmp_path / "run" / "cameras.json").cameras.c2w, scene.cameras.c2w)
    back = unplace(tmp_path / "run")
    np.testing.assert_array_equal(back.cameras.c2w, before.cameras.c2w)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"format": 1}', b'{"format": 9, "corrections": []}', b"\xff"])
def test_what_cannot_be_read_is_said(tmp_path: Path, text: bytes) -> None:
    write_run(tmp_path / "run", range(2))
    (tmp_path / "run" / "corrections.json").write_bytes(text)
    with pytest.raises(RunError, match=r"corrections\.json"):
        Scene.open(tmp_path / "run")
    assert len(Scene.open(tmp_path / "run", corrected=False)) == 2


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_way_leads_where_its_logarithm_says_at_constant_speed(seed: int, share: float) -> None:
    end = sim3(seed)
    there, rest = exp(share * log(end)), exp((1 - share) * log(end))
    for found in (exp(log(end)), rest.after(there)):
        assert found.scale == pytest.approx(end.scale)
        np.testing.assert_allclose(found.R, end.R, atol=1e-9)
        np.testing.assert_allclose(found.t, end.t, atol=1e-9)
