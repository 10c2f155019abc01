"""Local features of pictures in a COLMAP database: found once, for mapping, refinement and localisation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from threer.errors import RunError
from threer.io.images import RGBImage
from threer.pipelines.classical.colmap import pycolmap, quiet
from threer.types import FloatArray

DATABASE = "features.db"
KEY = "features.json"
GUESSED_FOCAL = 1.2
"""Focal length to begin with where it is unknown, in units of the longer side: COLMAP's guess."""
IdArray = npt.NDArray[np.int64]


class FeatureStore:
    """SIFT features and verified matches of pictures, in ``folder``.

    A picture is known by its content: one that is there already, from an earlier run or as the repetition of
    another frame, is not looked at again. Pictures of one size share a camera. Coordinates in the database are
    COLMAP's, half a pixel more than ours; what the methods here take and give is ours.

    folder        is made; what was found with other settings is removed from it
    intrinsics    [3, 3] known K in original pixels, or None
    longest_side  larger pictures are shrunk to so many pixels for the search
    most          features of a picture
    threads       of the search for features and matches
    """

    def __init__(
        self,
        folder: Path,
        *,
        intrinsics: FloatArray | None = None,
        longest_side: int = 1600,
        most: int = 4096,
        threads: int = 1,
    ) -> None:
        self.folder, self.threads, self.intrinsics = folder, threads, intrinsics
        self.path = folder / DATABASE
        self._longest_side = longest_side
        key = {
            "pycolmap": pycolmap().__version__,
            "intrinsics": None if intrinsics is None else intrinsics.tolist(),
            "longest_side": longest_side,
            "most": most,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._keep_if_same(key)
        except OSError as error:
            raise RunError(f"{folder} cannot hold the features ({error}); choose another folder") from error
        with quiet() as colmap:
            options = colmap.FeatureExtractionOptions()
            options.num_threads = threads
            options.sift.max_num_features = most
            self._extractor = colmap.FeatureExtractor.create(options, colmap.Device.cpu)
            try:
                self._database = colmap.Database.open(self.path)
            except RuntimeError:  # how pycolmap reports a file that is no database
                raise RunError(f"{self.path} is damaged: remove it, its features are then found anew") from None
            self._ids = {image.name: image.image_id for image in self._database.read_all_images()}
            self._cameras = {
                (c.width, c.height, float(c.params[0]) if c.has_prior_focal_length else None): c.camera_id
                for c in self._database.read_all_cameras()
            }

    def add(self, picture: RGBImage) -> int:
        """The id of a picture [H, W, 3], upright; its features are found if they are not known."""
        name = hashlib.sha256(repr(picture.shape).encode() + picture.tobytes()).hexdigest()[:24]
        if name not in self._ids:
            keypoints, descriptors = self._extract(picture)
            height, width = picture.shape[:2]
            colmap = pycolmap()
            image = colmap.Image(name=name, camera_id=self._camera(width, height, None))
            with colmap.DatabaseTransaction(self._database):
                image.image_id = self._database.write_image(image)
                frame = colmap.Frame(rig_id=image.camera_id)
                frame.add_data_id(image.data_id)
                self._database.write_frame(frame)
                self._database.write_keypoints(image.image_id, keypoints)
                self._database.write_descriptors(image.image_id, descriptors)
            self._ids[name] = image.image_id
        return int(self._ids[name])

    def begins_with(self, image: int) -> float | None:
        """The focal length that a picture's camera is known to have, or said to; None for a guess."""
        camera = self._database.read_camera(self.camera(image))
        return float(camera.params[0]) if camera.has_prior_focal_length else None

    def camera(self, image: int) -> int:
        """The id of a picture's camera."""
        return int(self._database.read_image(image).camera_id)

    def begin_with(self, focals: Mapping[int, float | None]) -> None:
        """Focal lengths in pixels, not to be far from, for pictures of unknown ones; None for a guess.

        Pictures of one size and focal length share a camera from now on. What matches stays as it is.
        """
        colmap = pycolmap()
        for image_id, focal in focals.items():
            image = self._database.read_image(image_id)
            camera = self._database.read_camera(image.camera_id)
            wanted = self._camera(camera.width, camera.height, focal)
            image.camera_id = wanted
            frame = colmap.Frame(rig_id=wanted, frame_id=image.frame_id)
            frame.add_data_id(image.data_id)
            with colmap.DatabaseTransaction(self._database):
                self._database.update_frame(frame)
                self._database.update_image(image)

    def name(self, image: int) -> str:
        """By which the database knows a picture."""
        return str(self._database.read_image(image).name)

    def keypoints(self, image: int) -> npt.NDArray[np.float32]:
        """[F, 2] pixels of the original, centres at integers."""
        return np.asarray(self._database.read_keypoints(image)[:, :2] - 0.5, np.float32)

    def descriptors(self, image: int) -> npt.NDArray[np.uint8]:
        """[F, 128] root-SIFT."""
        return np.array(self._database.read_descriptors(image).data)

    def matches(self, first: int, second: int) -> IdArray:
        """[M, 2] features of both pictures that geometry confirmed; none for a pair that was not compared."""
        if not self._database.exists_two_view_geometry(first, second):
            return np.empty((0, 2), np.int64)
        found = self._database.read_two_view_geometry(first, second)
        return np.asarray(found.inlier_matches, np.int64).reshape(-1, 2)

    def verified(self, images: set[int] | None = None) -> dict[tuple[int, int], IdArray]:
        """Matches of all pairs that geometry confirmed, or of those among ``images``."""
        pairs, geometries = self._database.read_two_view_geometries()
        colmap = pycolmap()
        found = {}
        for pair, geometry in zip(pairs, geometries, strict=True):
            first, second = colmap.pair_id_to_image_pair(pair)
            if len(geometry.inlier_matches) and (images is None or {first, second} <= images):
                found[first, second] = np.asarray(geometry.inlier_matches, np.int64)
        return found

    def degenerate_share(self) -> float:
        """Share of the confirmed pairs whose matches a plane or a mere rotation explains; NaN without any."""
        kinds = pycolmap().TwoViewGeometryConfiguration
        flat = {kinds.PLANAR, kinds.PANORAMIC, kinds.PLANAR_OR_PANORAMIC}
        found = [g.config in map(int, flat) for g in self._database.read_two_view_geometries()[1] if g.config > 1]
        return float(np.mean(found)) if found else float("nan")

    def compared(self, first: int, second: int) -> bool:
        """Whether this pair was looked at."""
        return bool(self._database.exists_two_view_geometry(first, second))

    def close(self) -> None:
        self._database.close()

    def _extract(self, picture: RGBImage) -> tuple[npt.NDArray[np.float32], Any]:
        grey = Image.fromarray(picture).convert("L")
        shrink = min(1.0, self._longest_side / max(grey.size))
        size = max(1, round(grey.width * shrink)), max(1, round(grey.height * shrink))
        small = grey if size == grey.size else grey.resize(size, Image.Resampling.LANCZOS)
        with quiet() as colmap:
            found, descriptors = self._extractor.extract_from_uint8_array(np.asarray(small))
            keypoints = np.array(colmap.keypoints_to_matrix(found), np.float32)
        # COLMAP's coordinates begin at the outer edge, so scaling is all there is to do.
        keypoints[:, :2] *= np.array(grey.size) / size
        keypoints[:, 2] /= shrink
        return keypoints, descriptors

    def _camera(self, width: int, height: int, focal: float | None) -> int:
        """The id of the camera of a size, and of a focal length to begin with where one is known roughly."""
        K = self.intrinsics
        focal = focal if K is None else float(K[0, 0])
        if (width, height, focal) in self._cameras:
            return int(self._cameras[width, height, focal])
        colmap = pycolmap()
        if K is None:
            start = GUESSED_FOCAL * max(width, height) if focal is None else focal
            model, params = "SIMPLE_PINHOLE", [start, width / 2, height / 2]
        else:
            model, params = "PINHOLE", [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
        camera = colmap.Camera(model=model, width=width, height=height, params=params)
        camera.has_prior_focal_length = focal is not None
        camera.camera_id = self._database.write_camera(camera)
        rig = colmap.Rig(rig_id=camera.camera_id)
        rig.add_ref_sensor(camera.sensor_id)
        self._database.write_rig(rig, use_rig_id=True)
        self._cameras[width, height, focal] = camera.camera_id
        return int(camera.camera_id)

    def _keep_if_same(self, key: Mapping[str, Any]) -> None:
        """Begin anew unless the database was made with the same settings."""
        path, text = self.folder / KEY, json.dumps(key)
        if not path.is_file() or path.read_bytes() != text.encode():
            path.unlink(missing_ok=True)
            for suffix in ("", "-wal", "-shm", "-journal"):
                self.path.with_name(DATABASE + suffix).unlink(missing_ok=True)
            path.write_bytes(text.encode())
