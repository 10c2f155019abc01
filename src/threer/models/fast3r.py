"""Fast3R: any number of images, of any mixture of sizes, in one forward pass (Yang et al., CVPR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from threer.models.backbone import Backbone, NetworkConfig, as_views, batches, initialise, shapes_of
from threer.nn.blocks import layer_norm
from threer.nn.fusion import VIEW_CODES, FusionDecoder, draw_view_ids, view_codes
from threer.types import Checkpoint, Pointmap, Prediction, View

SEED = 42


@dataclass(frozen=True)
class Fast3RConfig(NetworkConfig):
    """Sizes of Fast3R; the defaults are the published ones."""

    image_size: int = 512
    dec_dim: int = 1024
    dec_depth: int = 24
    dec_heads: int = 16
    head: Literal["linear", "dpt"] = "dpt"
    random_ids: bool = True
    """Views after the first are told apart by random ids, as in training; otherwise by their order."""
    sharpen: bool = True
    """More selective attention at evaluation, for more views than were trained on."""
    local_head: bool = True
    """Also predict points in each view's own camera frame."""

    @property
    def decoder_rope(self) -> bool:
        return False


class Fast3R(Backbone):
    """One encoder, one decoder over the tokens of all views together, a global and a local head."""

    checkpoint = Checkpoint("untrained", "fast3r", (), "Apache-2.0", description="random weights")
    config: Fast3RConfig

    def __init__(self, config: Fast3RConfig) -> None:
        super().__init__(config)
        self.bridge = nn.Linear(config.enc_dim, config.dec_dim)
        self.decoder = FusionDecoder(
            config.dec_dim, config.dec_depth, config.dec_heads, config.mlp_ratio, config.sharpen
        )
        self.decoder_norm = layer_norm(config.dec_dim)
        self.global_head = self.make_head()
        self.local_head = self.make_head() if config.local_head else None
        self.apply(initialise)

    def forward(
        self,
        views: Sequence[View] | Tensor,
        ids: Tensor | None = None,
        seed: int = SEED,
        encode_at_once: int = 32,
        heads_at_once: int = 8,
    ) -> list[Prediction]:
        """Pointmaps of all views in the camera frame of the first, and of each in its own.

        views           of B samples, with images or cached tokens (`encode`), each of its own size. A tensor
                        [B, V, 3, H, W] stands for V views.
        ids             [B, V] or [V] integers below 1000 that tell the views apart, 0 for the first. None draws
                        them from ``seed``, or counts, as the settings say.
        encode_at_once  views in one batch of the encoder
        heads_at_once   views in one batch of the heads

        The numbers at once bound the memory and do not change results. Raises ValueError for more views than ids.
        """
        views = as_views(views)
        ids = self._ids(views, ids, seed)
        features = [self.encoder_norm(tokens) for tokens in self.tokens_of(views, encode_at_once)]
        lengths = [f.shape[1] for f in features]
        depth = self.config.dec_depth
        # Only the layers that the heads read outlive the decoder.
        layers = self.decoder(self._coded(features, ids), {*self.taps, depth})
        layers[depth] = self.decoder_norm(layers[depth])
        taps = [features if k == 0 else layers[k].split(lengths, dim=1) for k in self.taps]
        shapes = [shapes_of([view]) for view in views]
        predictions: dict[int, Prediction] = {}
        for group in batches({i: frozenset(map(tuple, s)) for i, s in enumerate(shapes)}, heads_at_once):
            chosen = [torch.cat([tap[i] for i in group]) for tap in taps]
            sizes = [size for i in group for size in shapes[i]]
            points = self._maps(self.global_head, chosen, sizes, len(group))
            own = self._maps(self.local_head, chosen, sizes, len(group)) if self.local_head else [None] * len(group)
            for i, world, local in zip(group, points, own, strict=True):
                predictions[i] = Prediction(world, "first", local=local)
        return [predictions[i] for i in range(len(views))]

    def _coded(self, features: Sequence[Tensor], ids: Tensor) -> Tensor:
        """features [B, N, C_e] of each view -> decoder input [B, ΣN, C]: each token tells which view it is of."""
        tokens = self.bridge(torch.cat(list(features), dim=1))
        codes = view_codes(ids, self.config.dec_dim).to(tokens)  # [B, V, C]
        lengths = [f.shape[1] for f in features]
        parts = zip(tokens.split(lengths, dim=1), codes.unbind(1), strict=True)
        return torch.cat([part + code.unsqueeze(1) for part, code in parts], dim=1)

    def _ids(self, views: Sequence[View], ids: Tensor | None, seed: int) -> Tensor:
        """[B, V] ids on the CPU."""
        batch, count = len(shapes_of(views[:1])), len(views)
        shapes_of(views)  # one clear error about batch sizes before anything is computed
        if count > VIEW_CODES:
            raise ValueError(f"Fast3R tells {VIEW_CODES} views apart, got {count}; take fewer frames")
        if ids is None:
            if self.config.random_ids:
                return draw_view_ids(batch, count, seed)
            return torch.arange(count).expand(batch, -1)
        ids = ids.cpu()
        if ids.shape not in ((count,), (batch, count)) or ids.is_floating_point():
            raise ValueError(
                f"ids must be integers [{count}] or [{batch}, {count}], got {ids.dtype} {list(ids.shape)}"
            )
        if int(ids.min()) < 0 or int(ids.max()) >= VIEW_CODES:
            raise ValueError(f"ids must lie in 0..{VIEW_CODES - 1}, got {int(ids.min())}..{int(ids.max())}")
        return ids.expand(batch, -1)

    def _maps(self, head: nn.Module, taps: list[Tensor], shapes: list[list[int]], views: int) -> list[Pointmap]:
        with torch.autocast(taps[0].device.type, enabled=False):
            maps = self.to_pointmap(self.raw_maps(head, [t.float() for t in taps], shapes))
        return [Pointmap(*pair) for pair in zip(maps.xyz.chunk(views), maps.conf.chunk(views), strict=True)]
