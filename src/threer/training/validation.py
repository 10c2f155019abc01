"""Scores on rooms that training never sees, beside the two answers that need no network."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from threer.geometry.scale import normalize
from threer.models.slam3r import SLAM3R
from threer.training.batch import Batch
from threer.training.losses import point_distances
from threer.training.mini import SLAM3RMini
from threer.training.objectives.common import stack_points
from threer.training.objectives.joint import as_scene_and_keys
from threer.training.pool import VALIDATION_SEED, ClipPool
from threer.types import View

CLIPS = 48
MEAN_POINTMAP = "mean_pointmap.npy"


@dataclass(frozen=True)
class Scores:
    """Means over the validation windows.

    error           distance of the reference's pointmap from truth, both divided by their own mean distance
    window_error    the same over all views of the window, jointly normalised
    abs_rel         of the reference's depth after the ratio of medians
    inlier          share of its pixels with depth ratio below 1.25
    register_error  distance of registered key points from truth, in units of the scene's mean distance,
                    with Image-to-Points' own pointmap of the key
    """

    error: float
    abs_rel: float
    inlier: float
    window_error: float = float("nan")
    register_error: float = float("nan")

    def row(self) -> dict[str, float]:
        return asdict(self)


class Validation:
    """A fixed set of unseen windows: one window of each of ``clips`` rooms, its middle frame the reference."""

    def __init__(self, recipe: SLAM3RMini, clips: int = CLIPS, views: int = 5, seed: int = VALIDATION_SEED) -> None:
        pool = ClipPool(clips, recipe.clip_frames, recipe.network.image_size, recipe.style, first_seed=seed)
        pool.grow(clips)
        spread = torch.linspace(0, recipe.clip_frames - 1, views).round().long()
        middle = views // 2
        frames = torch.cat([spread[middle : middle + 1], spread[:middle], spread[middle + 1 :]])
        self.keys = recipe.keys
        # the world is the first frame of the walk, as in the pipeline
        self.windows = pool.windows(
            torch.arange(clips), frames.expand(clips, -1), torch.zeros(clips, dtype=torch.long)
        )
        self.truth = normalize(self.windows.camera[:, :1])[0]

    def network(self, model: SLAM3R, batch: int = 16) -> Scores:
        """Scores of a model, which is left in evaluation mode."""
        model.eval()
        references, window_errors, register_errors = [], [], []
        with torch.inference_mode():
            for start in range(0, len(self.windows.images), batch):
                part = self.windows.samples(slice(start, start + batch))
                tokens = torch.unflatten(model.encode(part.images.flatten(0, 1)), 0, part.images.shape[:2])
                views = [View(part.images[:, v], tokens=tokens[:, v]) for v in range(tokens.shape[1])]
                points, _ = stack_points(model.local(views, ref=0))
                valid = torch.ones(points.shape[:-1], dtype=torch.bool)
                window_errors.append(point_distances(points, part.points_in(part.c2w[:, 0]), valid).mean((1, 2, 3)))
                references.append(points[:, :1])
                register_errors.append(self._registered(model, part, views, points[:, :1]))
        scores = self.reference_maps(torch.cat(references))
        return Scores(
            scores.error,
            scores.abs_rel,
            scores.inlier,
            float(torch.cat(window_errors).mean()),
            float(torch.cat(register_errors).mean()),
        )

    def reference_maps(self, points: Tensor) -> Scores:
        """Scores of pointmaps [n, 1, H, W, 3] of the reference frames, in any scale."""
        error = (normalize(points)[0] - self.truth).norm(dim=-1).mean()
        return Scores(float(error), *depth_scores(points[..., 2], self.truth[..., 2]))

    def mean_pointmap(self, mean: Tensor) -> Scores:
        """Scores of always answering the mean training pointmap [H, W, 3]; keys are left unmoved."""
        scores = self.reference_maps(mean.expand_as(self.truth))
        in_reference = self.windows.points_in(self.windows.c2w[:, 0])
        valid = torch.ones(in_reference.shape[:-1], dtype=torch.bool)
        window_error = point_distances(mean.expand_as(in_reference), in_reference, valid).mean()
        return dataclasses.replace(
            scores, window_error=float(window_error), register_error=self.unmoved_keys(mean.expand_as(self.truth))
        )

    def constant_depth(self) -> Scores:
        """Scores of depth 1 everywhere, seen through the mean field of view of this set."""
        slopes = (self.truth[..., :2] / self.truth[..., 2:]).mean(dim=(0, 1))
        flat = torch.cat([slopes, torch.ones_like(slopes[..., :1])], dim=-1)
        return self.reference_maps(flat.expand_as(self.truth))

    def unmoved_keys(self, points: Tensor | None = None) -> float:
        """`Scores.register_error` of leaving the keys' pointmaps [n, 1, H, W, 3] at the origin, at unit scale.

        Without ``points``, of the true pointmaps.
        """
        order, scene_views = as_scene_and_keys(self.windows.images.shape[1], self.keys)
        world = self.windows.points_in(self.windows.world)[:, order]
        _, factor = normalize(world[:, :scene_views])
        truth = world[:, scene_views : scene_views + 1] / factor[:, None, None, None, None]
        left = self.truth if points is None else normalize(points)[0]
        return float((left - truth).norm(dim=-1).mean())

    def _registered(self, model: SLAM3R, part: Batch, views: list[View], own: Tensor) -> Tensor:
        """[n] error of the reference frame registered with its own predicted points."""
        order, scene_views = as_scene_and_keys(len(views), self.keys)
        scene = order[:scene_views]
        world = part.points_in(part.world)
        scene_points, factor = normalize(world[:, scene])
        given = [
            View(views[v].image, tokens=views[v].tokens, points=scene_points[:, i]) for i, v in enumerate(scene)
        ]
        key = View(views[0].image, tokens=views[0].tokens, points=normalize(own)[0][:, 0])
        placed = model.register(given, [key], keys_only=True)[0].points.xyz
        truth = world[:, 0] / factor[:, None, None, None]
        error: Tensor = torch.linalg.vector_norm(placed - truth, dim=-1).mean((1, 2))
        return error


def depth_scores(depth: Tensor, truth: Tensor) -> tuple[float, float]:
    """AbsRel and share of ratios below 1.25 of depths [n, 1, H, W], after matching the median of each map."""
    depth, truth = depth.flatten(1), truth.flatten(1)
    scaled = depth * (truth.median(1).values / depth.median(1).values).unsqueeze(1)
    abs_rel = ((scaled - truth).abs() / truth).mean()
    ratio = torch.maximum(scaled / truth, truth / scaled.clamp(min=1e-6))
    return float(abs_rel), float((ratio < 1.25).float().mean())


def mean_training_pointmap(pool: ClipPool) -> Tensor:
    """[H, W, 3] mean over all frames of the pool's clips of the pointmap divided by its mean distance."""
    total, count = torch.zeros(()), 0
    for clip in range(len(pool)):
        frames = torch.arange(pool.frames).unsqueeze(1)
        windows = pool.windows(torch.full((pool.frames,), clip), frames, frames[:, 0])
        total = total + normalize(windows.camera.cpu())[0].sum(dim=(0, 1))
        count += pool.frames
    return total / count


def save_mean_pointmap(mean: Tensor, folder: Path) -> None:
    np.save(folder / MEAN_POINTMAP, mean.numpy().astype(np.float16))


def load_mean_pointmap(folder: Path) -> Tensor:
    """[H, W, 3] the mean training pointmap stored beside a checkpoint, mean distance 1.

    The answer to beat: what a model says that never looks at the image.
    """
    return torch.from_numpy(np.load(folder / MEAN_POINTMAP).astype(np.float32))
