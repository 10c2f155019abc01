"""Where batches come from: sources, their mixture by weight, and each process's part of every batch.

All random numbers of a batch come from its number, so a run that goes on needs no more than the number of its next
step. A batch is drawn in *lanes*: equal parts of it with random numbers of their own, dealt out to the processes.
One process with all lanes and several with some each therefore see the same global batch.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from threer.errors import ThreerError
from threer.training.batch import Batch, Roles, cat
from threer.training.recipes.recipe import Recipe

MOST_LANES = 8


@dataclass(frozen=True)
class Request:
    """What all samples of a batch have in common.

    views   that a sample has in the end
    size    (W, H) stored
    roles   of those views
    before  one view more is fetched, in front: its camera becomes the world, and it is left out
    """

    views: int
    size: tuple[int, int]
    roles: Roles
    before: bool = False


class Source(Protocol):
    """A data set. Both methods may be called from another thread than the trainer's, one call at a time."""

    on_disk: bool
    """Batches are made on the CPU from files, so that making them ahead of time pays."""

    def advance(self, samples: int) -> None:
        """Bring in what is due once the run has drawn ``samples`` samples of all sources."""
        ...

    def draw(self, count: int, request: Request, lane: int, generator: torch.Generator) -> Batch:
        """``count`` samples. ``generator`` is on the CPU; what it gives decides everything that is random."""
        ...

    def close(self) -> None:
        """End the threads and processes that work for it."""
        ...


def lanes_for(world: int, samples: int) -> int:
    """How many lanes a batch of ``samples`` over all of ``world`` processes has."""
    lanes = math.gcd(samples, MOST_LANES)
    return lanes if lanes % world == 0 else world


def number_of(*parts: int) -> int:
    """A seed of 63 bits that differs for each series of numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Feed:
    """The batches of one process, by their number.

    lanes   lanes of the global batch, and ``own``, those of this process
    """

    def __init__(
        self,
        recipe: Recipe,
        sources: Mapping[str, Source],
        world: int,
        rank: int,
        device: str | torch.device = "cpu",
    ) -> None:
        self.recipe, self.sources, self.device = recipe, dict(sources), torch.device(device)
        per_device = recipe.batch.per_device
        self.samples = per_device * world
        self.lanes = lanes_for(world, self.samples)
        each = self.lanes // world
        self.own = range(rank * each, (rank + 1) * each)
        if per_device % each:
            raise ThreerError(f"a batch of {per_device} a device cannot be dealt out to {each} lanes")
        self._per_lane = self.samples // self.lanes
        shares = recipe.data.shares()
        self._shares = torch.tensor([shares[name] for name in self.sources], dtype=torch.float64)

    def request(self, number: int) -> Request:
        """What batch ``number`` is asked for: the same in all processes."""
        recipe, views = self.recipe, self.recipe.views
        generator = torch.Generator().manual_seed(number_of(recipe.seed, 1, number))
        low, high = views.count
        if views.ramp:
            high = low + int((high - low + 1) * min(number * self.samples / views.ramp, 1 - 1e-9))
        count = int(torch.randint(low, high + 1, (), generator=generator))
        sizes = recipe.resolution.sizes
        weights = torch.tensor(recipe.resolution.weights or [1.0] * len(sizes))
        size = sizes[int(torch.multinomial(weights, 1, generator=generator))]
        drawn = int(torch.randint(count, (), generator=generator))
        reference = {"first": 0, "middle": count // 2, "random": drawn}[views.reference]
        scene = tuple(range(views.scene))
        roles = Roles(reference, scene, tuple(range(views.scene, count)) if scene else ())
        return Request(count, size, roles, views.drop_world)

    def batch(self, number: int) -> Batch:
        """This process's part of batch ``number``."""
        request = self.request(number)
        for source in self.sources.values():
            source.advance(number * self.samples)
        parts = []
        for lane in self.own:
            generator = torch.Generator().manual_seed(number_of(self.recipe.seed, 2, number, lane))
            chosen = torch.multinomial(self._shares, self._per_lane, replacement=True, generator=generator)
            counts = torch.bincount(chosen, minlength=len(self._shares)).tolist()
            parts += [
                source.draw(count, request, lane, generator).to(self.device)
                for source, count in zip(self.sources.values(), counts, strict=True)
                if count
            ]
        return cat(parts)

    def close(self) -> None:
        """End what the sources have at work; batches can still be asked for, of rooms at least."""
        for source in self.sources.values():
            source.close()

    def batches(self, first: int, ahead: int = 4) -> Iterator[Batch]:
        """Batches from number ``first`` on, without end; made ahead by a thread if a source reads files."""
        if not any(source.on_disk for source in self.sources.values()):
            number = first
            while True:
                yield self.batch(number)
                number += 1
        ready: queue.Queue[Batch | Exception] = queue.Queue(ahead)
        stop = threading.Event()

        def put(item: Batch | Exception) -> None:
            while not stop.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def work() -> None:
            number = first
            try:
                while not stop.is_set():
                    put(self.batch(number))
                    number += 1
            except Exception as error:  # it belongs to whoever waits for the batch
                put(error)

        thread = threading.Thread(target=work, name="batches", daemon=True)
        thread.start()
        try:
            while True:
                item = ready.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stop.set()
            thread.join()
