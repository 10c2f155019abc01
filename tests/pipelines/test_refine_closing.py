"""Closing the loops of runs on disk."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from loop_closure import Drift, drifted, round_trip, truth, write_run
from rich.console import Console

from threer.cli import main
from threer.cli.loops import tell
from threer.config import LocalizeConfig, LoopConfig
from threer.data.synthetic.clips import WALK, Clip
from threer.errors import RunError, ThreerError
from threer.evaluation.trajectory import ate
from threer.io.runs import Scene
from threer.pipelines.localization.landmarks import SMALL_FOLDER, open_landmarks
from threer.pipelines.refine.closing import close_loops
from threer.pipelines.refine.second_run import CLOSED

DRIFT = Drift(turn=0.4, growth=0.006)
LOST = 24
CONFIG = LoopConfig(pictures="run", gap=12)


@cache
def clip() -> Clip:
    return round_trip(4, 48, (160, 120), dataclasses.replace(WALK, antialias=False))


def contents(folder: Path) -> dict[str, bytes]:
    """Of everything that makes up a run; features are only kept for the next time."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "report.json" and "features" not in str(path.relative_to(folder))
    }


@pytest.fixture(autouse=True)
def no_preview(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing one takes longer than all the rest."""
    blank = np.zeros((8, 8, 3), np.uint8)
    monkeypatch.setattr("threer.pipelines.refine.second_run.overview", lambda *_: blank)


@pytest.fixture
def run(tmp_path: Path) -> Scene:
    """One frame on the way has no camera."""
    told = list(drifted(clip(), DRIFT))
    told[LOST] = dataclasses.replace(told[LOST], c2w=np.full((4, 4), np.nan))
    return write_run(tmp_path / "run", iter(told))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the pictures of the clip, which every run shows: found once."""
    scene = write_run(tmp_path_factory.mktemp("shown"), drifted(clip(), DRIFT))
    open_landmarks(scene, LocalizeConfig(pictures="run"), lambda numbers, *_: numbers).close()
    return scene.path / SMALL_FOLDER


def test_a_run_that_returns_to_its_start_meets_itself(
    run: Scene, features: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(features, run.path / SMALL_FOLDER)
    before = contents(run.path)
    closing = close_loops(run, config=CONFIG)
    assert closing.why == ""
    assert closing.loops
    assert ate(closing.scene.trajectory, truth(clip())).rmse_m < ate(run.trajectory, truth(clip())).rmse_m / 2.5
    assert closing.misfit[1] < 0.3 * closing.misfit[0]
    assert {name: data for name, data in contents(run.path).items() if not name.startswith("closed")} == before
    for report in (run.report, closing.scene.report):
        assert report["closed"]["loops"] == len(closing.loops)

    # Points go with their cameras: each frame keeps its own shape, up to scale.
    for k in (0, len(run) - 1):
        was, now = run.depth(k), closing.scene.depth(k)
        ratio = now / was
        assert np.nanstd(ratio) < 2e-3 * np.nanmean(ratio)
    last = np.nanmean(closing.scene.depth(len(run) - 1) / run.depth(len(run) - 1))
    assert last == pytest.approx(1.006 ** -(len(run) - 1), rel=0.05)  # the map had grown by so much

    # Points without a camera go with their neighbours.
    assert not closing.scene.cameras.found[LOST]
    moved = [closing.scene.frame(k).points - run.frame(k).points for k in (LOST - 1, LOST, LOST + 1)]
    before_it, lost, after_it = (np.linalg.norm(m, axis=-1).mean() for m in moved)
    assert 0.01 < 0.7 * min(before_it, after_it) < lost < 1.4 * max(before_it, after_it)

    tell(closing, Console(stderr=True, width=200))
    assert f"{len(closing.loops)} pairs of frames" in capsys.readouterr().err

    with pytest.raises(RunError, match="closed already"):
        close_loops(closing.scene, config=CONFIG)
    with pytest.raises(RunError, match="holds a run with closed loops already"):
        close_loops(run, config=CONFIG)
    CLOSED.discard(run.path)
    assert not closing.scene.path.exists()


def test_without_a_loop_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = list(drifted(clip(), DRIFT))[:30]  # not yet round
    run = write_run(tmp_path / "run", iter(half))
    before = contents(run.path)
    assert main(["loops", str(run.path), "--pictures", "run", "--gap", "12"]) == 0
    assert "no loop was found" in capsys.readouterr().err
    closing = close_loops(run, config=CONFIG)
    assert closing.scene is run
    assert "no loop was found" in closing.why
    assert contents(run.path) == before
    assert run.report["closed"]["folder"] is None


def test_a_run_that_agrees_with_itself_stays(tmp_path: Path, features: Path) -> None:
    exact = Drift(turn=0, turn_noise=0, place=0, growth=0, depth=0)
    run = write_run(tmp_path / "run", drifted(clip(), exact))
    shutil.copytree(features, run.path / SMALL_FOLDER)
    before = contents(run.path)
    closing = close_loops(run, config=CONFIG)
    assert closing.tried
    assert "meet no better" in closing.why
    assert contents(run.path) == before


def test_what_cannot_be_closed_is_said(tmp_path: Path, run: Scene) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "letter.txt").write_text("mine")
    with pytest.raises(RunError, match="holds something"):
        close_loops(run, taken, CONFIG)
    with pytest.raises(RunError, match="cannot be read again"):
        close_loops(run)  # its pictures came from nowhere
    with pytest.raises(ThreerError, match="gap must be at least 2"):
        LoopConfig(gap=1)


def test_an_empty_run_has_no_loop(tmp_path: Path) -> None:
    closing = close_loops(write_run(tmp_path / "run", iter(())), config=CONFIG)
    assert "no loop was found" in closing.why
