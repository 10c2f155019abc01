"""Memory, reading and writing of runs do not grow faster than the runs."""

from __future__ import annotations

import dataclasses
import gc
import sys
import tracemalloc
import weakref
from collections.abc import Iterable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from stored_runs import H, W, make_update, write_run
from threer.io.cameras import FrameCameras
from threer.io.runs import Progress, RunWriter
from threer.io.runs.scene import read_table


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

    def watched(*given: Any) -> FrameCameras:
        table = read_table(*given)
        tables.append(weakref.ref(table))
        assert sum(table() is not None for table in tables) <= 2, "this one, and the one before"
        return table

    monkeypatch.setattr(module, "read_table", watched)
    write_run(tmp_path / "run", list(range(30)), chunk=3)
    assert len(tables) > 20


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
