"""`--dry-run`: every stage of a run for a few steps, timed, with what the whole run would come to."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from threer.training.device import timed
from threer.training.options import Options
from threer.training.pool import RoomPool
from threer.training.recipes.recipe import Recipe
from threer.training.trainer import Trainer

WARM_UP = 2
STEPS = 4


def rehearse(recipe: Recipe, folder: Path, options: Options, console: Console) -> None:
    """Go through a run in ``folder/dry-run``, continue it once, and print what each stage took."""
    place = folder / "dry-run"
    shutil.rmtree(place, ignore_errors=True)
    synthetic = replace(recipe.synthetic, first=16, pool=16)
    validation = replace(recipe.validation, samples=min(16, recipe.validation.samples))
    small = replace(recipe, synthetic=synthetic, validation=validation)
    first = Trainer(
        small, place, replace(options, minutes=None, session=None, steps=WARM_UP), console, folder.parent
    )
    first.run()
    again = Trainer(
        small,
        place,
        replace(options, minutes=None, session=None, steps=WARM_UP + 2 * STEPS),
        console,
        folder.parent,
    )
    batches = again.feed.batches(again.progress.number)
    with FlopCounterMode(display=False) as counter:
        again.step(batches)
    counted = counter.get_total_flops()

    def steps() -> None:
        for _ in range(STEPS):
            again.step(batches)

    seconds = timed(again.device, steps) / STEPS
    pool = again.feed.sources.get("synthetic")
    rendered, least = None, ""
    if isinstance(pool, RoomPool):
        rendered = len(pool.own) / _seconds_of_round(pool)
        least = "at least " if pool.ahead else ""  # training need not wait for what others make
    again.run()

    samples = recipe.batch.per_device * recipe.batch.accumulate * again.world
    minutes = options.minutes or recipe.schedule.minutes
    table = Table("stage", "figure", title=f"{recipe.name} on {again.machine.name}")
    for name, value in first.times.items():
        table.add_row(f"{name}, {WARM_UP} steps", f"{value:.2f} s")
    table.add_row("going on: network, rendering", f"{again.times['network'] + again.times['rendering']:.2f} s")
    table.add_row("a step", f"{1000 * seconds:.1f} ms, {samples} samples")
    table.add_row("samples", f"{samples / seconds:.1f} a second")
    share = counted * again.world / seconds / (again.machine.rate * again.world)
    table.add_row("share of the device's matrix product", f"{share:.1%} ({counted / 1e9:.1f} Gflop a step)")
    busy = 0.0
    if rendered is not None:
        frames = rendered * recipe.synthetic.frames
        table.add_row("rendering", f"{rendered:.1f} clips, {frames:.0f} frames a second")
        wanted = samples / seconds / recipe.synthetic.reuse
        busy = recipe.synthetic.render_share + wanted / rendered
        table.add_row(
            "of which training uses up", f"{wanted:.2f} clips a second ({wanted / rendered:.1%} of the time)"
        )
    if minutes is not None:
        training = minutes * 60 / (1 + busy)
        table.add_row(f"projected for {minutes:g} minutes", f"{least}{training * samples / seconds:,.0f} samples")
    if again.rank == 0:
        console.print(table)


def _seconds_of_round(pool: RoomPool) -> float:
    """To get a further clip for each lane; those that lie ready do not count."""
    for _ in range(pool.ahead):
        pool.render_round()
    rounds = max(1, pool.ahead)

    def make() -> None:
        for _ in range(rounds):
            pool.render_round()

    return timed(pool.device, make) / rounds
