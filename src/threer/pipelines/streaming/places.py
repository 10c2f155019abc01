"""What is kept of a frame of a stream to know its place again: features with their points, and a small pointmap."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from threer.io.runs.layout import PackedPoints, StoredFrame, pack_points, unpack_points
from threer.pipelines.classical.colmap import pycolmap, quiet
from threer.pipelines.classical.matching import MAX_ERROR_PX, mutual_matches
from threer.pipelines.lookup import points_at
from threer.pipelines.refine.loops import Limits, Loop, as_similarity, verify
from threer.types import FloatArray, Sim3, Update

MOST_FEATURES = 1024
LONGEST_SIDE = 112
"""Of the small pointmap, in pixels."""


@dataclass(eq=False)
class Place:
    """A frame of a stream as it is kept; coordinates are of its own camera, in the unit in which it came.

    index        in the source
    chain        camera to world, as the steps from place to place say
    now          the same, as all loops say by now: where the run has it
    K, size      [3, 3] in original pixels, and (W, H) of the original
    to_original  [2, 3] pixel of the small pointmap -> original pixel
    pixels       [F, 2] features, in original pixels
    descriptors  [F, 128] uint8 root-SIFT
    points       [F, 3] float32
    small        [h, w, 3] float16 pointmap, NaN where not known; times ``unit``, plus ``offset``
    colors       [h, w, 3] uint8
    """

    index: int
    chain: Sim3
    now: Sim3
    K: FloatArray
    size: tuple[int, int]
    to_original: FloatArray
    pixels: Tensor
    descriptors: Tensor
    points: Tensor
    small: Tensor
    unit: float
    offset: npt.NDArray[np.float64]
    colors: Tensor

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.pixels, self.descriptors, self.points, self.small, self.colors))

    def frame(self, placed: Sim3 | None = None) -> StoredFrame:
        """The small pointmap as a frame, in its own camera; ``placed``: its points in the world instead."""
        points = unpack_points(PackedPoints(self.small.numpy(), np.asarray(self.offset), self.unit))
        known = np.asarray(np.isfinite(points).all(axis=-1))
        return StoredFrame(
            name="",
            index=self.index,
            timestamp=0.0,
            points=points if placed is None else placed.apply(points.astype(np.float64)).astype(np.float32),
            conf=np.asarray(known, np.float32),
            colours=self.colors.numpy(),
            c2w=np.eye(4),
            K=self.K,
            size=np.array(self.size),
            to_original=self.to_original,
        )


def remember(update: Update) -> Place | None:
    """What to keep of a final frame; None without a camera, or with too few features whose points are known."""
    frame = StoredFrame.from_update(update)
    if not (np.isfinite(frame.c2w).all() and np.isfinite(frame.K).all()):
        return None
    pixels, descriptors = find_features(frame.colours)
    world = points_at(frame, pixels.astype(np.float64), small=True)
    known = np.isfinite(world).all(axis=1)
    if known.sum() < Limits().inliers:
        return None
    pose = as_similarity(frame.c2w)
    step = max(1, -(-max(frame.conf.shape) // LONGEST_SIDE))
    thumbnail = np.ascontiguousarray(frame.points[::step, ::step]).astype(np.float64)
    packed = pack_points(pose.inverse().apply(thumbnail).astype(np.float32), "float16")
    affine = frame.to_original
    return Place(
        index=int(frame.index),
        chain=pose,
        now=pose,
        K=frame.K,
        size=(int(frame.size[0]), int(frame.size[1])),
        to_original=np.column_stack([affine[:, :2] * step, affine[:, 2]]),
        pixels=torch.from_numpy((pixels[known] @ affine[:, :2].T + affine[:, 2]).astype(np.float32)),
        descriptors=torch.from_numpy(np.ascontiguousarray(descriptors[known])),
        points=torch.from_numpy(pose.inverse().apply(world[known]).astype(np.float32)),
        small=torch.from_numpy(np.ascontiguousarray(packed.values)),
        unit=float(packed.scale),
        offset=packed.offset,
        colors=torch.from_numpy(np.ascontiguousarray(frame.colours[::step, ::step])),
    )


def compare(a: Place, b: Place, limits: Limits, *, seed: int = 0) -> Loop | str:
    """The loop between two places, by their indices, or why there is none (see `refine.loops.verify`)."""
    mine, theirs = mutual_matches(a.descriptors.numpy(), b.descriptors.numpy())
    if len(mine) < limits.inliers:
        return "too few features match"
    with quiet() as colmap:
        options = colmap.TwoViewGeometryOptions()
        options.ransac.random_seed = seed
        options.ransac.max_error = MAX_ERROR_PX * max(a.size) / (LONGEST_SIDE * 2)
        colmap.set_random_seed(seed)
        cameras = [_camera(place) for place in (a, b)]
        both = [place.pixels.numpy()[rows].astype(np.float64) + 0.5 for place, rows in ((a, mine), (b, theirs))]
        rows = np.stack([np.arange(len(mine))] * 2, axis=1).astype(np.uint32)
        found = colmap.estimate_two_view_geometry(cameras[0], both[0], cameras[1], both[1], rows, options)
    kept = np.asarray(found.inlier_matches, np.int64).reshape(-1, 2)[:, 0]
    points = (a.points.numpy()[mine[kept]].astype(np.float64), b.points.numpy()[theirs[kept]].astype(np.float64))
    return verify((a.index, b.index), (a.frame(), b.frame()), points, limits, seed=seed)


def find_features(picture: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Pixels [F, 2], centres at integers, and root-SIFT [F, 128] of a small picture [H, W, 3]."""
    grey = np.round(picture @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    with quiet() as colmap:
        found, descriptors = _extractor().extract_from_uint8_array(grey)
        keypoints = np.array(colmap.keypoints_to_matrix(found), np.float32)
    return keypoints[:, :2] - 0.5, np.array(descriptors.data)


@cache
def _extractor() -> Any:
    colmap = pycolmap()
    options = colmap.FeatureExtractionOptions()
    options.num_threads = 1
    options.sift.max_num_features = MOST_FEATURES
    return colmap.FeatureExtractor.create(options, colmap.Device.cpu)


def _camera(place: Place) -> Any:
    K = place.K
    params = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
    camera = pycolmap().Camera(model="PINHOLE", width=place.size[0], height=place.size[1], params=params)
    camera.has_prior_focal_length = True
    return camera
