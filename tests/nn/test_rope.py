"""Rotary embedding against the published numbers and its own defining property."""

import pytest
import torch

from threer.nn.rope import apply_rope, rope_table


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ((2, 3), [-3.144039, 1.165456, -0.339143, 4.317605, -5.937803, 3.367857, -6.224347, 9.415813]),
        ((-1, -1), [3.064715, 2.389342, 0.779436, 3.780350, 8.591808, 6.768692, -0.425238, 7.361033]),
    ],
)
def test_published_vectors(position: tuple[int, int], expected: list[float]) -> None:
    x = torch.arange(1.0, 9.0).view(1, 1, 1, 8)
    rotated = apply_rope(x, rope_table(torch.tensor([[position]]), 8))
    assert torch.allclose(rotated.flatten(), torch.tensor(expected), atol=2e-6)


def test_products_depend_on_the_difference_of_positions_only() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 2, 1, 16)
    scores = []
    for shift in (0, -7, 20):
        here, there = torch.tensor([[[3 + shift, 5 + shift]]]), torch.tensor([[[1 + shift, 9 + shift]]])
        scores.append((apply_rope(q, rope_table(here, 16)) * apply_rope(k, rope_table(there, 16))).sum(-1))
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    assert torch.allclose(scores[0], scores[2], atol=1e-5)


def test_angles_stay_exact_in_low_precision() -> None:
    x = torch.randn(1, 1, 1, 16)
    table = rope_table(torch.tensor([[[23, 31]]]), 16)
    low = apply_rope(x.bfloat16(), table)
    assert low.dtype == torch.bfloat16
    assert torch.allclose(low.float(), apply_rope(x.bfloat16().float(), table), atol=2e-2)


def test_head_size_must_split_into_four() -> None:
    with pytest.raises(ValueError, match="head size 6 is not a multiple of 4"):
        rope_table(torch.zeros(1, 1, 2, dtype=torch.long), 6)
