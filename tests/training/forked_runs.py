"""Runs in processes of their own, forked after one import: killed and continued, two at a time, sharded.

`python forked_runs.py FOLDER` writes what they came to under FOLDER; `test_trainer_processes.py` compares.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning.fabric  # noqa: F401  # once, before the forks
import torch

from threer.training.recipes.recipe import Recipe
from threer.training.trainer import Options, Trainer
from tiny_training import PAIRS, WINDOWS, tiny_recipe

STEPS = 8


def forked(action: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        torch.set_num_threads(1)
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def finished(*children: int) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def train(made: Recipe, out: Path, **options: object) -> None:
    Trainer(made, out, Options(**options)).run()  # type: ignore[arg-type]


def killed(folder: Path) -> int:
    """Three kills at random moments of three runs of one training; how many of them met it alive."""
    made, out, draws, met = tiny_recipe(WINDOWS), folder / "killed", random.Random(3), 0
    for _ in range(3):
        child = forked(lambda: train(made, out, steps=STEPS, save_every=0.0, deterministic=True))
        state, before = out / "state.pt", time.monotonic()
        while not state.is_file() and time.monotonic() < before + 60:
            time.sleep(0.01)
        modified = state.stat().st_mtime_ns
        while state.stat().st_mtime_ns == modified and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.01)
        time.sleep(draws.uniform(0, 0.15))
        try:
            os.kill(child, signal.SIGKILL)
            met += finished(child) == [-signal.SIGKILL]
        except (ProcessLookupError, ChildProcessError):
            pass
    assert finished(forked(lambda: train(made, out, steps=STEPS, save_every=0.0, deterministic=True))) == [0]
    return met


def together(made: Recipe, out: Path, processes: int, **options: object) -> list[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    children = []
    for rank in range(processes):
        given = {
            "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes,
            "GROUP_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test",
            "TORCHELASTIC_USE_AGENT_STORE": "False",
        }  # fmt: skip

        def work(given: dict[str, object] = given) -> None:
            os.environ.update({name: str(value) for name, value in given.items()})
            train(made, out, **options)

        children.append(forked(work))
    return finished(*children)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    pairs = tiny_recipe(PAIRS)
    halves = replace(pairs, batch=replace(pairs.batch, per_device=2))
    results: dict[str, object] = {}
    whole = {"steps": STEPS, "deterministic": True}
    results["whole"] = finished(forked(lambda: train(tiny_recipe(WINDOWS), folder / "whole", **whole)))
    results["kills"] = killed(folder)
    results["one"] = finished(forked(lambda: train(pairs, folder / "one", steps=4)))
    results["ddp"] = together(halves, folder / "ddp", 2, steps=4)
    results["fsdp"] = together(halves, folder / "fsdp", 2, steps=4, strategy="fsdp")
    (folder / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
