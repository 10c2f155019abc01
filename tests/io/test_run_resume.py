"""A run that is taken up again, and the lock that keeps two processes apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stored_runs import make_update, write_run
from threer.errors import RunError
from threer.io.runs import Progress, RunWriter, Scene, lock_folder

PRODUCTS = ("cameras.json", "trajectory.tum", "points.ply")


def contents(out: Path) -> dict[str, bytes]:
    """All that a run is, but for times and the process."""
    files = {name: (out / name).read_bytes() for name in PRODUCTS}
    return files | {path.name: path.read_bytes() for path in (out / "frames").iterdir()}


@pytest.mark.parametrize("cut", range(1, 12))
@pytest.mark.parametrize("saved", [0, 1, 4, 6])
def test_whatever_came_after_the_save_is_neither_lost_nor_doubled(tmp_path: Path, saved: int, cut: int) -> None:
    whole = write_run(tmp_path / "whole", list(range(11)), chunk=4)
    writer = RunWriter(tmp_path / "run", {}, chunk=4)
    progress = Progress()
    for index in range(cut):
        if index == saved:
            progress = writer.sync()
        writer.on(make_update(index))
    writer.close()  # as if killed
    on_disk = len(Scene.open(tmp_path / "run"))

    begin = progress.chunks * 4 + progress.open
    assert begin == (saved if saved < cut else 0)
    writer = RunWriter(tmp_path / "run", {}, chunk=4, resume=progress)
    for index in range(begin, 11):
        assert len(writer) == index
        writer.on(make_update(index))
        if index == begin:
            writer.sync()
            assert len(Scene.open(tmp_path / "run")) >= max(on_disk, index + 1), "nothing on disk is given up"
    scene = writer.finish("complete", {})
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")
    assert scene.report["counts"] == whole.report["counts"]


def test_a_resumed_run_that_fails_keeps_what_the_first_one_had(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {}, chunk=2)
    for index in range(5):
        writer.on(make_update(index))
    writer.close()
    writer = RunWriter(tmp_path / "run", {}, chunk=2, resume=Progress())
    writer.on(make_update(0))
    scene = writer.finish("failed", {})
    assert scene.table.indices.tolist() == [0, 1, 2, 3]
    assert scene.report["counts"]["final"] == 4
    assert len(json.loads((tmp_path / "run" / "cameras.json").read_text())["frames"]) == 4


def test_counts_go_on(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {})
    writer.on(make_update(0, kind="failed"))
    writer.on(make_update(1, kind="dropped"))
    progress = writer.sync()
    writer.close()
    writer = RunWriter(tmp_path / "run", {}, resume=progress)
    writer.on(make_update(2))
    with pytest.raises(ValueError, match="was final before"):
        writer.on(make_update(0))
    counts = writer.finish("complete", {}).report["counts"]
    assert (counts["final"], counts["failed"], counts["dropped"]) == (1, 1, 1)


def test_frames_that_were_lost_are_missed(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", {}, chunk=2)
    for index in range(3):
        writer.on(make_update(index))
    progress = writer.sync()
    writer.close()
    (tmp_path / "run" / "frames" / "000001.npz").unlink()
    with pytest.raises(RunError, match=r"000001\.npz cannot be read"):
        RunWriter(tmp_path / "run", {}, chunk=2, resume=progress)
    (tmp_path / "run" / "frames" / "000000.npz").rename(tmp_path / "run" / "frames" / "000001.npz")
    with pytest.raises(RunError, match=r"000000\.npz cannot be read"):
        RunWriter(tmp_path / "run", {}, chunk=2, resume=progress)


def test_leftovers_of_a_killed_process_are_cleared_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "run"
    write_run(out, [0])
    leftovers = [out / ".points.123.part.ply", out / "frames" / ".000001.77.part.npz"]
    mine = [out / ".notes.part.txt", out / "frames" / ".hidden"]
    for path in leftovers + mine:
        path.write_text("")
    RunWriter(out, {}, overwrite=True).close()
    assert not any(path.exists() for path in leftovers)
    assert all(path.exists() for path in mine)


def test_two_writers_are_kept_apart(tmp_path: Path) -> None:
    first = RunWriter(tmp_path / "run", {})
    for options in ({}, {"overwrite": True}, {"resume": Progress()}):
        with pytest.raises(
            RunError, match=rf"is being written by process {os.getpid()} on .*; wait for it, or stop"
        ):
            RunWriter(tmp_path / "run", {}, **options)
    first.on(make_update(0))
    first.finish("complete", {})
    assert "process" not in json.loads((tmp_path / "run" / "run.json").read_text())
    RunWriter(tmp_path / "run", {}, overwrite=True).close()


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, sys\n"
        "from threer.io.runs import RunWriter\n"
        "writer = RunWriter(pathlib.Path(sys.argv[1]), {})\n"
        "print('written', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"written\n"
    with pytest.raises(RunError, match=f"written by process {other.pid} on"):
        RunWriter(tmp_path / "run", {}, resume=Progress())
    other.kill()
    other.communicate()
    RunWriter(tmp_path / "run", {}, resume=Progress()).close()


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    from threer.io.runs import layout

    frames = [layout.StoredFrame.from_update(make_update(k)) for k in range(3)]
    for precision in ("float16", "float32"):
        rows = [layout.pack(frame, precision) for frame in frames]
        layout.write_chunk(tmp_path / "a.npz", rows)
        again = layout.read_rows(tmp_path / "a.npz")
        assert not any(np.shares_memory(row["points"], again[0]["points"]) for row in again[1:])
        layout.write_chunk(tmp_path / "b.npz", again)
        assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_lock_that_was_given_outlives_the_writer(tmp_path: Path) -> None:
    """Whoever locked the folder may have a picture to draw when the writer is done."""
    out = tmp_path / "run"
    with lock_folder(out) as lock:
        writer = RunWriter(out, {"method": "test"}, lock=lock)
        writer.on(make_update(0))
        writer.finish("complete", {})
        with pytest.raises(RunError):
            lock_folder(out)
    lock_folder(out).release()
