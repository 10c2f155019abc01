"""A tiny SLAM3R with random weights, and a stream of random frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.types import Frame

SIZE = 32


@pytest.fixture(scope="session")
def model() -> SLAM3R:
    torch.manual_seed(3)
    config = SLAM3RConfig(
        image_size=SIZE, enc_dim=16, enc_depth=1, enc_heads=2, dec_dim=16, dec_depth=2, dec_heads=2, ray_prior=0.6
    )
    return SLAM3R.from_config(config).eval()


@pytest.fixture
def frames() -> list[Frame]:
    """60 frames of a picture that drifts, so that neighbours look alike."""
    generator = torch.Generator().manual_seed(5)
    wide = torch.nn.functional.interpolate(
        torch.rand(1, 3, 8, 40, generator=generator), size=(SIZE, 5 * SIZE), mode="bilinear"
    )[0]
    return [
        Frame(wide[:, :, 2 * i : 2 * i + SIZE].clone(), i, i / 10, f"{i}.png", (SIZE, SIZE), np.eye(2, 3))
        for i in range(60)
    ]
