"""A recorded RGB-D walk as a reference: colour, time-of-flight depth and the device's own poses.

A folder holds color/*.jpg, depth/*.png (16-bit millimetres, 0 = not measured), poses/*.txt (4×4 camera-to-world,
OpenCV axes, metres), all numbered alike, and intrinsics.txt (3×3, for the size of the colour images).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from threer.errors import SourceError
from threer.geometry.projection import transform_intrinsics
from threer.types import FloatArray, Trajectory

FOLDER_VARIABLE = "THREER_OFFICE"
BESIDE_PROJECT = Path(__file__).parents[2] / "shared" / "data" / "office"


@dataclass(frozen=True, eq=False)
class RgbdWalk:
    """A recorded sequence; images are read when asked for.

    names  [N] of the frames, in order
    c2w    [N, 4, 4] camera-to-world in metres
    K      [3, 3] intrinsics at ``size``, centres at integers
    size   (W, H) of the colour images
    """

    folder: Path
    names: tuple[str, ...]
    c2w: FloatArray
    K: FloatArray
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.names)

    def color_path(self, index: int) -> Path:
        return self.folder / "color" / f"{self.names[index]}.jpg"

    def color(self, index: int) -> npt.NDArray[np.uint8]:
        """[H, W, 3] RGB."""
        with Image.open(self.color_path(index)) as image:
            return np.asarray(image.convert("RGB"))

    def depth(self, index: int) -> FloatArray:
        """[H, W] metres, NaN where not measured."""
        with Image.open(self.folder / "depth" / f"{self.names[index]}.png") as image:
            millimetres = np.asarray(image).astype(np.float32)
        return np.where(millimetres > 0, millimetres / 1000, np.nan).astype(np.float32)

    def intrinsics(self, width: int, height: int) -> FloatArray:
        """K [3, 3] for the whole image scaled to another size."""
        sx, sy = width / self.size[0], height / self.size[1]
        # Half a pixel in, half out: scaling keeps the outer edges in place, not the centres of the corner pixels.
        return transform_intrinsics(self.K, np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2]]))

    def trajectory(self, fps: float) -> Trajectory:
        """The poses as a trajectory with ``fps`` frames a second, from time 0."""
        return Trajectory(np.arange(len(self)) / fps, self.c2w)

    def points(self, index: int) -> FloatArray:
        """[H, W, 3] world points of the measured depth, metres, NaN where not measured."""
        depth = self.depth(index)
        height, width = depth.shape
        K = self.intrinsics(width, height)
        u, v = np.meshgrid(np.arange(width), np.arange(height))
        local = np.stack([(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], np.ones_like(depth)], axis=-1)
        c2w = self.c2w[index]
        world: FloatArray = (local * depth[..., None]) @ c2w[:3, :3].T + c2w[:3, 3]
        return world


def find_office() -> Path | None:
    """$THREER_OFFICE, else the folder beside the project, else None."""
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else BESIDE_PROJECT
    return folder if folder.is_dir() else None


def load_walk(folder: Path) -> RgbdWalk:
    """Open a recorded sequence. Raises SourceError where a part of it is missing or does not fit."""
    names = tuple(sorted(p.stem for p in (folder / "color").glob("*.jpg")))
    if not names:
        raise SourceError(f"no color/*.jpg in {folder}: is it a recorded RGB-D walk?")
    for part, suffix in (("depth", "png"), ("poses", "txt")):
        missing = [name for name in names if not (folder / part / f"{name}.{suffix}").is_file()]
        if missing:
            raise SourceError(f"{folder}/{part} lacks {missing[0]}.{suffix} and {len(missing) - 1} more")
    if not (folder / "intrinsics.txt").is_file():
        raise SourceError(f"no intrinsics.txt in {folder}")
    c2w = np.stack([np.loadtxt(folder / "poses" / f"{name}.txt").reshape(-1) for name in names])
    if c2w.shape[1] != 16:
        raise SourceError(f"{folder}/poses must hold 4×4 matrices, found {c2w.shape[1]} numbers in a file")
    with Image.open(folder / "color" / f"{names[0]}.jpg") as image:
        size = image.size
    return RgbdWalk(folder, names, c2w.reshape(-1, 4, 4), np.loadtxt(folder / "intrinsics.txt"), size)
