"""Runs on disk: written as they happen, readable at any time, safe from each other and from a full disk."""

from __future__ import annotations

import dataclasses
import errno
import gc
import json
import os
import sys
import tracemalloc
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import FunctionType, ModuleType

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
from threer.io.cameras import FrameCameras, read_cameras
from threer.io.ply import read_ply
from threer.io.runs import Progress, RunWriter, Scene
from threer.io.runs.layout import pack_points, unpack_points
from threer.io.runs.scene import read_table
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


def test_an_interrupted_run_keeps_its_final_frames(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {})
    writer.on(make_update(0))
    scene = writer.finish("interrupted", {"reason": "Ctrl-C"})
    assert scene.state == "interrupted"
    assert len(scene) == 1
    assert len(read_ply(tmp_path / "run" / "points.ply")) > 0


def interrupted_once(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, file: str) -> None:
    """The next call of a function that writes ``file`` is interrupted before it does."""
    function = getattr(module, name)

    def breaks(path: Path, *content: object) -> None:
        if path.name == file:
            monkeypatch.setattr(module, name, function)
            raise KeyboardInterrupt
        function(path, *content)

    monkeypatch.setattr(module, name, breaks)


def test_no_frame_is_there_twice_after_a_chunk_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Resumed from the beginning: the chunks have to have the same borders again."""
    writer = RunWriter(tmp_path / "run", {}, chunk=4)
    interrupted_once(monkeypatch, threer.io.runs.layout, "write_chunk", "000000.npz")
    for k in range(3):
        writer.on(make_update(k))
    with pytest.raises(KeyboardInterrupt):
        writer.on(make_update(3))
    for k in range(4, 7):  # what was known by then
        writer.on(make_update(k))
    assert writer.finish("interrupted", {}).table.indices.tolist() == list(range(7))
    again = RunWriter(tmp_path / "run", {}, chunk=4, resume=Progress())
    for k in range(10):
        again.on(make_update(k))
    assert again.finish("complete", {}).table.indices.tolist() == list(range(10))


def interrupted_after(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
    """The next call of a method is interrupted when it is done."""
    function = getattr(target, name)

    def breaks(*given: object) -> object:
        monkeypatch.setattr(target, name, function)
        function(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(target, name, breaks)


@pytest.mark.parametrize("name", ["_write_rows", "_write_cameras", "_remember", "_is_full"])
@pytest.mark.parametrize("at", [0, 3, 4])
def test_an_update_that_is_told_again_after_an_interrupt_is_stored_and_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, at: int
) -> None:
    """Whatever was done of it: `_write_rows` and `_write_cameras` come in the middle of closing a chunk."""
    writer = RunWriter(tmp_path / "run", {}, chunk=4)
    for k in range(8):
        if k == at:
            interrupted_after(monkeypatch, writer, name)
        try:
            writer.on(make_update(k))
        except KeyboardInterrupt:
            with suppress(ValueError):  # it may be there already
                writer.on(make_update(k))
    scene = writer.finish("complete", {})
    stored = [np.load(path)["index"].tolist() for path in sorted((scene.path / "frames").iterdir())]
    assert [index for chunk in stored for index in chunk] == list(range(8))
    assert scene.report["counts"]["final"] == 8


def test_other_frames_on_disk_than_those_that_wait_are_replaced(tmp_path: Path) -> None:
    """As many, but others: the chunk of a process whose borders lay elsewhere."""
    write_run(tmp_path / "run", [0, 1, 2, 3, 4, 5, 6, 7], chunk=4)
    again = RunWriter(tmp_path / "run", {}, chunk=3, resume=Progress())
    for k in range(8):
        again.on(make_update(k))
        seen = Scene.open(tmp_path / "run").table.indices.tolist()
        assert seen == sorted(set(seen)), "a reader sees no frame twice"
    scene = again.finish("complete", {})
    stored = [np.load(path)["index"].tolist() for path in sorted((scene.path / "frames").iterdir())]
    assert stored == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_the_end_of_a_run_can_be_interrupted_up_to_the_last_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "run", range(3), chunk=2)
    writer = RunWriter(tmp_path / "run", {}, chunk=2, resume=Progress())  # all three are ahead
    interrupted_once(monkeypatch, sys.modules[RunWriter.__module__], "write_json", "run.json")
    with pytest.raises(KeyboardInterrupt):
        writer.finish("complete", {})
    scene = writer.finish("interrupted", {})
    assert scene.state == "interrupted"
    assert scene.report["counts"]["final"] == 3


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


def test_chunks_of_large_frames_are_closed_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threer.io.runs.writer._CHUNK_BYTES", 3 * H * W * 19)
    scene = write_run(tmp_path / "run", list(range(7)))
    assert len(scene) == 7
    assert len(list((tmp_path / "run" / "frames").iterdir())) == 3


def test_memory_does_not_grow_with_the_length_of_the_run(tmp_path: Path) -> None:
    def peak(frames: int, name: str) -> int:
        writer = RunWriter(tmp_path / name, {}, chunk=4, cloud_budget=100)
        tracemalloc.start()
        for index in range(frames):
            writer.on(make_update(index, size=(64, 64)))
        writer.finish("complete", {})
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(4, "warm-up")
    one_frame = 64 * 64 * (12 + 4 + 3)
    # The smaller of two, because a table of the interpreter's own may happen to grow during one.
    assert min(peak(44, "long"), peak(44, "again")) - peak(12, "short") < 4 * one_frame


def bytes_held(writer: RunWriter) -> int:
    """Of everything that can be reached from ``writer``."""
    found: dict[int, object] = {}
    waiting: list[object] = list(vars(writer).values())
    while waiting:
        value = waiting.pop()
        if id(value) not in found and not isinstance(value, type | ModuleType | FunctionType):
            found[id(value)] = value
            waiting += gc.get_referents(value)
    return sum(map(sys.getsizeof, found.values()))


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed without a save point"])
def test_a_writer_keeps_a_few_bytes_of_each_frame(tmp_path: Path, resumed: bool) -> None:
    update, held = make_update(0), {}
    for count in (100, 500):
        out = tmp_path / str(count)
        writer = RunWriter(out, {}, chunk=8)
        for index in range(count):
            writer.on(dataclasses.replace(update, frame=dataclasses.replace(update.frame, index=index)))
        if resumed:
            writer.close()
            writer = RunWriter(out, {}, chunk=8, resume=Progress())
        held[count] = bytes_held(writer)
        writer.close()
    assert held[500] - held[100] < 30 * 400


def test_cameras_are_written_a_chunk_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threer.io.runs import writer as module

    tables: list[weakref.ref[FrameCameras]] = []

    def watched(chunks: list[Path], made_with: dict[str, str]) -> FrameCameras:
        table = read_table(chunks, made_with)
        tables.append(weakref.ref(table))
        assert sum(table() is not None for table in tables) <= 2, "this one, and the one before"
        return table

    monkeypatch.setattr(module, "read_table", watched)
    write_run(tmp_path / "run", list(range(30)), chunk=3)
    assert len(tables) > 20


def test_cameras_of_a_run_in_another_order_are_in_that_of_the_source(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [0, 8, 4, 1, 2, 3, 5, 6, 7], chunk=2)
    assert read_cameras(tmp_path / "run" / "cameras.json").indices.tolist() == list(range(9))
    np.testing.assert_array_equal(read_tum(tmp_path / "run" / "trajectory.tum").positions[:, 0], np.arange(9))


def test_cameras_are_not_rewritten_at_every_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rewriting all of them for each chunk would make a stream slower and slower."""
    from threer.io.runs import writer as module

    rows: list[int] = []
    write = module.write_cameras

    def watched(path: Path, tables: Iterable[FrameCameras]) -> None:
        listed = list(tables)
        rows.append(sum(len(table.names) for table in listed))
        write(path, listed)

    monkeypatch.setattr(module, "write_cameras", watched)
    write_run(tmp_path / "run", list(range(200)), chunk=2)
    assert rows[-1] == 200
    assert len(rows) < 30
    assert sum(rows) < 200 * 8, "the work grows with the frames, not with their square"


def test_only_the_needed_chunks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threer.io.runs import layout

    scene = write_run(tmp_path / "run", list(range(12)), chunk=2)
    read = []
    original = layout.read_chunk
    monkeypatch.setattr(layout, "read_chunk", lambda path, *names: read.append(path.name) or original(path, *names))
    scene.frame(4), scene.frame(5), scene.depth(4)
    assert read == ["000002.npz"]
    scene.cloud()
    assert read == ["000002.npz", *(f"00000{k}.npz" for k in range(6))]
    read.clear()
    for position in (0, 2, 0, 4, 0):  # the chunk used longest ago goes first
        scene.frame(position)
    assert read == ["000000.npz", "000001.npz", "000002.npz"]
    scene.frame(11).colours[:] = 0
    assert scene.frame(11).colours.any(), "what is handed out is not the cache"


def test_the_cloud_reads_each_chunk_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threer.io.runs import layout

    scene = write_run(tmp_path / "run", [0, 3, 6, 1, 4, 7, 2, 5, 8], chunk=3)
    read = []
    original = layout.read_chunk
    monkeypatch.setattr(layout, "read_chunk", lambda path, *names: read.append(path.name) or original(path, *names))
    scene.cloud()
    assert read == ["000000.npz", "000001.npz", "000002.npz"]


def test_saving_by_suffix(tmp_path: Path) -> None:
    scene = write_run(tmp_path / "run", [0, 1])
    for name in ("c.PLY", "t.tum", "c.json"):
        scene.save(tmp_path / name)
    assert len(read_ply(tmp_path / "c.PLY")) == len(scene.cloud())
    assert len(read_tum(tmp_path / "t.tum").timestamps) == 2
    assert len(read_cameras(tmp_path / "c.json").names) == 2
    with pytest.raises(RunError, match=r"c\.xyz.*\.ply, \.tum, \.json"):
        threer.io.write(scene, tmp_path / "c.xyz")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not a run folder: it has no run\.json"):
        Scene.open(tmp_path)
    for content, message in (("{", "cannot be read"), ("[]", "not written by"), ('{"a": 1}', "not written by")):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunError, match=message):
            Scene.open(tmp_path)
    (tmp_path / "run.json").write_text('{"format": 99, "state": "complete", "settings": {}, "metric": false}')
    with pytest.raises(RunError, match="format 99"):
        Scene.open(tmp_path)


def test_a_run_of_someone_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(RunError, match="no permission to look into"):
        Scene.open(tmp_path / "run")


def test_a_damaged_chunk_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "run", [0, 1], chunk=1)
    chunk = tmp_path / "run" / "frames" / "000001.npz"
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(RunError, match=r"000001\.npz cannot be read"):
        Scene.open(tmp_path / "run")
    chunk.unlink()
    assert len(Scene.open(tmp_path / "run")) == 1


def test_runs_do_not_overwrite_each_other(tmp_path: Path) -> None:
    out = tmp_path / "run"
    write_run(out, [0, 1, 2], chunk=1)
    (out / "my notes.txt").write_text("mine")
    (out / "frames" / "mine.npz").write_text("mine")
    with pytest.raises(RunError, match="holds a run already"):
        RunWriter(out, {})
    assert len(Scene.open(out)) == 3
    scene = write_run(out, [7], overwrite=True)
    assert scene.table.indices.tolist() == [7]
    assert (out / "my notes.txt").read_text() == (out / "frames" / "mine.npz").read_text() == "mine"


def test_an_unfinished_run_with_frames_is_not_overwritten_either(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {}, chunk=1)
    writer.on(make_update(0))
    writer.close()
    with pytest.raises(RunError, match=r"holds a run already \(running\)"):
        RunWriter(tmp_path / "run", {})


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_someone_else_are_never_touched(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "points.ply").write_text("mine")
    with pytest.raises(RunError, match=r"points\.ply is in the way"):
        RunWriter(tmp_path, {}, overwrite=overwrite)
    assert [p.name for p in tmp_path.iterdir()] == ["points.ply"]


def test_paths_that_cannot_be_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunError, match="is a file"):
            RunWriter(path, {})
    monkeypatch.setattr(
        Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied"))
    )
    with pytest.raises(RunError, match="no permission to write"):
        RunWriter(tmp_path / "run", {})


def test_no_permission_inside_an_existing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "write_text", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    with pytest.raises(RunError, match=r"no permission to write .*run\.json"):
        RunWriter(tmp_path, {})


def test_a_full_disk_keeps_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    writer = RunWriter(out, {}, chunk=2)
    for index in range(3):
        writer.on(make_update(index))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"disk is full.*000001\.npz"):
            writer.on(make_update(3))
    scene = Scene.open(out)
    assert len(scene) == 2
    assert not list(out.rglob("*part*")), "no leftovers"
    # The frames that could not be written are still held: once there is room, nothing is lost.
    assert len(writer.finish("complete", {})) == 4


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
    with pytest.raises(ValueError, match="cannot be corrected"):
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
