"""Patches, layouts and positions."""

import math

import pytest
import torch

from threer.nn.encoder import Layout, PatchEmbed, ViTEncoder, sincos_positions


def test_tokens_run_row_by_row() -> None:
    patch = PatchEmbed(4)
    image = torch.zeros(1, 3, 32, 48)
    image[..., 16:, 16:32] = 1  # row 1, column 1 of a 2×3 grid
    tokens = patch(image)
    different = (tokens[0] != tokens[0, 0]).any(-1)
    assert different.nonzero().flatten().tolist() == [4]
    assert Layout.of([(32, 48)]).positions()[0, 4].tolist() == [1, 1]


@pytest.mark.parametrize("flags", [(True, False), (True, True)])
def test_stored_transposed_equals_upright(flags: tuple[bool, ...]) -> None:
    torch.manual_seed(0)
    encoder = ViTEncoder(16, 1, 2, absolute_positions=True).eval()
    stored = torch.randn(2, 3, 32, 64)
    mixed = Layout.of([(64, 32) if f else (32, 64) for f in flags], landscape=True)
    tokens = encoder(stored, mixed)
    for i, flag in enumerate(flags):
        upright = stored[i : i + 1].transpose(-1, -2) if flag else stored[i : i + 1]
        alone = encoder(upright, Layout.of([tuple(upright.shape[-2:])]))
        assert torch.allclose(tokens[i : i + 1], alone, atol=1e-6)
    assert mixed.positions()[0].max(0).values.tolist() == [3, 1]


def test_absolute_positions_change_tokens_and_know_the_place() -> None:
    code = sincos_positions(torch.tensor([[0, 0], [1, 0], [0, 1]]), 8)
    assert torch.allclose(code[0], torch.tensor([0.0, 0, 1, 1] * 2))
    assert torch.allclose(code[1, :4], torch.tensor([math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01)]))
    assert torch.equal(code[1, 4:], code[0, 4:])
    assert torch.equal(code[2, 4:], code[1, :4])
    encoder = ViTEncoder(16, 1, 2, absolute_positions=True)
    image, layout = torch.zeros(1, 3, 32, 32), Layout.of([(32, 32)])
    flat = encoder(image, layout)
    encoder.absolute_positions = False
    assert not torch.allclose(flat[0, 0], flat[0, 3])
    assert torch.allclose(encoder(image, layout)[0, 0], encoder(image, layout)[0, 3], atol=1e-6)


@pytest.mark.parametrize("size", [(30, 48), (0, 16)])
def test_odd_sizes_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="not a multiple of 16"):
        Layout.of([size])


def test_different_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"different sizes .*32×48, 48×32.*share one size"):
        Layout.of([(32, 48), (48, 32)])
