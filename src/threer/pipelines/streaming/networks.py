"""What the stream asks of a model, on keyframes instead of tensors: local maps, registration, retrieval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor

from threer.config import InputSpec, StreamingConfig
from threer.errors import CheckpointError
from threer.geometry.scale import mean_distance
from threer.pipelines.streaming.state import Keyframe, Trace, packed, stack_views
from threer.types import Pointmap, Prediction, View


class StreamingModel(Protocol):
    """What a model must offer to be streamed: SLAM3R does."""

    @property
    def input(self) -> InputSpec: ...

    def parameters(self) -> Iterator[Tensor]: ...

    def encode(self, images: Tensor) -> Tensor: ...

    def local(self, views: Sequence[View], ref: int = 0, *, reference_only: bool = False) -> list[Prediction]: ...

    def register(
        self, scene: Sequence[View], keys: Sequence[View], *, keys_only: bool = False
    ) -> list[Prediction]: ...

    def affinity(self, key: View, candidates: Sequence[View]) -> Tensor: ...


class Networks:
    """Runs the two networks of ``model`` on keyframes, with the masks and scales of the settings."""

    def __init__(self, model: StreamingModel, config: StreamingConfig, trace: Trace | None = None) -> None:
        self._model = model
        self._config = config
        self._trace = trace
        parameter = next(iter(model.parameters()))
        self._device = parameter.device
        self._dtype = parameter.dtype
        self.storage: torch.dtype = getattr(torch, config.storage)

    def encode(self, keyframes: Sequence[Keyframe]) -> None:
        """Give tokens to all ``keyframes``, `encode_batch` at a time."""
        step = self._config.encode_batch
        for start in range(0, len(keyframes), step):
            batch = keyframes[start : start + step]
            images = torch.stack([k.frame.image for k in batch if k.frame is not None]).to(self._device)
            for keyframe, tokens in zip(batch, self._model.encode(images * 2 - 1), strict=True):
                keyframe.tokens = packed(tokens, self.storage)  # of its own, so that the batch can be freed

    def window_confidence(self, windows: Sequence[Sequence[Keyframe]]) -> float:
        """Mean confidence over all pixels of all views of equally long windows, the first frame as reference."""
        views = [self._stack(column) for column in zip(*windows, strict=True)]
        confidences = [prediction.points.conf for prediction in self._model.local(views, ref=0)]
        self._tell(
            kind="i2p",
            windows=[[k.index for k in window] for window in windows],
            ref_id=0,
            mean_conf_per_view=[float(conf.mean()) for conf in confidences],
        )
        return float(torch.stack(confidences).mean())

    def local_window(self, window: Sequence[Keyframe], ref: int) -> list[Pointmap]:
        """Pointmaps of all frames of one window, in the camera of its frame ``ref``."""
        predictions = self._model.local([self._stack([k]) for k in window], ref=ref)
        maps = [_single(prediction.points) for prediction in predictions]
        self._tell(
            kind="i2p",
            windows=[[k.index for k in window]],
            ref_id=ref,
            mean_conf_per_view=[float(m.conf.mean()) for m in maps],
        )
        return maps

    def localize(self, windows: Sequence[Sequence[Keyframe]]) -> None:
        """Give its local pointmap to the first frame of each window; equally long windows run together."""
        by_length = sorted(windows, key=len)
        for _, group in groupby(by_length, key=len):
            together = list(group)
            views = [self._stack(column) for column in zip(*together, strict=True)]
            (prediction,) = self._model.local(views, ref=0, reference_only=True)
            for row, window in enumerate(together):
                window[0].localize(_row(prediction.points, row))
                self._check_finite(window[0], window[0].local, "local")
        for window in windows:
            self._tell(
                kind="i2p", windows=[[k.index for k in window]], ref_id=0, mean_conf_per_view=[window[0].local_conf]
            )

    def register(self, scene: Sequence[Keyframe], keys: Sequence[Keyframe]) -> None:
        """Give its world pointmap to each of ``keys``, registered together against ``scene``."""
        maps = self.registered([list(scene)], [list(keys)])[0]
        for keyframe, world in zip(keys, maps, strict=True):
            keyframe.register(world)

    def registered(
        self, scenes: Sequence[Sequence[Keyframe]], keys: Sequence[Sequence[Keyframe]]
    ) -> list[list[Pointmap]]:
        """World pointmaps of ``keys[b]`` against ``scenes[b]``, a batch of equally sized registrations."""
        points, factors = zip(*(self._scene_points(scene) for scene in scenes), strict=True)
        scene_views = [
            self._stack([scene[v] for scene in scenes], [p[v] for p in points]) for v in range(len(scenes[0]))
        ]
        key_views = [
            self._stack([row[v] for row in keys], [self._key_points(row[v]) for row in keys])
            for v in range(len(keys[0]))
        ]
        predictions = self._model.register(scene_views, key_views, keys_only=True)
        maps = []
        for b, (scene, row) in enumerate(zip(scenes, keys, strict=True)):
            found = [_row(prediction.points, b) for prediction in predictions]
            found = [Pointmap(m.xyz * factors[b], m.conf) for m in found]
            for keyframe, world in zip(row, found, strict=True):
                self._check_finite(keyframe, world, "registered")
            maps.append(found)
            self._tell(
                kind="l2w",
                scene=[k.index for k in scene],
                keys=[k.index for k in row],
                mean_conf=[float(m.conf.mean()) for m in found],
            )
        return maps

    def retrieve(self, queries: Sequence[Keyframe], candidates: Sequence[Keyframe]) -> list[Keyframe]:
        """The `scene_frames` of ``candidates`` that overlap the ``queries`` most, best first; all if fewer."""
        scores: list[float] | None = None
        chosen = list(range(len(candidates)))
        if len(candidates) > self._config.scene_frames:
            chosen, scores = self._best(queries, candidates, self._config.scene_frames)
        self._tell(
            kind="retrieve",
            buffer_frames=[k.index for k in candidates],
            query_frames=[k.index for k in queries],
            selected_positions=chosen,
            selected_frames=[candidates[i].index for i in chosen],
            mean_scores=scores,
        )
        return [candidates[i] for i in chosen]

    def ranked(self, query: Keyframe, candidates: Sequence[Keyframe]) -> list[Keyframe]:
        """All ``candidates``, those first that overlap the ``query`` most."""
        chosen, _ = self._best([query], candidates, len(candidates))
        return [candidates[i] for i in chosen]

    def _best(
        self, queries: Sequence[Keyframe], candidates: Sequence[Keyframe], count: int
    ) -> tuple[list[int], list[float]]:
        key = self._stack(queries)
        views = [self._stack([candidate] * len(queries)) for candidate in candidates]
        patches = self._model.affinity(key, views)  # [V, Q, N]
        return best_by_score(patches, count)

    def _stack(self, keyframes: Sequence[Keyframe], points: list[Tensor] | None = None) -> View:
        return stack_views(list(keyframes), points, dtype=self._dtype)

    def _key_points(self, keyframe: Keyframe) -> Tensor:
        """[H, W, 3] local points at unit mean distance, unsure ones zero."""
        assert keyframe.local is not None
        mask = keyframe.local.conf > self._config.point_conf
        factor = mean_distance(keyframe.local.xyz[None], mask[None])
        points = torch.where(mask[..., None], keyframe.local.xyz / factor, 0.0)
        if self._config.preset == "parity" and self._config.normalize_references:
            points = points / mean_distance(points[None])  # the original does it again, zeroed points included
        return points

    def _scene_points(self, scene: Sequence[Keyframe]) -> tuple[Tensor, Tensor]:
        """[V, H, W, 3] world points as the network is to see them, and the factor they were divided by."""
        xyz = torch.stack([k.world.xyz for k in scene if k.world is not None]).float()
        mask = torch.ones(xyz.shape[:-1], dtype=torch.bool, device=xyz.device)
        if self._config.mask_references:
            sure = torch.stack([k.world.conf for k in scene if k.world is not None]) > self._config.point_conf
            if sure.any():  # where nothing is sure, unsure points are better than none
                mask = sure
            xyz = torch.where(mask[..., None], xyz, 0.0)
        if not self._config.normalize_references:
            return xyz, xyz.new_ones(())
        factor = mean_distance(xyz, mask)
        return xyz / factor, factor

    def _check_finite(self, keyframe: Keyframe, points: Pointmap | None, what: str) -> None:
        assert points is not None
        if not (torch.isfinite(points.xyz).all() and torch.isfinite(points.conf).all()):
            raise CheckpointError(
                f"the network gave non-finite {what} points for frame {keyframe.index}: "
                "its weights are broken or its input is not an image; check the checkpoint"
            )

    def _tell(self, **event: Any) -> None:
        if self._trace:
            self._trace(event)


def best_by_score(
    patches: Tensor, count: int, *, confidences: Tensor | None = None, uses: Tensor | None = None
) -> tuple[list[int], list[float]]:
    """Positions of the ``count`` candidates with the highest mean score, best first, and all normalised scores.

    patches      [V, Q, N] scores >= 1 of V candidates for Q queries (networks.md section 7.4)
    confidences  [V, H, W] registered confidence: candidates that are sure of themselves are preferred
    uses         [V] how often each was retrieved before: frequent ones step back by up to 5 %

    The original has both modifiers and leaves them off, as the stream does (pipelines.md section 1.9).
    """
    mean = patches.flatten(1).mean(1)
    scores = (mean - 1) / mean
    if confidences is not None:
        sure = confidences.flatten(1).mean(1)
        scores = scores * (sure - 1) / sure
    if uses is not None:
        scores = scores * (1 - 0.05 * uses / uses.max().clamp(min=1))
    order = torch.argsort(scores, descending=True)[:count]
    return [int(i) for i in order], [float(s) for s in scores]


def _row(points: Pointmap, row: int) -> Pointmap:
    return Pointmap(points.xyz[row].clone(), points.conf[row].clone())


def _single(points: Pointmap) -> Pointmap:
    return _row(points, 0)
