"""DUSt3R: two images to two pointmaps in the first camera's frame (Wang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from threer.models.backbone import NetworkConfig, as_views
from threer.models.trunk import Trunk
from threer.types import Checkpoint, Prediction, View


@dataclass(frozen=True)
class DUSt3RConfig(NetworkConfig):
    """Sizes of DUSt3R; the defaults are those of the published 224-pixel model with linear heads."""


class DUSt3R(Trunk):
    """One encoder, a decoder and a head for each of the two views."""

    checkpoint = Checkpoint("untrained", "dust3r", (), "Apache-2.0", description="random weights")

    def __init__(self, config: DUSt3RConfig) -> None:
        super().__init__(config)

    def forward(self, views: Sequence[View] | Tensor, symmetrized: bool = False) -> list[Prediction]:
        """Pointmaps of both views in the camera frame of the first.

        views        two views of B samples, with images or cached tokens (`encode`); the two may differ in size.
                     A tensor [B, 2, 3, H, W] stands for two views.
        symmetrized  the caller promises that samples 2i and 2i+1 are the same two images of one size in both
                     orders; each image is then encoded once
        """
        views = as_views(views)
        if len(views) != 2:
            raise ValueError(f"DUSt3R takes two views, got {len(views)}")
        tokens = self._symmetrized_tokens(views) if symmetrized else self.tokens_of(views)
        features = [self.encoder_norm(t).unsqueeze(1) for t in tokens]  # [B, 1, N, C_e] each
        streams = [self.stream(f, [v]) for f, v in zip(features, views, strict=True)]
        layers = self.decode(streams[0], streams[1])
        return [
            Prediction(self.pointmaps(head, features[i], layers[i], [views[i]])[0], frame="first")
            for i, head in enumerate((self.first_head, self.second_head))
        ]

    def _symmetrized_tokens(self, views: list[View]) -> list[Tensor]:
        if views[0].batch % 2:
            raise ValueError(f"a symmetrized batch has an even size, got {views[0].batch}")
        halves = [
            View(
                v.image[::2] if v.image is not None else None,
                v.shape[::2],
                v.tokens[::2] if v.tokens is not None else None,
            )
            for v in views
        ]
        a, b = self.tokens_of(halves)
        return [torch.stack(order, dim=1).flatten(0, 1) for order in ((a, b), (b, a))]
