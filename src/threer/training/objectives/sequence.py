"""CUT3R: points, cameras and colours of a sequence, whole or chunk by chunk (Wang et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from threer.geometry.raymap import ray_map
from threer.geometry.transforms import quaternion_from_matrix, relative_pose
from threer.models.cut3r import CUT3R, State
from threer.training.batch import Batch
from threer.training.losses import (
    SequencePoints,
    colour_errors,
    confidence_loss,
    mean_pose_error,
    pose_errors,
    sequence_distances,
    sequence_scales,
    sky_included,
    typed_distances,
)
from threer.training.objectives.base import Losses, Step
from threer.training.objectives.common import Thinning, mean_error, stack_points, without_autocast
from threer.training.objectives.settings import RecurrentSettings
from threer.types import Pointmap, Prediction, View


@dataclass(frozen=True)
class SequenceObjective:
    """Own and world points with confidence, cameras, and colours, in the frame of the first view."""

    settings: RecurrentSettings

    def __call__(self, model: CUT3R, batch: Batch, step: Step) -> Iterator[Losses]:
        if batch.roles.reference != 0:
            raise ValueError(f"CUT3R's world is its first view, not view {batch.roles.reference}")
        settings = self.settings
        views = network_views(batch, model.config.true_rays)
        thin = Thinning.draw(settings.pixel_step, step.generator)
        colours = settings.colour_weight > 0
        if not settings.chunk:
            predictions = [p for _, p in model.rollout(views, colours=colours)]
            yield self._losses(predictions, batch, range(batch.views), thin)
            return
        with_rays = bool(batch.rays.any())
        views = _encoded(model, views)
        chunks = [range(k, min(k + settings.chunk, batch.views)) for k in range(0, batch.views, settings.chunk)]
        learnt = self._window(len(chunks), step.generator)
        state: State | None = None
        for k, chunk in enumerate(chunks[: learnt.stop]):
            given = [views[v] for v in chunk]
            predictions = []
            with torch.set_grad_enabled(k in learnt):
                for after, prediction in model.rollout(
                    given, colours=colours and k in learnt, state=state, stand_ins=with_rays
                ):
                    state = after
                    predictions.append(prediction)
            if k in learnt:
                losses = self._losses(predictions, batch, chunk, thin)
                share = 1 if settings.step_each_chunk else len(learnt)
                more = k + 1 < learnt.stop
                yield Losses(losses.total / share, losses.parts, more, step=more and settings.step_each_chunk)
            assert state is not None
            state = _detached(state)

    def _window(self, chunks: int, generator: torch.Generator) -> range:
        """The chunks that gradients come from."""
        count = min(self.settings.gradient_chunks, chunks)
        start = chunks - count
        if self.settings.gradient_window == "random":
            start = int(torch.randint(start + 1, (), generator=generator, device=generator.device))
        return range(start, start + count)

    def _losses(self, predictions: Sequence[Prediction], batch: Batch, views: range, thin: Thinning) -> Losses:
        settings, chosen = self.settings, slice(views.start, views.stop)
        with without_autocast(batch.device):
            world, world_confidence = (thin(x) for x in stack_points(predictions))
            locals_: list[Pointmap] = [p.local for p in predictions if p.local is not None]
            own = thin(torch.stack([m.xyz.float() for m in locals_], dim=1))
            confidence = (thin(torch.stack([m.conf.float() for m in locals_], dim=1)), world_confidence)
            predicted = SequencePoints(own, world)
            truth = SequencePoints(thin(batch.camera[:, chosen]), thin(batch.points_in(batch.reference)[:, chosen]))
            valid, sky = thin(batch.valid[:, chosen]), thin(batch.sky[:, chosen])
            scales = sequence_scales(
                predicted,
                truth,
                valid,
                batch.metric if settings.metric_scale else None,
                confidence if settings.weighted_scale else None,
            )
            distances, masks = self._distances(predicted, truth, valid, sky, scales, batch)
            terms = [
                confidence_loss(d, c, m, settings.alpha).per_view
                for d, c, m in zip(distances, confidence, masks, strict=True)
            ]
            points = 2 * torch.cat(terms).mean()
            pose = self._pose(predictions, batch, chosen, scales)
            colour = self._colour(predictions, batch, chosen)
            total = points + settings.pose_weight * pose + settings.colour_weight * colour
        parts = {
            "loss": total.detach(),
            "error": mean_error(distances[1], masks[1] & ~sky),
            "local_error": mean_error(distances[0], masks[0] & ~sky),
            "pose": pose.detach(),
            "colour": colour.detach(),
        }
        return Losses(total, parts)

    def _distances(
        self,
        predicted: SequencePoints,
        truth: SequencePoints,
        valid: Tensor,
        sky: Tensor,
        scales: tuple[Tensor, Tensor],
        batch: Batch,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Distances of own and world points, and the pixels of each that count."""
        counted = valid | sky if self.settings.sky_error > 0 else valid
        distances = sequence_distances(predicted, truth, valid, scales)
        masks = [counted, counted]
        if self.settings.sample_types:
            distances = typed_distances(
                distances,
                predicted,
                truth,
                valid,
                counted,
                camera_only=batch.camera_only,
                depth_only=batch.depth_only,
                loose=batch.single_view & ~batch.metric,
            )
            masks[1] = counted & ~batch.camera_only[:, None, None, None]
        return [sky_included(d, valid, sky, self.settings.sky_error) for d in distances], masks

    def _pose(
        self, predictions: Sequence[Prediction], batch: Batch, chosen: slice, scales: tuple[Tensor, Tensor]
    ) -> Tensor:
        settings = self.settings
        c2w = torch.stack([p.c2w.float() for p in predictions if p.c2w is not None], dim=1)
        seven = torch.cat([c2w[..., :3, 3], quaternion_from_matrix(c2w[..., :3, :3])], dim=-1)
        truth = relative_pose(batch.c2w[:, chosen], batch.reference.unsqueeze(1))
        own_path = batch.camera_only if settings.sample_types else torch.zeros_like(batch.camera_only)
        errors = pose_errors(seven, truth, *scales, own_path=own_path, either_sign=settings.either_sign)
        judged = torch.ones_like(batch.seen[:, chosen])
        if settings.sample_types:
            if settings.pose_mask == "last":
                judged = judged & batch.seen[:, chosen][:, -1:]
            else:
                cameras = ~(batch.depth_only | batch.single_view)
                judged = batch.seen[:, chosen] & cameras.unsqueeze(1)
        return mean_pose_error(errors, scales[1], own_path, judged)

    def _colour(self, predictions: Sequence[Prediction], batch: Batch, chosen: slice) -> Tensor:
        if self.settings.colour_weight == 0:
            return batch.images.new_zeros(())
        rgb = torch.stack([p.rgb.float() for p in predictions if p.rgb is not None], dim=1)
        errors = colour_errors(rgb, batch.images[:, chosen])
        asked = torch.ones_like(batch.rays[:, chosen])
        if self.settings.colour_views == "queried":
            asked = batch.rays[:, chosen] & ~batch.seen[:, chosen]
        return torch.where(asked, errors, 0.0).sum() / asked.sum().clamp(min=1)


def network_views(batch: Batch, true_rays: bool = False) -> list[View]:
    """What CUT3R is fed: of each view its image where it is seen, and its rays where they are asked for."""
    height, width = batch.images.shape[-2:]
    rays = None
    if bool(batch.rays.any()):
        c2w = relative_pose(batch.c2w, batch.reference.unsqueeze(1))
        rays = ray_map(c2w, batch.K, (width, height), true_rays, batch.lens)
    seen, asked = batch.seen.cpu(), batch.rays.cpu()
    views = []
    for v in range(batch.views):
        with_image, with_rays = bool(seen[:, v].any()), rays is not None and bool(asked[:, v].any())
        views.append(
            View(
                batch.images[:, v] if with_image else None,
                batch.true_shape[:, v],
                ray_map=rays[:, v] if rays is not None and with_rays else None,
                image_mask=seen[:, v] if with_image else None,
                ray_mask=asked[:, v] if with_rays else None,
            )
        )
    return views


def _encoded(model: CUT3R, views: Sequence[View]) -> list[View]:
    """The views with tokens in place of images: truncated back-propagation never reaches the encoder."""
    pictured = [i for i, view in enumerate(views) if view.image is not None]
    with torch.no_grad():
        tokens = dict(zip(pictured, model.tokens_of([views[i] for i in pictured]), strict=True))
    return [replace(view, image=None, tokens=tokens[i]) if i in tokens else view for i, view in enumerate(views)]


def _detached(state: State) -> State:
    return replace(
        state,
        tokens=state.tokens.detach(),
        memory=state.memory.detach(),
        initial_tokens=state.initial_tokens.detach(),
        initial_memory=state.initial_memory.detach(),
    )
