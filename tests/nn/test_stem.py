"""The convolutional stem."""

from __future__ import annotations

import pytest
import torch

from threer.models.slam3r import SLAM3R, SLAM3RConfig
from threer.nn.encoder import PatchEmbed, ViTEncoder
from threer.nn.stem import ConvStem, ResidualBlock
from threer.training.initialise import initialise
from threer.training.recipes.recipe import Initialisation

WIDTHS = (4, 6, 8, 8)
SMALL: dict[str, int] = {
    "image_size": 32, "enc_dim": 16, "enc_depth": 1, "enc_heads": 2, "dec_dim": 16, "dec_depth": 2, "dec_heads": 2
}  # fmt: skip


def test_a_new_stem_adds_nothing_and_then_learns_what_the_image_shows() -> None:
    stem = ConvStem(16, WIDTHS)
    images = torch.randn(2, 3, 32, 48)
    out = stem(images)
    assert out.shape == (2, 16, 2, 3)
    assert torch.equal(out, torch.zeros_like(out))
    (out - 1).square().sum().backward()
    assert stem.gain.grad is not None
    assert stem.gain.grad.abs().min() > 0
    with torch.no_grad():
        stem.gain.fill_(1.0)
    assert not torch.allclose(stem(images)[0], stem(images)[1])


def test_a_block_adds_to_what_comes_in() -> None:
    block, x = ResidualBlock(4), torch.randn(1, 4, 8, 8)
    change = block(x) - x
    torch.nn.init.zeros_(block.conv2.weight)
    assert block.conv2.bias is not None
    torch.nn.init.zeros_(block.conv2.bias)
    assert torch.equal(block(x), x)
    assert change.abs().mean() > 0.01


def test_a_portrait_stored_as_landscape_gets_the_tokens_of_the_upright_one() -> None:
    embed = PatchEmbed(16, stem=WIDTHS)
    assert embed.stem is not None
    torch.nn.init.ones_(embed.stem.gain)
    upright = torch.randn(1, 3, 48, 32)
    stored = embed(upright.transpose(-1, -2), [True])
    assert torch.allclose(stored, embed(upright), atol=1e-5)


def test_widths_are_four() -> None:
    with pytest.raises(ValueError, match="four widths"):
        ConvStem(16, (8, 8))


def test_weights_without_a_stem_start_a_network_with_one_where_they_were() -> None:
    plain = SLAM3R.from_config(SLAM3RConfig(**SMALL)).eval()
    config = SLAM3RConfig(**SMALL, conv_stem=WIDTHS)
    assert SLAM3RConfig.from_dict(config.to_dict()) == config
    stemmed = SLAM3R.from_config(config).eval()
    report = initialise(stemmed, "slam3r", plain.state_dict(), Initialisation("plain", "slam3r"))
    assert report.random
    assert all(".stem." in name for name in report.random)
    images = torch.randn(2, 3, 32, 32)
    assert torch.allclose(stemmed.encode(images), plain.encode(images), atol=1e-6)
    again = SLAM3R.from_config(config)
    assert not initialise(again, "slam3r", stemmed.state_dict(), Initialisation("stemmed", "slam3r")).random


def test_an_encoder_without_a_stem_has_no_more_tensors_than_the_published_one() -> None:
    assert not any("stem" in name for name in ViTEncoder(16, 1, 2).state_dict())
