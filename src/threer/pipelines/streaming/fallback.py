"""Streaming for models that were not made for it: pairs of frames, put together by weighted Procrustes.

A model that maps two images to two pointmaps in one frame, as DUSt3R does, can neither see a window at once, nor
register a frame in a known world, nor tell which frames overlap. All three are made from pairs here: a window is
its reference paired with every other frame; registration moves the key's map onto what is known of the scene frames
it was paired with; and frames overlap if their pooled tokens are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from threer.config import InputSpec
from threer.geometry.procrustes import align_points
from threer.pipelines.pairwise import PairModel
from threer.types import Pointmap, Prediction, Sim3, View

PAIRS_AT_ONCE = 8
SAMPLES = 4096
"""Points of each pair that decide a similarity; evenly spread over the image."""


@dataclass(frozen=True, eq=False)
class _Pairs:
    """What the model says about P pairs of one sample: [P, H, W] maps, each pair in its own frame and scale."""

    own: Pointmap
    other: Pointmap

    def __len__(self) -> int:
        return len(self.own.conf)


class PairStreaming:
    """Makes a `StreamingModel` of a model for pairs.

    Costs a pass for each pair: 2 × radius for a local map, `scene_frames` for a registration.
    """

    def __init__(self, model: PairModel) -> None:
        self._model = model

    @property
    def input(self) -> InputSpec:
        return self._model.input

    def parameters(self) -> Iterator[Tensor]:
        return self._model.parameters()

    def encode(self, images: Tensor) -> Tensor:
        """images [B, 3, H, W] in [-1, 1] -> tokens [B, N, C]."""
        return self._model.encode(images)

    def local(self, views: Sequence[View], ref: int = 0, *, reference_only: bool = False) -> list[Prediction]:
        """Pointmaps of a window in the frame of view ``ref``.

        The reference is paired with every other view. The surest pair sets frame and scale; the reference's maps of
        all pairs are moved onto that one's and averaged by confidence, the other views' maps move with them.
        """
        others = [view for i, view in enumerate(views) if i != ref]
        samples = [_in_one_frame(pairs) for pairs in self._paired(views[ref], others)]
        reference = Prediction(_stacked([_average(pairs.own) for pairs in samples]), "reference")
        if reference_only:
            return [reference]
        rest = [
            Prediction(
                _stacked([Pointmap(p.other.xyz[i], p.other.conf[i]) for p in samples]),
                "reference",
            )
            for i in range(len(others))
        ]
        return [*rest[:ref], reference, *rest[ref:]]

    def register(self, scene: Sequence[View], keys: Sequence[View], *, keys_only: bool = False) -> list[Prediction]:
        """World pointmaps of scene frames, which stay what they are, then of key frames.

        scene  views with known world ``points``, zero where unknown
        keys   views with ``points`` in their own camera frame, zero where unknown

        A key that no similarity can be found for gets points at the origin, with the lowest confidence.
        """
        worlds = [_points(view) for view in scene]
        predictions = []
        for key in keys:
            local = _points(key)
            rows = [
                _registered(pairs, local[b], torch.stack([world[b] for world in worlds]))
                for b, pairs in enumerate(self._paired(key, scene))
            ]
            predictions.append(Prediction(_stacked(rows), "world"))
        if keys_only:
            return predictions
        known = [Prediction(Pointmap(world, 1 + _is_known(world).to(world)), "world") for world in worlds]
        return known + predictions

    def affinity(self, key: View, candidates: Sequence[View]) -> Tensor:
        """[V, B, 1] between 1 and 3: two plus the cosine between pooled tokens."""
        return torch.stack([2 + (_pooled(key) * _pooled(c)).sum(dim=-1, keepdim=True) for c in candidates])

    def _paired(self, first: View, others: Sequence[View]) -> list[_Pairs]:
        """What the model says about ``first`` with each of ``others``, for each sample of the batch."""
        firsts, seconds = _joined([first] * len(others)), _joined(others)
        parts = []
        for start in range(0, firsts.batch, PAIRS_AT_ONCE):
            rows = slice(start, start + PAIRS_AT_ONCE)
            parts.append([p.points for p in self._model([_rows(firsts, rows), _rows(seconds, rows)])])
        own, other = (
            Pointmap(torch.cat([p.xyz for p in maps]).float(), torch.cat([p.conf for p in maps]).float())
            for maps in zip(*parts, strict=True)
        )
        batch = first.batch  # pairs of sample b are rows b, b + batch, b + 2 batch, …
        return [_Pairs(_every(own, b, batch), _every(other, b, batch)) for b in range(batch)]


def _in_one_frame(pairs: _Pairs) -> _Pairs:
    """Move all pairs by what brings their own maps onto the surest pair's; one that fits nowhere counts nothing."""
    best = int((pairs.own.conf.flatten(1).mean(1) * pairs.other.conf.flatten(1).mean(1)).argmax())
    target = Pointmap(pairs.own.xyz[best], pairs.own.conf[best])
    own, other = [], []
    for i in range(len(pairs)):
        mine = Pointmap(pairs.own.xyz[i], pairs.own.conf[i])
        theirs = Pointmap(pairs.other.xyz[i], pairs.other.conf[i])
        motion = None if i == best else _similarity(mine.xyz, target.xyz, mine.conf.log() + target.conf.log())
        if i != best:
            mine, theirs = _moved(mine, motion), _moved(theirs, motion)
        own.append(mine)
        other.append(theirs)
    return _Pairs(_stacked(own), _stacked(other))


def _registered(pairs: _Pairs, local: Tensor, worlds: Tensor) -> Pointmap:
    """The key's map [H, W] in the world, from its pairs with scene frames.

    local   [H, W, 3] the key's points in its own frame
    worlds  [P, H, W, 3] the scene frames' points in the world

    Each pair is moved onto ``local``, which gives all pairs one scale; then one similarity moves what they say
    about the scene frames onto what is known of these.
    """
    own, sources, weights = [], [], []
    for i in range(len(pairs)):
        mine = Pointmap(pairs.own.xyz[i], pairs.own.conf[i])
        theirs = Pointmap(pairs.other.xyz[i], pairs.other.conf[i])
        motion = _similarity(mine.xyz, local, mine.conf.log() * _is_known(local))
        own.append(_moved(mine, motion))
        theirs = _moved(theirs, motion)
        sources.append(theirs.xyz)
        weights.append(theirs.conf.log() * _is_known(worlds[i]))
    to_world = _similarity(torch.stack(sources), worlds, torch.stack(weights))
    together = _stacked(own)
    points = torch.where(_is_known(local)[..., None], local, _average(together).xyz)
    return _moved(Pointmap(points, together.conf.amax(0)), to_world)


def _similarity(source: Tensor, target: Tensor, weights: Tensor) -> Sim3 | None:
    """What moves ``source`` [..., H, W, 3] onto ``target``; None where that is not determined."""
    step = max(1, source.shape[-3] * source.shape[-2] // SAMPLES)
    x, y, w = (
        t.flatten(-3, -2)[..., ::step, :].reshape(-1, t.shape[-1]).double().cpu().numpy()
        for t in (source, target, weights[..., None])
    )
    return align_points(x, y, np.maximum(w[:, 0], 0))


def _moved(points: Pointmap, motion: Sim3 | None) -> Pointmap:
    """Points after ``motion``; at the origin, with the lowest confidence, where there is none."""
    if motion is None:
        return Pointmap(torch.zeros_like(points.xyz), torch.ones_like(points.conf))
    R = torch.from_numpy(motion.scale * motion.R).to(points.xyz)
    return Pointmap(points.xyz @ R.T + torch.from_numpy(motion.t).to(points.xyz), points.conf)


def _average(maps: Pointmap) -> Pointmap:
    """[P, H, W] maps of the same pixels in one frame -> [H, W], by confidence; maps that count nothing left out."""
    weights = maps.conf.log().clamp(min=1e-6) * _is_known(maps.xyz)
    total = weights.sum(0).clamp(min=1e-6)
    counted = (weights > 0).sum(0).clamp(min=1)
    xyz = (weights[..., None] * maps.xyz).sum(0) / total[..., None]
    return Pointmap(xyz, ((weights > 0) * maps.conf).sum(0) / counted)


def _pooled(view: View) -> Tensor:
    """[B, C] a unit vector for each sample: the mean of its normalised tokens."""
    assert view.tokens is not None
    tokens = F.layer_norm(view.tokens.float(), view.tokens.shape[-1:])
    return F.normalize(tokens.mean(dim=1), dim=-1)


def _points(view: View) -> Tensor:
    if view.points is None:
        raise ValueError("registration needs points of every view")
    return view.points


def _is_known(points: Tensor) -> Tensor:
    """[..., H, W] bool: points that were masked are exactly at the origin."""
    return (points != 0).any(dim=-1)


def _joined(views: Sequence[View]) -> View:
    tokens = [view.tokens for view in views if view.tokens is not None]
    if len(tokens) != len(views):
        raise ValueError("views of a stream are encoded first: one of them has no tokens")
    return View(tokens=torch.cat(tokens), true_shape=torch.cat([view.shape for view in views]))


def _rows(view: View, rows: slice) -> View:
    assert view.tokens is not None
    return View(tokens=view.tokens[rows], true_shape=view.shape[rows])


def _every(maps: Pointmap, first: int, step: int) -> Pointmap:
    return Pointmap(maps.xyz[first::step], maps.conf[first::step])


def _stacked(maps: Sequence[Pointmap]) -> Pointmap:
    return Pointmap(torch.stack([m.xyz for m in maps]), torch.stack([m.conf for m in maps]))
