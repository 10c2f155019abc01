"""CUT3R: what changes the state and what may not, and that the ways to run it agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from threer.errors import ThreerError
from threer.models import CUT3R, CUT3RConfig
from threer.models.cut3r import State
from threer.nn.dpt import DPTDims
from threer.types import Prediction, View

SIZES = {"image_size": 48, "enc_dim": 32, "enc_depth": 1, "enc_heads": 2, "dec_dim": 32, "dec_depth": 3}
SIZES |= {"dec_heads": 2, "state_size": 10, "state_heads": 4, "memory_size": 5, "ray_depth": 1, "ray_heads": 4}
BATCH = 2


@pytest.fixture(scope="module")
def model() -> CUT3R:
    torch.manual_seed(3)
    network = CUT3R(CUT3RConfig(**SIZES)).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.2)
            if "head" in name:
                parameter *= 0.3
    return network


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def pictures(count: int, batch: int = BATCH) -> list[View]:
    generator = torch.Generator().manual_seed(0)
    return [View(torch.rand(batch, 3, 48, 32, generator=generator) * 2 - 1) for _ in range(count)]


def rays(seed: int = 1, batch: int = BATCH) -> View:
    return View(ray_map=torch.randn(batch, 48, 32, 6, generator=torch.Generator().manual_seed(seed)))


def after(model: CUT3R, views: list[View]) -> State:
    state = model.start(views[0].batch)
    for view in views:
        state, _ = model.step(state, view)
    return state


def parts(prediction: Prediction) -> dict[str, Tensor]:
    assert prediction.local is not None
    assert prediction.c2w is not None
    assert prediction.rgb is not None
    return {
        "points": prediction.points.xyz,
        "conf": prediction.points.conf,
        "local": prediction.local.xyz,
        "local conf": prediction.local.conf,
        "c2w": prediction.c2w,
        "rgb": prediction.rgb,
    }


def assert_same(got: Prediction, want: Prediction, tolerance: float = 1e-6) -> None:
    for name, tensor in parts(want).items():
        error = (parts(got)[name] - tensor).abs().max() / tensor.abs().max()
        assert error <= tolerance, f"{name}: {error:.1e}"


def assert_equal(got: State, want: State) -> None:
    assert torch.equal(got.tokens, want.tokens)
    assert torch.equal(got.memory, want.memory)


def test_one_by_one_is_all_at_once(model: CUT3R) -> None:
    views = pictures(4)
    state = model.start(BATCH)
    together = list(model.rollout(views))
    for view, (want_state, want) in zip(views, together, strict=True):
        state, got = model.step(state, view)
        assert_same(got, want)
        assert torch.allclose(state.tokens, want_state.tokens, atol=1e-6)
        assert torch.allclose(state.memory, want_state.memory, atol=1e-6)
    for got, (_, want) in zip(model(torch.stack([v.image for v in views], dim=1)), together, strict=True):
        assert_same(got, want)


def test_with_rays_the_two_ways_differ_by_the_stand_ins(model: CUT3R) -> None:
    views = [*pictures(2), rays()]
    first, _, third = model(views)
    state = model.start(BATCH)
    state, alone = model.step(state, views[0])
    assert not torch.allclose(first.points.xyz, alone.points.xyz)
    silent = CUT3R(model.config).eval()
    silent.load_state_dict(model.state_dict())
    silent.no_image.zero_()
    silent.no_rays.zero_()
    state = after(silent, views[:2])
    assert_same(silent(views)[2], silent.step(state, views[2])[1])
    assert not torch.allclose(third.points.xyz, silent(views)[2].points.xyz)


def test_predictions_are_what_they_are_called(model: CUT3R) -> None:
    prediction = model(pictures(2))[1]
    assert prediction.frame == "first"
    rotation = prediction.c2w[:, :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3).expand(BATCH, 3, 3), atol=1e-6)
    assert torch.equal(prediction.c2w[:, 3], torch.tensor([0.0, 0, 0, 1]).expand(BATCH, 4))
    assert (prediction.local.depth >= 0).all(), "the linear head looks ahead"
    assert (prediction.points.depth < 0).any(), "only in its own frame"
    assert prediction.rgb.abs().max() < 1
    assert (prediction.points.conf > 1).all()


def test_a_frozen_state_stays_bit_for_bit(model: CUT3R) -> None:
    views = pictures(3)
    state = after(model, views[:2])
    before = (state.tokens.clone(), state.memory.clone())
    frozen, seen = model.step(state, views[2], update=False)
    assert torch.equal(frozen.tokens, before[0])
    assert torch.equal(frozen.memory, before[1])
    assert_same(seen, model.step(state, views[2])[1])
    half, _ = model.step(state, views[2], update=torch.tensor([False, True]))
    moved, _ = model.step(state, views[2])
    assert torch.equal(half.tokens[0], before[0][0])
    assert torch.equal(half.memory[0], before[1][0])
    assert torch.equal(half.tokens[1], moved.tokens[1])
    assert torch.equal(half.memory[1], moved.memory[1])
    assert not torch.equal(moved.tokens[0], before[0][0])
    assert not torch.equal(moved.memory[0], before[1][0])


def test_what_is_not_kept_is_not_worked_out(model: CUT3R) -> None:
    state, view = after(model, pictures(1)), pictures(2)[1]
    ran: list[str] = []
    watched = {
        "state": model.decoder.second[-1],
        "image": model.decoder.first[-1],
        "memory": model.memory.writers[0],
        "colours": model.colour_head,
    }
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name)) for name, module in watched.items()
    ]
    _, plain = model.step(state, view)
    assert sorted(ran) == ["colours", "image", "memory", "state"]
    ran.clear()
    _, bare = model.step(state, view, update=False, colours=False)
    for handle in handles:
        handle.remove()
    assert ran == ["image"]
    assert bare.rgb is None
    assert torch.allclose(bare.points.xyz, plain.points.xyz, atol=1e-6)


def test_reset_comes_after_the_view(model: CUT3R) -> None:
    views = pictures(3)
    state = after(model, views[:2])
    cleared, seen = model.step(state, views[2], reset=True)
    assert_same(seen, model.step(state, views[2])[1])
    assert_equal(cleared, model.start(BATCH))
    assert not cleared.first, "the next view reads its pose from the empty memory"
    fresh = model.step(model.start(BATCH), views[0])[1]
    assert not torch.allclose(model.step(cleared, views[0])[1].c2w, fresh.c2w, atol=1e-4)
    half, _ = model.step(state, views[2], reset=torch.tensor([True, False]))
    assert torch.equal(half.tokens[0], state.initial_tokens[0])
    assert torch.equal(half.tokens[1], model.step(state, views[2])[0].tokens[1])
    flags = [torch.tensor([False, False]), True, False]
    for (got, _), flag in zip(model.rollout(views, reset=flags), flags, strict=True):
        if flag is True:
            assert_equal(got, model.start(BATCH))


def test_a_query_only_reads(model: CUT3R) -> None:
    state = after(model, pictures(2))
    before = replace(state, tokens=state.tokens.clone(), memory=state.memory.clone())
    asked = model.query(state, rays())
    assert_equal(state, before)
    same, seen = model.step(state, rays())
    assert_same(asked, seen)
    assert_equal(same, before)
    with_picture = View(pictures(1)[0].image, ray_map=rays().ray_map)
    assert_same(model.query(state, with_picture), asked)
    assert not torch.allclose(model.query(state, rays(2)).rgb, asked.rgb)
    # Of an untouched state, too, the pose comes from the memory.
    untouched = model.start(BATCH)
    assert not torch.allclose(model.query(untouched, rays()).c2w, model.step(untouched, rays())[1].c2w, atol=1e-4)
    with pytest.raises(ValueError, match="a query needs a ray map"):
        model.query(state, pictures(1)[0])


def test_samples_of_different_kinds_share_a_batch(model: CUT3R) -> None:
    """An image alone, both, rays alone; what does not count may be anything."""
    image, ray_map = pictures(1, batch=3)[0].image.clone(), rays(batch=3).ray_map.clone()
    image[2], ray_map[0] = torch.nan, torch.nan
    mixed = View(
        image, ray_map=ray_map, image_mask=torch.tensor([1, 1, 0]).bool(), ray_mask=torch.tensor([0, 1, 1]).bool()
    )
    state, together = model.step(model.start(3), mixed)
    single = [
        View(image[:1]),
        View(image[1:2], ray_map=ray_map[1:2]),
        View(ray_map=ray_map[2:]),
    ]
    for i, view in enumerate(single):
        alone_state, alone = model.step(model.start(1), view)
        for name, tensor in parts(alone).items():
            assert torch.allclose(parts(together)[name][i], tensor[0], atol=1e-5), (i, name)
        assert torch.allclose(state.tokens[i], alone_state.tokens[0], atol=1e-5)
    assert torch.equal(state.tokens[2], state.initial_tokens[2]), "rays alone change nothing"
    rollout = model([mixed])[0]
    assert all(torch.isfinite(t).all() for t in parts(rollout).values())
    masked = View(image, image_mask=torch.tensor([True, True, False]))
    assert torch.isfinite(model([masked, rays(batch=3)])[0].points.xyz).all()


def test_cached_tokens_are_images(model: CUT3R) -> None:
    view = pictures(1)[0]
    cached = View(None, view.true_shape, model.encode(view.image))
    assert_same(model.step(model.start(BATCH), cached)[1], model.step(model.start(BATCH), view)[1])


def test_views_may_change_size(model: CUT3R) -> None:
    wide, tall = View(torch.rand(1, 3, 32, 64)), View(torch.rand(1, 3, 48, 16))
    first, second = model([wide, tall])
    assert first.points.xyz.shape == (1, 32, 64, 3)
    assert second.local.xyz.shape == (1, 48, 16, 3)
    assert_same(second, model.step(after(model, [wide]), tall)[1], tolerance=1e-5)


def test_state_lies_on_an_even_grid(model: CUT3R) -> None:
    published = CUT3R.__new__(CUT3R)
    published.config = CUT3RConfig()
    positions = published._state_positions(torch.device("cpu"))
    assert positions.shape == (768, 2)
    assert [positions[i].tolist() for i in (0, 27, 28, 767)] == [[0, 0], [0, 27], [1, 0], [27, 11]]
    published.config = CUT3RConfig(state_positions="line")
    assert published._state_positions(torch.device("cpu"))[30].tolist() == [30, 30]


def test_state_does_not_grow(model: CUT3R) -> None:
    views = pictures(5, batch=1)
    state = model.start(1)
    sizes = set()
    for view in views:
        state, _ = model.step(state, view)
        sizes.add(tuple(getattr(state, name).numel() for name in ("tokens", "memory", "initial_tokens")))
    assert len(sizes) == 1


def test_heads_stay_in_float32_under_autocast(model: CUT3R) -> None:
    view = pictures(1)[0]
    exact = model.step(model.start(BATCH), view)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = model.step(model.start(BATCH), view)[1]
    assert {t.dtype for t in parts(rough).values()} == {torch.float32}
    error = (rough.points.xyz - exact.points.xyz).norm() / exact.points.xyz.norm()
    assert 0 < error < 0.2


def test_gradients_reach_every_parameter() -> None:
    model = CUT3R(CUT3RConfig(**SIZES | {"head": "dpt"}, dpt=DPTDims(8, 8, (8, 8, 8, 8))))
    with torch.enable_grad():
        predictions = model([*pictures(2), rays(), *pictures(1)])
        sum(tensor.sum() for p in predictions for tensor in parts(p).values()).backward()
    # With one key there is nothing to choose: what asks the pose memory's writers has no say.
    idle = [f"memory.writers.{i}.{name}" for i in (0, 1) for name in ("query_norm", "cross.query", "cross.key")]
    for name, parameter in model.named_parameters():
        reached = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        if name.rpartition(".")[0] in idle:
            assert not reached, name
        elif not name.endswith(("key.bias",)):
            assert reached, name


def test_wrong_calls_say_what_is_wrong(model: CUT3R) -> None:
    state, view = model.start(BATCH), pictures(1)[0]
    with pytest.raises(ValueError, match=r"state tokens are \[3, 10, 32\], .* need \[2, 10, 32\]"):
        model.step(model.start(3), view)
    other = CUT3R(CUT3RConfig(**SIZES | {"memory_size": 7}))
    with pytest.raises(ValueError, match="pose memory has 7 entries, not 5"):
        model.step(other.start(BATCH), view)
    with pytest.raises(ValueError, match=r"flags must be one bool or bool \[2\]"):
        model.step(state, view, update=torch.tensor([True, False, True]))
    with pytest.raises(ValueError, match="flags must be one bool"):
        model.step(state, view, reset=torch.tensor(0.5))
    with pytest.raises(ValueError, match="neither an image nor a ray map in any sample"):
        model.step(state, View(view.image, image_mask=torch.tensor([False, False])))
    with pytest.raises(ValueError, match=r"pose memory \[2, 5, 32\] does not fit state tokens \[2, 10, 32\]"):
        replace(state, memory=state.memory[..., :32])
    with pytest.raises(ValueError, match=r"initial tokens \[1, 10, 32\] differ in shape"):
        replace(state, initial_tokens=state.initial_tokens[:1])
    with pytest.raises(ValueError, match=r"positions \[2, 9, 2\] do not fit"):
        replace(state, positions=state.positions[:, 1:])
    with pytest.raises(ValueError, match="not a multiple of 16"):
        model.step(state, View(ray_map=torch.zeros(BATCH, 30, 32, 6)))


def test_config_refuses_what_cannot_be_built() -> None:
    with pytest.raises(ThreerError, match="dec_dim 32 cannot be split into state_heads 3"):
        CUT3RConfig(**SIZES | {"state_heads": 3})
    with pytest.raises(ThreerError, match="ray_heads 16"):
        CUT3RConfig(**SIZES | {"ray_heads": 16})
    with pytest.raises(ThreerError, match="memory_size must be at least 1"):
        CUT3RConfig(**SIZES | {"memory_size": 0})
    with pytest.raises(ThreerError, match="state_positions must be 'grid' or 'line'"):
        CUT3RConfig(**SIZES, state_positions="none")
