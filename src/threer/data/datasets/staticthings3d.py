"""StaticThings3D: things that hang in the air, rendered from two cameras, clean and as film would show them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from threer.data.datasets.format import Files, Format, Scene, Split, no_test_split, track_of
from threer.data.datasets.metadata import stem_of
from threer.data.datasets.pairs import by_group, columns, neighbours_in_time
from threer.data.reading import read_arrays
from threer.data.samples import Traits
from threer.errors import SourceError
from threer.io.folders import natural_order

SIDES = ("left", "right")


class StaticThings3D(Format):
    """`TRAIN/<A>/<0000>/{left,right}/0006_{clean,final}.jpg`.

    Pairs are rows (letter, sequence, side, frame, side, frame) of a file `*pairs*.npy`, letters and sides by
    name or position; without it, what follows each other or was taken at once.
    """

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        no_test_split("staticthings3d", split)
        table = _pairs(root)
        scenes = []
        for folder in natural_order(path for path in root.glob("TRAIN/*/*") if path.is_dir()):
            per_side = [natural_order((folder / side).glob("*_clean.jpg")) for side in SIDES]
            stems = [f"{p.parent.name}/{p.stem.removesuffix('_clean')}" for side in per_side for p in side]
            counts = np.cumsum([0, *map(len, per_side)])
            ranges = [np.arange(a, b) for a, b in itertools.pairwise(counts)]
            name = folder.relative_to(root).as_posix()
            if table is None:
                edges, _ = neighbours_in_time(ranges)
            else:
                position = {stem: view for view, stem in enumerate(stems)}
                try:
                    rows = table.get("/".join(folder.parts[-2:]), [])
                    edges = np.array([[position[a], position[b]] for a, b in rows], np.int64).reshape(-1, 2)
                except KeyError as error:
                    raise SourceError(f"{root}: a pair of {name} names {error}, which is not there") from None
            scenes.append(Scene(name, tuple(stems), tuple(map(track_of, ranges)), edges))
        return scenes

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        base = root / scene.name
        stem = scene.stems[view]
        return Files(base / f"{stem}_clean.jpg", base / f"{stem}.exr", base / f"{stem}.npz")

    def choose_image(self, files: Files, rng: np.random.Generator | None) -> Path:
        if rng is None or rng.random() < 0.5:
            return files.image
        return files.image.with_name(files.image.name.replace("_clean", "_final"))


def _pairs(root: Path) -> dict[str, list[tuple[str, str]]] | None:
    path = next(iter(sorted(root.glob("*pairs*.npy"))), None)
    if path is None:
        return None
    letter, sequence, side1, frame1, side2, frame2 = columns(read_arrays(path)["array"], 6, path)[:6]

    def side(value: object) -> str:
        text = str(value)
        return text if text in SIDES else SIDES[int(text)]

    def code(value: object) -> str:
        text = str(value)
        return text if text.isalpha() else chr(ord("A") + int(text))

    scene = np.array([f"{code(a)}/{int(s):04d}" for a, s in zip(letter, sequence, strict=True)])
    first = [f"{side(s)}/{int(stem_of(f)):04d}" for s, f in zip(side1, frame1, strict=True)]
    second = [f"{side(s)}/{int(stem_of(f)):04d}" for s, f in zip(side2, frame2, strict=True)]
    return {
        str(name): list(zip(a.tolist(), b.tolist(), strict=True)) for name, (a, b) in by_group(scene, first, second)
    }


FORMAT = StaticThings3D(Traits(crop_jitter=256, modality=(1, 0, 0), far=200.0, far_share=0.5))
