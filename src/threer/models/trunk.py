"""What DUSt3R and SLAM3R have in common: one encoder, two decoder streams that read each other, two heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from threer.models.backbone import Backbone, NetworkConfig, initialise, shapes_of
from threer.nn.blocks import layer_norm
from threer.nn.decoder import Side, Stream, TwoStreamDecoder
from threer.types import Pointmap, View


class Trunk(Backbone):
    """Encoder, projection, two-stream decoder and one head for each stream."""

    def __init__(self, config: NetworkConfig, encoder: bool = True) -> None:
        super().__init__(config, encoder)
        self.bridge = nn.Linear(config.enc_dim, config.dec_dim)
        self.decoder = TwoStreamDecoder(
            config.dec_dim,
            config.dec_depth,
            (config.dec_heads, config.dec_heads),
            config.mlp_ratio,
            config.rope_base,
        )
        self.decoder_norm = layer_norm(config.dec_dim)
        self.first_head = self.make_head()
        self.second_head = self.make_head()
        self.apply(initialise)

    def stream(self, features: Tensor, views: Sequence[View], offset: Tensor | None = None) -> Stream:
        """Normalised ``features`` [B, V, N, C_e] of ``views`` as decoder input."""
        positions = self.layout(views).positions(features.device)
        positions = torch.unflatten(positions, 0, features.shape[:2])
        return Stream(self.bridge(features), positions, offset)

    def decode(
        self, first: Stream, second: Stream, also: int | None = None, last: Side | None = None
    ) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
        """Layers [B, V, N, C_d] that the heads read, and layer ``also``, of both streams; the last one normalised.

        ``last`` names the only stream whose last layer is wanted.
        """
        depth = self.config.dec_depth
        first_layers, second_layers = self.decoder(first, second, {*self.taps, also or depth}, last=last)
        for layers in (first_layers, second_layers):
            if depth in layers:
                layers[depth] = self.decoder_norm(layers[depth])
        return first_layers, second_layers

    def pointmaps(
        self,
        head: nn.Module,
        features: Tensor,
        layers: Mapping[int, Tensor],
        views: Sequence[View],
        start: Tensor | None = None,
    ) -> list[Pointmap]:
        """What ``head`` makes of one stream: ``features`` [B, V, N, C_e], decoder ``layers`` [B, V, N, C_d].

        ``start`` [B, V, H, W, 3] are points that the head's raw output moves, or None for the origin.
        """
        chosen = {0: features} | dict(layers)
        # The point activation is an exponential: heads always run in float32 (networks.md section 6).
        with torch.autocast(features.device.type, enabled=False):
            taps = [chosen[k].float().flatten(0, 1) for k in self.taps]
            raw = torch.unflatten(self.raw_maps(head, taps, shapes_of(views)), 0, features.shape[:2])
            maps = self.to_pointmap(raw, start)
        return [Pointmap(maps.xyz[:, v], maps.conf[:, v]) for v in range(len(views))]
