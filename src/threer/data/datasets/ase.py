"""Aria Synthetic Environments: rectified rooms whose depth is the length of rays (quirk S9)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from threer.data.datasets.format import Files, Format, Scene, Split, track_of
from threer.data.reading import intrinsics_of, pose_of, read_depth
from threer.data.samples import Traits
from threer.errors import SourceError
from threer.io.folders import natural_order
from threer.types import FloatArray

TRAIN_SHARE = 0.9


class ASE(Format):
    """`<id>/{color,depth,pose,intrinsic}`; the first nine tenths of the ids are for training."""

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        folders = natural_order(path.parent for path in root.glob("*/color"))
        kept = round(TRAIN_SHARE * len(folders))
        part = {"train": folders[:kept], "test": folders[kept:], "all": folders}[split]
        scenes = []
        for folder in part:
            stems = tuple(path.stem for path in natural_order((folder / "color").glob("*.jpg")))
            scenes.append(Scene(folder.name, stems, (track_of(range(len(stems)), [int(s) for s in stems]),)))
        return scenes

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        folder, stem = root / scene.name, scene.stems[view]
        return Files(
            folder / "color" / f"{stem}.jpg", folder / "depth" / f"{stem}.png", folder / "pose" / f"{stem}.txt"
        )

    def camera(self, files: Files, scene: Scene, view: int) -> tuple[FloatArray, FloatArray]:
        assert files.camera is not None
        K = files.camera.parent.parent / "intrinsic" / "intrinsic_color.txt"
        return pose_of(_numbers(files.camera), str(files.camera)), intrinsics_of(_numbers(K), str(K))

    def depth(self, files: Files, K: FloatArray) -> npt.NDArray[np.float32]:
        assert files.depth is not None
        return depth_from_ray_length(read_depth(files.depth, self.unit), K)


def depth_from_ray_length(length: npt.NDArray[np.float32], K: FloatArray) -> npt.NDArray[np.float32]:
    """z of points at a distance [H, W] from the centre of the camera (geometry, section 13)."""
    v, u = np.mgrid[: length.shape[0], : length.shape[1]]
    x, y = (u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1]
    depth: npt.NDArray[np.float32] = (length / np.sqrt(x**2 + y**2 + 1)).astype(np.float32)
    return depth


def _numbers(path: Path) -> FloatArray:
    try:
        return np.loadtxt(path, ndmin=2)
    except FileNotFoundError:
        raise SourceError(f"no such file: {path}") from None
    except ValueError as error:
        raise SourceError(f"{path} is no table of numbers ({error})") from None


FORMAT = ASE(Traits(metric=True, interval=2, crop_jitter=128, far=20.0))
