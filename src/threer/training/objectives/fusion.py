"""Fast3R: all views in the frame of the first, and each in its own (Yang et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from threer.models.fast3r import Fast3R
from threer.training.batch import Batch
from threer.training.losses import confidence_loss, fusion_distances
from threer.training.objectives.base import Losses, Step
from threer.training.objectives.common import Thinning, image_views, mean_error, stack_points, without_autocast
from threer.training.objectives.settings import FusionSettings


@dataclass(frozen=True)
class FusionObjective:
    """Mean over the views' confidence losses, global and local. The anchor is the first view, whichever that is."""

    settings: FusionSettings

    def __call__(self, model: Fast3R, batch: Batch, step: Step) -> Iterator[Losses]:
        settings = self.settings
        if batch.roles.reference != 0:
            raise ValueError(f"Fast3R's anchor is its first view, not view {batch.roles.reference}")
        seed = int(torch.randint(2**31, (), generator=step.generator, device=step.generator.device))
        predictions = model(image_views(batch), seed=seed)
        locals_ = [p.local for p in predictions if p.local is not None]
        if len(locals_) != batch.views:
            raise ValueError("Fast3R is trained with its local head; set local_head = true")
        thin = Thinning.draw(settings.pixel_step, step.generator)
        with without_autocast(batch.device):
            world, confidence = (thin(x) for x in stack_points(predictions))
            own = thin(torch.stack([m.xyz.float() for m in locals_], dim=1))
            own_confidence = thin(torch.stack([m.conf.float() for m in locals_], dim=1))
            valid = thin(batch.valid)
            distances = fusion_distances(
                (world, own),
                (thin(batch.points_in(batch.reference)), thin(batch.camera)),
                valid,
                settings.normalization,
                consistent=settings.local_scale_consistent,
            )
            terms = [
                confidence_loss(d, c, valid, settings.alpha).per_view
                for d, c in zip(distances, (confidence, own_confidence), strict=True)
            ]
            total = torch.cat(terms).mean()
        yield Losses(
            total,
            {
                "error": mean_error(distances[0], valid),
                "local_error": mean_error(distances[1], valid),
                "loss": total.detach(),
            },
        )
