"""What SIFT can be matched with: features of a run's frames and the points they see, kept in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from threer.config import LocalizeConfig
from threer.errors import RunError
from threer.geometry.procrustes import align_cameras
from threer.io.atomic import write_json
from threer.io.images import RGBImage
from threer.io.runs import Scene
from threer.pipelines.classical.colmap import pycolmap, quiet
from threer.pipelines.classical.features import DATABASE, FeatureStore
from threer.pipelines.classical.session import FOLDER, FRAMES, SPARSE
from threer.pipelines.localization.pictures import run_pictures, small_pictures
from threer.pipelines.lookup import points_at
from threer.types import FloatArray

SMALL_FOLDER = "features-small"
MOVED = 1e-3
"""A sparse model whose cameras are farther from the run's, as a share of their extent, is no longer the run's."""

Watch = Callable[[Iterable[int], str, int], Iterable[int]]
"""Goes through numbers and tells somebody what is being done: (numbers, what, how many)."""


class Landmarks:
    """Features of the frames of a run, and where they are in the world; read when they are asked for.

    positions  in the scene, of the frames that have both
    """

    def __init__(self, scene: Scene, folder: Path, *, small: bool) -> None:
        self._scene, self._small = scene, small
        names = json.loads((folder / FRAMES).read_text(encoding="utf-8"))
        with quiet() as colmap:
            self._database = colmap.Database.open(folder / DATABASE)
            ids = {image.name: image.image_id for image in self._database.read_all_images()}
        found = scene.cameras.found
        self._ids = {
            position: ids[names[str(index)]]
            for position, index in enumerate(scene.table.indices.tolist())
            if found[position] and names.get(str(index)) in ids
        }
        self.positions = list(self._ids)
        self._sparse = _sparse_points(scene, folder / SPARSE, self._ids)

    def close(self) -> None:
        self._database.close()

    def descriptors(self, position: int) -> npt.NDArray[np.uint8]:
        """[F, 128] of the frame at ``position``."""
        return np.array(self._database.read_descriptors(self._ids[position]).data)

    def points(self, position: int) -> FloatArray:
        """[F, 3] world points of the same features, NaN where none is known."""
        if self._sparse is not None:
            return self._sparse[self._ids[position]]
        pixels = self._database.read_keypoints(self._ids[position])[:, :2].astype(np.float64) - 0.5
        frame = self._scene.frame(position)
        return points_at(frame, pixels, small=self._small)


def open_landmarks(scene: Scene, config: LocalizeConfig, watch: Watch) -> Landmarks:
    """The run's features; those of a run that has none are found first, and kept for the next time.

    Raises `RunError` where its pictures are needed and cannot be read, or no camera of it is known.
    """
    pycolmap()
    small = config.pictures == "run"
    folder = scene.path / (SMALL_FOLDER if small else FOLDER)
    if not scene.cameras.found.any():
        raise RunError(f"no camera of {scene.path} was found, so nothing can be found in it; see its report")
    if not _complete(folder, scene):
        _collect(scene, folder, config, watch)
    return Landmarks(scene, folder, small=small)


def _complete(folder: Path, scene: Scene) -> bool:
    try:
        names = json.loads((folder / FRAMES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return (folder / DATABASE).is_file() and all(str(index) in names for index in scene.table.indices.tolist())


def _collect(scene: Scene, folder: Path, config: LocalizeConfig, watch: Watch) -> None:
    pictures = small_pictures(scene) if config.pictures == "run" else run_pictures(scene, config.source)
    names = {}
    first = next(pictures)  # what is wrong with the source is told before anything is made
    store = FeatureStore(folder, threads=torch.get_num_threads())
    try:
        for position, picture in _told(first, pictures, watch, len(scene)):
            names[str(scene.table.indices[position])] = store.name(store.add(picture))
    finally:
        store.close()
    write_json(folder / FRAMES, names)


def _told(
    first: tuple[int, RGBImage], rest: Iterable[tuple[int, RGBImage]], watch: Watch, count: int
) -> Iterable[tuple[int, RGBImage]]:
    waiting = iter(rest)
    current: tuple[int, RGBImage] | None = first
    for _ in watch(range(count), "features of the run", count):
        if current is None:
            continue
        yield current
        current = next(waiting, None)


def _sparse_points(scene: Scene, folder: Path, ids: dict[int, int]) -> dict[int, FloatArray] | None:
    """For each picture's features [F, 3] the points of the run's own sparse model; None where it has none."""
    if not (folder / "cameras.bin").is_file():
        return None
    with quiet() as colmap:
        model = colmap.Reconstruction(folder)
    points: dict[int, FloatArray] = {}
    w2c = np.tile(np.eye(4), (len(ids), 1, 1))
    for place, image_id in zip(w2c, ids.values(), strict=True):
        if not model.exists_image(image_id) or not model.images[image_id].has_pose:
            return None
        image = model.images[image_id]
        place[:3] = image.cam_from_world().matrix()
        rows = [model.points3D[p.point3D_id].xyz if p.has_point3D() else np.full(3, np.nan) for p in image.points2D]
        points[image_id] = np.array(rows).reshape(-1, 3)
    c2w, wanted = np.linalg.inv(w2c), scene.cameras.c2w[list(ids)]
    placement = align_cameras(c2w, wanted)  # a run may have been brought to metres since
    if placement is None:
        return None
    centres = wanted[:, :3, 3]
    apart = np.linalg.norm(placement.apply(c2w[:, :3, 3]) - centres, axis=1)
    if apart.max() > MOVED * float(np.linalg.norm(np.ptp(centres, axis=0))):
        return None  # refined since then: the run's own points are where its cameras are
    return {image_id: placement.apply(found) for image_id, found in points.items()}
