"""A data set as a list of scenes, and how the files of a view are found and read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from threer.data.reading import MILLIMETRES, read_camera, read_depth, read_png
from threer.data.samples import SKY, RawView, Traits
from threer.errors import SourceError, ThreerError
from threer.io.images import load_image
from threer.types import FloatArray

Split = Literal["train", "test", "all"]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Track:
    """Views of a scene in the order in which one camera took them.

    views     [n] indices into the scene's views
    numbers   [n] frame numbers, which tell where frames are missing
    interval  the most frames between two views of a clip, if less than usual
    loop      the camera went round an object once: the first view follows on the last
    """

    views: IntArray
    numbers: IntArray
    interval: int | None = None
    loop: bool = False

    def __len__(self) -> int:
        return len(self.views)


@dataclass(frozen=True, eq=False)
class Scene:
    """Views that show the same place.

    name         folder of the scene, relative to the root
    stems        what the file names of each view are made of
    tracks       the views in order of time, for each camera; none for unordered photos
    edges        [E, 2] pairs of views that overlap; None when nothing is known
    scores       [E] how much, or None
    angles       [E] parallax in degrees, or None
    collections  sets of views that belong together, without order
    c2w, K       [N, 4, 4], [N, 3, 3] where one file has the cameras of all views
    """

    name: str
    stems: tuple[str, ...]
    tracks: tuple[Track, ...] = ()
    edges: IntArray | None = None
    scores: FloatArray | None = None
    angles: FloatArray | None = None
    collections: tuple[IntArray, ...] = ()
    c2w: FloatArray | None = None
    K: FloatArray | None = None

    def __len__(self) -> int:
        return len(self.stems)


@dataclass(frozen=True)
class Files:
    """Where the parts of one view lie. No depth: camera-only. No camera: the scene knows it.

    foreground  mask of the object, above 0.1 of white;  hidden  255 where pixels count
    sky         above 0 where sky;  outlier  above 0 where depth is wrong
    """

    image: Path
    depth: Path | None = None
    camera: Path | None = None
    foreground: Path | None = None
    hidden: Path | None = None
    sky: Path | None = None
    outlier: Path | None = None

    def needed(self) -> list[Path]:
        return [path for path in (self.image, self.depth, self.camera) if path is not None]


class Format:
    """How one data set lies on disk. A data set's own file overrides what is special about it."""

    unit = MILLIMETRES
    """Units of a 16-bit depth PNG per unit of the set."""

    def __init__(self, traits: Traits) -> None:
        self.traits = traits

    def scenes(self, root: Path, split: Split) -> list[Scene]:
        raise NotImplementedError

    def files(self, root: Path, scene: Scene, view: int) -> Files:
        raise NotImplementedError

    def camera(self, files: Files, scene: Scene, view: int) -> tuple[FloatArray, FloatArray]:
        """Camera-to-world [4, 4] and K [3, 3]."""
        if files.camera is not None:
            return read_camera(files.camera)
        assert scene.c2w is not None
        assert scene.K is not None
        return scene.c2w[view], scene.K[view]

    def depth(self, files: Files, K: FloatArray) -> npt.NDArray[np.float32]:
        """z-depth [H, W]; 0 unknown, -1 sky."""
        assert files.depth is not None
        return read_depth(files.depth, self.unit)

    def choose_image(self, files: Files, rng: np.random.Generator | None) -> Path:
        """The picture, where there is more than one rendering of it."""
        return files.image


@dataclass(frozen=True, eq=False)
class Dataset:
    """Scenes of one data set, opened at a folder."""

    name: str
    root: Path
    format: Format
    scenes: Sequence[Scene]
    traits: Traits = field(default_factory=Traits)

    def __post_init__(self) -> None:
        if not self.scenes:
            raise SourceError(f"{self.root} holds no scene of {self.name}; see docs/datasets.md for its layout")

    @property
    def views(self) -> int:
        """Number of views of all scenes."""
        return sum(len(scene) for scene in self.scenes)

    def files(self, scene: int, view: int) -> Files:
        return self.format.files(self.root, self.scenes[scene], view)

    def camera(self, scene: int, view: int) -> tuple[FloatArray, FloatArray]:
        """Camera-to-world [4, 4] and K [3, 3] of a view."""
        return self.format.camera(self.files(scene, view), self.scenes[scene], view)

    def view_name(self, scene: int, view: int) -> str:
        """The scene and what its file names are made of, for messages."""
        place = self.scenes[scene]
        return f"{place.name}/{place.stems[view]}".lstrip("./")

    def read(self, scene: int, view: int, rng: np.random.Generator | None = None) -> RawView:
        """One view. ``rng`` chooses where a picture was rendered in several ways; the first without it.

        Raises `SourceError` for files that are missing, damaged, or do not fit together.
        """
        files = self.files(scene, view)
        path = self.format.choose_image(files, rng)
        image = load_image(path)
        c2w, K = self.camera(scene, view)
        if files.depth is None:
            depth = np.zeros(image.shape[:2], np.float32)
        else:
            depth = fitting(self.format.depth(files, K), image, files.depth)
        depth = self._trusted(depth, rng)
        if files.sky is not None and files.sky.is_file():
            depth = np.where(_mask(files.sky, image) > 0, np.float32(SKY), depth)
        if files.outlier is not None and files.outlier.is_file():
            depth = np.where(_mask(files.outlier, image) > 0, np.float32(0), depth)
        if files.hidden is not None and files.hidden.is_file():
            depth = np.where(_mask(files.hidden, image) < 255, np.float32(0), depth)
        foreground = None
        if files.foreground is not None and files.foreground.is_file():
            foreground = _mask(files.foreground, image) > 0.1 * 255
        return RawView(image, depth, c2w, K, foreground, f"{self.name} {self.view_name(scene, view)}")

    def _trusted(self, depth: npt.NDArray[np.float32], rng: np.random.Generator | None) -> npt.NDArray[np.float32]:
        traits = self.traits
        if traits.sky_from is not None:
            depth = np.where(depth >= traits.sky_from, np.float32(SKY), depth)
        if traits.far is not None and (rng is None or rng.random() < traits.far_share):
            depth = np.where(depth > traits.far, np.float32(0), depth)
        if traits.percentile is not None and (depth > 0).any():
            most = np.percentile(depth[depth > 0], traits.percentile)
            depth = np.where(depth > most, np.float32(0), depth)
        return depth


def fitting(depth: npt.NDArray[np.float32], image: npt.NDArray[np.uint8], where: Path) -> npt.NDArray[np.float32]:
    """Depth at the picture's size. Sensors with fewer pixels are taken by nearest neighbour.

    Raises `SourceError` when the two have different formats.
    """
    have, want = depth.shape, image.shape[:2]
    if have == want:
        return depth
    if not have[0] or not have[1] or abs(have[1] / have[0] * want[0] / want[1] - 1) > 0.02:
        raise SourceError(f"{where}: depth of {have[1]}×{have[0]} does not fit a picture of {want[1]}×{want[0]}")
    return nearest(depth, (want[1], want[0]))


def nearest(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """The value nearest to each new pixel's centre: [H, W] -> [size[1], size[0]]."""
    (height, width), (new_width, new_height) = values.shape[:2], size
    rows = ((np.arange(new_height) + 0.5) * height / new_height).astype(int)
    columns = ((np.arange(new_width) + 0.5) * width / new_width).astype(int)
    chosen: npt.NDArray[Any] = values[rows[:, None], columns]
    return chosen


def _mask(path: Path, image: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    mask = read_png(path) if path.suffix == ".png" else load_image(path)[..., 0]
    if mask.dtype == np.bool_:
        mask = mask.astype(np.uint8) * 255
    height, width = image.shape[:2]
    return mask if mask.shape == (height, width) else nearest(mask, (width, height))


def track_of(views: Sequence[int] | IntArray, numbers: Sequence[int] | None = None, **more: Any) -> Track:
    """A track of views; their positions are the numbers if there are no others."""
    indices = np.asarray(views, np.int64)
    counted = np.arange(len(indices)) if numbers is None else np.asarray(numbers, np.int64)
    return Track(indices, counted, **more)


def no_test_split(name: str, split: Split, advice: str = "") -> None:
    """Raise for a set of which nothing is held out by those who published it."""
    if split == "test":
        raise ThreerError(f"{name} has no test split of its own{advice}")
