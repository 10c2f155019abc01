"""Data sets on disk as sources of a recipe, and samples put together into batches."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from threer.data.datasets import open_dataset
from threer.data.datasets.format import Split
from threer.data.loading import Look, ViewSource
from threer.data.samples import Sample
from threer.data.sampling import ViewPlan
from threer.errors import ThreerError
from threer.training.batch import Batch, Roles
from threer.training.recipes.recipe import Recipe
from threer.training.sources import Request

WORKERS = 4
SEEDS = 2**62


class Photographs:
    """A data set of a recipe, read from ``folder/<name>`` by a few threads (`threer.training.sources.Source`).

    Which samples and how they are cropped and coloured is decided by the generator that `draw` is given; a saved
    position is the number of the batch. Raises `ThreerError` when the data set is missing or has no such views.
    """

    on_disk = True

    def __init__(self, name: str, recipe: Recipe, folder: Path) -> None:
        self.views = views_of(name, recipe, folder, "train", recipe.views.count[0] + recipe.views.drop_world)
        self._readers = ThreadPoolExecutor(WORKERS, thread_name_prefix=f"read {name}")

    def advance(self, samples: int) -> None:
        """Files are all there from the beginning."""

    def close(self) -> None:
        self._readers.shutdown()

    def draw(self, count: int, request: Request, lane: int, generator: torch.Generator) -> Batch:
        """``count`` samples at random."""
        starts = torch.randint(len(self.views), (count,), generator=generator).tolist()
        seeds = torch.randint(SEEDS, (count,), generator=generator).tolist()
        fetched = request.views + request.before
        samples = self._readers.map(
            lambda start, seed: self.views.sample(start, fetched, request.size, (seed,)), starts, seeds
        )
        if not request.before:
            return batch_of(list(samples), request.roles)
        return batch_of(list(samples), Roles()).with_world_of(0, request.roles)


def views_of(name: str, recipe: Recipe, folder: Path, split: Split, fewest: int) -> ViewSource:
    """Samples of ``fewest`` views or more of a data set in ``folder/<name>``, as a recipe has them.

    What is not for training keeps its colours and size, and shows every image and no rays. Raises `ThreerError`
    when the set or the split is missing, or has no such views.
    """
    settings, training = recipe.data.sources[name], split == "train"
    root = folder / name
    if not root.is_dir():
        raise ThreerError(f"recipe {recipe.name} needs {name}, and there is no folder {root}; docs/datasets.md")
    dataset = open_dataset(name, root, split)
    if settings.far is not None:
        dataset = replace(dataset, traits=replace(dataset.traits, far=settings.far))
    plan = ViewPlan(
        recipe.views.sampling,
        settings.interval,
        settings.ordered,
        settings.steady,
        settings.modality if training else (1.0, 0.0, 0.0),
        settings.overlap,
        settings.parallax,
    )
    look = Look(
        jitter=recipe.data.jitter if training else None,
        together=recipe.data.jitter_together,
        portrait=recipe.resolution.portrait,
        background=settings.background,
        crop_jitter=settings.crop_jitter if training else 0,
    )
    return ViewSource(dataset, plan, fewest, look)


def batch_of(samples: Sequence[Sample], roles: Roles | None = None) -> Batch:
    """One batch of samples with equal numbers of views and sizes. Raises ValueError when they do not fit."""
    if not samples:
        raise ValueError("nothing to put into a batch")
    traits = [sample.traits for sample in samples]
    flags = ("metric", "camera_only", "depth_only", "single_view")
    kinds = {tuple(sample.images.shape) for sample in samples}
    if len(kinds) > 1:
        raise ValueError(f"samples of {sorted(map(list, kinds))} do not fit together")

    def stacked(name: str) -> torch.Tensor:
        return torch.stack([getattr(sample, name) for sample in samples])

    return Batch.of(
        stacked("images"),
        stacked("depth"),
        stacked("c2w"),
        stacked("K"),
        stacked("valid"),
        roles,
        [sample.source for sample in samples],
        **{name: stacked(name) for name in ("true_shape", "sky", "seen", "rays")},
        **{flag: torch.tensor([getattr(t, flag) for t in traits]) for flag in flags},
    )
