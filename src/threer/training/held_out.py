"""What is validated on: samples that training never sees, of generated rooms and of data sets on disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from threer.data.samples import Sample
from threer.errors import ThreerError
from threer.training.batch import Batch, Roles, cat
from threer.training.pool import VALIDATION_SEED, PoolPlan, RoomPool
from threer.training.recipes.recipe import Recipe
from threer.training.sources import Request, Source

AT_ONCE = 16
_LANES = 8


class Samples(Protocol):
    """Samples of one source, numbered from 0; each is the same whenever it is asked for.

    at_once      how many fit a network that is not trained
    description  what they are, for the card
    """

    at_once: int
    description: str

    def __len__(self) -> int: ...

    def batches(self, parts: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """A batch for each of ``parts``, numbers of samples; the first view is the reference."""
        ...


class RoomSamples:
    """Clips of seeds that training never reaches, one sample of each, kept in memory.

    Of pairs, windows and sets the middle frame is the reference and comes first; clips are in order. Raises
    `ThreerError` for more views than there are frames.
    """

    at_once = AT_ONCE

    def __init__(self, recipe: Recipe, device: str | torch.device = "cpu") -> None:
        samples, views = recipe.validation.samples, recipe.validated_views
        if views > recipe.synthetic.frames:
            raise ThreerError(f"recipe {recipe.name}: validation.views {views} exceed synthetic.frames")
        lanes = min(samples, _LANES)
        rounds = -(-samples // lanes)
        pool = RoomPool(recipe, PoolPlan(rounds, rounds), lanes, range(lanes), device, VALIDATION_SEED)
        pool.advance(0)
        spread = torch.linspace(0, recipe.synthetic.frames - 1, views).round().long()
        middle = 0 if recipe.views.sampling == "clip" else views // 2
        frames = torch.cat([spread[middle : middle + 1], spread[:middle], spread[middle + 1 :]])
        request = Request(views, pool.size, Roles())
        clips = torch.arange(rounds)
        # the world is the first frame of the walk, as in the pipeline
        drawn = [
            pool.windows(lane, clips, frames.expand(rounds, -1), torch.zeros(rounds, dtype=torch.long), request)
            for lane in range(lanes)
        ]
        # clip i is round i // lanes of lane i % lanes
        order = [i % lanes * rounds + i // lanes for i in range(samples)]
        self._clips = cat(drawn).samples(torch.tensor(order))
        last = VALIDATION_SEED + samples - 1
        self.description = (
            f"{samples} unseen generated rooms (seeds {VALIDATION_SEED} to {last}), "
            f"one sample of {views} views each"
        )

    def __len__(self) -> int:
        return len(self._clips)

    def batches(self, parts: Sequence[Sequence[int]]) -> Iterator[Batch]:
        for part in parts:
            yield self._clips.samples(torch.tensor(list(part)))


class DiskSamples:
    """Samples of the scenes of a data set that are held out, read again each time.

    They are drawn by `validation.seed`, each from another start, at the first of the recipe's sizes and without
    changes of colours or zoom. Of windows the middle frame is the reference; of all others the first view is.

    trained  names of the scenes that are trained on

    Raises `ThreerError` where nothing is held out on this disk, where the set's views have no pointmaps in common,
    and where a scene is trained on.
    """

    def __init__(
        self, name: str, recipe: Recipe, folder: Path, device: str | torch.device, trained: Sequence[str] = ()
    ) -> None:
        from threer.training.photographs import SEEDS, WORKERS, views_of  # needs more than generated rooms do

        settings, self._views = recipe.validation, recipe.validated_views
        self._before = recipe.views.drop_world
        self._source = views_of(name, recipe, folder, "test", self._views + self._before)
        dataset = self._source.dataset
        for flag in ("camera_only", "depth_only", "single_view"):
            if getattr(dataset.traits, flag):
                raise ThreerError(f"its samples are {flag.replace('_', '-')}, without pointmaps of several views")
        both = sorted({scene.name for scene in dataset.scenes} & set(trained))
        if both:
            raise ThreerError(f"{both[0]} is both held out and trained on")
        self._device, self._size, self._readers = torch.device(device), recipe.resolution.sizes[0], WORKERS
        self.at_once = min(AT_ONCE, recipe.batch.per_device)
        middle = self._views // 2 if recipe.views.sampling == "window" else 0
        self._order = [middle, *(view for view in range(self._views) if view != middle)]
        rng = np.random.default_rng(settings.seed)
        starts = rng.choice(len(self._source), min(settings.samples, len(self._source)), replace=False)
        self._drawn = list(zip(starts.tolist(), rng.integers(SEEDS, size=len(starts)).tolist(), strict=True))
        self.description = f"{len(starts)} samples of {self._views} views from held-out scenes of {name}"

    def __len__(self) -> int:
        return len(self._drawn)

    def batches(self, parts: Sequence[Sequence[int]]) -> Iterator[Batch]:
        """The next part is read while the one before it is at work. Raises `SourceError` for damaged files."""
        with ThreadPoolExecutor(self._readers, thread_name_prefix="read held-out samples") as readers:
            ahead: deque[list[Future[Sample]]] = deque()
            for part in parts:
                ahead.append([readers.submit(self._read, number) for number in part])
                if len(ahead) > 1:
                    yield self._batch(ahead.popleft())
            while ahead:
                yield self._batch(ahead.popleft())

    def _read(self, number: int) -> Sample:
        start, seed = self._drawn[number]
        return self._source.sample(start, self._views + self._before, self._size, (seed,))

    def _batch(self, samples: Sequence[Future[Sample]]) -> Batch:
        from threer.training.photographs import batch_of

        batch = batch_of([sample.result() for sample in samples], Roles())
        if self._before:
            batch = batch.with_world_of(0, Roles())
        return batch.of_views(self._order, Roles()).to(self._device)


def held_out(
    recipe: Recipe,
    sources: Mapping[str, Source],
    data: Path | None,
    device: str | torch.device,
    report: Callable[[str], None],
) -> dict[str, Samples]:
    """The samples to validate on, by the name of their source.

    sources  opened to train on
    data     folder of the data sets on disk
    report   is told in a line which source there is no validation on, and why
    """
    found: dict[str, Samples] = {}
    for name, source in sources.items():
        if name == "synthetic":
            found[name] = RoomSamples(recipe, device)
            continue
        from threer.training.photographs import Photographs

        assert data is not None
        trained = [scene.name for scene in source.views.dataset.scenes] if isinstance(source, Photographs) else []
        try:
            found[name] = DiskSamples(name, recipe, data, device, trained)
        except ThreerError as error:
            report(f"no validation on {name}: {error}")
    return found
