"""`threer train`: train a recipe. Where little is installed, `python -m threer.training` does the same."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def train(
    recipe: tyro.conf.Positional[str],
    out: tyro.conf.Positional[Path],
    device: str = "auto",
    minutes: float | None = None,
    session: float | None = None,
    steps: int | None = None,
    init: str | None = None,
    strategy: Literal["ddp", "fsdp"] = "ddp",
    precision: Literal["32", "bf16"] | None = None,
    deterministic: bool = False,
    save_every: float = 120.0,
    data: Path | None = None,
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...")] = (),
    published: bool = False,
    threads: int | None = None,
    workers: int | None = None,
    dry_run: bool = False,
    package: Path | None = None,
) -> int:
    """Train a recipe into a folder; the same command again goes on where it stopped.

    Args:
        recipe: Name of a recipe, such as slam3r-mini, or the path of a .toml file.
        out: Folder of the run. Results of other recipes to start from are looked for beside it.
        device: auto, cpu or cuda.
        minutes: Length of the whole run on the clock; the schedule is squeezed into it.
        session: Stop this call cleanly after so many minutes; the next one goes on.
        steps: Length of the run in optimiser steps.
        init: Weights of the same family to start from, by path or name; or none.
        strategy: With several processes (torchrun): the network whole in each, or dealt out.
        precision: By default the recipe's, and 32 on the CPU.
        deterministic: Use torch's deterministic algorithms.
        save_every: Seconds between two states on disk.
        data: Folder of the data sets on disk, if the recipe wants any.
        set: Change settings of the recipe: batch.per_device=8.
        published: The original's settings where ours differ.
        threads: CPU threads.
        workers: Processes that make rooms ahead; by default most of the cores on a GPU's machine, and else none.
        dry_run: Every stage for a few steps, timed, and what the run would come to.
        package: Only copy the result of OUT to this folder, to ship it; an encoder like that beside it is shared.
    """
    from threer.training.command import train as command
    from threer.training.options import Options

    options = Options(
        device, minutes, session, steps, init, strategy, precision, deterministic, save_every, data, workers
    )
    command(
        recipe,
        out,
        options,
        settings=set,
        published=published,
        dry_run=dry_run,
        threads=threads,
        package_into=package,
    )
    return 0
