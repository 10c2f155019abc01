"""The pose memory: what is written can be told from what is not, and reading changes nothing."""

import torch

from threer.nn.memory import PoseMemory


def test_written_values_change_what_is_read() -> None:
    torch.manual_seed(0)
    memory = PoseMemory(24, 16, 6, 2).eval()
    torch.nn.init.normal_(memory.empty)
    features = torch.randn(2, 5, 24)
    key = memory.key(features)
    assert key.shape == (2, 1, 16)
    assert torch.allclose(key, memory.key(features.flip(1)), atol=1e-6), "the order of tokens says nothing"
    empty = memory.empty.expand(2, -1, -1)
    kept = empty.clone()
    first = memory.read(empty, key)
    assert torch.equal(empty, kept)
    written = memory.write(empty, key, torch.randn(2, 1, 16))
    assert written.shape == empty.shape
    assert not torch.allclose(memory.read(written, key), first, atol=1e-4)
    other = memory.write(empty, key, torch.zeros(2, 1, 16))
    assert not torch.allclose(other, written, atol=1e-4)
