"""Habitat: five rendered views of each place, of which the first overlaps with all others."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from threer.data.datasets.format import Files, Format, Scene, Split
from threer.data.samples import Traits
from threer.errors import SourceError

VIEWS = 5
PART = {"train": "train", "test": "val"}


class Habitat(Format):
    """`Habitat_<n>_scenes_<split>.txt` lists `<scene>/<key>`; the largest list is taken."""

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        names: list[str] = []
        for part in ("train", "val", "test") if split == "all" else {PART[split], split}:
            lists = list(root.glob(f"Habitat_*_scenes_{part}.txt"))
            if lists:
                largest = max(lists, key=lambda path: int("".join(re.findall(r"\d+", path.name)) or 0))
                names += [line.strip() for line in largest.read_text().splitlines() if line.strip()]
        if not names:
            raise SourceError(f"no such file: {root / f'Habitat_<n>_scenes_{split}.txt'}")
        star = np.array([[0, other] for other in range(1, VIEWS)])
        return [
            Scene(name, tuple(str(view + 1) for view in range(VIEWS)), edges=star) for name in dict.fromkeys(names)
        ]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        base = f"{scene.name}_{scene.stems[view]}"
        return Files(root / f"{base}.jpeg", root / f"{base}_depth.exr", root / f"{base}_camera_params.json")


FORMAT = Habitat(Traits(metric=True))
