"""SLAM3R's Local-to-World: key frames registered to scene frames (Liu et al. 2025, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from threer.models.slam3r import SLAM3R, LocalToWorld
from threer.training.batch import Batch
from threer.training.losses import confidence_loss, point_distances
from threer.training.objectives.base import Losses, Step
from threer.training.objectives.common import (
    Thinning,
    image_views,
    mean_error,
    perturb,
    stack_points,
    without_autocast,
)
from threer.training.objectives.settings import RegistrationSettings
from threer.training.targets import RegistrationSample, registration_sample
from threer.types import Prediction, View


@dataclass(frozen=True)
class RegistrationObjective:
    """Confidence loss of scene and key frames in the scene's scale, which the network is given."""

    settings: RegistrationSettings

    def __call__(self, model: LocalToWorld | SLAM3R, batch: Batch, step: Step) -> Iterator[Losses]:
        settings, roles = self.settings, batch.roles
        if not roles.scene:
            raise ValueError("Local-to-World needs a batch whose roles name scene and key frames")
        sample = sample_of(batch, [*roles.scene, *roles.keys], len(roles.scene))
        fed = torch.cat([sample.scene, sample.keys], dim=1)
        if step.progress >= settings.noise_from:
            fed = perturb(fed, settings.point_noise, settings.holes, step.generator)
        images = image_views(batch)
        views = [replace(images[v], points=fed[:, i]) for i, v in enumerate((*roles.scene, *roles.keys))]
        predictions = register(model, views, len(roles.scene))
        thin = Thinning.draw(settings.pixel_step, step.generator)
        with without_autocast(batch.device):
            total, error = registration_loss(predictions, sample, thin, settings.alpha, settings.mean)
        yield Losses(total, {"register_error": error, "loss": total.detach()})


def register(model: LocalToWorld | SLAM3R, views: list[View], scene_views: int) -> list[Prediction]:
    """World pointmaps of scene frames, then key frames, by either kind of network."""
    if isinstance(model, SLAM3R):
        return model.register(views[:scene_views], views[scene_views:])
    predictions: list[Prediction] = model(views[:scene_views], views[scene_views:])
    return predictions


def sample_of(batch: Batch, order: list[int], scene_views: int) -> RegistrationSample:
    """Input and truth of the views in ``order``, of which the first ``scene_views`` are scene frames."""
    world, camera = batch.points_in(batch.world)[:, order], batch.camera[:, order]
    return registration_sample(world, camera, batch.valid[:, order], scene_views)


def registration_loss(
    predictions: list[Prediction], sample: RegistrationSample, thin: Thinning, alpha: float, mean: bool
) -> tuple[Tensor, Tensor]:
    """The loss, and the detached mean error of the key frames in units of the scene's mean distance.

    ``mean`` gives scene and key frames half of the weight each, whatever their numbers; otherwise views add up.
    """
    points, confidence = (thin(x) for x in stack_points(predictions))
    valid, scene_views = thin(sample.valid), sample.scene.shape[1]
    distances = point_distances(points, thin(sample.truth), valid, "none")
    loss = confidence_loss(distances, confidence, valid, alpha).per_view
    error = mean_error(distances[:, scene_views:], valid[:, scene_views:])
    if mean:
        return 0.5 * loss[:scene_views].mean() + 0.5 * loss[scene_views:].mean(), error
    return loss.sum(), error
