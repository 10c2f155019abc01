"""Ctrl-C on a source without an end: the first ends the source, the second the run; others' handlers stay."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import threer
from pipelines.test_live import Lockstep, config  # noqa: F401, a fixture
from pipelines.test_live import picture as live_picture
from threer.config import ReconstructConfig
from threer.errors import RunError
from threer.io.frames import RawFrame, to_frame
from threer.io.runs import RunWriter, Scene
from threer.io.sources import open_source
from threer.pipelines.cameras import CameraTracker
from threer.pipelines.interrupts import first_interrupt_calls, interrupts_wait, not_interrupted
from threer.types import Update

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def usual_handler() -> Iterator[None]:
    """As a program has it that was started from a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(source: Lockstep) -> None:
    ctrl_c()
    until(source._stopped.is_set)


class Listener:
    def __init__(self) -> None:
        self.heard: list[Update] = []

    def on(self, update: Update) -> None:
        self.heard.append(update)

    def indices(self, kind: str) -> list[int]:
        return [u.frame.index for u in self.heard if u.kind == kind]


def camera(monkeypatch: pytest.MonkeyPatch, source: Lockstep, at: dict[int, Callable[[], None]]) -> None:
    """Reconstruct from ``source``; while frame ``i`` is prepared, ``at[i]`` happens, and two frames come in."""

    def prepared(frame: RawFrame, spec: object) -> object:
        source.let(2)
        at.get(frame.index, lambda: None)()
        return to_frame(frame, spec)  # type: ignore[arg-type]

    monkeypatch.setattr("threer.pipelines.reconstruct.open_source", lambda *_: source)
    monkeypatch.setattr("threer.pipelines.reconstruct.to_frame", prepared)


def test_the_first_one_ends_a_camera_and_what_came_in_is_reconstructed(
    config: ReconstructConfig,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, listener, told = Lockstep(1000), Listener(), threading.Event()
    camera(monkeypatch, source, {12: lambda: end(source)})
    scene = threer.reconstruct("camera", tmp_path / "out", config, observers=[listener], on_stop=told.set)
    assert scene.state == "complete"
    assert told.wait(10)
    assert "lockstep was ended by Ctrl-C" in scene.report["notes"]
    final = listener.indices("final")
    assert final == list(range(len(final))), "the backlog of as many frames again was worked off"
    assert len(final) > 20
    assert not listener.indices("dropped")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_one_interrupts_and_what_waits_counts_as_dropped(
    config: ReconstructConfig,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, listener = Lockstep(1000), Listener()
    camera(monkeypatch, source, {12: lambda: end(source), 14: ctrl_c})
    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct("camera", tmp_path / "out", config, observers=[listener])
    scene = Scene.open(tmp_path / "out")
    assert scene.state == "interrupted"
    dropped = listener.indices("dropped")
    assert dropped[0] == 15
    assert dropped == list(range(15, 15 + len(dropped)))
    assert len(dropped) > 10
    assert scene.report["counts"]["dropped"] == len(dropped)
    assert {u.message for u in listener.heard if u.kind == "dropped"} == {"the run ended before its turn came"}


def test_what_waits_is_told_to_all_even_when_one_of_them_fails(
    config: ReconstructConfig,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fails:
        def on(self, update: Update) -> None:
            if update.frame.index >= 8:
                raise ZeroDivisionError(str(update.frame.index))

    listener = Listener()
    camera(monkeypatch, Lockstep(1000), {})
    with pytest.raises(ZeroDivisionError, match="8"):
        threer.reconstruct("camera", tmp_path / "out", config, observers=[Fails(), listener])
    dropped = listener.indices("dropped")
    assert dropped
    assert Scene.open(tmp_path / "out").report["counts"]["dropped"] == len(dropped)


def test_a_watched_folder_is_ended(config: ReconstructConfig, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "incoming"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(live_picture(i)).save(folder / f"{i}.png")

    class At8(Listener):
        def on(self, update: Update) -> None:
            super().on(update)
            if update.frame.index == 8:
                ctrl_c()

    listener = At8()
    scene = threer.reconstruct(f"watch:{folder}", tmp_path / "out", config, observers=[listener], idle=None)
    assert scene.state == "complete"
    final = listener.indices("final")
    assert final == list(range(len(final)))
    assert len(final) > 9


def test_a_source_that_can_be_read_again_is_interrupted(config: ReconstructConfig, tmp_path: Path) -> None:  # noqa: F811
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(live_picture(i)).save(folder / f"{i}.png")

    class At8:
        def on(self, update: Update) -> None:
            if update.frame.index == 8:
                ctrl_c()

    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct(folder, tmp_path / "out", config, observers=[At8()])
    assert Scene.open(tmp_path / "out").state == "interrupted"


def test_the_update_that_was_being_told_when_the_interrupt_came_reaches_everybody(
    config: ReconstructConfig,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(live_picture(i)).save(folder / f"{i}.png")

    class InterruptedAt5:
        def on(self, update: Update) -> None:
            if update.frame.index == 5:
                ctrl_c()

    listener = Listener()
    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct(folder, tmp_path / "out", config, observers=[InterruptedAt5(), listener])
    final = listener.indices("final")
    assert 5 in final
    assert final == list(range(len(final)))
    assert len(Scene.open(tmp_path / "out")) == len(final)


def test_an_interrupt_while_the_finals_of_a_round_are_made_loses_none_of_them(
    config: ReconstructConfig,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rounds of three; the second Ctrl-C comes in the middle of one."""
    config = dataclasses.replace(config, streaming=dataclasses.replace(config.streaming, stride=5))
    listener = Listener()
    track, told = CameraTracker.track, 0

    def tracked(*given: Any) -> Any:
        nonlocal told
        if not told and len(listener.indices("final")) > 25:
            told = len(listener.indices("final"))
            ctrl_c()
        return track(*given)

    monkeypatch.setattr(CameraTracker, "track", tracked)
    source = Lockstep(1000)
    camera(monkeypatch, source, {30: lambda: end(source)})
    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct("camera", tmp_path / "out", config, observers=[listener])
    final, dropped = listener.indices("final"), listener.indices("dropped")
    assert len(final) == told + 3, "the round was finished, and no other begun"
    assert final == list(range(told + 3))
    scene = Scene.open(tmp_path / "out")
    assert scene.table.indices.tolist() == final
    # Frames that had been taken and were waiting for their future are counted, too.
    (note,) = [note for note in scene.report["notes"] if "not final" in note]
    taken = int(note.split()[0])
    assert note.startswith(f"{taken} frames of those from {told + 3} to ")
    assert len(final) + taken + len(dropped) == max(dropped) + 1, "each frame that came in is accounted for"


def test_nothing_that_goes_wrong_while_a_run_is_closed_hides_the_first_error(
    config: ReconstructConfig,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(live_picture(i)).save(folder / f"{i}.png")

    class Fails:
        def on(self, update: Update) -> None:
            raise ZeroDivisionError("the first error")

    def breaks(*_: object) -> None:
        raise MemoryError("the second")

    monkeypatch.setattr(RunWriter, "finish", breaks)
    with pytest.raises(ZeroDivisionError, match="the first error") as caught:
        threer.reconstruct(folder, tmp_path / "out", config, observers=[Fails()])
    assert caught.value.__notes__ == ["then, while the run was closed: MemoryError: the second"]


def test_a_ctrl_c_waits_for_a_step_that_must_be_whole() -> None:
    done = []

    def step() -> None:
        with interrupts_wait():
            ctrl_c()
            done.append(1)

    with pytest.raises(KeyboardInterrupt):
        step()
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    asked = threading.Event()
    with first_interrupt_calls(asked.set):
        with interrupts_wait():
            ctrl_c()
            assert not asked.wait(0.05)
        assert asked.wait(10), "whoever handles it is told"


def test_a_complete_live_run_is_given_back_and_no_other_is_resumed(
    config: ReconstructConfig,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = Lockstep(8)
    camera(monkeypatch, source, {})
    threer.reconstruct("camera", tmp_path / "out", config)
    started: list[object] = []
    again = threer.reconstruct("camera", tmp_path / "out", config, resume=True, on_start=started.append)
    assert again.state == "complete"
    assert len(again) == 8
    assert not started
    source.name = "another camera"
    with pytest.raises(RunError, match="is not, or no longer, the source of the run"):
        threer.reconstruct("camera", tmp_path / "out", config, resume=True)
    camera(monkeypatch, Lockstep(100), {9: lambda: (_ for _ in ()).throw(KeyboardInterrupt)})
    with pytest.raises(KeyboardInterrupt):
        threer.reconstruct("camera", tmp_path / "cut", config)
    with pytest.raises(RunError, match="cannot be read again"):
        threer.reconstruct("camera", tmp_path / "cut", config, resume=True)


def test_a_handler_of_somebody_else_stays() -> None:
    heard: list[int] = []

    def mine(number: int, _: object) -> None:
        heard.append(number)

    signal.signal(signal.SIGINT, mine)
    with first_interrupt_calls(lambda: heard.append(-1)):
        assert signal.getsignal(signal.SIGINT) is mine
        ctrl_c()
    assert heard == [signal.SIGINT]
    with not_interrupted():
        ctrl_c()
    assert signal.getsignal(signal.SIGINT) is mine
    assert heard == [signal.SIGINT]


def test_a_handler_that_is_set_inside_stays_too() -> None:
    def mine(number: int, _: object) -> None:
        raise AssertionError

    with first_interrupt_calls(lambda: None):
        signal.signal(signal.SIGINT, mine)
    assert signal.getsignal(signal.SIGINT) is mine


def test_other_threads_leave_the_handler_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with first_interrupt_calls(lambda: None), not_interrupted():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def picture(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(folder / name)
    return folder / name


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("watch:{0}", "{0}"),
        ("watch:{0}", "{0}/."),
        ("{0}", "{0}"),
        ("{0}/*.png", "{0}"),
        ("{0}/frame*.png", "{0}"),
        ("{0}/**/*.png", "{0}/out"),
        ("{0}/../**/*.png", "{0}/out"),
        ("{0}/*/*.png", "{0}/out"),
        ("list", "{0}"),
    ],
)
def test_no_run_is_written_where_its_pictures_would_be_taken_for_the_source(
    config: ReconstructConfig,  # noqa: F811
    tmp_path: Path,
    source: str,
    out: str,
) -> None:
    folder = tmp_path / "images"
    images = [picture(folder, f"frame{i}.png") for i in range(2)]
    picture(folder / "more", "frame9.png")
    given = images if source == "list" else source.format(folder)
    with pytest.raises(RunError, match="choose another folder"):
        threer.reconstruct(given, Path(out.format(folder)), config)
    assert not (folder / "run.json").exists()
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("source", "out"),
    [
        ("watch:{0}", "{0}/out"),
        ("{0}", "{0}/out"),
        ("{0}/*.png", "{0}/out"),
        ("{0}/**/frame*.png", "{0}/out"),
        ("{0}/frame0.png", "{0}"),
        ("list", "{0}/out"),
    ],
)
def test_a_run_may_lie_where_the_source_does_not_look(tmp_path: Path, source: str, out: str) -> None:
    from threer.pipelines.placement import check_apart

    folder = tmp_path / "images"
    images = [picture(folder, f"frame{i}.png") for i in range(2)]
    given = images if source == "list" else source.format(folder)
    check_apart(given, open_source(given), Path(out.format(folder)))
