"""BlendedMVS: scenes named by 24 hexadecimal digits, with scored pairs of views."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from threer.data.datasets.format import Files, Format, Scene, Split
from threer.data.datasets.pairs import by_group, numbered
from threer.data.reading import read_arrays
from threer.data.samples import Traits
from threer.errors import SourceError

PAIRS = "blendedmvs_pairs.npy"
TEST_OF = 10


class BlendedMVS(Format):
    """Every tenth scene, by the lower part of its name, is held out."""

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        pairs = read_arrays(root / PAIRS)["array"]
        missing = {"seq_high", "seq_low", "img1", "img2", "score"} - set(pairs.dtype.names or ())
        if missing:
            raise SourceError(f"{root / PAIRS} has no {', '.join(sorted(missing))}")
        low = pairs["seq_low"]
        if split != "all":
            pairs = pairs[(low % TEST_OF == 0) == (split == "test")]
        # the high 8 and the low 16 digits are one name
        names = np.array([f"{int(h):08x}{int(n):016x}" for h, n in zip(pairs["seq_high"], pairs["seq_low"])])  # noqa: B905
        scenes = []
        for name, (a, b, score) in by_group(names, pairs["img1"], pairs["img2"], pairs["score"]):
            members, edges = numbered(a, b)
            stems = tuple(f"{int(member):08d}" for member in members)
            scenes.append(Scene(str(name), stems, edges=edges, scores=np.asarray(score, np.float64)))
        return scenes

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        base = root / scene.name / scene.stems[view]
        return Files(base.with_suffix(".jpg"), base.with_suffix(".exr"), base.with_suffix(".npz"))


FORMAT = BlendedMVS(Traits(modality=(1, 0, 0)))
