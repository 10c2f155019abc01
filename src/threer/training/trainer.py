"""One trainer for every recipe: from nothing to weights, cut off at any moment, continued exactly.

What it does in a run is the same for one process and for many; see `threer.training.parallel`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from threer.errors import ThreerError
from threer.training import state as states
from threer.training.batch import Batch
from threer.training.device import Device, examine, free_memory, synchronize
from threer.training.export import export
from threer.training.interrupts import Interrupts
from threer.training.logs import PICTURES, Bar, Log, contact_sheet, readable
from threer.training.networks import Network, build, mark_trainable
from threer.training.objectives import Losses, Step, finite_everywhere, make_objective
from threer.training.parallel import (
    Inside,
    as_dealt,
    fill,
    fill_optimizer,
    from_all,
    from_first,
    make_fabric,
    mean_of_all,
    whole,
    whole_tree,
)
from threer.training.pool import PoolPlan, RoomPool, bytes_of_clip, mean_training_pointmap
from threer.training.recipes.recipe import Recipe
from threer.training.schedule import RunningMean, make_optimizers, set_rates, share_of_peak
from threer.training.sources import Feed, Source, number_of
from threer.training.start import RESULT, start, start_heads
from threer.training.validation import Scores, Validation, predict

FIRST_CLIPS = 96  # where neither a number nor a time is given
MOST_SKIPPED = 20


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
        self._started = time.monotonic()
        self.folder, self.options = folder, options
        self.console = console or Console(quiet=True)
        self.times: dict[str, float] = {}
        self._reserve = 0.0
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        if options.deterministic:
            torch.use_deterministic_algorithms(True)
        precision = options.precision or (recipe.precision if options.device == "cuda" else "32")
        self.fabric = make_fabric(options.device, options.strategy, half=precision == "bf16")
        self.device: torch.device = self.fabric.device
        self.world, self.rank = self.fabric.world_size, self.fabric.global_rank
        self.recipe = recipe
        self._length(recipe)
        self._make_folder()
        with self._stage("check"):
            self.machine: Device = examine(self.device, precision == "bf16", folder)
        self.report(f"{recipe.name}: {self.machine}; {self.world} process(es), {precision}")

        saved = states.read(folder / states.STATE) if (folder / states.STATE).is_file() else None
        if saved is not None and saved["network"] != recipe.network.to_dict():
            raise ThreerError(f"{folder} belongs to a network of other sizes; choose another folder")
        self.progress = states.Progress(**saved["progress"]) if saved else states.Progress()
        self._before = self.progress.seconds
        with self._stage("network"):
            torch.manual_seed(recipe.seed)
            self.network: Network = build(recipe).to(self.device)
            mark_trainable(self.network, recipe)
            taken = None
            if saved is None:
                taken, text = start(self.network, recipe, beside or folder.parent, options.init)
                self.report(f"starting from {text}")
        with self._stage("rendering"):
            self._make_feed(saved)
        self.mean_pointmap: Tensor | None = saved["mean_pointmap"] if saved else None
        pool = self.feed.sources.get("synthetic")
        if saved is None and isinstance(pool, RoomPool):
            self.mean_pointmap = mean_of_all(mean_training_pointmap(pool)).cpu()
            foreign = taken is None or (options.init is None and recipe.init is not None)
            start_heads(self.network, self.mean_pointmap, taken.random if taken else None, foreign)
        with self._stage("network"):
            self.inside = self.fabric.setup_module(Inside(self.network))
            self.optimizers = make_optimizers(self.network, recipe)
            wrapped = self.fabric.setup_optimizers(*self.optimizers)
            self._wrapped = wrapped if isinstance(wrapped, tuple) else (wrapped,)
            decay = recipe.optimizer.ema
            self.ema = RunningMean(self.network, decay) if decay is not None else None
            self.objective = make_objective(recipe.objective)
        self.baselines: dict[str, Scores] = saved["baselines"] if saved else {}
        if saved is not None:
            self._restore(saved)
            self.report(f"going on after {self.progress.step} steps, {self.progress.samples} samples")
        with self._stage("validation"):
            self.validation = Validation(recipe, self.device) if "synthetic" in recipe.data.sources else None
        if self.validation is not None and not self.baselines:
            self._score_baselines(self.validation)
        if self.progress.begun == 0:
            self.progress.begun = self._now()[0]

    def report(self, line: str) -> None:
        if self.rank == 0:
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def run(self) -> states.Progress:
        """Train to the end of the run, of the session, or to a signal; the folder then holds state and weights."""
        progress, last_save = self.progress, time.monotonic()
        log = Log(self.folder) if self.rank == 0 else None
        batches = self.feed.batches(progress.number)
        interrupts = Interrupts()
        try:
            with interrupts, Bar(self.console, self.rank == 0) as bar:
                while True:
                    progress.seconds, stop = self._now(interrupts.asked)
                    progress.done = self._done()
                    if progress.done < 1 and self._validation_due() and not stop:
                        self._validate(log)
                        progress.validated = 1 + int(progress.done / self._every)
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
                progress.seconds, _ = self._now()
                self.save()
                self._export()
        finally:
            batches.close()  # type: ignore[attr-defined]
            if log is not None:
                log.close()
        why = f"stopped by {interrupts.name}" if interrupts.asked else "the session is over" if stop else "complete"
        more = "; run the same command again to go on" if progress.done < 1 else ""
        self.report(f"{why}: {progress.step} steps, {progress.samples} samples, {self.folder / RESULT}{more}")
        return progress

    # Length -------------------------------------------------------------------------------------------------------

    def _length(self, recipe: Recipe) -> None:
        """What the schedule runs over: a number of steps, or the clock."""
        options, schedule = self.options, recipe.schedule
        self._steps: int | None = options.steps
        self._limit = None if options.minutes is None else options.minutes * 60
        if self._steps is None and self._limit is None:
            if schedule.minutes is not None:
                self._limit = schedule.minutes * 60
            else:
                effective = recipe.batch.per_device * recipe.batch.accumulate * self.world
                self._steps = max(1, round(schedule.length * recipe.data.samples_per_epoch / effective))
        for name in ("minutes", "session", "steps"):
            value = getattr(options, name)
            if value is not None and value <= 0:
                raise ThreerError(f"--{name} must be above 0, got {value:g}")

    def _now(self, asked: bool = False) -> tuple[float, bool]:
        """Seconds of the run, and whether to stop before its end: the first process's word, for all."""
        here = time.monotonic() - self._started
        session = self.options.session
        over = session is not None and here >= session * 60 - self._reserve
        if self._steps is not None and self._limit is not None:  # steps set the pace, the clock only stops
            over = over or self._before + here >= self._limit - self._reserve
        seconds, stop = from_first([self._before + here, float(asked or over)], self.device)
        return seconds, bool(stop)

    def _done(self) -> float:
        progress = self.progress
        if self._steps is not None:
            return min(progress.step / self._steps, 1.0)
        assert self._limit is not None
        length = self._limit - self._reserve - progress.begun
        return min((progress.seconds - progress.begun) / length, 1.0) if length > 0 else 1.0

    def _validation_due(self) -> bool:
        return self.progress.done >= self.progress.validated * self._every

    @property
    def _every(self) -> float:
        """Share of the run from one validation to the next."""
        return self.recipe.validation.every / self.recipe.schedule.length

    # Steps --------------------------------------------------------------------------------------------------------

    def step(self, batches: Iterator[Batch]) -> None:
        """One step of the optimisers, on as many batches as the recipe accumulates."""
        recipe, progress = self.recipe, self.progress
        accumulate = recipe.batch.accumulate
        set_rates(self.optimizers, share_of_peak(progress.done, recipe.schedule))
        self.inside.train()
        for part in range(accumulate):
            last = part + 1 == accumulate
            batch = next(batches).to(self.device, non_blocking=True)
            generator = torch.Generator(self.device)
            generator.manual_seed(number_of(recipe.seed, 3, progress.number, self.rank))
            losses = self.objective(self.network, batch, Step(generator, progress.done))
            with self.fabric.no_backward_sync(self.inside, enabled=not last):
                while self._backward(losses, accumulate, last):
                    pass
            progress.number += 1
        self._descend()
        progress.step += 1
        progress.samples += recipe.batch.per_device * accumulate * self.world

    def _backward(self, losses: Iterator[Losses], accumulate: int, last: bool) -> bool:
        """One loss of a batch; whether there are more."""
        found: list[Losses] = []

        def next_loss(_: Network) -> Tensor:
            found.append(next(losses))
            return found[0].total / accumulate

        self.fabric.backward(self.inside(next_loss))
        for name, value in found[0].parts.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self._summed += 1
        if found[0].step and last:
            self._descend()
        return found[0].more

    def _descend(self) -> None:
        """One step of the optimisers, or of none in any process where the gradient is not finite."""
        clip = self.recipe.optimizer.clip
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = whole(torch.nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip))
        if finite_everywhere(norm):
            for optimizer in self._wrapped:
                optimizer.step()
            if self.ema is not None:
                self.ema.update(self.network)
        else:
            self.progress.skipped += 1
            if self.progress.skipped > max(MOST_SKIPPED, 0.01 * self.progress.step):
                raise ThreerError(f"training diverged: {self.progress.skipped} steps without finite gradients")
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    # Validation ---------------------------------------------------------------------------------------------------

    def _validate(self, log: Log | None) -> None:
        progress, before = self.progress, time.monotonic()
        sums = [float(mean_of_all(v.float() / max(self._summed, 1))) for v in self._sums.values()]
        row: dict[str, float | int] = {
            "minutes": progress.seconds / 60,
            "step": progress.step,
            "samples": progress.samples,
            "rate": share_of_peak(progress.done, self.recipe.schedule),
            "skipped": progress.skipped,
        }
        row |= dict(zip(self._sums, sums, strict=True))
        self._sums, self._summed = {}, 0
        with self._stage("validation"), self._mean_in_place():
            if self.validation is not None:
                progress.scores = dict(self.validation.network(self._evaluate))
                row |= {f"val_{name}": value for name, value in progress.scores.items()}
                self._picture(self.validation)
        if log is not None and progress.step:
            log.add(row)
        self.report(readable(row))
        # what is left to do at the end is this once more, and saving
        self._reserve = 1.5 * (time.monotonic() - before + self.times.get("saving", 1.0)) + 1.0

    def _evaluate(self, action: Any) -> Any:
        self.inside.eval()
        return self.inside(action)

    def _picture(self, validation: Validation) -> None:
        part = validation.parts[0].samples(slice(0, 4))
        if self.recipe.family == "slam3r-l2w":
            return
        with torch.no_grad():
            points, confidence = self._evaluate(lambda model: predict(model, part))
        if self.rank == 0:
            path = self.folder / PICTURES / f"{self.progress.step:07d}.png"
            contact_sheet(path, part, points, confidence)

    def _score_baselines(self, validation: Validation) -> None:
        if self.mean_pointmap is not None:
            self.baselines["mean training pointmap"] = validation.mean_pointmap(self.mean_pointmap)
        self.baselines["constant depth"] = validation.constant_depth()
        if unmoved := validation.unmoved_keys():
            self.baselines["true key pointmaps, left unmoved"] = unmoved
        for name, scores in self.baselines.items():
            self.report(f"{name}: {readable(scores)}")

    def _mean_in_place(self) -> Any:
        return self.ema.within(self.network) if self.ema is not None else nullcontext()

    # Data ---------------------------------------------------------------------------------------------------------

    def _make_feed(self, saved: Mapping[str, Any] | None) -> None:
        """The sources of the recipe; generated rooms are rendered here, as many as there are to be by now."""
        recipe, wanted = self.recipe, self.recipe.data.sources
        sources: dict[str, Source] = {}
        self.plan: PoolPlan | None = None
        for name in wanted:
            if name == "synthetic":
                lanes = Feed(recipe, {}, self.world, self.rank)
                self.plan = PoolPlan(**saved["pool"]) if saved else self._plan(lanes)
                pool = RoomPool(recipe, self.plan, lanes.lanes, lanes.own, self.device)
                pool.advance(self.progress.number * lanes.samples)
                sources[name] = pool
                clips, most = pool.filled * pool.lanes, self.plan.rounds * pool.lanes
                self.report(f"{clips} of {most} generated clips of {pool.frames} frames")
            elif self.options.data is None:
                raise ThreerError(
                    f"recipe {recipe.name} needs {name}: name the folder of the data sets with --data"
                )
            else:
                from threer.training.photographs import Photographs  # needs more than generated rooms do

                sources[name] = Photographs(name, recipe, self.options.data)
        self.feed = Feed(recipe, sources, self.world, self.rank, self.device)

    def _plan(self, lanes: Feed) -> PoolPlan:
        """How many clips there are, from the memory that is free and the time that there is."""
        settings, recipe = self.recipe.synthetic, self.recipe
        share = 0.5 if self.device.type == "cuda" else 0.1
        most = int(share * free_memory(self.device) / bytes_of_clip(recipe) / max(1, self.world_on_node))
        clips = settings.pool or most * self.world
        rounds = max(1, clips // lanes.lanes)
        if settings.first is not None:
            first = -(-settings.first // lanes.lanes)
        elif self._limit is None:
            first = -(-FIRST_CLIPS // lanes.lanes)
        else:
            trial = RoomPool(recipe, PoolPlan(1, 1), lanes.lanes, lanes.own, self.device)
            trial.render_round()  # compiles, loads textures
            synchronize(self.device)
            before = time.monotonic()
            trial.render_round()
            synchronize(self.device)
            first = int(settings.render_share * self._limit / (time.monotonic() - before))
        first, rounds = from_first([min(max(1, first), rounds), rounds], self.device)  # type: ignore[assignment]
        return PoolPlan(int(rounds), int(first))

    @property
    def world_on_node(self) -> int:
        """Processes that share this machine's memory; each GPU has its own."""
        return 1 if self.device.type == "cuda" else self.world // max(1, self.fabric._connector._num_nodes_flag)

    # Files --------------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the state so that a kill at any moment leaves the old one or the new one."""
        before = time.monotonic()
        kept = {
            "recipe": self.recipe.name,
            "network": self.recipe.network.to_dict(),
            "model": whole_tree(dict(self.network.state_dict())),
            "optimizers": [whole_tree(o.state_dict()) for o in self.optimizers],
            "ema": None if self.ema is None else {"count": self.ema.count, "values": whole_tree(self.ema.values)},
            "progress": asdict(self.progress),
            "pool": None if self.plan is None else asdict(self.plan),
            "generators": from_all(states.generator_states()),
            "mean_pointmap": self.mean_pointmap,
            "baselines": {name: dict(scores) for name, scores in self.baselines.items()},
            "sums": whole_tree(self._sums),
            "summed": self._summed,
        }
        if self.rank == 0:
            states.write_atomically(self.folder / states.STATE, kept)
        self.fabric.barrier()
        self.times["saving"] = time.monotonic() - before

    def _restore(self, saved: Mapping[str, Any]) -> None:
        fill(self.network, saved["model"])
        if len(saved["optimizers"]) != len(self.optimizers):
            raise ThreerError(f"{self.folder} was trained with other optimisers; choose another folder")
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            fill_optimizer(optimizer, state)
        if self.ema is not None and saved["ema"] is not None:
            self.ema.count = saved["ema"]["count"]
            for value, kept in zip(self.ema.values, saved["ema"]["values"], strict=True):
                value.copy_(as_dealt(kept, value))
        self._sums = {name: value.to(self.device) for name, value in saved["sums"].items()}
        self._summed = saved["summed"]
        if self.rank < len(saved["generators"]):
            states.set_generator_states(saved["generators"][self.rank])

    def _export(self) -> None:
        """Weights in half precision and their card, from the running mean if there is one."""
        with self._stage("export"), self._mean_in_place():
            tensors = whole_tree(dict(self.network.state_dict()))
            if self.rank == 0:
                export(
                    tensors,
                    self.recipe,
                    self.progress,
                    self.folder,
                    self.folder / RESULT,
                    self.mean_pointmap,
                    {self.recipe.name: self.progress.scores, **self.baselines},
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
