"""Scores of predicted points against the truth of a batch, beside those of answers that need no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from threer.geometry.scale import normalize
from threer.models.cut3r import CUT3R
from threer.models.fast3r import Fast3R
from threer.models.slam3r import SLAM3R, ImageToPoints, LocalToWorld
from threer.training.batch import Batch, Roles
from threer.training.losses import point_distances
from threer.training.networks import Network
from threer.training.objectives.common import image_views, stack_points
from threer.training.objectives.joint import as_scene_and_keys
from threer.training.objectives.sequence import network_views
from threer.training.recipes.recipe import Recipe
from threer.types import Prediction, View

MEAN_POINTMAP = "mean_pointmap.npy"

SCORES = {
    "error": "pointmap error",
    "abs_rel": "AbsRel",
    "inlier": "δ<1.25",
    "window_error": "window error",
    "alone_error": "error without other views",
    "register_error": "registration error",
}
"""Every score, and what a table calls it.

error           distance of the reference's pointmap from truth, both divided by their own mean distance
abs_rel         of the reference's depth after the ratio of medians; inlier: share with a ratio below 1.25
window_error    as error, over all views of the sample, jointly normalised
alone_error     as error, where all views are the reference's image
register_error  distance of the registered reference's points from truth, in units of the scene's mean distance
"""

Scores = Mapping[str, float]
PerSample = dict[str, Tensor]


def score_name(recipe: Recipe, source: str, score: str) -> str:
    """What a log calls a score: a recipe of several sources has the source's name in front."""
    return score if len(recipe.data.sources) == 1 else f"{source}_{score}"


@dataclass(frozen=True)
class Scoring:
    """`SCORES` of a batch whose first views are the references, [n] each; only valid pixels count.

    family  of the network
    keys    views of a sample that Local-to-World registers, the reference being the first of them
    """

    family: str
    keys: int

    @classmethod
    def of(cls, recipe: Recipe) -> Scoring:
        """As the recipe trains and validates."""
        views, scene = recipe.validated_views, recipe.views.scene
        keys: int = max(1, views - scene) if scene else getattr(recipe.objective, "keys", 1)
        return cls(recipe.family, min(keys, views - 1))

    def network(self, model: Network, part: Batch) -> PerSample:
        """Of what a network predicts."""
        found: PerSample = {}
        own = None
        if not isinstance(model, LocalToWorld):
            points, _ = predict(model, part)
            own = points[:, 0]
            found = reference_scores(own, part) | {"window_error": _window_error(points, part)}
            copies = replace(
                part,
                images=part.images[:, :1].expand_as(part.images),
                true_shape=part.true_shape[:, :1].expand_as(part.true_shape),
            )
            found["alone_error"] = reference_scores(predict(model, copies)[0][:, 0], part)["error"]
        if isinstance(model, SLAM3R | LocalToWorld):
            found["register_error"] = self._registered(model, part, own)
        return found

    def mean_pointmap(self, mean: Tensor, part: Batch) -> PerSample:
        """Of always answering the mean training pointmap [H, W, 3]; keys are left unmoved."""
        points = _as_stored(mean.to(part.device).expand(*part.depth.shape, 3), part.turned)
        found = reference_scores(points[:, 0], part) | {"window_error": _window_error(points, part)}
        if self._registers:
            found["register_error"] = _unmoved(points[:, 0], part, self.keys)
        return found

    def constant_depth(self, slopes: Tensor, part: Batch) -> PerSample:
        """Of depth 1 everywhere, seen along the mean `slopes` [H, W, 2] of a set."""
        flat = torch.cat([slopes, torch.ones_like(slopes[..., :1])], dim=-1)
        return reference_scores(_as_stored(flat.expand(len(part), *flat.shape), part.turned[:, 0]), part)

    def unmoved_keys(self, part: Batch) -> PerSample:
        """Of leaving the true pointmaps of keys at the origin; nothing where none are registered."""
        return {"register_error": _unmoved(part.camera[:, 0], part, self.keys)} if self._registers else {}

    @property
    def _registers(self) -> bool:
        return self.family in ("slam3r", "slam3r-l2w")

    def _registered(self, model: SLAM3R | LocalToWorld, part: Batch, own: Tensor | None) -> Tensor:
        """[n] error of the reference frame registered with ``own`` points [n, H, W, 3], or with the true ones."""
        order, scene_views = as_scene_and_keys(part.views, self.keys)
        scene = order[:scene_views]
        world = part.points_in(part.world)
        scene_points, factor = normalize(world[:, scene], part.valid[:, scene], zero_invalid=True)
        if own is None:
            key_points = normalize(part.camera[:, :1], part.valid[:, :1], zero_invalid=True)[0][:, 0]
        else:
            key_points = normalize(own.unsqueeze(1))[0][:, 0]
        images = image_views(part)
        given = [replace(images[v], points=scene_points[:, i]) for i, v in enumerate(scene)]
        placed = _register(model, given, replace(images[0], points=key_points)).points.xyz.float()
        truth = world[:, 0] / factor[:, None, None, None]
        return _mean_over(torch.linalg.vector_norm(placed - truth, dim=-1), part.valid[:, 0])


def slopes(part: Batch) -> Tensor:
    """[n, H, W, 2] x/z and y/z of every pixel of the first views, as if all of them were stored upright."""
    first = part.of_views([0], Roles())
    flat = replace(first, depth=torch.ones_like(first.depth), valid=torch.ones_like(first.valid))
    return _as_stored(flat.camera[:, 0], first.turned[:, 0])[..., :2]


def predict(model: Network, batch: Batch) -> tuple[Tensor, Tensor]:
    """Points [B, V, H, W, 3] in the first view's frame and confidences [B, V, H, W] of any network but L2W."""
    predictions: Sequence[Prediction]
    if isinstance(model, CUT3R):
        predictions = model(network_views(batch, model.config.true_rays))
    elif isinstance(model, SLAM3R):
        predictions = model.local(image_views(batch), 0)
    elif isinstance(model, ImageToPoints):
        predictions = model(image_views(batch), 0)
    elif isinstance(model, Fast3R):
        predictions = model(image_views(batch), seed=0)
    else:
        predictions = model(image_views(batch))
    return stack_points(predictions)


def reference_scores(points: Tensor, part: Batch) -> PerSample:
    """`SCORES` of pointmaps [n, H, W, 3] of the first views, in any scale; [n] each."""
    valid, truth = part.valid[:, :1], part.camera[:, :1]
    scaled = normalize(points.unsqueeze(1), valid)[0] - normalize(truth, valid)[0]
    abs_rel, inlier = depth_scores(points[..., 2], truth[:, 0, ..., 2], valid[:, 0])
    return {"error": _mean_over(scaled.norm(dim=-1)[:, 0], valid[:, 0]), "abs_rel": abs_rel, "inlier": inlier}


def depth_scores(depth: Tensor, truth: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """AbsRel and share of ratios below 1.25 [n] of depths [n, H, W], after matching the median of each map."""
    valid = torch.ones_like(truth, dtype=torch.bool) if valid is None else valid
    nothing = torch.full((), torch.nan, device=depth.device)
    medians = [torch.where(valid, x, nothing).flatten(1).nanmedian(1).values for x in (depth, truth)]
    scaled = depth * (medians[1] / medians[0])[:, None, None]
    safe = torch.where(valid, truth, 1.0)
    ratio = torch.maximum(scaled / safe, safe / scaled.clamp(min=1e-6))
    return _mean_over((scaled - safe).abs() / safe, valid), _mean_over((ratio < 1.25).to(depth.dtype), valid)


def _register(model: SLAM3R | LocalToWorld, scene: list[View], key: View) -> Prediction:
    if isinstance(model, SLAM3R):
        return model.register(scene, [key], keys_only=True)[0]
    predictions: list[Prediction] = model(scene, [key], keys_only=True)
    return predictions[0]


def _as_stored(points: Tensor, turned: Tensor) -> Tensor:
    """Points [..., H, W, 3] of upright pictures with x and y swapped where ``turned`` [...], and back."""
    flags = turned[..., None, None, None].to(points.device)
    return torch.where(flags, points[..., [1, 0, 2]], points)


def _window_error(points: Tensor, part: Batch) -> Tensor:
    distances = point_distances(points, part.points_in(part.c2w[:, 0]), part.valid)
    return _mean_over(distances.flatten(1), part.valid.flatten(1))


def _unmoved(points: Tensor, part: Batch, keys: int) -> Tensor:
    order, scene_views = as_scene_and_keys(part.views, keys)
    world = part.points_in(part.world)[:, order]
    _, factor = normalize(world[:, :scene_views], part.valid[:, order[:scene_views]])
    truth = world[:, scene_views] / factor[:, None, None, None]
    left = normalize(points.unsqueeze(1), part.valid[:, :1])[0][:, 0]
    return _mean_over((left - truth).norm(dim=-1), part.valid[:, 0])


def _mean_over(values: Tensor, valid: Tensor) -> Tensor:
    """[n] means of values [n, ...] over what is valid."""
    kept = torch.where(valid, values, 0.0).flatten(1).sum(1)
    return kept / valid.flatten(1).sum(1).clamp(min=1)


def save_mean_pointmap(mean: Tensor, folder: Path) -> None:
    np.save(folder / MEAN_POINTMAP, mean.cpu().numpy().astype(np.float16))


def load_mean_pointmap(folder: Path) -> Tensor:
    """[H, W, 3] the mean training pointmap stored beside a checkpoint, mean distance 1.

    The answer to beat: what a model says that never looks at the image.
    """
    return torch.from_numpy(np.load(folder / MEAN_POINTMAP).astype(np.float32))
