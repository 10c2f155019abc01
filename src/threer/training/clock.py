"""The length of a run, in steps or on the clock, and how much of it is done."""

from __future__ import annotations

import time

import torch

from threer.errors import ThreerError
from threer.training.options import Options
from threer.training.parallel import from_first
from threer.training.recipes.recipe import Recipe
from threer.training.state import Progress


class Clock:
    """What the schedule of a run goes by: the same in all processes.

    started  `time.monotonic` at the beginning of this call
    before   seconds of the calls before it
    limit    seconds of the whole run, or None
    reserve  seconds that are kept for what is to be done at the end

    Raises `ThreerError` for lengths of nothing.
    """

    def __init__(self, recipe: Recipe, options: Options, world: int, device: torch.device, started: float) -> None:
        self.options, self.device, self.started = options, device, started
        self.before = self.reserve = 0.0
        self.steps, self.limit = options.steps, None if options.minutes is None else options.minutes * 60
        schedule = recipe.schedule
        self._every = recipe.validation.every / schedule.length
        if self.steps is None and self.limit is None:
            if schedule.minutes is not None:
                self.limit = schedule.minutes * 60
            else:
                effective = recipe.batch.per_device * recipe.batch.accumulate * world
                self.steps = max(1, round(schedule.length * recipe.data.samples_per_epoch / effective))
        for name in ("minutes", "session", "steps"):
            value = getattr(options, name)
            if value is not None and value <= 0:
                raise ThreerError(f"--{name} must be above 0, got {value:g}")

    def now(self, asked: bool = False) -> tuple[float, bool]:
        """Seconds of the run, and whether to stop before its end: the first process's word, for all.

        asked  somebody wants it to
        """
        here = time.monotonic() - self.started
        session = self.options.session
        over = session is not None and here >= session * 60 - self.reserve
        if self.steps is not None and self.limit is not None:  # steps set the pace, the clock only stops
            over = over or self.before + here >= self.limit - self.reserve
        seconds, stop = from_first([self.before + here, float(asked or over)], self.device)
        return seconds, bool(stop)

    def done(self, progress: Progress) -> float:
        """Share of the run, 0..1."""
        if self.steps is not None:
            return min(progress.step / self.steps, 1.0)
        assert self.limit is not None
        length = self.limit - self.reserve - progress.begun
        return min((progress.seconds - progress.begun) / length, 1.0) if length > 0 else 1.0

    def validation_due(self, progress: Progress) -> bool:
        return progress.done >= progress.validated * self._every

    def validations(self, progress: Progress) -> int:
        """How many regular validations belong before the next one."""
        return 1 + int(progress.done / self._every)
