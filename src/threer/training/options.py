"""How a recipe is run on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from threer.errors import ThreerError

MOST_WORKERS = 16  # they draw more rooms than any network here uses up


@dataclass(frozen=True)
class Options:
    """How a recipe is run here.

    minutes        length of the whole run on the clock, set-up and validation counted; squeezes the schedule
    session        minutes of this call: it then stops, and the next call goes on
    steps          length of the run in optimiser steps, instead
    init           weights of the recipe's family to start from, by path or name; "none" for nothing
    strategy       with several processes: "ddp" or "fsdp"
    precision      "32" or "bf16"; None takes the recipe's, and "32" on the CPU, which is slower with halves
    deterministic  torch's deterministic algorithms
    save_every     seconds between two states on disk
    data           folder of the data sets on disk, each in a folder of its recipe's name
    workers        processes that make generated rooms ahead of time; None for none where a CPU trains, and where a
                   GPU does for all of this process's share of the cores but one
    """

    device: str = "cpu"
    minutes: float | None = None
    session: float | None = None
    steps: int | None = None
    init: str | None = None
    strategy: str = "ddp"
    precision: str | None = None
    deterministic: bool = False
    save_every: float = 120.0
    data: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            raise ThreerError(f"--workers must not be below 0, got {self.workers}")

    @property
    def drawing(self) -> int:
        """Processes that make rooms ahead."""
        if self.workers is not None:
            return self.workers
        if self.device != "cuda":
            return 0
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return min(MOST_WORKERS, max(0, _cores() // beside - 1))


def _cores() -> int:
    """Cores that this process may use: a job on a shared machine has a part of them."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
