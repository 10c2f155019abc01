"""DUSt3R: pairs of views in the frame of the first (Wang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from threer.models.dust3r import DUSt3R
from threer.training.batch import Batch, cat
from threer.training.losses import confidence_loss, point_distances
from threer.training.objectives.base import Losses, Step
from threer.training.objectives.common import Thinning, image_views, mean_error, stack_points, without_autocast
from threer.training.objectives.settings import PairSettings


@dataclass(frozen=True)
class PairObjective:
    """Confidence loss of both views, in their joint scale; every pair in both orders."""

    settings: PairSettings

    def __call__(self, model: DUSt3R, batch: Batch, step: Step) -> Iterator[Losses]:
        settings = self.settings
        if settings.symmetrized:
            batch = both_orders(batch)
        predictions = model(image_views(batch), symmetrized=settings.symmetrized)
        thin = Thinning.draw(settings.pixel_step, step.generator)
        with without_autocast(batch.device):
            points, confidence = (thin(x) for x in stack_points(predictions))
            valid = thin(batch.valid)
            truth = thin(batch.points_in(batch.reference))
            distances = point_distances(points, truth, valid, settings.normalization)
            losses = confidence_loss(distances, confidence, valid, settings.alpha)
        parts = {"error": mean_error(distances, valid), "loss": losses.total.detach()}
        yield Losses(losses.total, parts)


def both_orders(batch: Batch) -> Batch:
    """[a, b, …] pairs as [a, a swapped, b, b swapped, …]."""
    if batch.views != 2:
        raise ValueError(f"pairs have two views, got {batch.views}")
    doubled = cat([batch, batch.of_views([1, 0], batch.roles)])
    order = torch.arange(2 * len(batch), device=batch.device).view(2, -1).T.flatten()
    return doubled.samples(order)
