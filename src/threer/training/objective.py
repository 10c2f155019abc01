"""One step's loss of SLAM3R: a window through Image-to-Points, the same frames through Local-to-World."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from threer.geometry.scale import normalize
from threer.models.slam3r import SLAM3R
from threer.training.losses import confidence_loss, point_distances, retrieval_loss
from threer.training.pool import Windows
from threer.training.recipe import SLAM3RMini
from threer.training.targets import registration_sample
from threer.types import Prediction, View


@dataclass(frozen=True, eq=False)
class StepLosses:
    """total to descend on; the others are logged: mean error of each half in units of the mean distance."""

    total: Tensor
    local_error: Tensor
    register_error: Tensor
    retrieval: Tensor


@dataclass(frozen=True)
class _Thinning:
    """Every ``step``-th pixel of [B, V, H, W] or [B, V, H, W, 3] maps, from (row, column) on."""

    step: int
    row: int
    column: int

    @classmethod
    def draw(cls, step: int, generator: torch.Generator, device: torch.device) -> _Thinning:
        row, column = torch.randint(step, (2,), generator=generator, device=device).tolist()
        return cls(step, row, column)

    def __call__(self, maps: Tensor) -> Tensor:
        return maps[:, :, self.row :: self.step, self.column :: self.step]


def step_losses(model: SLAM3R, windows: Windows, recipe: SLAM3RMini, generator: torch.Generator) -> StepLosses:
    """Losses of one batch. ``generator`` (on the windows' device) draws the noise on Local-to-World's points."""
    views = windows.images.shape[1]
    tokens = torch.unflatten(model.encode(windows.images.flatten(0, 1)), 0, (-1, views))
    thin = _Thinning.draw(recipe.pixel_step, generator, tokens.device)

    local = model.local(_views(windows, tokens), ref=0)
    points, confidence = stack_points(local)
    seen = thin(confidence)
    valid = torch.ones_like(seen, dtype=torch.bool)
    distances = point_distances(thin(points), thin(windows.points_in(windows.c2w[:, 0])), valid)
    local_loss = confidence_loss(distances, seen, valid, recipe.alpha).total / views
    logits = [p.logits for p in local[1:] if p.logits is not None]
    # the score learns from the confidences, not the other way round
    retrieval = retrieval_loss(logits, [p.points.conf.detach() for p in local[1:]]).total / (views - 1)

    register_loss, register_error = _registration(
        model, windows, tokens.detach(), points[:, :1].detach(), recipe, thin, generator
    )
    total = local_loss + register_loss + recipe.retrieval_weight * retrieval
    return StepLosses(total, distances.detach().mean(), register_error, retrieval.detach())


def _registration(
    model: SLAM3R,
    windows: Windows,
    tokens: Tensor,
    own: Tensor,
    recipe: SLAM3RMini,
    thin: _Thinning,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    order, scene_views = as_scene_and_keys(tokens.shape[1], recipe.keys)
    world, camera = windows.points_in(windows.world)[:, order], windows.camera[:, order]
    valid = torch.ones(camera.shape[:-1], dtype=torch.bool, device=camera.device)
    sample = registration_sample(world, camera, valid, scene_views)
    predicted = normalize(own)[0]
    use_own = torch.rand(len(own), device=own.device, generator=generator) < recipe.own_points
    first_key = torch.where(
        use_own[:, None, None, None],
        predicted[:, 0],
        perturb(sample.keys[:, :1], recipe, generator)[:, 0],
    )
    fed = torch.cat([
        perturb(sample.scene, recipe, generator),
        first_key.unsqueeze(1),
        perturb(sample.keys[:, 1:], recipe, generator),
    ], dim=1)  # fmt: skip
    given = [View(tokens=tokens[:, v], true_shape=_shape(windows), points=fed[:, i]) for i, v in enumerate(order)]
    registered = model.register(given[:scene_views], given[scene_views:])
    points, confidence = stack_points(registered)
    seen = thin(confidence)
    counted = torch.ones_like(seen, dtype=torch.bool)
    distances = point_distances(thin(points), thin(sample.truth), counted, "none")
    loss = confidence_loss(distances, seen, counted, recipe.alpha).per_view
    # with the point prior scene frames are nearly given, so keys weigh half of the loss whatever their number
    total = 0.5 * loss[:scene_views].mean() + 0.5 * loss[scene_views:].mean()
    return total, distances[:, scene_views:].detach().mean()


def as_scene_and_keys(views: int, keys: int) -> tuple[list[int], int]:
    """Views of a window in Local-to-World's order, and how many of them are scene frames.

    The reference (view 0) is the first key; the window's last views are the other keys.
    """
    scene = views - keys
    return [*range(1, scene + 1), 0, *range(scene + 1, views)], scene


def perturb(points: Tensor, recipe: SLAM3RMini, generator: torch.Generator) -> Tensor:
    """Points [B, V, H, W, 3] as a network would give them: smooth relative noise, one scale error a view, holes."""
    batch, views, height, width, _ = points.shape
    coarse = torch.randn(batch * views, 1, 4, 4, generator=generator, device=points.device)
    smooth = F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=True)
    scale = torch.randn(batch * views, 1, 1, 1, generator=generator, device=points.device)
    noise = recipe.point_noise * (smooth + 0.5 * scale)
    patches = torch.rand(batch * views, 1, height // 16, width // 16, generator=generator, device=points.device)
    # holes in half of the views only
    share = recipe.holes * (torch.rand(batch * views, 1, 1, 1, generator=generator, device=points.device) < 0.5)
    kept = F.interpolate((patches >= share).float(), scale_factor=16)
    return points * ((1 + noise) * kept).view(batch, views, height, width, 1)


def stack_points(predictions: Sequence[Prediction]) -> tuple[Tensor, Tensor]:
    """Points [B, V, H, W, 3] and confidences [B, V, H, W] of a list of views."""
    return (
        torch.stack([p.points.xyz for p in predictions], dim=1),
        torch.stack([p.points.conf for p in predictions], dim=1),
    )


def _views(windows: Windows, tokens: Tensor) -> list[View]:
    return [View(tokens=tokens[:, v], true_shape=_shape(windows)) for v in range(tokens.shape[1])]


def _shape(windows: Windows) -> Tensor:
    """[B, 2] (height, width)."""
    batch, _, _, height, width = windows.images.shape
    return torch.tensor([[height, width]]).expand(batch, 2)
