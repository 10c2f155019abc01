"""Rounds of rooms made ahead by processes: the same as without, none left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from threer.errors import ThreerError
from threer.training import ahead, options
from threer.training.ahead import Ahead
from threer.training.options import MOST_WORKERS, Options
from threer.training.pool import PoolPlan, RoomPool
from threer.training.rounds import Kept, Rounds
from threer.training.trainer import Trainer
from tiny_training import PAIRS, tiny_recipe

HAND_HELD = replace(tiny_recipe(PAIRS).synthetic, style="hand-held", frames=2, clutter=(0.0, 0.5), ramp=100)
RECIPE = replace(tiny_recipe(PAIRS), synthetic=HAND_HELD)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def working() -> Iterator[RoomPool]:
    """A pool with a process that works ahead, on tiny hand-held rooms."""
    pool = RoomPool(RECIPE, PoolPlan(4, 2), 2, [0, 1], workers=1)
    pool.advance(0)
    yield pool
    pool.close()


def test_rooms_made_ahead_are_those_that_are_made_when_they_are_due(working: RoomPool) -> None:
    alone = RoomPool(RECIPE, PoolPlan(4, 2), 2, [0, 1])
    for pool in (alone, working):
        pool.advance(8 * 3)
    assert alone.rounds == working.rounds == 5
    assert (alone.ahead, working.ahead) == (0, ahead.EACH)
    for name in ("_images", "_depth", "_c2w", "_K", "_distortion"):
        # the last digit may differ with the number of threads
        a, b = getattr(alone, name).double(), getattr(working, name).double()
        assert (a - b).abs().max() <= (1 if name == "_images" else 1e-2), name
        assert (a - b).abs().mean() < 1e-4, name


def test_where_a_gpu_renders_only_scenes_are_drawn_ahead(
    working: RoomPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    makes = working._ahead
    assert makes is not None
    monkeypatch.setattr(makes, "_work", ahead._drawn)
    monkeypatch.setattr(makes, "_made", {})
    course = working.course
    found, expected = makes.take(7), course.render(7, course.draw(7), CPU)
    assert (found.images.int() - expected.images.int()).abs().max() <= 1
    torch.testing.assert_close(found.depth, expected.depth, atol=1e-2, rtol=0)
    with monkeypatch.context() as patch:
        patch.setattr(ahead, "get_context", lambda _: None)
        patch.setattr(ahead, "ProcessPoolExecutor", lambda *_: None)
        assert Ahead(course, torch.device("cuda"), 1)._work is ahead._drawn
        assert Ahead(course, CPU, 1)._work is ahead._rendered


def test_what_is_made_ahead_is_not_stopped_by_a_signal_and_says_so_when_killed(working: RoomPool) -> None:
    assert working._ahead is not None
    (process,) = working._ahead._executor._processes.values()
    for asked in (signal.SIGINT, signal.SIGTERM):
        os.kill(process.pid, asked)
    working.render_round()
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ThreerError, match="a process that draws rooms ahead was killed"):
        working.advance(8 * (working.rounds + 2 * ahead.EACH))
    working.close()
    before = working.rounds
    working.render_round()
    assert working.rounds == before + 1, "a closed pool makes its rooms itself"


ORPHAN = """
import time, torch
from threer.training.ahead import Ahead
from threer.training.rounds import Rounds
from test_ahead import COURSE
if __name__ == "__main__":
    makes = Ahead(COURSE, torch.device("cpu"), 1)
    makes.take(0)
    print(*makes._executor._processes, flush=True)
    time.sleep(60)
"""
COURSE = Rounds(HAND_HELD, (32, 32), 0, 1, (0,), None)


def test_no_process_outlives_a_trainer_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN)
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(tiny_recipe.__code__.co_filename).parent)])
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, env=environment) as trainer:
        assert trainer.stdout is not None
        worker = int(trainer.stdout.readline())
        assert alive(worker)
        trainer.kill()
    until = time.monotonic() + 10
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)


def test_a_run_ends_what_works_for_it(tmp_path: Path) -> None:
    trainer = Trainer(RECIPE, tmp_path / "run", Options(steps=2, workers=1))
    pool = trainer.feed.sources["synthetic"]
    assert isinstance(pool, RoomPool)
    assert pool._ahead is not None
    workers = list(pool._ahead._executor._processes)
    assert workers
    assert all(alive(worker) for worker in workers)
    trainer.run()
    assert pool.ahead == 0
    assert not any(alive(worker) for worker in workers)


def test_a_gpu_has_most_of_the_cores_work_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_cores", lambda: 16)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert Options(device="cuda").drawing == 15
    assert Options(device="cpu").drawing == 0
    assert Options(device="cuda", workers=3).drawing == Options(workers=3).drawing == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert Options(device="cuda").drawing == 1
    monkeypatch.setattr(options, "_cores", lambda: 1024)
    assert Options(device="cuda").drawing == MOST_WORKERS
    with pytest.raises(ThreerError, match="--workers must not be below 0"):
        Options(workers=-1)


def test_rounds_that_were_passed_over_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as threads, monkeypatch.context() as patch:
        patch.setattr(ahead, "get_context", lambda _: None)
        patch.setattr(ahead, "ProcessPoolExecutor", lambda *_: threads)
        makes = Ahead(COURSE, CPU, 1)
        patch.setattr(makes, "_work", lambda number: pickle.dumps(Kept(*[torch.tensor(number)] * 5)))
        assert makes.take(0).depth == 0
        assert makes.take(9).depth == 9
        assert sorted(makes._made) == [10, 11]


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
