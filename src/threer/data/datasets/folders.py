"""The common layouts: `rgb/ depth/ cam/` in every scene, or `<name>_rgb.png <name>_depth.npy <name>_cam.npz`."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from threer.data.datasets.format import Files, Format, IntArray, Scene, Split, no_test_split, track_of
from threer.data.datasets.pairs import columns
from threer.data.reading import read_arrays
from threer.data.samples import Traits
from threer.errors import SourceError
from threer.io.folders import natural_order
from threer.types import FloatArray

PICTURES = (".png", ".jpg", ".jpeg")
DEPTHS = (".npy", ".exr", ".png", ".npz")
TESTS = ("test", "val", "validation")
KEEP_SOME = "; keep some scenes in a folder test/ beside train/"


class Folders(Format):
    """Any data set of this family. A stem is the path of the picture inside of its scene."""

    def __init__(self, name: str, traits: Traits) -> None:
        super().__init__(traits)
        self.name = name

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        left_out = self._tests(root) if split == "train" else []
        return [
            self._scene(root, folder)
            for base in self.parts(root, split)
            for folder in _scene_folders(base)
            if not any(folder.is_relative_to(test) for test in left_out)
        ]

    def parts(self, root: Path, split: Split) -> list[Path]:
        """The folders of a split: train/ and test/ where there are any; what is in neither is for training."""
        tests = self._tests(root)
        if split == "test":
            if not tests:
                no_test_split(self.name, split, KEEP_SOME)
            return tests
        train = root / "train"
        return [train] if split == "train" and train.is_dir() else [root]

    def _tests(self, root: Path) -> list[Path]:
        return [root / name for name in TESTS if (root / name).is_dir()]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        folder, stem = root / scene.name, scene.stems[view]
        if stem.startswith("rgb/"):
            name = PurePosixPath(stem).stem
            return Files(
                folder / stem,
                None if self.traits.camera_only else _first(folder / "depth", name, DEPTHS),
                folder / "cam" / f"{name}.npz",
                sky=folder / "sky_mask" / f"{name}.png",
                outlier=folder / "outlier_mask" / f"{name}.png",
            )
        name = re.sub(r"_rgb\.\w+$", "", stem)
        depth = None if self.traits.camera_only else _first(folder, f"{name}_depth", DEPTHS)
        return Files(folder / stem, depth, folder / f"{name}_cam.npz")

    def _scene(self, root: Path, folder: Path) -> Scene:
        pictures = folder / "rgb" if (folder / "rgb").is_dir() else folder
        found = natural_order(
            path
            for path in pictures.iterdir()
            if path.suffix.lower() in PICTURES and (pictures != folder or path.stem.endswith("_rgb"))
        )
        stems = tuple(path.relative_to(folder).as_posix() for path in found)
        edges, scores = _overlap(folder / "overlap.npy", len(stems))
        ordered = edges is None and not self.traits.single_view
        tracks = () if not ordered else (track_of(range(len(stems)), numbers_of(stems)),)
        return Scene(folder.relative_to(root).as_posix(), stems, tracks, edges, scores)


def numbers_of(stems: tuple[str, ...]) -> list[int] | None:
    """The last number in each name; None unless they rise."""
    found = [re.findall(r"\d+", stem) for stem in stems]
    if not all(found):
        return None
    numbers = [int(digits[-1]) for digits in found]
    return numbers if all(a < b for a, b in itertools.pairwise(numbers)) else None


def _scene_folders(base: Path) -> Iterator[Path]:
    if not base.is_dir():
        raise SourceError(f"no such folder: {base}")
    for place, folders, names in os.walk(base):
        folders.sort()
        if "rgb" in folders or any(Path(n).stem.endswith("_rgb") and n.endswith(PICTURES) for n in names):
            yield Path(place)
            folders.clear()


def _first(folder: Path, name: str, suffixes: tuple[str, ...]) -> Path:
    """The first of the files that exists; the first of all, if none does."""
    candidates = [folder / f"{name}{suffix}" for suffix in suffixes]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _overlap(path: Path, views: int) -> tuple[IntArray | None, FloatArray | None]:
    """Pairs and their overlap from a matrix [N, N] or a list of rows (i, j, overlap)."""
    if not path.is_file():
        return None, None
    table = np.asarray(read_arrays(path)["array"], np.float64)
    if table.shape == (views, views):
        first, second = np.nonzero(np.triu(np.maximum(table, table.T), 1) > 0)
        scores = np.maximum(table, table.T)[first, second]
    else:
        first, second, scores = columns(table, 3, path)[:3]
    edges = np.stack([first, second], 1).astype(np.int64)
    if edges.size and not 0 <= edges.min() <= edges.max() < views:
        raise SourceError(f"{path} names views beyond the {views} of its scene")
    return edges, np.asarray(scores, np.float64)
