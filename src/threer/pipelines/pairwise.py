"""One photo or two with DUSt3R: the scene in closed form (DUSt3R 3.3, pipelines.md 2.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from threer.config import InputSpec
from threer.errors import ReconstructionError
from threer.geometry.pnp import camera_from_pointmap
from threer.geometry.pnp_search import search_camera
from threer.geometry.projection import unproject
from threer.geometry.transforms import apply, invert
from threer.pipelines.cameras import CameraTracker, estimate_focal
from threer.pipelines.sessions import as_view, check_finite, first_sample
from threer.types import FloatArray, Frame, Pointmap, Prediction, Update, View

MOST_PHOTOS = 2
KEEP = 0.7
WRONG_FOCAL = 2.0
"""Known focal lengths that differ from the points' own by more than this factor are not those of the photos."""
NO_BASELINE = 1e-3
"""Cameras nearer to each other than this share of the scene's depth stand in one place."""
PUBLISHED_MIN_CONF = 3.0
PUBLISHED_ITERATIONS = 100


class PairModel(Protocol):
    """What a model must offer to see photos in pairs: DUSt3R does.

    It returns a prediction for each of two views, in the camera frame of the first.
    """

    @property
    def input(self) -> InputSpec: ...

    def parameters(self) -> Iterator[Tensor]: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def __call__(self, views: Sequence[View]) -> list[Prediction]: ...


@dataclass(frozen=True, eq=False)
class Edge:
    """What a network says about an ordered pair of photos, both in the first one's camera frame.

    own    [H, W] points of the first photo
    other  [H, W] points of the second photo
    """

    own: Pointmap
    other: Pointmap

    @property
    def score(self) -> float:
        """How sure the network is of this pair."""
        return float(self.own.conf.mean() * self.other.conf.mean())


@dataclass(frozen=True, eq=False)
class PlacedPhoto:
    """points [H, W] in the anchor's camera frame; c2w [4, 4] there, NaN where it was not found."""

    points: Pointmap
    c2w: FloatArray


class PairSession:
    """Reconstructs one photo, or two, in the camera frame of one of them.

    The two may differ in size, and in focal length. More photos need a global alignment: `pipelines.alignment`.

    intrinsics    [3, 3] known K in original pixels, or None to estimate each photo's focal length
    shared_focal  where it is estimated: both have one, in network pixels
    """

    def __init__(
        self,
        model: PairModel,
        *,
        intrinsics: FloatArray | None = None,
        shared_focal: bool = False,
        seed: int = 0,
    ) -> None:
        self._model = model
        self._intrinsics = intrinsics
        self._shared_focal = shared_focal
        self._seed = seed
        self._frames: list[Frame] = []
        self._report: dict[str, Any] = {}
        self._ended = False

    @property
    def report(self) -> dict[str, Any]:
        """The photo whose camera frame is the world's, photos without a camera and why, and what is in doubt."""
        return self._report

    def push(self, frame: Frame) -> list[Update]:
        """Take the next photo. Raises ReconstructionError for a third."""
        if self._ended:
            raise ReconstructionError("this session has ended; start a new one for more frames")
        if len(self._frames) == MOST_PHOTOS:
            raise ReconstructionError(
                "the closed form takes one photo or two; global alignment (AlignmentSession) takes more"
            )
        self._frames.append(frame)
        return []

    def finish(self) -> list[Update]:
        """Reconstruct the photos. Raises ReconstructionError when there is none."""
        if self._ended:
            return []
        self._ended = True
        if not self._frames:
            raise ReconstructionError("no frame to reconstruct from")
        with torch.inference_mode():
            return self._reconstruct()

    def _reconstruct(self) -> list[Update]:
        views = [self._encoded(frame) for frame in self._frames]
        edges = [self._edge(views, i) for i in range(len(views))]
        trackers = [CameraTracker(self._intrinsics, keep=KEEP, seed=self._seed) for _ in edges]
        if self._shared_focal:
            trackers = trackers[:1] * len(edges)
        for tracker, edge in zip(trackers, edges, strict=True):
            tracker.observe(edge.own)
        lenses = [tracker.lens(frame) for tracker, frame in zip(trackers, self._frames, strict=True)]
        problems = [self._problem(lens, edge) for lens, edge in zip(lenses, edges, strict=True)]
        network_K = [None if lens is None or why else lens[0] for lens, why in zip(lenses, problems, strict=True)]
        if len(edges) == 1:
            photos, anchor = [PlacedPhoto(edges[0].own, np.eye(4))], 0
        else:
            anchor = int(edges[1].score > edges[0].score)
            photos = place_pair(edges, network_K, anchor, seed=self._seed)
        problems = [
            why or ("" if np.isfinite(photo.c2w).all() else "too few of its points agree with any camera")
            for why, photo in zip(problems, photos, strict=True)
        ]
        names = [frame.name for frame in self._frames]
        self._report = {
            "anchor": names[anchor],
            "unplaced": {name: why for name, why in zip(names, problems, strict=True) if why},
            "ambiguous": self._doubts(photos),
        }
        return [
            Update(
                "final",
                frame,
                points=photo.points,
                local=edge.own,
                c2w=np.full((4, 4), np.nan) if why else photo.c2w,
                K=np.full((3, 3), np.nan) if lens is None else lens[1],
                message=why,
            )
            for frame, photo, edge, lens, why in zip(self._frames, photos, edges, lenses, problems, strict=True)
        ]

    def _problem(self, lens: tuple[FloatArray, FloatArray] | None, edge: Edge) -> str:
        """Why a photo has no lens to find its camera with; empty if it has one."""
        if lens is None:
            return "its points follow no plausible focal length"
        if self._intrinsics is None:
            return ""
        middle = torch.from_numpy(lens[0][:2, 2]).float()
        return (
            wrong_intrinsics(float(lens[0][0, 0]), estimate_focal(edge.own, keep=KEEP, principal_point=middle))
            or ""
        )

    def _doubts(self, photos: Sequence[PlacedPhoto]) -> list[str]:
        """What no second viewpoint confirms."""
        if len(photos) < MOST_PHOTOS or not all(np.isfinite(photo.c2w).all() for photo in photos):
            return []
        (a, b), (first, second) = (frame.name for frame in self._frames), photos
        images = [frame.image for frame in self._frames]
        same = images[0].shape == images[1].shape and torch.equal(*images)
        away = first.points.xyz - torch.from_numpy(first.c2w[:3, 3]).float()
        distance = float(torch.linalg.vector_norm(away, dim=-1).median())
        if not same and np.linalg.norm(first.c2w[:3, 3] - second.c2w[:3, 3]) >= NO_BASELINE * distance:
            return []
        told = "are the same picture" if same else "were taken from one place, or are the same"
        return [f"{a} and {b} {told}: nothing confirms their depth but the network's guess"]

    def _encoded(self, frame: Frame) -> View:
        """A view with its tokens: each photo is encoded once, whatever it is paired with (quirk D5)."""
        view = as_view(frame, next(iter(self._model.parameters())).device)
        assert view.image is not None
        return dataclasses.replace(view, tokens=self._model.encode(view.image))

    def _edge(self, views: Sequence[View], i: int) -> Edge:
        """Photo ``i`` with the other one, or with itself if it is alone."""
        own, other = (first_sample(p.points) for p in self._model([views[i], views[-1 - i]]))
        check_finite(self._frames[i], own)
        check_finite(self._frames[-1 - i], other)
        return Edge(own, other)


def wrong_intrinsics(given: float, asked: float) -> str | None:
    """What is wrong with a known focal length, in network pixels, if a photo's own points ask for quite another."""
    if not asked > 0 or 1 / WRONG_FOCAL < asked / given < WRONG_FOCAL:
        return None
    return (
        f"the intrinsics given do not fit: a focal length of {given:.0f} pixels of the network's image, and its "
        f"points ask for {asked:.0f}"
    )


def place_pair(
    edges: Sequence[Edge], K: Sequence[FloatArray | None], anchor: int, *, seed: int = 0, published: bool = False
) -> list[PlacedPhoto]:
    """Two photos in the camera frame of photo ``anchor``, in closed form.

    edges      both orders: ``edges[i]`` has photo i first
    K          [3, 3] of each photo in network pixels, or None where it is not known
    published  draw the other camera as the original does: no refinement, points above a confidence of 3

    The anchor's depth is its own z; the other camera is found from its points in the anchor's frame (PnP), and its
    depth is their z in that camera. Points are the depths seen along the pixels' rays. Where a lens or the camera
    is not known they stay as they were predicted. Confidence is the larger one of both orders.
    """
    other = 1 - anchor
    predicted = edges[anchor]
    lens = K[other]
    poses = [np.full((4, 4), np.nan)] * 2
    poses[anchor] = np.eye(4)
    if lens is not None and published:
        sure = torch.maximum(edges[other].own.conf, predicted.other.conf) > PUBLISHED_MIN_CONF
        poses[other] = _drawn_camera(predicted.other.xyz[sure], sure, lens)
    elif lens is not None:
        found = camera_from_pointmap(predicted.other.xyz, predicted.other.conf, lens, keep=KEEP, seed=seed)
        poses[other] = poses[other] if found is None else found.c2w
    photos = []
    for i in (0, 1):
        points = predicted.own if i == anchor else predicted.other
        conf = torch.maximum(edges[i].own.conf, edges[1 - i].other.conf)
        photos.append(PlacedPhoto(_along_rays(Pointmap(points.xyz, conf), K[i], poses[i]), poses[i]))
    return photos


def _drawn_camera(points: Tensor, chosen: Tensor, K: FloatArray) -> FloatArray:
    """Camera-to-world [4, 4] from the ``chosen`` pixels [H, W] as the original draws it; NaN if it finds none."""
    height, width = chosen.shape
    pixels = chosen.nonzero().flip(-1).numpy()
    found = search_camera(
        points.numpy(),
        pixels,
        K[:2, 2],
        (width, height),
        focal=float(K[0, 0]),
        iterations=PUBLISHED_ITERATIONS,
    )
    return np.full((4, 4), np.nan) if found is None else found[0]


def _along_rays(points: Pointmap, K: FloatArray | None, c2w: FloatArray) -> Pointmap:
    """``points`` [H, W] moved onto the rays of their pixels; those not in front of the camera count no more."""
    if K is None or not np.isfinite(c2w).all():
        return points
    pose = torch.from_numpy(c2w)
    depth = apply(invert(pose), points.xyz.double())[..., 2]
    xyz = apply(pose, unproject(depth, torch.from_numpy(K)))
    return Pointmap(xyz.to(points.xyz.dtype), torch.where(depth > 0, points.conf, 0.0))
