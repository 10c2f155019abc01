"""The sources of a recipe, opened: rooms rendered, as many as there are to be by now, and data sets found."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from threer.errors import ThreerError
from threer.training.device import free_memory, timed
from threer.training.parallel import from_first
from threer.training.pool import PoolPlan, RoomPool, bytes_of_clip
from threer.training.recipes.recipe import Recipe
from threer.training.sources import Feed, Source

FIRST_CLIPS = 96  # where neither a number nor a time is given


@dataclass(frozen=True)
class Opening:
    """What the sources of a recipe need to know of this run.

    fabric  launched; see `threer.training.parallel`
    data    folder of the data sets on disk
    limit   seconds of the whole run, or None
    workers processes that make rooms ahead
    """

    recipe: Recipe
    fabric: Any
    data: Path | None
    limit: float | None
    workers: int = 0

    def feed(
        self, number: int, plan: PoolPlan | None, report: Callable[[str], None]
    ) -> tuple[Feed, PoolPlan | None]:
        """Batches from ``number`` on, and how many generated clips there are to be.

        plan  of the run that goes on; None makes one if the recipe generates rooms

        Raises `ThreerError` for data sets that are not there.
        """
        recipe, fabric = self.recipe, self.fabric
        sources: dict[str, Source] = {}
        for name in recipe.data.sources:
            if name == "synthetic":
                lanes = Feed(recipe, {}, fabric.world_size, fabric.global_rank)
                plan = plan or self._plan(lanes)
                pool = RoomPool(recipe, plan, lanes.lanes, lanes.own, fabric.device, workers=self.workers)
                pool.advance(number * lanes.samples)
                sources[name] = pool
                clips, most = pool.filled * pool.lanes, plan.rounds * pool.lanes
                report(f"{clips} of {most} generated clips of {pool.frames} frames")
            elif self.data is None:
                raise ThreerError(
                    f"recipe {recipe.name} needs {name}: name the folder of the data sets with --data"
                )
            else:
                from threer.training.photographs import Photographs  # needs more than generated rooms do

                sources[name] = Photographs(name, recipe, self.data)
        return Feed(recipe, sources, fabric.world_size, fabric.global_rank, fabric.device), plan

    def _plan(self, lanes: Feed) -> PoolPlan:
        """How many clips there are, from the memory that is free and the time that there is."""
        recipe, device, settings = self.recipe, self.fabric.device, self.recipe.synthetic
        share = 0.5 if device.type == "cuda" else 0.1
        most = int(share * free_memory(device) / bytes_of_clip(recipe) / max(1, self._sharing_memory()))
        clips = settings.pool or most * self.fabric.world_size
        rounds = max(1, clips // lanes.lanes)
        if settings.first is not None:
            first = -(-settings.first // lanes.lanes)
        elif self.limit is None:
            first = -(-FIRST_CLIPS // lanes.lanes)
        else:
            first = int(settings.render_share * self.limit / self._seconds_of_round(lanes, device))
        first, rounds = from_first([min(max(1, first), rounds), rounds], device)  # type: ignore[assignment]
        return PoolPlan(int(rounds), int(first))

    def _seconds_of_round(self, lanes: Feed, device: torch.device) -> float:
        """To make a clip for each lane, by trying."""
        course = RoomPool(self.recipe, PoolPlan(1, 1), lanes.lanes, lanes.own, device).course
        course.render(0, course.draw(0), device)  # compiles, loads textures
        before = time.monotonic()
        scenes = course.draw(1)
        drawing = time.monotonic() - before
        rendering = timed(device, lambda: course.render(1, scenes, device))
        if not self.workers:
            return drawing + rendering
        if device.type == "cpu":  # they render as well
            return (drawing + rendering) / self.workers
        return max(drawing / self.workers, rendering)

    def _sharing_memory(self) -> int:
        """Processes that share this machine's memory; each GPU has its own."""
        if self.fabric.device.type == "cuda":
            return 1
        return int(self.fabric.world_size // max(1, self.fabric._connector._num_nodes_flag))
