"""Waymo: five cameras on a car, files named by frame and camera."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from threer.data.datasets.format import Files, Format, Scene, Split, no_test_split, track_of
from threer.data.datasets.megadepth import listed_pairs
from threer.data.samples import Traits
from threer.errors import SourceError
from threer.io.folders import natural_order

PAIRS = "waymo_pairs.npz"
SIDEWAYS = (4, 5)
"""Cameras that look sideways: what they see passes faster."""
SIDEWAYS_INTERVAL = 4


class Waymo(Format):
    """Metres, sparse depth; `waymo_pairs.npz` {scenes, frames, pairs} where it is there."""

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        no_test_split("waymo", split)
        pairs = {scene.name: scene for scene in listed_pairs(root / PAIRS, "frames")} if (
            root / PAIRS
        ).is_file() else {}  # fmt: skip
        return [
            _with_pairs(_scene(folder), pairs.get(folder.name))
            for folder in natural_order(path for path in root.iterdir() if path.is_dir())
        ]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        base = root / scene.name
        stem = scene.stems[view]
        return Files(base / f"{stem}.jpg", base / f"{stem}.exr", base / f"{stem}.npz")


def _scene(folder: Path) -> Scene:
    stems = tuple(path.stem for path in natural_order(folder.glob("*_*.jpg")))
    numbers = np.array([[int(part) for part in stem.split("_")] for stem in stems]).reshape(-1, 2)
    tracks = []
    for camera in np.unique(numbers[:, 1]):
        views = np.nonzero(numbers[:, 1] == camera)[0]
        interval = SIDEWAYS_INTERVAL if camera in SIDEWAYS else None
        tracks.append(track_of(views, numbers[views, 0], interval=interval))
    return Scene(folder.name, stems, tuple(tracks))


def _with_pairs(scene: Scene, pairs: Scene | None) -> Scene:
    if pairs is None or pairs.edges is None:
        return scene
    position = {stem: view for view, stem in enumerate(scene.stems)}
    missing = [stem for stem in pairs.stems if stem not in position]
    if missing:
        raise SourceError(f"{PAIRS} names {scene.name}/{missing[0]}.jpg, which is not there")
    views = np.array([position[stem] for stem in pairs.stems])
    return replace(scene, edges=views[pairs.edges], scores=pairs.scores)


FORMAT = Waymo(Traits(metric=True, interval=8, ordered=0.9, steady=0.9, modality=(0.85, 0.1, 0.05)))
