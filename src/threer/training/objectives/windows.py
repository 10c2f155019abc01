"""SLAM3R's Image-to-Points: a window in the frame of its reference, and the retrieval score (Liu et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from threer.models.slam3r import SLAM3R, ImageToPoints
from threer.training.batch import Batch
from threer.training.losses import confidence_loss, point_distances, retrieval_loss
from threer.training.objectives.base import Losses, Step
from threer.training.objectives.common import Thinning, image_views, mean_error, stack_points, without_autocast
from threer.training.objectives.settings import RetrievalSettings, WindowSettings


@dataclass(frozen=True)
class WindowObjective:
    """Confidence loss of all views of a window, in their joint scale (section 3.2)."""

    settings: WindowSettings

    def __call__(self, model: ImageToPoints | SLAM3R, batch: Batch, step: Step) -> Iterator[Losses]:
        settings = self.settings
        predictions = half(model)(image_views(batch), batch.roles.reference)
        thin = Thinning.draw(settings.pixel_step, step.generator)
        with without_autocast(batch.device):
            points, confidence = (thin(x) for x in stack_points(predictions))
            valid = thin(batch.valid)
            truth = thin(batch.points_in(batch.reference))
            distances = point_distances(points, truth, valid, settings.normalization)
            per_view = confidence_loss(distances, confidence, valid, settings.alpha).per_view
            total = per_view.mean() if settings.mean else per_view.sum()
        yield Losses(total, {"error": mean_error(distances, valid), "loss": total.detach()})


@dataclass(frozen=True)
class RetrievalObjective:
    """The retrieval score of every source view against the confidence that its pointmap got (section 3.2)."""

    settings: RetrievalSettings

    def __call__(self, model: ImageToPoints | SLAM3R, batch: Batch, step: Step) -> Iterator[Losses]:
        predictions = half(model)(image_views(batch), batch.roles.reference)
        sources = [p for p in predictions if p.logits is not None]
        with without_autocast(batch.device):
            logits = [p.logits.float() for p in sources if p.logits is not None]
            # the score learns from the confidences, not the other way round
            total = retrieval_loss(logits, [p.points.conf.detach().float() for p in sources]).total
        yield Losses(total, {"retrieval": total.detach() / len(sources), "loss": total.detach()})


def half(model: ImageToPoints | SLAM3R) -> ImageToPoints:
    """Image-to-Points, alone or as one of SLAM3R's halves."""
    return model.i2p if isinstance(model, SLAM3R) else model
