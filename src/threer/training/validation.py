"""Scores on samples that training never sees, beside the two answers that need no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from threer.errors import ThreerError
from threer.geometry.scale import normalize
from threer.models.cut3r import CUT3R
from threer.models.fast3r import Fast3R
from threer.models.slam3r import SLAM3R, ImageToPoints, LocalToWorld
from threer.training.batch import Batch, Roles, cat
from threer.training.losses import point_distances
from threer.training.networks import Network
from threer.training.objectives.common import image_views, stack_points
from threer.training.objectives.joint import as_scene_and_keys
from threer.training.objectives.sequence import network_views
from threer.training.pool import VALIDATION_SEED, PoolPlan, RoomPool
from threer.training.recipes.recipe import Recipe
from threer.training.sources import Request
from threer.types import Prediction, View

MEAN_POINTMAP = "mean_pointmap.npy"
AT_ONCE = 16
_LANES = 8

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
Run = Callable[[Callable[[Network], PerSample]], PerSample]


class Validation:
    """Fixed generated clips of seeds that training never reaches, one sample of each.

    Of pairs, windows and sets the middle frame is the reference and comes first; clips are in order.
    """

    def __init__(self, recipe: Recipe, device: str | torch.device = "cpu") -> None:
        settings, clip = recipe.validation, recipe.views.sampling == "clip"
        views = settings.views or recipe.views.count[0]
        if views > recipe.synthetic.frames:
            raise ThreerError(f"recipe {recipe.name}: validation.views {views} exceed synthetic.frames")
        self.family, self.seeds = recipe.family, range(VALIDATION_SEED, VALIDATION_SEED + settings.samples)
        self.scene = recipe.views.scene
        lanes = min(settings.samples, _LANES)
        rounds = -(-settings.samples // lanes)
        pool = RoomPool(recipe, PoolPlan(rounds, rounds), lanes, range(lanes), device, VALIDATION_SEED)
        pool.advance(0)
        spread = torch.linspace(0, recipe.synthetic.frames - 1, views).round().long()
        middle = 0 if clip else views // 2
        frames = torch.cat([spread[middle : middle + 1], spread[:middle], spread[middle + 1 :]])
        request = Request(views, pool.size, Roles())
        clips = torch.arange(rounds)
        # the world is the first frame of the walk, as in the pipeline
        drawn = [
            pool.windows(lane, clips, frames.expand(rounds, -1), torch.zeros(rounds, dtype=torch.long), request)
            for lane in range(lanes)
        ]
        # clip i is round i // lanes of lane i % lanes
        self.parts = [
            _gathered(drawn, range(k, min(k + AT_ONCE, settings.samples)))
            for k in range(0, settings.samples, AT_ONCE)
        ]
        self.keys = max(1, views - self.scene) if self.scene else getattr(recipe.objective, "keys", 1)
        self.keys = min(self.keys, views - 1)

    def network(self, run: Run) -> Scores:
        """Scores of a network. ``run`` calls what it is given with the network, in evaluation mode.

        Each process takes its share of the samples; all of them get the same scores.
        """
        return self._over_parts(lambda part: run(lambda model: self._scores(model, part)))

    def mean_pointmap(self, mean: Tensor) -> Scores:
        """Scores of always answering the mean training pointmap [H, W, 3]; keys are left unmoved."""

        def scores(part: Batch) -> PerSample:
            points = mean.to(part.device).expand(*part.depth.shape, 3)
            found = reference_scores(points[:, 0], part) | {"window_error": _window_error(points, part)}
            if self._registers:
                found["register_error"] = _unmoved(points[:, 0], part, self.keys)
            return found

        return self._over_parts(scores)

    def constant_depth(self) -> Scores:
        """Scores of depth 1 everywhere, seen through the mean field of view of this set."""
        slopes = torch.cat([(p.camera[:, 0, ..., :2] / p.camera[:, 0, ..., 2:]) for p in self.parts]).mean(0)
        flat = torch.cat([slopes, torch.ones_like(slopes[..., :1])], dim=-1)
        return self._over_parts(lambda part: reference_scores(flat.expand(len(part), *flat.shape), part))

    def unmoved_keys(self) -> Scores:
        """Scores of leaving the true pointmaps of keys at the origin."""
        if not self._registers:
            return {}
        return self._over_parts(lambda part: {"register_error": _unmoved(part.camera[:, 0], part, self.keys)})

    @property
    def _registers(self) -> bool:
        return self.family in ("slam3r", "slam3r-l2w")

    def _over_parts(self, scores: Callable[[Batch], PerSample]) -> Scores:
        world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
        rank = dist.get_rank() if world > 1 else 0
        names: list[str] = []
        total = None
        with torch.no_grad():
            # all processes go through the same number of parts: a sharded network needs all of them each time
            for part in self.parts:
                shared = len(part) >= world
                found = scores(part.samples(slice(rank, None, world)) if shared else part)
                names = list(found)
                sums = torch.stack([values.double().sum() for values in found.values()])
                sums = sums if shared or rank == 0 else torch.zeros_like(sums)
                total = sums if total is None else total + sums
        assert total is not None
        if world > 1:
            dist.all_reduce(total)
        count = sum(len(part) for part in self.parts)
        return dict(zip(names, (total / count).tolist(), strict=True))

    def _scores(self, model: Network, part: Batch) -> PerSample:
        found: PerSample = {}
        own = None
        if not isinstance(model, LocalToWorld):
            points, _ = predict(model, part)
            own = points[:, 0]
            found = reference_scores(own, part) | {"window_error": _window_error(points, part)}
            copies = replace(part, images=part.images[:, :1].expand_as(part.images))
            found["alone_error"] = reference_scores(predict(model, copies)[0][:, 0], part)["error"]
        if isinstance(model, SLAM3R | LocalToWorld):
            found["register_error"] = self._registered(model, part, own)
        return found

    def _registered(self, model: SLAM3R | LocalToWorld, part: Batch, own: Tensor | None) -> Tensor:
        """[n] error of the reference frame registered with ``own`` points [n, H, W, 3], or with the true ones."""
        order, scene_views = as_scene_and_keys(part.views, self.keys)
        scene = order[:scene_views]
        world = part.points_in(part.world)
        scene_points, factor = normalize(world[:, scene], part.valid[:, scene], zero_invalid=True)
        key_points = part.camera[:, 0] if own is None else own
        images = image_views(part)
        given = [replace(images[v], points=scene_points[:, i]) for i, v in enumerate(scene)]
        key = replace(images[0], points=normalize(key_points.unsqueeze(1))[0][:, 0])
        placed = _register(model, given, key).points.xyz.float()
        truth = world[:, 0] / factor[:, None, None, None]
        return _mean_over(torch.linalg.vector_norm(placed - truth, dim=-1), part.valid[:, 0])


def _register(model: SLAM3R | LocalToWorld, scene: list[View], key: View) -> Prediction:
    if isinstance(model, SLAM3R):
        return model.register(scene, [key], keys_only=True)[0]
    predictions: list[Prediction] = model(scene, [key], keys_only=True)
    return predictions[0]


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


def _gathered(lanes: Sequence[Batch], numbers: range) -> Batch:
    return cat([lanes[i % len(lanes)].samples(slice(i // len(lanes), i // len(lanes) + 1)) for i in numbers])


def save_mean_pointmap(mean: Tensor, folder: Path) -> None:
    np.save(folder / MEAN_POINTMAP, mean.cpu().numpy().astype(np.float16))


def load_mean_pointmap(folder: Path) -> Tensor:
    """[H, W, 3] the mean training pointmap stored beside a checkpoint, mean distance 1.

    The answer to beat: what a model says that never looks at the image.
    """
    return torch.from_numpy(np.load(folder / MEAN_POINTMAP).astype(np.float32))
