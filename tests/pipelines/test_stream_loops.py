"""Loops that are closed while the stream goes on: corrections, the world after them, and what may not be one."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import shutil
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from drifting_model import DriftingModel
from loop_closure import Drift, as_frame, drifting_way, network, new_session, round_trip, truth

import threer
from threer.cli.reconstruct import summarize
from threer.config import LoopConfig, ReconstructConfig
from threer.data.synthetic.clips import WALK, Clip
from threer.errors import ThreerError
from threer.evaluation.trajectory import ate
from threer.geometry.pnp import camera_from_pointmap
from threer.io.runs import RunWriter, Scene
from threer.pipelines.methods import Choice, make_session
from threer.pipelines.saving import RunSaver
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming import closing as stream_closing
from threer.pipelines.streaming.closing import LoopCloser
from threer.pipelines.streaming.places import find_features
from threer.types import Moves, Pointmap, Sim3, Trajectory, Update

FRAMES, ROUND, SAVED = 54, 40, 50
"""Of the walk: all, those of once round, and those that were taken when it is saved."""
DRIFT = Drift(turn=0.4, growth=0.0067)
CONFIG = LoopConfig(gap=12)


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Poses from every third row and column, features of each picture once: they are most of the time otherwise."""

    def sparse(xyz: torch.Tensor, conf: torch.Tensor, K: np.ndarray, **settings: Any) -> Any:
        return camera_from_pointmap(xyz[::3, ::3], conf[::3, ::3], K / [[3], [3], [1]], **settings)

    found: dict[bytes, Any] = {}

    def known(picture: np.ndarray) -> Any:
        if picture.tobytes() not in found:
            found[picture.tobytes()] = find_features(picture)
        return found[picture.tobytes()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("threer.pipelines.cameras.camera_from_pointmap", sparse)
        patch.setattr("threer.pipelines.streaming.places.find_features", known)
        yield


@cache
def clip() -> Clip:
    return round_trip(4, FRAMES, (128, 96), dataclasses.replace(WALK, antialias=False), turns=FRAMES / ROUND)


@cache
def model() -> DriftingModel:
    return network(clip(), DRIFT)


def session(loops: bool = True) -> StreamingSession:
    return new_session(clip(), model(), LoopCloser(CONFIG) if loops else None, radius=1)


def run(walk: StreamingSession, frames: range = range(FRAMES)) -> list[Update]:
    updates = [update for k in frames for update in walk.push(as_frame(clip(), k))]
    return updates + (walk.finish() if frames.stop == len(clip()) else [])


@cache
def with_and_without() -> tuple[list[Update], list[Update]]:
    return run(session()), run(session(loops=False))


def corrected(updates: list[Update], folder: Path) -> Scene:
    writer = RunWriter(folder, {}, precision="float32")
    for update in updates:
        writer.on(update)
    return writer.finish("complete", {})


def test_a_stream_that_comes_back_to_its_start_is_corrected_and_goes_on_in_the_corrected_world(
    tmp_path: Path,
) -> None:
    closed, left = with_and_without()
    at = [k for k, update in enumerate(closed) if update.kind == "correction"]
    assert at
    assert at[0] < len(closed) - 3, "frames come after it"
    assert [closed[k].version for k in at] == list(range(1, len(at) + 1))
    finals = [update for update in closed if update.kind == "final"]
    assert [update.frame.index for update in finals] == list(range(FRAMES)), "each frame is final once, in order"

    # Until the first correction nothing is different, and it moves what came before it.
    for a, b in zip(closed[: at[0]], left, strict=False):
        assert torch.equal(a.points.xyz, b.points.xyz)  # type: ignore[union-attr]
    moves, latest = closed[at[0]].moves, closed[at[0] - 1].frame.index
    assert moves is not None
    assert moves.last == closed[at[0]].frame.index == latest

    scene = corrected(closed, tmp_path / "closed")
    before = ate(corrected(left, tmp_path / "open").trajectory, truth(clip())).rmse_m
    assert ate(scene.trajectory, truth(clip())).rmse_m < before / 3
    first = Scene.open(scene.path, corrected=False).trajectory
    up_to = slice(0, latest + 1)
    for found, uncorrected in ((first, True), (scene.trajectory, False)):
        part = Trajectory(found.timestamps[up_to], found.c2w[up_to])
        error = ate(part, truth(clip())).rmse_m
        assert (error > before / 2) == uncorrected, "where frames were before is kept"


def test_the_session_moves_what_it_keeps_so_that_later_frames_follow() -> None:
    """No loop is needed for that: any correction, in the middle of a walk."""
    walk, alone = session(), session(loops=False)
    by = Sim3(1.3, np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([1.0, 2, 3]))
    run(walk, range(16))
    expected = run(alone, range(16))
    assert walk._loops is not None
    last = max(update.frame.index for update in expected)
    walk._loops.moves = lambda **_: Moves(np.array([last + 1]), (by,))  # type: ignore[method-assign]
    told = run(walk, range(16, 17))
    walk._loops.moves = lambda **_: None  # type: ignore[method-assign]
    assert [update.kind for update in told] == ["final", "correction"]
    run(alone, range(16, 17))
    after = zip(run(walk, range(17, 24)), run(alone, range(17, 24)), strict=True)
    for moved, stayed in after:
        assert moved.points is not None
        assert stayed.points is not None
        assert moved.c2w is not None
        wanted = by.apply(stayed.points.xyz.double().numpy())
        np.testing.assert_allclose(moved.points.xyz, wanted, atol=1e-3 * np.abs(wanted).max())
        np.testing.assert_allclose(moved.c2w[:3, 3], by.apply(stayed.c2w[:3, 3]), atol=5e-3)  # type: ignore[index]


def test_ctrl_c_waits_until_a_round_has_its_correction() -> None:
    walk = session()
    run(walk, range(12))
    assert walk._loops is not None
    walk._loops.look = lambda *_: signal.raise_signal(signal.SIGINT)  # type: ignore[method-assign]
    walk._loops.moves = lambda **_: Moves(np.array([9]), (OFF,))  # type: ignore[method-assign]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background may ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            run(walk, range(12, 13))
    finally:
        signal.signal(signal.SIGINT, before)
    assert [update.kind for update in walk.unreturned] == ["final", "correction"]


def test_of_a_source_that_leaves_frames_out_those_that_come_are_counted() -> None:
    closer = LoopCloser(CONFIG)
    for k in range(9):
        closer.look(seen(10 * k, k, WAY()[k]), 4)
    assert [place.index for place in closer._places] == [0, 40, 80]


def test_a_run_that_is_cut_off_and_resumed_ends_as_one_that_was_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off right after its second correction, which is on disk, but not in the state, saved after the first."""
    folder = tmp_path / "images"
    folder.mkdir()
    for k, image in enumerate(clip().images):
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(folder / f"{k:04d}.png")
    monkeypatch.setattr("threer.pipelines.reconstruct.draw_preview", lambda scene: None)
    monkeypatch.setattr("threer.pipelines.reconstruct.load_method", lambda *_: (Choice("slam3r", "test"), model()))
    monkeypatch.setattr("threer.pipelines.reconstruct.make_session", lambda *_, **__: session())
    looks = itertools.count()
    monkeypatch.setattr(RunSaver, "due", property(lambda _: next(looks) == SAVED))
    config = ReconstructConfig(close_loops=True)
    whole, cut = tmp_path / "whole", tmp_path / "cut"

    class CutOff:
        """Keeps what would be there if the process were killed now."""

        def on(self, update: Update) -> None:
            if update.kind == "correction" and update.version == 2:
                shutil.copytree(whole, cut)

    threer.reconstruct(folder, whole, config, observers=[CutOff()])
    state = json.loads((cut / "resume" / "state.json").read_text())["state"]
    assert state["progress"]["counts"]["correction"] == 1
    met = {entry["class"] for entry in state["session"]["objects"]}
    assert {"LoopCloser", "Place", "Found", "Loop", "Edge", "Sim3"} <= met
    assert Scene.open(cut).state == "running"
    assert len(Scene.open(cut).corrections) == 2
    scene = threer.reconstruct(folder, cut, config, resume=True)
    assert scene.report["counts"]["correction"] == scene.report["loops"]["corrections"] == 2
    for name in ("corrections.json", "cameras.json", "trajectory.tum", "points.ply", "frames/000000.npz"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name
    said = io.StringIO()
    summarize(scene, scene.path, Console(file=said, width=200))
    assert "loops    closed, which moved earlier frames" in said.getvalue()


WAY = cache(lambda: list(drifting_way(clip(), Drift(0, 0, 0, 0, 0), np.random.default_rng(0))))
OFF = Sim3(1.2, np.eye(3), np.array([1.5, 0.0, 0.5]))


def seen(index: int, picture: int, placed: Sim3) -> Update:
    """A final frame ``index`` that shows picture ``picture`` of the clip, and is said to be ``placed`` there."""
    update = with_and_without()[1][picture]
    assert update.points is not None
    assert update.c2w is not None
    there = placed.after(Sim3(1.0, update.c2w[:3, :3], update.c2w[:3, 3]).inverse())
    xyz = torch.from_numpy(there.apply(update.points.xyz.double().numpy())).float()
    c2w = np.eye(4)
    c2w[:3, :3], c2w[:3, 3] = placed.R, placed.t
    frame = dataclasses.replace(update.frame, index=index)
    return dataclasses.replace(update, frame=frame, points=Pointmap(xyz, update.points.conf), c2w=c2w)


def once_round_and_back(again: int) -> list[Update]:
    """Every second frame of once round, then the first ``again`` frames once more, which have drifted away."""
    there = [seen(k, 2 * k, WAY()[2 * k]) for k in range(ROUND // 2)]
    return there + [seen(ROUND // 2 + k, 2 * k, OFF.after(WAY()[2 * k])) for k in range(again)]


def watch(closer: LoopCloser, updates: list[Update]) -> list[Moves]:
    told = []
    for update in updates:
        closer.look(update, 1)
        told.append(closer.moves(ending=update is updates[-1]))
    return [moves for moves in told if moves is not None]


def test_places_that_look_alike_but_have_another_shape_are_no_loop() -> None:
    """Every feature matches; but there the walls stand otherwise."""
    updates = once_round_and_back(6)
    right, wrong = LoopCloser(CONFIG), LoopCloser(CONFIG)
    assert watch(right, updates), "the control: in their own shape the same frames close the loop"

    bends = torch.from_numpy(np.exp(np.random.default_rng(0).normal(0, 0.4, (6, 8)))).float()
    bend = torch.nn.functional.interpolate(bends[None, None], (96, 128), mode="bicubic")[0, 0, ..., None]

    def bent(update: Update) -> Update:
        assert update.points is not None
        assert update.c2w is not None
        centre = torch.from_numpy(update.c2w[:3, 3]).float()
        xyz = centre + (update.points.xyz - centre) * bend
        return dataclasses.replace(update, points=Pointmap(xyz, update.points.conf))

    assert not watch(wrong, [*updates[: ROUND // 2], *(bent(update) for update in updates[ROUND // 2 :])])
    assert wrong.compared
    assert wrong.report["found"] == wrong.corrections == 0


def test_a_lone_loop_is_not_believed() -> None:
    closer = LoopCloser(dataclasses.replace(CONFIG, support=3))
    assert not watch(closer, once_round_and_back(4))
    assert 1 <= closer.report["found"] <= 3


def test_a_stream_without_drift_is_left_alone() -> None:
    exact = Drift(turn=0, turn_noise=0, place=0, growth=0, depth=0)
    walk = new_session(clip(), network(clip(), exact), LoopCloser(CONFIG), radius=1)
    assert {update.kind for update in run(walk)} == {"final"}
    assert walk.report["loops"]["found"] > 0


def test_what_is_kept_does_not_grow_with_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times round with room for sixteen places."""
    monkeypatch.setattr(stream_closing, "MOST_PLACES", 16)
    monkeypatch.setattr(stream_closing, "WORDS_AT", (8,))
    monkeypatch.setattr(stream_closing, "MOST_LOOPS", 4)
    closer, kept = LoopCloser(CONFIG), []
    for k in range(2 * ROUND):
        picture = (2 * k) % (ROUND - 1)
        closer.look(seen(k, picture, WAY()[picture]), 1)
        closer.moves()
        kept.append((len(closer._places), closer.report["found"], closer.nbytes))
    assert max(places for places, _, _ in kept) <= 16 + 8  # the ends of loops stay
    assert max(loops for _, loops, _ in kept) <= 4 + CONFIG.similar
    assert max(size for *_, size in kept[40:]) <= 1.2 * max(size for *_, size in kept[:40])
    assert closer._last == 2 * ROUND - 1


def test_other_methods_say_that_they_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ThreerError, match="the method is cut3r"):
        make_session("cut3r", None, ReconstructConfig(close_loops=True))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "gtsam", None)
    with pytest.raises(ThreerError, match=r"needs GTSAM: pip install 'threer\[refine\]'"):
        LoopCloser()
