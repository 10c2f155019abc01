"""Both halves of SLAM3R in one step, on the same window, sharing the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from threer.geometry.scale import normalize
from threer.models.slam3r import SLAM3R
from threer.training.batch import Batch
from threer.training.losses import confidence_loss, point_distances, retrieval_loss
from threer.training.objectives.base import Losses, Step
from threer.training.objectives.common import Thinning, mean_error, perturb, stack_points, without_autocast
from threer.training.objectives.registration import registration_loss, sample_of
from threer.training.objectives.settings import JointSettings
from threer.training.targets import RegistrationSample
from threer.types import View


@dataclass(frozen=True)
class JointObjective:
    """Image-to-Points sees a window; Local-to-World then registers some of its frames to the others.

    The second half reads the first one's tokens without sending gradients back into the encoder.
    """

    settings: JointSettings

    def __call__(self, model: SLAM3R, batch: Batch, step: Step) -> Iterator[Losses]:
        settings, views = self.settings, batch.views
        reference = batch.roles.reference
        tokens = torch.unflatten(model.encode(batch.images.flatten(0, 1)), 0, (-1, views))
        thin = Thinning.draw(settings.pixel_step, step.generator)
        local = model.local(
            [View(tokens=tokens[:, v], true_shape=batch.true_shape[:, v]) for v in range(views)], reference
        )
        sources = [p for p in local if p.logits is not None]
        with without_autocast(batch.device):
            points, confidence = stack_points(local)
            valid, truth = thin(batch.valid), thin(batch.points_in(batch.reference))
            distances = point_distances(thin(points), truth, valid)
            local_loss = confidence_loss(distances, thin(confidence), valid, settings.alpha).total / views
            logits = [p.logits.float() for p in sources if p.logits is not None]
            # the score learns from the confidences, not the other way round
            retrieval = retrieval_loss(logits, [p.points.conf.detach().float() for p in sources]).total
            retrieval = retrieval / len(sources)

        order, scene_views = as_scene_and_keys(views, settings.keys, reference)
        sample = sample_of(batch, order, scene_views)
        fed = self._fed(sample, points[:, reference].detach(), step.generator)
        given = [
            View(tokens=tokens[:, v].detach(), true_shape=batch.true_shape[:, v], points=fed[:, i])
            for i, v in enumerate(order)
        ]
        registered = model.register(given[:scene_views], given[scene_views:])
        with without_autocast(batch.device):
            register_loss, register_error = registration_loss(registered, sample, thin, settings.alpha, mean=True)
            total = local_loss + register_loss + settings.retrieval_weight * retrieval
        parts = {
            "loss": total.detach(),
            "local_error": mean_error(distances, valid),
            "register_error": register_error,
            "retrieval": retrieval.detach(),
        }
        yield Losses(total, parts)

    def _fed(self, sample: RegistrationSample, own: Tensor, generator: torch.Generator) -> Tensor:
        """[B, V, H, W, 3] disturbed truth; some first keys are Image-to-Points' ``own`` points [B, H, W, 3]."""
        settings, scene_views = self.settings, sample.scene.shape[1]
        fed = perturb(
            torch.cat([sample.scene, sample.keys], dim=1), settings.point_noise, settings.holes, generator
        )
        use_own = torch.rand(len(own), device=own.device, generator=generator) < settings.own_points
        predicted = normalize(own.unsqueeze(1))[0][:, 0]
        first_key = torch.where(use_own[:, None, None, None], predicted, fed[:, scene_views])
        return torch.cat([fed[:, :scene_views], first_key.unsqueeze(1), fed[:, scene_views + 1 :]], dim=1)


def as_scene_and_keys(views: int, keys: int, reference: int = 0) -> tuple[list[int], int]:
    """Views of a window in Local-to-World's order, and how many of them are scene frames.

    The reference is the first key; the window's last other views are the other keys.
    """
    others = [v for v in range(views) if v != reference]
    scene = views - keys
    return [*others[:scene], reference, *others[scene:]], scene
