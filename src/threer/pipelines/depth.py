"""Depth of one photo, alone or with the help of others, by a network of DUSt3R's kind (DUSt3R 4.3, 4.4).

    depth = threer.monocular_depth("photo.jpg", "dust3r").depth
    depth = threer.multi_view_depth("photo.jpg", ["left.jpg", "right.jpg"], "dust3r").depth

Depth is z in a unit of the network's own; for a metric, only its proportions count. `evaluation.depth` compares it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from threer.errors import CheckpointError, ReconstructionError
from threer.geometry.projection import centred_intrinsics, invert_affine, transform_intrinsics
from threer.io.frames import RawFrame, to_frame
from threer.io.images import RGBImage, check_picture, load_image
from threer.models.checkpoints import family_of
from threer.models.registry import load_model
from threer.pipelines.cameras import PLAUSIBLE_FOCAL, estimate_focal
from threer.pipelines.pairwise import PairModel
from threer.pipelines.sessions import as_view, check_finite, first_sample
from threer.types import FloatArray, Frame, Pointmap, View

KEEP = 0.7
"""Share of the pixels, the most confident ones, that the focal length is estimated from."""

Picture = str | Path | RGBImage


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Depth of a photo, as the network saw it.

    depth        [H, W] float32 z, NaN where it is not in front of the camera
    conf         [H, W] float32
    K            [3, 3] in original pixels, from the points; NaN where no focal length is plausible
    size         (W, H) of the original
    to_original  [2, 3] pixel of the depth map -> original pixel
    views        photos that it was made from, beside the photo itself
    """

    depth: FloatArray
    conf: FloatArray
    K: FloatArray
    size: tuple[int, int]
    to_original: FloatArray
    views: int

    def at_original(self) -> FloatArray:
        """[H, W] depth at every pixel of the original, NaN outside of what the network saw."""
        affine = invert_affine(self.to_original)
        u, v = np.meshgrid(np.arange(self.size[0]), np.arange(self.size[1]))
        x, y = (np.stack([u, v, np.ones_like(u)], axis=-1) @ affine.T).astype(np.float32).transpose(2, 0, 1)
        height, width = self.depth.shape
        seen = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
        sampled = cv2.remap(self.depth.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.where(seen, sampled, np.nan).astype(np.float32)


def monocular_depth(picture: Picture, model: PairModel | str | Path = "dust3r", *, device: str = "cpu") -> DepthMap:
    """Depth of one photo: the network sees it twice (DUSt3R 4.4).

    picture  an image file or [H, W, 3] uint8
    model    a network, or weights by name, file or folder; these are loaded at each call

    Raises `SourceError` for what is no picture, `CheckpointError` for weights of another kind or broken ones.
    """
    network = _network(model, device)
    frame = _frame(picture, network, "the photo")
    with torch.inference_mode():
        view = _encoded(frame, network)
        own = _own_points(network, frame, view, view)
    return _depth_map(frame, own.depth, own.conf, own, 0)


def multi_view_depth(
    key: Picture, sources: Sequence[Picture], model: PairModel | str | Path = "dust3r", *, device: str = "cpu"
) -> DepthMap:
    """Depth of the photo ``key`` with the help of others (DUSt3R 4.3): no camera needs to be known.

    The key is paired with each source, which gives its depth in a unit of the pair's own. The depths are brought to
    the first one's unit by the median ratio, and averaged by confidence; a pair without depth in common with the
    first is left out. The order of the sources matters to the unit only.

    Raises as `monocular_depth`, and `ReconstructionError` without sources, or where no pair gives any depth.
    """
    if not len(sources):
        raise ReconstructionError("multi-view depth needs other photos beside the key; monocular_depth takes one")
    network = _network(model, device)
    frame = _frame(key, network, "the key")
    others = [_frame(source, network, f"source {k}") for k, source in enumerate(sources)]
    total = weights = first = None
    used = 0
    surest: Pointmap | None = None
    with torch.inference_mode():
        view = _encoded(frame, network)
        for other in others:
            own = _own_points(network, frame, view, _encoded(other, network))
            known = own.depth > 0
            if first is None:
                scale = 1.0
                if not known.any():
                    continue
                first = torch.where(known, own.depth, torch.nan)
                total, weights = torch.zeros_like(first), torch.zeros_like(first)
            else:
                common = known & first.isfinite()
                if not common.any():
                    continue
                scale = float((first[common] / own.depth[common]).median())
            assert total is not None
            assert weights is not None
            total += torch.where(known, scale * own.depth * own.conf, 0.0)
            weights += torch.where(known, own.conf, 0.0)
            used += 1
            if surest is None or own.conf.mean() > surest.conf.mean():
                surest = own
    if total is None or weights is None or surest is None:
        raise ReconstructionError("no pair of photos gives any depth in front of the camera: other weights may")
    return _depth_map(frame, total / weights, weights / used, surest, used)


def _network(model: PairModel | str | Path, device: str) -> PairModel:
    if not isinstance(model, str | Path):
        return model
    loaded = load_model(model, device=device)
    if family_of(loaded) != "dust3r":
        raise CheckpointError(
            f"the weights {str(model)!r} are not of DUSt3R's kind, which alone give depth of pairs"
        )
    return loaded


def _frame(picture: Picture, network: PairModel, name: str) -> Frame:
    known = isinstance(picture, str | Path)
    image = load_image(picture) if known else check_picture(picture)  # type: ignore[arg-type]
    return to_frame(RawFrame(image, 0, 0.0, str(picture) if known else name), network.input)


def _encoded(frame: Frame, network: PairModel) -> View:
    view = as_view(frame, next(iter(network.parameters())).device)
    assert view.image is not None
    return View(view.image, tokens=network.encode(view.image))


def _own_points(network: PairModel, frame: Frame, view: View, other: View) -> Pointmap:
    """Points of ``frame`` in its own camera's frame, in the pair with ``other``."""
    own = first_sample(network([view, other])[0].points)
    check_finite(frame, own)
    return own


def _depth_map(frame: Frame, depth: torch.Tensor, conf: torch.Tensor, points: Pointmap, views: int) -> DepthMap:
    focal = estimate_focal(points, keep=KEEP)
    unit = max(frame.size)
    K = np.full((3, 3), np.nan)
    if PLAUSIBLE_FOCAL[0] * unit <= focal <= PLAUSIBLE_FOCAL[1] * unit:
        K = transform_intrinsics(centred_intrinsics(focal, *frame.size), frame.to_original)
    shown = torch.where(depth > 0, depth, torch.nan)
    return DepthMap(shown.numpy(), conf.numpy(), K, frame.original_size, frame.to_original, views)
