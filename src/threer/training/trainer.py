"""One trainer for every recipe: from nothing to weights, cut off at any moment, continued exactly.

What it does in a run is the same for one process and for many; see `threer.training.parallel`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from threer.errors import ThreerError
from threer.training import state as states
from threer.training.batch import Batch
from threer.training.clock import Clock
from threer.training.device import Device, examine
from threer.training.export import export
from threer.training.held_out import held_out
from threer.training.interrupts import Interrupts
from threer.training.learner import Learner
from threer.training.logs import PICTURES, Bar, Log, contact_sheet, readable
from threer.training.networks import Network, build, mark_trainable
from threer.training.opening import Opening
from threer.training.options import Options
from threer.training.parallel import (
    from_all,
    make_fabric,
    mean_of_all,
)
from threer.training.pool import PoolPlan, RoomPool, mean_training_pointmap
from threer.training.recipes.recipe import Recipe
from threer.training.schedule import share_of_peak
from threer.training.scores import Scores, predict
from threer.training.start import RESULT, frozen_at_random, name_of, start, start_heads
from threer.training.validation import Validation


class Trainer:
    """Trains one recipe into one folder, and goes on where the folder's state stopped.

    ``beside`` is where results of other recipes lie, by default the folder's parent. ``times`` holds the seconds of
    each stage of this call.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        options: Options,
        console: Console | None = None,
        beside: Path | None = None,
    ) -> None:
        started = time.monotonic()
        self.folder, self.options = folder, options
        self.console = console or Console(quiet=True)
        self.times: dict[str, float] = {}
        if options.deterministic:
            torch.use_deterministic_algorithms(True)
        precision = options.precision or (recipe.precision if options.device == "cuda" else "32")
        self.fabric = make_fabric(options.device, options.strategy, half=precision == "bf16")
        self.device: torch.device = self.fabric.device
        self.world, self.rank = self.fabric.world_size, self.fabric.global_rank
        self.recipe = recipe
        self.clock = Clock(recipe, options, self.world, self.device, started)
        self._make_folder()
        with self._stage("check"):
            self.machine: Device = examine(self.device, precision == "bf16", folder)
        self.report(f"{recipe.name}: {self.machine}; {self.world} process(es), {precision}")

        saved = states.read(folder / states.STATE) if (folder / states.STATE).is_file() else None
        if saved is not None and saved["network"] != recipe.network.to_dict():
            raise ThreerError(f"{folder} belongs to a network of other sizes; choose another folder")
        self.progress = states.Progress(**saved["progress"]) if saved else states.Progress()
        self.clock.before = self.progress.seconds
        with self._stage("network"):
            torch.manual_seed(recipe.seed)
            self.network: Network = build(recipe).to(self.device)
            mark_trainable(self.network, recipe)
            taken, self.began = None, saved["began"] if saved else "random weights"
            if saved is None:
                if found := start(self.network, recipe, beside or folder.parent, options.init):
                    taken, self.began = found[0], name_of(found[1])
                    self.report(f"starting from {found[1]}: {taken}")
                else:
                    self.report(f"starting from {self.began}")
                if warning := frozen_at_random(self.network, taken):
                    self.report(warning)
        with self._stage("rendering"):
            plan = PoolPlan(**saved["pool"]) if saved and saved["pool"] else None
            opening = Opening(recipe, self.fabric, options.data, self.clock.limit, options.drawing)
            self.feed, self.plan = opening.feed(self.progress.number, plan, self.report)
        self.mean_pointmap: Tensor | None = saved["mean_pointmap"] if saved else None
        pool = self.feed.sources.get("synthetic")
        if saved is None and isinstance(pool, RoomPool):
            self.mean_pointmap = mean_of_all(mean_training_pointmap(pool)).cpu()
            foreign = taken is None or (options.init is None and recipe.init is not None)
            start_heads(self.network, self.mean_pointmap, taken.random if taken else None, foreign)
        with self._stage("network"):
            self.learner = Learner(self.network, recipe, self.fabric)
        self.baselines: dict[str, Scores] = saved["baselines"] if saved else {}
        if saved is not None:
            self.learner.restore(saved, folder)
            if self.rank < len(saved["generators"]):
                states.set_generator_states(saved["generators"][self.rank])
            self.report(f"going on after {self.progress.step} steps, {self.progress.samples} samples")
        with self._stage("validation"):
            samples = held_out(recipe, self.feed.sources, options.data, self.device, self.report)
            self.validation = Validation(recipe, samples)
            before = saved.get("held_out", self.validation.described) if saved else {}
            if before != self.validation.described or not self.validation.covered_by(self.baselines):
                self.baselines = self.validation.baselines(self.mean_pointmap)
                for name, scores in self.baselines.items():
                    self._report_scores(f"{name}: ", scores)
        if self.progress.begun == 0:
            self.progress.begun = self.clock.now()[0]

    def report(self, line: str) -> None:
        if self.rank == 0:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def run(self) -> states.Progress:
        """Train to the end of the run, of the session, or to a signal; the folder then holds state and weights."""
        progress, clock, last_save = self.progress, self.clock, time.monotonic()
        log = Log(self.folder) if self.rank == 0 else None
        batches = self.feed.batches(progress.number)
        interrupts = Interrupts()
        try:
            with interrupts, Bar(self.console, self.rank == 0) as bar:
                while True:
                    progress.seconds, stop = clock.now(interrupts.asked)
                    progress.done = clock.done(progress)
                    if progress.done < 1 and clock.validation_due(progress) and not stop:
                        self._validate(log)
                        progress.validated = clock.validations(progress)
                        self._export()
                        continue
                    if progress.done >= 1 or stop:
                        break
                    with self._stage("training"):
                        self.step(batches)
                    bar.update(progress.done, f"step {progress.step}")
                    if time.monotonic() - last_save >= self.options.save_every:
                        self.save()
                        last_save = time.monotonic()
                if progress.done >= 1 and not stop:
                    self._validate(log)
                progress.seconds, _ = clock.now()
                self.save()
                self._export()
        finally:
            batches.close()  # type: ignore[attr-defined]
            self.feed.close()
            if log is not None:
                log.close()
        why = f"stopped by {interrupts.name}" if interrupts.asked else "the session is over" if stop else "complete"
        more = "; run the same command again to go on" if progress.done < 1 else ""
        self.report(f"{why}: {progress.step} steps, {progress.samples} samples, {self.folder / RESULT}{more}")
        return progress

    def step(self, batches: Iterator[Batch]) -> None:
        """One step of the optimisers, on as many batches as the recipe accumulates."""
        self.learner.step(batches, self.progress)

    # Validation ---------------------------------------------------------------------------------------------------

    def _validate(self, log: Log | None) -> None:
        progress, before = self.progress, time.monotonic()
        row: dict[str, float | int] = {
            "minutes": progress.seconds / 60,
            "step": progress.step,
            "samples": progress.samples,
            "rate": share_of_peak(progress.done, self.recipe.schedule),
            "skipped": progress.skipped,
        }
        row |= self.learner.mean_losses()
        with self._stage("validation"), self.learner.mean_in_place():
            progress.scores = dict(self.validation.network(self.learner.evaluate))
            self._picture()
        scores = {f"val_{name}": value for name, value in progress.scores.items()}
        if log is not None and progress.step:
            log.add(row | scores)
        if len(self.recipe.data.sources) == 1:
            self.report(readable(row | scores))
        else:
            self.report(readable(row))
            self._report_scores("", progress.scores)
        # what is left to do at the end is this once more, and saving
        self.clock.reserve = 1.5 * (time.monotonic() - before + self.times.get("saving", 1.0)) + 1.0

    def _picture(self) -> None:
        if self.recipe.family == "slam3r-l2w":
            return
        several = len(self.recipe.data.sources) > 1
        for source, part in self.validation.pictured():
            with torch.no_grad():
                points, confidence = self.learner.evaluate(partial(predict, batch=part))
            if self.rank == 0:
                name = f"{self.progress.step:07d}" + (f"-{source}" if several else "")
                contact_sheet(self.folder / PICTURES / f"{name}.png", part, points, confidence)

    def _report_scores(self, before: str, scores: Scores) -> None:
        """A line for each source."""
        several = len(self.recipe.data.sources) > 1
        for source, named in self.validation.by_source(scores).items():
            self.report(before + (f"{source}: " if several else "") + readable(named))

    # Files --------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state so that a kill at any moment leaves the old one or the new one."""
        before = time.monotonic()
        kept = {
            "recipe": self.recipe.name,
            "network": self.recipe.network.to_dict(),
            **self.learner.state(),
            "progress": asdict(self.progress),
            "pool": None if self.plan is None else asdict(self.plan),
            "generators": from_all(states.generator_states()),
            "mean_pointmap": self.mean_pointmap,
            "began": self.began,
            "held_out": self.validation.described,
            "baselines": {name: dict(scores) for name, scores in self.baselines.items()},
        }
        if self.rank == 0:
            states.write_atomically(self.folder / states.STATE, kept)
        self.fabric.barrier()
        self.times["saving"] = time.monotonic() - before

    def _export(self) -> None:
        """Weights in half precision and their card, from the running mean if there is one."""
        with self._stage("export"), self.learner.mean_in_place():
            tensors = self.learner.tensors()
            if self.rank == 0:
                export(
                    tensors,
                    self.recipe,
                    self.progress,
                    self.folder,
                    self.folder / RESULT,
                    self.mean_pointmap,
                    {self.recipe.name: self.progress.scores, **self.baselines},
                    self.validation.described,
                    self.began,
                    str(self.machine).partition(":")[0] + (f", {self.world} processes" if self.world > 1 else ""),
                )
        self.fabric.barrier()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ThreerError(f"cannot write into {self.folder}: {error}") from None

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        before = time.monotonic()
        try:
            yield
        finally:
            self.times[name] = self.times.get(name, 0.0) + time.monotonic() - before
