"""Ctrl-C while a run is written: every frame once, and the end as far as it got."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import threer.io
from stored_runs import make_update, write_run
from threer.io.ply import read_ply
from threer.io.runs import Progress, RunWriter, Scene


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
