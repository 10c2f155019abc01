"""A model of one's own: one file, and one line in the registry.

    python examples/toy_model.py PHOTOS [OUT]

`Solo` looks at each photo alone: encoder, linear head, points in the photo's own camera frame. It takes all photos
to be from the same place, as from a tripod that does not even turn, which is what makes it a toy. Everything else
comes with the package: saving and loading in the common format, `threer models info`, `threer.reconstruct`.

docs/add_a_model.md goes through this file step by step.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import threer
from threer.models import save_checkpoint
from threer.models.backbone import Backbone, NetworkConfig, as_views, initialise, shapes_of
from threer.models.checkpoints import FAMILIES, Family
from threer.types import Checkpoint, Pointmap, Prediction, View


@dataclass(frozen=True)
class SoloConfig(NetworkConfig):
    """Sizes of Solo. `ray_prior`: an untrained head puts all points at distance one, on the rays of a 53° lens."""

    image_size: int = 64
    enc_dim: int = 32
    enc_depth: int = 2
    enc_heads: int = 2
    dec_dim: int = 32
    dec_heads: int = 2
    ray_prior: float | None = 0.5


class Solo(Backbone):
    """One encoder and one head; each view for itself."""

    checkpoint = Checkpoint("untrained", "solo", (), "Apache-2.0", description="random weights")

    def __init__(self, config: SoloConfig) -> None:
        super().__init__(config)
        self.bridge = nn.Linear(config.enc_dim, config.dec_dim)
        self.head = self.make_head()
        self.apply(initialise)

    def forward(self, views: Sequence[View] | Tensor, encode_at_once: int = 8, **_: int) -> list[Prediction]:
        """Pointmaps of all views; the first one's camera frame is everybody's."""
        views = as_views(views)
        predictions = []
        for view, tokens in zip(views, self.tokens_of(views, encode_at_once), strict=True):
            raw = self.raw_maps(self.head, [self.bridge(self.encoder_norm(tokens))], shapes_of([view]))
            points = self.to_pointmap(raw)
            predictions.append(Prediction(points, "first", local=Pointmap(points.xyz, points.conf)))
        return predictions


# The line: settings, network, and "joint" for how it takes frames (all at once, like Fast3R).
FAMILIES["solo"] = Family(Solo, SoloConfig, Solo, "joint")


def main(photos: str, out: str) -> None:
    """Make an untrained Solo, save it, and reconstruct with the file as with any other weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "solo"
        save_checkpoint(Solo(SoloConfig()), weights, Checkpoint("solo", "solo", (), "Apache-2.0"))
        scene = threer.reconstruct(photos, out, weights=str(weights), overwrite=True)
    print(f"{len(scene)} photos, {int(scene.cameras.found.sum())} cameras, {len(scene.cloud()):,} points in {out}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(str(__doc__))
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "out/toy")
