"""Features and matches of a finished run's frames: found again, or taken from what the run keeps."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threer.config import RefineConfig
from threer.io.atomic import write_json
from threer.io.images import RGBImage
from threer.io.runs import Scene
from threer.pipelines.classical.features import KEY, FeatureStore, IdArray
from threer.pipelines.classical.matching import choose_pairs, match
from threer.pipelines.classical.session import FOLDER, FRAMES
from threer.pipelines.localization.landmarks import SMALL_FOLDER
from threer.pipelines.localization.pictures import run_pictures, small_pictures
from threer.types import FloatArray


@dataclass(frozen=True, eq=False)
class Matched:
    """What the pictures of some frames have in common.

    positions  [N] in the scene, of the views: frames with a camera; of repeated pictures the first
    pixels     [F, 2] of each view's features, pixels of the original
    matches    features of pairs of views that geometry confirmed
    """

    positions: list[int]
    pixels: list[FloatArray]
    matches: dict[tuple[int, int], IdArray]


def match_frames(scene: Scene, config: RefineConfig) -> Matched:
    """Find features in the pictures of a run, and what matches; both are kept in its folder.

    Raises `RunError` where its pictures cannot be read again.
    """
    small = config.pictures == "run"
    folder = scene.path / (SMALL_FOLDER if small else FOLDER)
    pictures = small_pictures(scene) if small else run_pictures(scene, config.source)
    known = scene.cameras.found & np.isfinite(scene.cameras.K).all(axis=(1, 2))
    first = next(pictures)  # what is wrong with the source is told before anything is made
    with _opened(folder) as store:
        ids = {position: store.add(picture) for position, picture in _chained(first, pictures)}
        if not (folder / FRAMES).is_file():
            indices = scene.table.indices
            write_json(folder / FRAMES, {str(indices[k]): store.name(image) for k, image in ids.items()})
        views: dict[int, int] = {}
        for position, image in ids.items():
            if known[position]:
                views.setdefault(image, position)
        images = list(views)
        pairs = choose_pairs(store, images, in_order=True, all_up_to=config.all_pairs_up_to, similar=config.similar)
        match(store, pairs, seed=config.seed)
        rows = {image: row for row, image in enumerate(images)}
        matches = {}
        for (a, b), found in sorted(store.verified(set(images)).items()):
            matches[rows[a], rows[b]] = found
        pixels: list[FloatArray] = [store.keypoints(image).astype(np.float64) for image in images]
    positions = list(views.values())
    if small:
        placed = [scene.frame(position).to_original for position in positions]
        pixels = [p @ affine[:, :2].T + affine[:, 2] for p, affine in zip(pixels, placed, strict=True)]
    return Matched(positions, pixels, matches)


@contextmanager
def _opened(folder: Path) -> Iterator[FeatureStore]:
    """The features in ``folder`` as they were found: other settings would throw them away."""
    try:
        key = json.loads((folder / KEY).read_text(encoding="utf-8"))
        K = key["intrinsics"]
        store = FeatureStore(
            folder,
            intrinsics=None if K is None else np.array(K),
            longest_side=key["longest_side"],
            most=key["most"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        store = FeatureStore(folder)
    try:
        yield store
    finally:
        store.close()


def _chained(first: tuple[int, RGBImage], rest: Iterator[tuple[int, RGBImage]]) -> Iterator[tuple[int, RGBImage]]:
    yield first
    yield from rest
