"""ARKitScenes: pictures of the wide camera, depth of the phone's sensor, image collections where prepared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from threer.data.datasets.format import Files, Format, IntArray, Scene, Split
from threer.data.datasets.metadata import scenes_of
from threer.data.reading import read_arrays
from threer.data.samples import Traits
from threer.errors import SourceError

PARTS: dict[Split, tuple[str, ...]] = {"train": ("Training",), "test": ("Test",), "all": ("Training", "Test")}
COLLECTIONS = "new_scene_metadata.npz"


class ARKitScenes(Format):
    """Depth in millimetres, of fewer pixels than the picture."""

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        paths = [root / part / "all_metadata.npz" for part in PARTS[split]]
        found = [path for path in paths if path.is_file()]
        if not found:
            raise SourceError(f"no such file: {paths[0]}")
        return [
            with_collections(scene, root / scene.name / COLLECTIONS)
            for path in found
            for scene in scenes_of(path, f"{path.parent.name}/")
        ]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        folder, stem = root / scene.name, scene.stems[view]
        return Files(folder / "vga_wide" / f"{stem}.jpg", folder / "lowres_depth" / f"{stem}.png")


def with_collections(scene: Scene, path: Path) -> Scene:
    """The scene with its ``image_collection``: of a picture, the others (and scores) that belong to it."""
    if not path.is_file():
        return scene
    table: Any = read_arrays(path).get("image_collection")
    if not isinstance(table, Mapping):
        return scene
    groups: list[IntArray] = []
    for centre, others in table.items():
        members = np.asarray([row[0] if np.ndim(row) else row for row in others], np.int64)
        group = np.unique(np.append(members, int(centre)))
        if group.min() < 0 or group.max() >= len(scene):
            raise SourceError(f"{path}: a collection names pictures beyond the {len(scene)} of the scene")
        groups.append(group)
    return replace(scene, collections=tuple(groups))


FORMAT = ARKitScenes(
    Traits(metric=True, interval=8, ordered=0.8, steady=0.5, modality=(0.75, 0.2, 0.05), window=5.0)
)
