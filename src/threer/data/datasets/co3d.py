"""CO3Dv2: an object, filmed once around; and WildRGB-D, which is laid out alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from threer.data.datasets.format import Files, Format, Scene, Split, track_of
from threer.data.datasets.metadata import fields
from threer.data.reading import read_png
from threer.data.samples import Traits
from threer.errors import SourceError
from threer.types import FloatArray

FAR_TIMES_MEDIAN = 3.0


class Filmed(Format):
    """Objects filmed once around: `<category>/<sequence>/`, of which a file lists the frames.

    stem   of a frame's files, from its number
    names  of them, from the stem: picture, depth, camera
    """

    stem: ClassVar[str]
    names: ClassVar[tuple[str, str, str]]

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        return [
            Scene(f"{category}/{sequence}", tuple(self.stem.format(int(n)) for n in numbers), (_loop(numbers),))
            for category, sequence, numbers in selected(root, split)
        ]

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        folder, stem = root / scene.name, scene.stems[view]
        image, depth, camera = (folder / name.format(stem) for name in self.names)
        return Files(image, depth, camera, foreground=folder / "masks" / f"{stem}.png")


class CO3D(Filmed):
    """Depth is a share of each picture's `maximum_depth`; what lies beyond 3 × the median is removed."""

    stem = "frame{:06d}"
    names = "images/{}.jpg", "depths/{}.jpg.geometric.png", "images/{}.npz"

    def depth(self, files: Files, K: FloatArray) -> npt.NDArray[np.float32]:
        assert files.depth is not None
        assert files.camera is not None
        most = float(fields(files.camera, "maximum_depth")[0])
        shares = read_png(files.depth).astype(np.float32) / 65535
        depth: npt.NDArray[np.float32] = np.nan_to_num(shares * np.float32(most), posinf=0)
        known = depth[depth > 0]
        if known.size:
            depth[depth > FAR_TIMES_MEDIAN * np.median(known)] = 0
        return depth


class WildRGBD(Filmed):
    """Depth in millimetres; frames are numbered from 0 in five digits."""

    stem = "{:05d}"
    names = "rgb/{}.jpg", "depth/{}.png", "metadata/{}.npz"


def selected(root: Path, split: Split) -> list[tuple[str, str, list[int]]]:
    """Category, sequence and frame numbers of `selected_seqs_<split>.json`."""
    found: dict[tuple[str, str], list[int]] = {}
    for part in ("train", "test") if split == "all" else (split,):
        path = root / f"selected_seqs_{part}.json"
        if not path.is_file():
            if split == "all":
                continue
            raise SourceError(f"no such file: {path}")
        try:
            table: Any = json.loads(path.read_text())
            for category, sequences in table.items():
                for sequence, numbers in sequences.items():
                    if numbers:
                        found[category, sequence] = sorted(int(n) for n in numbers)
        except (ValueError, AttributeError, TypeError) as error:
            raise SourceError(f"{path} is not {{category: {{sequence: [frame, …]}}}} ({error})") from None
    return [(category, sequence, numbers) for (category, sequence), numbers in sorted(found.items())]


def _loop(numbers: list[int]) -> Any:
    return track_of(range(len(numbers)), numbers, loop=True)


FORMAT = CO3D(Traits(interval=25, modality=(1, 0, 0), background=0.5))
WILDRGBD = WildRGBD(Traits(metric=True, interval=25, background=0.1))
