"""Runs are safe from each other, from strangers, and from a full disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stored_runs import make_update, write_run
from threer.errors import RunError
from threer.io.runs import RunWriter, Scene


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
