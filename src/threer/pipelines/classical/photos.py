"""Mapping of photos whose EXIF names a focal length: it says where to begin, and has not the last word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from threer.errors import ReconstructionError
from threer.io.exif import PhotoFocal
from threer.pipelines.classical.checks import better
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.classical.mapping import Mapped, facts_of, map_images
from threer.pipelines.classical.model import as_sparse_model
from threer.pipelines.sessions import Progress

FAR = 1.25
"""A focal length that ends up further from EXIF's than by this factor: one of the two is wrong."""


def by_picture(images: Sequence[int], focals: Sequence[PhotoFocal]) -> dict[int, PhotoFocal]:
    """What is said of each picture by id: of files with the same pixels the first counts that says anything."""
    said: dict[int, PhotoFocal] = {}
    for image, focal in zip(images, focals, strict=True):
        if image not in said or said[image].px is None:
            said[image] = focal
    return said


def map_photos(
    store: FeatureStore,
    focals: Mapping[int, PhotoFocal],
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Mapped, list[str]]:
    """The model of pictures by id, as of `map_images`, begun with what their EXIF says; and what to tell of that.

    Where mapping fails that way, or ends far from EXIF's focal length, it is done again from guesses, and the
    better one of the two models is taken. A store with known intrinsics takes no notice of EXIF.
    """
    images = list(focals)
    said = {image: focal.px for image, focal in focals.items() if focal.px is not None}
    if store.intrinsics is not None:
        return map_images(store, images, seed=seed, progress=progress), []
    store.begin_with({image: said.get(image) for image in images})
    if not said:
        return map_images(store, images, seed=seed, progress=progress), []
    try:
        mapped: Mapped | None = map_images(store, images, seed=seed, progress=progress)
    except ReconstructionError:
        mapped = None
    if mapped is not None and _strayed(mapped, said) <= FAR:
        return mapped, [_told(said, len(images), found=mapped)]
    store.begin_with(dict.fromkeys(images))
    try:
        guessed = map_images(store, images, seed=seed, progress=progress)
    except ReconstructionError:
        if mapped is None:
            raise
        guessed = mapped
    if mapped is None or (guessed is not mapped and better(facts_of(guessed.model), facts_of(mapped.model))):
        mapped = guessed
    note = _told(said, len(images), found=mapped)
    return mapped, [f"{note}: EXIF is wrong, or the pictures do not determine the focal length"]


def _strayed(mapped: Mapped, said: Mapping[int, float]) -> float:
    """The largest factor, of at least 1, between a focal length that was found and EXIF's."""
    model = as_sparse_model(mapped.model)
    apart = [np.log(K[0, 0] / said[image]) for image, K in zip(model.images, model.K, strict=True) if image in said]
    return float(np.exp(np.abs(apart).max())) if apart else 1.0


def _told(said: Mapping[int, float], count: int, *, found: Mapped) -> str:
    model = as_sparse_model(found.model)
    focals = {image: float(K[0, 0]) for image, K in zip(model.images, model.K, strict=True)}
    pairs = sorted({(round(px), round(focals[image])) for image, px in said.items() if image in focals})
    shown = ", ".join(f"{begin} px became {end} px" for begin, end in pairs[:3])
    more = f" and {len(pairs) - 3} more" if len(pairs) > 3 else ""
    return f"classical: EXIF gave the focal length to begin with for {len(said)} of {count} pictures, {shown}{more}"


def left_aside(names: Sequence[str], focals: Sequence[PhotoFocal]) -> list[str]:
    """One line about each thing that EXIF says and nobody can believe, with the first photo that says it."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for name, focal in zip(names, focals, strict=True):
        if focal.problem:
            first.setdefault(focal.problem, name)
            counts[focal.problem] += 1
    return [
        f"classical: EXIF's focal length is left aside for {first[problem]}"
        f"{f' and {count - 1} more' if count > 1 else ''}: {problem}"
        for problem, count in counts.items()
    ]
