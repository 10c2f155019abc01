"""View codes, the published draw of ids, and sharper attention."""

import math

import pytest
import torch

from threer.nn.fusion import FusionDecoder, draw_view_ids, view_codes


def test_published_code() -> None:
    code = view_codes(torch.tensor([1, 999]), 1024)
    sines, cosines = code[0].split(512)
    assert sines[[0, 1, 511]].tolist() == pytest.approx([0.841471, 0.831705, 0.000102], abs=1e-6)
    assert cosines[[0, 1, 511]].tolist() == pytest.approx([0.540302, 0.555217, 1.0], abs=1e-6)
    assert code[1, 1].item() == pytest.approx(math.sin(999 * 10000 ** (-1 / 512)), abs=1e-7), "needs float64"
    with pytest.raises(ValueError, match="width 7 is odd"):
        view_codes(torch.tensor([1]), 7)


def test_published_draw() -> None:
    torch.manual_seed(0)
    seed = int(torch.randint(0, 2**32, (1,)))
    assert seed == 2546248239
    assert draw_view_ids(1, 6, seed).tolist() == [[0, 877, 196, 337, 361, 409]]
    assert draw_view_ids(3, 1, seed).tolist() == [[0]] * 3


def test_ids_differ_within_a_sample_and_between_samples() -> None:
    ids = draw_view_ids(2, 1000, 7)
    assert ids.shape == (2, 1000)
    assert all(len(set(row)) == 1000 for row in ids.tolist())
    assert not torch.equal(ids[0], ids[1])


def test_published_scale() -> None:
    decoder = FusionDecoder(128, 1, 2).eval()
    assert decoder.scale == pytest.approx(0.16019178, abs=1e-8)
    assert decoder.train().scale == 0.125
    assert FusionDecoder(128, 1, 2, sharpen=False).eval().scale == 0.125
    assert {m.eps for m in decoder.modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-5}


def test_scale_reaches_the_softmax() -> None:
    torch.manual_seed(0)
    decoder = FusionDecoder(16, 1, 1).eval()
    x = torch.randn(1, 5, 16)
    block = decoder.blocks[0]
    q, k, v = block.attention.qkv(block.attention_norm(x)).chunk(3, dim=-1)
    y = x + block.attention.out((q @ k.mT * decoder.scale).softmax(-1) @ v)
    y = y + block.mlp(block.mlp_norm(y))
    assert torch.allclose(decoder(x, {1})[1], y, atol=1e-6)
    assert decoder(x, set()) == {}
