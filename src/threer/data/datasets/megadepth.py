"""MegaDepth: photos of landmarks, with pairs listed for all scenes together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from threer.data.datasets.format import Files, Format, Scene, Split
from threer.data.datasets.metadata import fields, stem_of
from threer.data.datasets.pairs import by_group, columns, numbered
from threer.data.samples import Traits
from threer.errors import SourceError

METADATA = "all_metadata.npz"
TEST_SCENES = ("0015", "0022")


class MegaDepth(Format):
    """`<scene>/<sub>/name.{jpg,exr,npz}`; pairs are rows (scene, picture, picture[, score])."""

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        return [
            scene
            for scene in listed_pairs(root / METADATA, "images")
            if split == "all" or scene.name.split("/")[0].startswith(TEST_SCENES) == (split == "test")
        ]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        base = root / scene.name
        stem = scene.stems[view]
        return Files(base / f"{stem}.jpg", base / f"{stem}.exr", base / f"{stem}.npz")


def listed_pairs(path: Path, pictures: str) -> list[Scene]:
    """Scenes of an NPZ of names and rows (scene, picture, picture[, score]), all by their position in the lists."""
    scenes, images, pairs = fields(path, "scenes", pictures, "pairs")
    scene, first, second, *rest = columns(pairs, 3, path)
    score = rest[0] if rest else None
    found = []
    for index, (a, b, scores) in by_group(np.asarray(scene, np.int64), first, second, score):
        members, edges = numbered(np.asarray(a, np.int64), np.asarray(b, np.int64))
        if max(members) >= len(images) or index >= len(scenes):
            raise SourceError(f"{path}: pairs name pictures or scenes that are not listed")
        stems = tuple(stem_of(images[member]) for member in members)
        weights = None if scores is None else np.asarray(scores, np.float64)
        found.append(Scene(str(scenes[index]), stems, edges=edges, scores=weights))
    return found


FORMAT = MegaDepth(Traits(modality=(1, 0, 0)))
