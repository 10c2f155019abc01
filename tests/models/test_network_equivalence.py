"""Different ways to the same result (networks.md section 12), and what may not change a result."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from threer.errors import ThreerError
from threer.models import SLAM3R, DUSt3R, DUSt3RConfig, SLAM3RConfig
from threer.types import Prediction, View

SIZES = {"image_size": 48, "enc_dim": 32, "enc_depth": 1, "enc_heads": 2}
SIZES |= {"dec_dim": 16, "dec_depth": 3, "dec_heads": 2}


def scramble(model: torch.nn.Module) -> None:
    """Strong random weights, norms and biases too, so that a wrong connection shows."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.ndim > 1 else 0.2
            mean = 1.0 if parameter.ndim == 1 and parameter.mean() > 0.5 else 0.0
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread + mean)
    for name, parameter in model.named_parameters():
        if "head" in name:
            parameter.data *= 0.2


@pytest.fixture(scope="module")
def slam3r() -> SLAM3R:
    model = SLAM3R.from_config(SLAM3RConfig(**SIZES)).eval()
    scramble(model)
    return model


@pytest.fixture(scope="module")
def dust3r(slam3r: SLAM3R) -> DUSt3R:
    """DUSt3R with the trunk of Image-to-Points, which has the same names."""
    model = DUSt3R(DUSt3RConfig(**SIZES)).eval()
    shared = {k: v for k, v in slam3r.i2p.state_dict().items() if not k.startswith("affinity_head")}
    model.load_state_dict(shared)
    return model


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def images(count: int, batch: int = 1, size: tuple[int, int] = (48, 32), seed: int = 0) -> Tensor:
    return torch.rand(batch, count, 3, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def scene_views(model: SLAM3R, count: int, batch: int = 1, seed: int = 0) -> list[View]:
    generator = torch.Generator().manual_seed(seed + 100)
    stacked = images(count, batch, (32, 32), seed)
    return [
        View(true_shape=torch.tensor([[32, 32]] * batch), tokens=model.encode(image), points=points)
        for image, points in zip(
            stacked.unbind(1), torch.randn(batch, count, 32, 32, 3, generator=generator).unbind(1), strict=True
        )
    ]


def assert_same(got: list[Prediction], want: list[Prediction]) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.frame == b.frame
        assert torch.allclose(a.points.xyz, b.points.xyz, rtol=1e-4, atol=1e-5 * b.points.xyz.abs().max().item())
        assert torch.allclose(a.points.conf, b.points.conf, rtol=1e-4)
        if a.logits is not None and b.logits is not None:
            assert torch.allclose(a.logits, b.logits, atol=1e-4)


def test_window_of_two_is_dust3r(slam3r: SLAM3R, dust3r: DUSt3R) -> None:
    pair = images(2, batch=2)
    for a, b in zip(slam3r.local(pair), dust3r(pair), strict=True):
        assert torch.allclose(a.points.xyz, b.points.xyz, atol=1e-5)
        assert torch.allclose(a.points.conf, b.points.conf, atol=1e-5)


def test_symmetrized_batch_is_the_plain_one(dust3r: DUSt3R) -> None:
    a, b = images(2, batch=2).unbind(1)
    rows = [torch.stack(order, 1).flatten(0, 1) for order in ((a, b), (b, a))]
    views = [View(image) for image in rows]
    encoded = []
    handle = dust3r.encoder.register_forward_hook(lambda m, args, out: encoded.append(len(out)))
    plain = dust3r(views)
    half = dust3r(views, symmetrized=True)
    handle.remove()
    assert encoded == [8, 4]
    assert_same(half, plain)


def test_symmetrized_batch_of_odd_size_is_refused(dust3r: DUSt3R) -> None:
    with pytest.raises(ValueError, match="even size, got 1"):
        dust3r(images(2), symmetrized=True)


def test_views_of_different_sizes(dust3r: DUSt3R) -> None:
    wide, tall = images(1, size=(32, 64))[:, 0], images(1, size=(48, 16))[:, 0]
    first, second = dust3r([View(wide), View(tall)])
    assert first.points.xyz.shape == (1, 32, 64, 3)
    assert second.points.xyz.shape == (1, 48, 16, 3)
    cached = [View(None, torch.tensor([i.shape[-2:]]), dust3r.encode(i)) for i in (wide, tall)]
    assert_same(dust3r(cached), [first, second])


def test_batched_windows_are_single_windows(slam3r: SLAM3R) -> None:
    windows = images(4, batch=3)
    together = slam3r.local(windows, ref=1)
    for b in range(3):
        alone = slam3r.local(windows[b : b + 1], ref=1)
        for v, (a, t) in enumerate(zip(alone, together, strict=True)):
            assert torch.allclose(a.points.xyz[0], t.points.xyz[b], atol=1e-5), f"view {v}"
            if v != 1:
                assert torch.allclose(a.logits[0], t.logits[b], atol=1e-5)


def test_order_of_sources_does_not_matter(slam3r: SLAM3R) -> None:
    views = [View(image) for image in images(4).unbind(1)]
    plain = slam3r.local(views)
    order = [0, 3, 1, 2]
    assert_same(slam3r.local([views[i] for i in order]), [plain[i] for i in order])


def test_predictions_come_in_the_order_of_the_views(slam3r: SLAM3R) -> None:
    views = [View(image) for image in images(4).unbind(1)]
    moved = slam3r.local([views[1], views[2], views[0], views[3]], ref=2)
    plain = slam3r.local(views, ref=0)
    assert_same(moved, [plain[1], plain[2], plain[0], plain[3]])
    assert moved[2].logits is None
    assert all(p.logits is not None for i, p in enumerate(moved) if i != 2)


def test_order_within_scene_and_keys_does_not_matter(slam3r: SLAM3R) -> None:
    views = scene_views(slam3r, 5)
    plain = slam3r.register(views[:3], views[3:])
    turned = slam3r.register([views[2], views[0], views[1]], [views[4], views[3]])
    assert_same(turned, [plain[2], plain[0], plain[1], plain[4], plain[3]])


@pytest.mark.parametrize("ref", [0, 2])
def test_reference_only_skips_work_not_precision(slam3r: SLAM3R, ref: int) -> None:
    window = images(4, batch=2)
    last = slam3r.i2p.decoder.second[-1]
    ran = []
    handle = last.register_forward_hook(lambda *_: ran.append(1))
    only = slam3r.local(window, ref=ref, reference_only=True)
    assert not ran, "the last layer of the sources is not needed"
    full = slam3r.local(window, ref=ref)
    handle.remove()
    assert ran
    assert_same(only, [full[ref]])


def test_keys_only_skips_work_not_precision(slam3r: SLAM3R) -> None:
    views = scene_views(slam3r, 5, batch=2)
    ran = []
    handle = slam3r.l2w.decoder.first[-1].register_forward_hook(lambda *_: ran.append(1))
    only = slam3r.register(views[:3], views[3:], keys_only=True)
    assert not ran
    full = slam3r.register(views[:3], views[3:])
    handle.remove()
    assert_same(only, full[3:])


def test_images_and_cached_tokens_agree(slam3r: SLAM3R) -> None:
    window = images(3)
    cached = [View(None, torch.tensor([[48, 32]]), slam3r.encode(image)) for image in window.unbind(1)]
    mixed = [cached[0], View(window[:, 1]), cached[2]]
    plain = slam3r.local(window)
    assert_same(slam3r.local(cached), plain)
    assert_same(slam3r.local(mixed), plain)


def test_affinity_is_one_plus_exp_of_the_logits(slam3r: SLAM3R) -> None:
    views = [View(image) for image in images(4, batch=2).unbind(1)]
    scores = slam3r.affinity(views[0], views[1:])
    assert scores.shape == (3, 2, 6)
    logits = torch.stack([p.logits for p in slam3r.local(views)[1:]])
    assert torch.allclose(scores, 1 + logits.exp(), rtol=1e-4)
    assert not torch.allclose(scores, slam3r.affinity(views[0], views[1:], depth=1))


def test_affinity_depends_on_the_other_candidates(slam3r: SLAM3R) -> None:
    views = [View(image) for image in images(4).unbind(1)]
    assert not torch.allclose(slam3r.affinity(views[0], views[1:3]), slam3r.affinity(views[0], views[1:])[:2])


def test_void_patches_ignore_their_points(slam3r: SLAM3R) -> None:
    scene, key = scene_views(slam3r, 2)
    void = torch.zeros(1, 2, 2, dtype=torch.bool)
    void[0, 0, 1] = True
    results = []
    for fill in (0.0, 7.0):
        points = scene.points.clone()
        points[:, :16, 16:] = fill
        masked = View(None, scene.true_shape, scene.tokens, points, void)
        results.append(slam3r.register([masked], [key], keys_only=True))
    assert_same(results[0], results[1])
    seen = slam3r.register([View(None, scene.true_shape, scene.tokens, points)], [key], keys_only=True)
    assert not torch.allclose(seen[0].points.xyz, results[1][0].points.xyz)


def test_stored_landscape_equals_upright_portrait(dust3r: DUSt3R) -> None:
    config = DUSt3RConfig(**SIZES, stored_landscape=True, landscape_maps=True)
    mixed = DUSt3R(config).eval()
    mixed.load_state_dict(dust3r.state_dict())
    upright = images(2, size=(64, 32))
    shape = torch.tensor([[64, 32]])
    stored = [View(image.transpose(-1, -2), shape) for image in upright.unbind(1)]
    for got, want in zip(mixed(stored), dust3r(upright), strict=True):
        assert got.points.xyz.shape == (1, 32, 64, 3)
        assert torch.allclose(got.points.xyz, want.points.xyz.transpose(1, 2), atol=1e-5)
        assert torch.allclose(got.points.conf, want.points.conf.transpose(1, 2), atol=1e-5)


def test_point_prior_leaves_scene_frames_where_they_are() -> None:
    model = SLAM3R.from_config(SLAM3RConfig(**SIZES, point_prior=True, ray_prior=0.5)).eval()
    for head in (model.l2w.first_head, model.l2w.second_head):
        head.linear.weight.zero_()
        head.linear.bias.zero_()
    views = scene_views(model, 3)
    for view, prediction in zip(views, model.register(views[:2], views[2:]), strict=True):
        assert torch.allclose(prediction.points.xyz, view.points, atol=1e-5)


def test_heads_stay_in_float32_under_autocast(slam3r: SLAM3R) -> None:
    window = images(2)
    exact = slam3r.local(window)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = slam3r.local(window)
    assert rough[0].points.xyz.dtype == torch.float32
    error = (rough[0].points.xyz - exact[0].points.xyz).norm() / exact[0].points.xyz.norm()
    assert 0 < error < 0.2


def test_gradients_reach_every_parameter() -> None:
    model = SLAM3R.from_config(SLAM3RConfig(**SIZES))
    with torch.enable_grad():
        local = model.local(images(3))
        views = [
            View(None, torch.tensor([[48, 32]]), model.encode(image), torch.randn(1, 48, 32, 3))
            for image in images(3).unbind(1)
        ]
        views[0] = View(
            None, views[0].true_shape, views[0].tokens, views[0].points, torch.ones(1, 3, 2, dtype=torch.bool)
        )
        world = model.register(views[:2], views[2:])
        loss = sum(p.points.xyz.sum() + p.points.conf.sum() for p in [*local, *world])
        loss = loss + sum(p.logits.sum() for p in local if p.logits is not None)
        loss.backward()
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not untouched


def test_wrong_calls_say_what_is_wrong(slam3r: SLAM3R, dust3r: DUSt3R) -> None:
    tall, wide = View(images(1)[:, 0]), View(images(1, size=(32, 48))[:, 0])
    with pytest.raises(ValueError, match="views of one call must share one size"):
        slam3r.local([tall, wide])
    with pytest.raises(ValueError, match="two views or more"):
        slam3r.local([tall])
    with pytest.raises(ValueError, match="missing in view 0, 1"):
        slam3r.register([tall], [tall])
    with pytest.raises(ValueError, match="different batch sizes: 1, 2"):
        slam3r.local([tall, View(images(1, batch=2)[:, 0])])
    with pytest.raises(ValueError, match="two views, got 3"):
        dust3r(images(3))
    with pytest.raises(ValueError, match="depth 4 is not between 1 and the decoder's 3"):
        slam3r.affinity(tall, [tall], depth=4)
    with pytest.raises(ValueError, match="not a multiple of 16"):
        slam3r.encode(torch.zeros(1, 3, 30, 32))


def test_config_names_the_valid_settings() -> None:
    config = SLAM3RConfig(**SIZES, ray_prior=0.5, absolute_positions=True)
    assert SLAM3RConfig.from_dict(config.to_dict()) == config
    with pytest.raises(ThreerError, match=r"no setting 'encdim'; did you mean enc_dim.*Valid: image_size, enc_dim"):
        SLAM3RConfig.from_dict({"encdim": 3})
    with pytest.raises(ThreerError, match="dec_dim 30"):
        SLAM3RConfig(dec_dim=30, dec_heads=4)
    with pytest.raises(ThreerError, match="ray_prior needs the linear head"):
        DUSt3RConfig(head="dpt", ray_prior=0.5)
