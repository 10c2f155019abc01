"""Fast3R: who a view is, and that neither chunks nor order change what it shows."""

from __future__ import annotations

import pytest
import torch

from threer.models import Fast3R, Fast3RConfig
from threer.nn.dpt import DPTDims
from threer.types import Prediction, View

SIZES = {"image_size": 48, "enc_dim": 32, "enc_depth": 1, "enc_heads": 2, "dec_dim": 32, "dec_depth": 4}
SIZES |= {"dec_heads": 2, "dpt": DPTDims(8, 4, (4, 4, 8, 8))}


def make(**changes: object) -> Fast3R:
    torch.manual_seed(5)
    network = Fast3R(Fast3RConfig(**SIZES | changes)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.2
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, spread)
    return network


@pytest.fixture(scope="module")
def model() -> Fast3R:
    return make()


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def pictures(count: int, batch: int = 2, size: tuple[int, int] = (48, 32)) -> torch.Tensor:
    return torch.rand(batch, count, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def mixture() -> list[View]:
    sizes = [(48, 32), (32, 32), (48, 32), (16, 64), (32, 32), (48, 32)]
    return [View(pictures(1, 1, size)[:, 0] * (1 - 0.1 * i)) for i, size in enumerate(sizes)]


def assert_same(got: list[Prediction], want: list[Prediction], tolerance: float = 2e-5) -> None:
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.frame == "first"
        assert a.local is not None
        assert b.local is not None
        for x, y in ((a.points.xyz, b.points.xyz), (a.local.xyz, b.local.xyz), (a.local.conf, b.local.conf)):
            assert x.shape == y.shape
            error = (x - y).abs().max() / y.abs().max()
            assert error < tolerance, f"view {i}: {error:.1e}"


def differ(a: Prediction, b: Prediction) -> bool:
    return not torch.allclose(a.points.xyz, b.points.xyz, rtol=1e-2)


def test_order_of_the_other_views_does_not_matter(model: Fast3R) -> None:
    views = mixture()
    ids = torch.tensor([0, 700, 3, 42, 999, 12])
    plain = model(views, ids)
    order = [0, 3, 5, 1, 4, 2]
    turned = model([views[i] for i in order], ids[order])
    assert_same(turned, [plain[i] for i in order])
    assert differ(model(views, ids[order])[1], plain[1]), "without their ids they are other views"


@pytest.mark.parametrize(("encode_at_once", "heads_at_once"), [(1, 1), (2, 3), (100, 100)])
def test_chunks_do_not_change_results(model: Fast3R, encode_at_once: int, heads_at_once: int) -> None:
    batches = []
    hook = model.encoder.register_forward_hook(lambda module, args, out: batches.append(len(out)))
    got = model(mixture(), encode_at_once=encode_at_once, heads_at_once=heads_at_once)
    hook.remove()
    assert max(batches) == min(encode_at_once, 3)
    assert_same(got, model(mixture()))
    several = pictures(4)
    assert_same(model(several, encode_at_once=encode_at_once, heads_at_once=heads_at_once), model(several))


def test_samples_of_a_batch_are_on_their_own(model: Fast3R) -> None:
    several = pictures(3)
    ids = torch.tensor([[0, 7, 9], [0, 500, 3]])
    together = model(several, ids)
    for b in range(2):
        for alone, both in zip(model(several[b : b + 1], ids[b]), together, strict=True):
            assert torch.allclose(alone.points.xyz[0], both.points.xyz[b], rtol=1e-3, atol=1e-4)


def test_ids_follow_the_seed_and_leave_the_world_alone(model: Fast3R) -> None:
    several = pictures(3)
    before = torch.get_rng_state()
    first, again, other = model(several), model(several), model(several, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first[1].points.xyz, again[1].points.xyz)
    assert differ(first[1], other[1])
    counted = make(random_ids=False)
    assert_same(counted(several), model(several, ids=torch.arange(3)))
    assert_same(counted(several, seed=1), counted(several))


def test_attention_is_sharper_at_evaluation_only() -> None:
    several = pictures(2)
    sharp, plain = make(), make(sharpen=False)
    assert differ(sharp(several)[1], plain(several)[1])
    assert_same(sharp.train()(several), plain(several))


def test_local_head_is_optional() -> None:
    single = make(local_head=False)
    assert [p.local for p in single(pictures(2))] == [None, None]


def test_linear_heads_read_the_last_layer_only() -> None:
    model = make(head="linear")
    assert model.taps == (4,)
    assert [tuple(p.points.xyz.shape) for p in model(mixture())][3] == (1, 16, 64, 3)


def test_cached_tokens_are_images(model: Fast3R) -> None:
    views = mixture()
    cached = [View(None, view.true_shape, model.encode(view.image)) for view in views]
    assert_same(model(cached), model(views))


def test_stored_landscape_equals_upright_portrait(model: Fast3R) -> None:
    stored = make(stored_landscape=True, landscape_maps=True)
    upright = pictures(3, 1, (64, 32))
    wide = pictures(1, 1, (32, 64))[:, 0]
    turned = [View(image.transpose(-1, -2), torch.tensor([[64, 32]])) for image in upright.unbind(1)]
    got = stored([turned[0], View(wide), turned[1]])
    want = model([View(upright[:, 0]), View(wide), View(upright[:, 1])])
    assert torch.allclose(got[0].points.xyz, want[0].points.xyz.transpose(1, 2), rtol=1e-3, atol=1e-3)
    assert torch.allclose(got[1].points.xyz, want[1].points.xyz, rtol=1e-3, atol=1e-3)


def test_gradients_reach_every_parameter() -> None:
    model = Fast3R(Fast3RConfig(**SIZES))
    with torch.enable_grad():
        predictions = model(mixture())
        sum(m.xyz.sum() + m.conf.sum() for p in predictions for m in (p.points, p.local)).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_wrong_calls_say_what_is_wrong(model: Fast3R) -> None:
    with pytest.raises(ValueError, match="Fast3R tells 1000 views apart, got 1001; take fewer frames"):
        model([View(torch.zeros(1, 3, 16, 16))] * 1001)
    several = pictures(2)
    with pytest.raises(ValueError, match=r"ids must be integers \[2\] or \[2, 2\], got torch.int64 \[3\]"):
        model(several, ids=torch.arange(3))
    with pytest.raises(ValueError, match=r"ids must lie in 0\.\.999, got 0\.\.1000"):
        model(several, ids=torch.tensor([0, 1000]))
    with pytest.raises(ValueError, match="different batch sizes: 1, 2"):
        model([View(several[:, 0]), View(several[:1, 1])])
    with pytest.raises(ValueError, match="view 1 has neither an image nor tokens"):
        model([View(several[:, 0]), View(ray_map=torch.zeros(2, 48, 32, 6))])
    with pytest.raises(ValueError, match="at least one view"):
        model([])
