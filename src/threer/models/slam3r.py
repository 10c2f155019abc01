"""SLAM3R: windows of frames to local pointmaps, local pointmaps into the world (Liu et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from threer.config import InputSpec
from threer.models.backbone import NetworkConfig, as_views
from threer.models.trunk import Trunk
from threer.nn.blocks import MLP
from threer.nn.encoder import PatchEmbed
from threer.types import Checkpoint, Prediction, View

AFFINITY_DEPTH = 2
"""Decoder layers behind a retrieval score."""


@dataclass(frozen=True)
class SLAM3RConfig(NetworkConfig):
    """Sizes of both halves of SLAM3R; the defaults are the published ones."""

    point_prior: bool = False
    """Local-to-World's heads move the points they were given, instead of making points up from rays: an untrained
    network then leaves scene frames where they are and key frames at the world's origin."""

    @property
    def input(self) -> InputSpec:
        return InputSpec(self.image_size, square=True)


class AffinityHead(nn.Module):
    """How much a source view helps to reconstruct the reference, per patch: logit of the confidence minus one."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)  # the one norm of the network with PyTorch's own epsilon, 1e-5
        self.mlp = MLP(dim, dim, out=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., N, C] -> logits [..., N]."""
        logits: Tensor = self.mlp(self.norm(tokens)).squeeze(-1)
        return logits


class PointEmbed(nn.Module):
    """A pointmap as one token per 16×16 patch; patches without points get a learned token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.patch = PatchEmbed(dim)
        self.void = nn.Parameter(torch.randn(1, 1, dim))

    def forward(self, points: Tensor, void: Tensor | None = None) -> Tensor:
        """points [B, H, W, 3], void [B, h, w] bool or None -> [B, N, C]."""
        tokens: Tensor = self.patch(points.permute(0, 3, 1, 2))
        return tokens if void is None else torch.where(void.flatten(1).unsqueeze(-1), self.void, tokens)


class ImageToPoints(Trunk):
    """A window of frames to pointmaps in the camera frame of one of them, the reference."""

    def __init__(self, config: SLAM3RConfig) -> None:
        super().__init__(config)
        self.affinity_head = AffinityHead(config.dec_dim)

    def forward(
        self, views: Sequence[View] | Tensor, ref: int = 0, reference_only: bool = False
    ) -> list[Prediction]:
        """Pointmaps of all views, in their order, in the frame of view ``ref``; sources carry affinity logits.

        views           at least two, one size, with images or cached tokens; [B, V, 3, H, W] stands for V views
        reference_only  compute and return the reference's prediction alone
        """
        views = as_views(views)
        if len(views) < 2 or not 0 <= ref < len(views):
            raise ValueError(
                f"a window needs two views or more and a reference among them, got {len(views)}, {ref}"
            )
        sources = [v for i, v in enumerate(views) if i != ref]
        features = _features(self, [views[ref], *sources])
        affinity_depth = min(AFFINITY_DEPTH, self.config.dec_depth)
        first, second = self.decode(
            self.stream(features[:, :1], [views[ref]]),
            self.stream(features[:, 1:], sources),
            also=affinity_depth,
            last="first" if reference_only else None,
        )
        maps = self.pointmaps(self.first_head, features[:, :1], first, [views[ref]])
        reference = Prediction(maps[0], frame="reference")
        if reference_only:
            return [reference]
        # In a decoder of two layers these are normalised, unlike in `affinity`: so it is in the published code.
        logits = self.affinity_head(second[affinity_depth])  # [B, V - 1, N]
        maps = self.pointmaps(self.second_head, features[:, 1:], second, sources)
        predictions = [Prediction(m, "reference", logits[:, i]) for i, m in enumerate(maps)]
        return [*predictions[:ref], reference, *predictions[ref:]]

    def affinity(self, key: View, candidates: Sequence[View], depth: int = AFFINITY_DEPTH) -> Tensor:
        """How well each candidate would support the reconstruction of ``key``: [V, B, N] per patch, above 1.

        The key reads all candidates together, so a score depends on which other candidates are there.
        """
        features = _features(self, [key, *candidates])
        _, second = self.decoder(
            self.stream(features[:, :1], [key]),
            self.stream(features[:, 1:], candidates),
            keep={depth},
            depth=depth,
            last="second",
        )
        scores: Tensor = 1 + self.affinity_head(second[depth]).transpose(0, 1).exp()
        return scores


class LocalToWorld(Trunk):
    """Registers key frames, with their local pointmaps, into the world of scene frames.

    Tokens normally come from Image-to-Points' encoder, so this half has none unless ``encoder`` is set.
    """

    def __init__(self, config: SLAM3RConfig, encoder: bool = False) -> None:
        plain = replace(config, ray_prior=None, pixel_bias=False)
        super().__init__(plain if config.point_prior else config, encoder)
        self.point_prior = config.point_prior
        self.point_embed = PointEmbed(config.dec_dim)

    def forward(self, scene: Sequence[View], keys: Sequence[View], keys_only: bool = False) -> list[Prediction]:
        """World pointmaps of the scene frames, then of the key frames.

        scene      frames with known world ``points``, one size
        keys       frames with ``points`` in their own camera frame
        keys_only  compute and return the key frames' predictions alone
        """
        if not scene or not keys:
            raise ValueError(f"registration needs scene and key frames, got {len(scene)} and {len(keys)}")
        views = [*scene, *keys]
        split = len(scene)
        features = _features(self, views)
        offsets = self._offsets(views)
        first, second = self.decode(
            self.stream(features[:, :split], scene, offsets[:, :split]),
            self.stream(features[:, split:], keys, offsets[:, split:]),
            last="second" if keys_only else None,
        )
        start = self._start(views)
        maps = self.pointmaps(
            self.second_head, features[:, split:], second, keys, None if start is None else start[:, split:]
        )
        if not keys_only:
            scene_start = None if start is None else start[:, :split]
            maps = self.pointmaps(self.first_head, features[:, :split], first, scene, scene_start) + maps
        return [Prediction(m, frame="world") for m in maps]

    def _start(self, views: list[View]) -> Tensor | None:
        """[B, V, H, W, 3] points that the heads move, or None when they start from nothing."""
        if not self.point_prior:
            return None
        return torch.stack([v.points for v in views if v.points is not None], dim=1)

    def _offsets(self, views: list[View]) -> Tensor:
        """[B, V, N, C_d] point embeddings."""
        points = [v.points for v in views if v.points is not None]
        if len(points) != len(views):
            missing = [str(i) for i, v in enumerate(views) if v.points is None]
            raise ValueError(f"registration needs points of every view; missing in view {', '.join(missing)}")
        void = None
        if any(v.void is not None for v in views):
            grid = self.layout(views).grid
            void = torch.cat(
                [
                    torch.zeros(p.shape[0], *grid, dtype=torch.bool, device=p.device) if v.void is None else v.void
                    for v, p in zip(views, points, strict=True)
                ]
            )
        embedded: Tensor = self.point_embed(torch.cat(points), void)
        return torch.unflatten(embedded, 0, (len(views), -1)).transpose(0, 1)


class SLAM3R(nn.Module):
    """Both halves of SLAM3R, with Image-to-Points' encoder for both. All views of a call share one size."""

    checkpoint = Checkpoint("untrained", "slam3r", (), "Apache-2.0", description="random weights")

    def __init__(self, i2p: ImageToPoints, l2w: LocalToWorld) -> None:
        super().__init__()
        self.i2p = i2p
        self.l2w = l2w

    @classmethod
    def from_config(cls, config: SLAM3RConfig) -> Self:
        """A new network with random weights."""
        return cls(ImageToPoints(config), LocalToWorld(config))

    @property
    def input(self) -> InputSpec:
        """How this network wants its images."""
        return self.i2p.input

    def encode(self, images: Tensor) -> Tensor:
        """images [B, 3, H, W] in [-1, 1] -> tokens [B, N, C] for `View.tokens`, before the encoder's norm."""
        return self.i2p.encode(images)

    def local(self, views: Sequence[View] | Tensor, ref: int = 0, reference_only: bool = False) -> list[Prediction]:
        """Pointmaps of a window in the frame of view ``ref``: see `ImageToPoints.forward`."""
        predictions: list[Prediction] = self.i2p(views, ref, reference_only)
        return predictions

    def register(self, scene: Sequence[View], keys: Sequence[View], keys_only: bool = False) -> list[Prediction]:
        """World pointmaps of scene frames, then key frames: see `LocalToWorld.forward`.

        Views without tokens are encoded first.
        """
        views = [*scene, *keys]
        tokens = self.i2p.tokens_of(views)
        views = [replace(v, tokens=t) for v, t in zip(views, tokens, strict=True)]
        predictions: list[Prediction] = self.l2w(views[: len(scene)], views[len(scene) :], keys_only)
        return predictions

    def affinity(self, key: View, candidates: Sequence[View], depth: int = AFFINITY_DEPTH) -> Tensor:
        """Retrieval scores [V, B, N] of ``candidates`` for ``key``: see `ImageToPoints.affinity`."""
        return self.i2p.affinity(key, candidates, depth)


def _features(trunk: Trunk, views: Sequence[View]) -> Tensor:
    """Normalised features [B, V, N, C_e] of views of one size."""
    trunk.layout(views)  # one clear error before anything is computed
    features: Tensor = trunk.encoder_norm(torch.stack(trunk.tokens_of(views), dim=1))
    return features
