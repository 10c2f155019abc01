"""Max-pooled cross-attention against a plain loop over views."""

import torch

from threer.nn.blocks import CrossAttention, DecoderBlock, ModulatedNorm, merge_heads, split_heads
from threer.nn.encoder import grid_positions
from threer.nn.rope import apply_rope, rope_table


def loop_over_pairs(layer: CrossAttention, x: torch.Tensor, memory: torch.Tensor, px, py) -> torch.Tensor:
    """One (target, memory view) pair at a time, softmax written out."""
    head_dim = x.shape[-1] // layer.heads
    targets = []
    for t in range(x.shape[1]):
        pooled = []
        for m in range(memory.shape[1]):
            q = apply_rope(split_heads(layer.query(x[:, t]), layer.heads), rope_table(px[:, t], head_dim))
            k = apply_rope(split_heads(layer.key(memory[:, m]), layer.heads), rope_table(py[:, m], head_dim))
            v = split_heads(layer.value(memory[:, m]), layer.heads)
            weights = (q @ k.transpose(-1, -2) * head_dim**-0.5).softmax(-1)
            pooled.append(layer.out(merge_heads(weights @ v)))
        targets.append(torch.stack(pooled).max(0).values)
    return torch.stack(targets, dim=1)


def positions(rows: int, columns: int, *lead: int) -> torch.Tensor:
    return grid_positions(rows, columns).expand(*lead, -1, -1)


def test_cross_attention_equals_a_loop_over_views() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(16, 2)
    x, memory = torch.randn(2, 3, 6, 16), torch.randn(2, 4, 8, 16)
    px, py = positions(2, 3, 2, 3), positions(4, 2, 2, 4)
    got = layer(x, memory, rope_table(px, 8), rope_table(py, 8))
    assert torch.allclose(got, loop_over_pairs(layer, x, memory, px, py), atol=1e-6)


def test_decoder_block_keeps_views_and_samples_apart() -> None:
    torch.manual_seed(0)
    block = DecoderBlock(16, 2).eval()
    x, memory = torch.randn(2, 3, 6, 16), torch.randn(2, 2, 6, 16)
    rope_x, rope_y = (rope_table(positions(2, 3, 2, n), 8) for n in (3, 2))
    before = block(x, memory, rope_x, rope_y)
    x[0, 1] += 1
    after = block(x, memory, rope_x, rope_y)
    changed = (before != after).flatten(2).any(-1)
    assert changed.tolist() == [[False, True, False], [False, False, False]]


def test_one_key_needs_no_question() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(16, 2)
    x, memory = torch.randn(2, 3, 6, 16), torch.randn(2, 4, 1, 16)
    px, py = positions(2, 3, 2, 3), positions(1, 1, 2, 4)
    asked = []
    layer.query.register_forward_hook(lambda *_: asked.append(1))
    got = layer(x, memory, rope_table(px, 8), rope_table(py, 8))
    assert not asked
    assert torch.allclose(got, loop_over_pairs(layer, x, memory, px, py), atol=1e-6)


def test_modulation_shifts_first_and_scales_second() -> None:
    torch.manual_seed(0)
    norm = ModulatedNorm(4)
    x, condition = torch.randn(2, 3, 4), torch.randn(2, 4)
    with torch.no_grad():
        norm.modulation.weight.zero_()
        norm.modulation.bias.copy_(torch.tensor([1.0, 2, 3, 4, 0, 0.5, 1, -1]))
    want = torch.nn.functional.layer_norm(x, (4,), eps=1e-6) * torch.tensor([1.0, 1.5, 2, 0])
    assert torch.allclose(norm(x, condition), want + torch.tensor([1.0, 2, 3, 4]), atol=1e-6)
    with torch.no_grad():
        norm.modulation.weight.normal_()
    shift = norm.modulation(condition * condition.sigmoid())[:, :4]
    assert torch.allclose(norm(torch.zeros_like(x), condition), shift.unsqueeze(1).expand(-1, 3, -1), atol=1e-6)
