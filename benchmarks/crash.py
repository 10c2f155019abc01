"""Kill a reconstruction again and again with SIGKILL, resume it, and compare it with one that was left alone.

    python benchmarks/crash.py [--kills 50] [--kind time|write] [--frames 120] [--seed 0]

A tiny network with random weights reconstructs a drifting picture. Each trial is a new run that is killed once, at
a random time, or with `--kind write` right before or after one of its file replacements (spread over the whole run,
from the first to the last); then it is resumed to the end. Exit code 1 if a single byte differs. Needs `fork`, that
is Linux or macOS.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: what has no threads can be forked

import numpy as np
import torch
from PIL import Image

from threer.config import ReconstructConfig, StreamingConfig
from threer.models.checkpoints import save_checkpoint
from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.pipelines import reconstruct as pipeline
from threer.pipelines.reconstruct import reconstruct
from threer.render.overview import overview
from threer.types import Checkpoint

SIZE = 32
PREVIEW = (160, 120)
"""Pixels: drawing it in full would take most of the time."""
STREAMING = StreamingConfig(stride=2, radius=2, init_frames=3, init_min_conf=0, scene_frames=3, buffer_size=8)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--kind", choices=("time", "write"), default="time")
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        return crash(Path(folder), args.kills, args.kind, args.frames, random.Random(args.seed))


def crash(folder: Path, kills: int, kind: str, frames: int, draws: random.Random) -> int:
    pipeline.overview = partial(overview, size=PREVIEW)
    make_pictures(folder / "pictures", frames)
    torch.manual_seed(3)
    network = SLAM3RConfig(
        image_size=SIZE, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=2, dec_heads=2, ray_prior=0.6
    )
    save_checkpoint(SLAM3R.from_config(network), folder / "weights", Checkpoint("tiny", "slam3r", (), "Apache-2.0"))
    config = ReconstructConfig(
        weights=str(folder / "weights"),
        device="cpu",
        streaming=STREAMING,
        save_every=0.0 if kind == "write" else 0.1,
        resume=True,
    )

    def run(out: Path) -> None:
        reconstruct(folder / "pictures", out, config)

    writes = folder / "writes"
    begun = time.monotonic()
    finished(forked(lambda: (count_writes(writes), run(folder / "whole"))))
    seconds = time.monotonic() - begun
    replacements = writes.stat().st_size
    expected = contents(folder / "whole")
    print(f"{frames} frames, {seconds:.1f} s, {replacements} file replacements, {len(expected)} files", flush=True)

    failures = 0
    out = folder / "run"
    for trial in range(kills):
        if kind == "write":
            number, after = round((trial + 0.5) / kills * replacements), bool(trial % 2)
            moment = f"{'after' if after else 'before'} replacement {number}"
            child = forked(lambda number=number, after=after: (die_at_write(number, after), run(out)))
        else:
            delay = draws.uniform(0, seconds)
            moment = f"after {delay:.2f} s"
            child = forked(lambda: run(out))
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
        died = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        state = where(out)
        finished(forked(lambda: run(out)))
        different = compare(expected, contents(out))
        failures += bool(different)
        outcome = f"DIFFERENT: {', '.join(different)}" if different else "the same"
        print(f"{trial + 1:3} {'killed' if died else 'was done'} {moment}: {state}: {outcome}", flush=True)
        shutil.rmtree(out)
    print(f"{kills - failures} of {kills} killed runs ended like the one that was left alone")
    return 1 if failures else 0


def make_pictures(folder: Path, count: int) -> None:
    """A picture that drifts, so that neighbours look alike."""
    folder.mkdir()
    wide = Image.fromarray(np.random.default_rng(5).integers(0, 255, (8, 60, 3), np.uint8))
    wide = wide.resize((SIZE + 2 * count, SIZE), Image.Resampling.BILINEAR)
    for k in range(count):
        wide.crop((2 * k, 0, 2 * k + SIZE, SIZE)).save(folder / f"{k:05d}.png")


def forked(work: Callable[[], Any]) -> int:
    """A child that does ``work`` and exits; its process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    return child


def finished(child: int) -> None:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        sys.exit(f"a run that nobody killed ended with {code}")


def count_writes(log: Path) -> None:
    """In a child: add a byte to ``log`` at each file replacement from now on."""
    original = os.replace

    def counting(*args: Any) -> None:
        original(*args)
        with log.open("ab") as file:
            file.write(b".")

    os.replace = counting  # type: ignore[assignment]


def die_at_write(number: int, after: bool) -> None:
    """In a child: be killed right before or after the file replacement ``number``, counted from 1."""
    original = os.replace
    done = 0

    def deadly(*args: Any) -> None:
        nonlocal done
        done += 1
        if done == number and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        original(*args)
        if done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = deadly  # type: ignore[assignment]


def where(out: Path) -> str:
    """How far a killed run was."""
    run = out / "run.json"
    if not run.is_file():
        return "nothing written"
    state = out / "resume" / "state.json"
    taken = json.loads(state.read_text())["state"]["taken"] if state.is_file() else 0
    return f"{json.loads(run.read_text())['state']}, saved at frame {taken}"


def contents(out: Path) -> dict[str, Any]:
    """All files of a run; of the descriptions, what does not tell times and processes."""
    files: dict[str, Any] = {
        str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()
    }
    report, run = json.loads(files["report.json"]), json.loads(files["run.json"])
    for name in ("seconds", "peak_memory_mib"):
        del report[name]
    return files | {"report.json": report, "run.json": run}


def compare(expected: dict[str, Any], got: dict[str, Any]) -> list[str]:
    """Names of files that differ, are missing or should not be there."""
    return sorted(name for name in expected.keys() | got.keys() if expected.get(name) != got.get(name))


if __name__ == "__main__":
    sys.exit(main())
