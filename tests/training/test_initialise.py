"""Weights of one family start another: what is taken is equal, what is not is named, anything else is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from threer.errors import CheckpointError, ThreerError
from threer.models.checkpoints import save_checkpoint
from threer.models.cut3r import CUT3R, CUT3RConfig
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.fast3r import Fast3R, Fast3RConfig
from threer.models.keymap import DECODER_BLOCK, ENCODER_BLOCK
from threer.models.slam3r import SLAM3R, ImageToPoints, LocalToWorld, SLAM3RConfig
from threer.training.initialise import initialise, read_state
from threer.training.recipes.recipe import Initialisation

SIZES = {
    "image_size": 32, "enc_dim": 32, "enc_depth": 2, "enc_heads": 2, "dec_dim": 16, "dec_depth": 2, "dec_heads": 2
}  # fmt: skip


def init(family: str, **options: bool) -> Initialisation:
    return Initialisation("somewhere", family, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def dust3r() -> dict[str, Tensor]:
    torch.manual_seed(1)
    state = DUSt3R(DUSt3RConfig(**SIZES)).state_dict()
    return {name: torch.randn(tensor.shape) for name, tensor in state.items()}


def equal(model: nn.Module, pairs: dict[str, Tensor]) -> None:
    state = model.state_dict()
    assert pairs
    for name, tensor in pairs.items():
        assert torch.equal(state[name], tensor), name


def untouched(model: nn.Module, before: dict[str, Tensor], names: tuple[str, ...]) -> None:
    assert names
    for name in names:
        assert torch.equal(model.state_dict()[name], before[name]), name


def copies(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def croco_file(path: Path) -> dict[str, Tensor]:
    """A published CroCo v2 of the sizes above."""
    shapes = {name: t.shape for name, t in DUSt3R(DUSt3RConfig(**SIZES)).state_dict().items()}
    simple = {"encoder.patch.conv": "patch_embed.proj", "encoder_norm": "enc_norm", "bridge": "decoder_embed"}
    simple["decoder_norm"] = "dec_norm"
    blocks = {"encoder.blocks": ("enc_blocks", ENCODER_BLOCK), "decoder.first": ("dec_blocks", DECODER_BLOCK)}
    state = {}
    for name, shape in shapes.items():
        stem, _, kind = name.rpartition(".")
        if stem in simple:
            state[f"{simple[stem]}.{kind}"] = torch.randn(shape)
        elif match := re.fullmatch(r"(encoder\.blocks|decoder\.first)\.(\d+)\.(.*)", stem):
            official, names = blocks[match[1]]
            inner = next(theirs for theirs, ours in names.items() if ours == match[3])
            state[f"{official}.{match[2]}.{inner}.{kind}"] = torch.randn(shape)
    state |= {"mask_token": torch.zeros(1, 1, 16), "prediction_head.weight": torch.zeros(768, 16)}
    save_file(state, path)
    return state


def test_croco_starts_both_decoders_of_dust3r(tmp_path: Path) -> None:
    official = croco_file(tmp_path / "croco.safetensors")
    state = read_state(tmp_path / "croco.safetensors", "croco")
    model = DUSt3R(DUSt3RConfig(**SIZES))
    report = initialise(model, "dust3r", state, init("croco"))
    weight = official["dec_blocks.1.cross_attn.projk.weight"]
    equal(model, {f"decoder.{s}.1.cross.key.weight": weight for s in ("first", "second")})
    equal(model, {"encoder.patch.conv.weight": official["patch_embed.proj.weight"]})
    assert {name.partition(".")[0] for name in report.random} == {"first_head", "second_head"}
    with pytest.raises(CheckpointError, match="is croco, expected dust3r"):
        read_state(tmp_path / "croco.safetensors", "dust3r")
    official["enc_pos_embed"] = torch.zeros(1)
    save_file(official, tmp_path / "croco1.safetensors")
    with pytest.raises(CheckpointError, match="only version 2"):
        read_state(tmp_path / "croco1.safetensors", "croco")


def test_dust3r_starts_each_half_of_slam3r(dust3r: dict[str, Tensor]) -> None:
    for family, model, fresh in (
        ("slam3r-i2p", ImageToPoints(SLAM3RConfig(**SIZES)), "affinity_head"),
        ("slam3r-l2w", LocalToWorld(SLAM3RConfig(**SIZES), encoder=True), "point_embed"),
    ):
        before = copies(model)
        report = initialise(model, family, dust3r, init("dust3r"))  # type: ignore[arg-type]
        equal(model, dust3r)
        untouched(model, before, report.random)
        assert {name.partition(".")[0] for name in report.random} == {fresh}
        assert not report.unused


@pytest.mark.parametrize("point_prior", [False, True])
def test_dust3r_starts_both_halves_at_once(point_prior: bool) -> None:
    options = SIZES | {"pixel_bias": True}
    torch.manual_seed(2)
    state = {k: torch.randn(t.shape) for k, t in DUSt3R(DUSt3RConfig(**options)).state_dict().items()}
    model = SLAM3R.from_config(SLAM3RConfig(**options, point_prior=point_prior))
    report = initialise(model, "slam3r", state, init("dust3r"))
    equal(model.i2p, state)
    equal(model.l2w, {k: t for k, t in state.items() if k.startswith(("decoder.", "bridge.", "encoder_norm."))})
    assert {name.split(".")[1] for name in report.random} == {"affinity_head", "point_embed"}


def test_dust3r_starts_the_encoder_of_cut3r_and_its_decoder_if_asked(dust3r: dict[str, Tensor]) -> None:
    config = CUT3RConfig(**SIZES, state_size=4, state_heads=2, memory_size=4, ray_depth=1, ray_heads=2)
    for decoder in (False, True):
        model = CUT3R(config)
        before = copies(model)
        report = initialise(model, "cut3r", dust3r, init("dust3r", decoder=decoder))
        equal(model, {k: t for k, t in dust3r.items() if k.startswith(("encoder.", "encoder_norm."))})
        untouched(model, before, report.random)
        assert ("bridge.weight" in report.taken) == decoder
        assert ("decoder.second.0.mlp.up.weight" in report.taken) == decoder
        assert any(name.startswith("ray_encoder.") for name in report.random)
        if decoder:
            equal(model, {"decoder.second.1.mlp.up.weight": dust3r["decoder.first.1.mlp.up.weight"]})
        assert set(report.taken) | set(report.random) == set(before)


def test_dust3r_starts_the_heads_of_cut3r_if_asked(dust3r: dict[str, Tensor]) -> None:
    sizes = SIZES | {"pixel_bias": True}
    config = CUT3RConfig(**sizes, state_size=4, state_heads=2, memory_size=4, ray_depth=1, ray_heads=2)  # type: ignore[arg-type]
    torch.manual_seed(3)
    pairs = DUSt3R(DUSt3RConfig(**sizes))  # type: ignore[arg-type]
    torch.nn.init.normal_(pairs.first_head.get_parameter("pixel_bias"))
    model = CUT3R(config)
    report = initialise(model, "cut3r", pairs.state_dict(), init("dust3r", heads=True))
    tokens, sizes_of = torch.randn(2, 4, config.dec_dim), (32, 32)
    for head in (model.local_head, model.world_head):
        expected = pairs.first_head([tokens], sizes_of)
        torch.testing.assert_close(head([tokens], sizes_of), expected, atol=1e-5, rtol=1e-4)
        down = head.get_parameter("linear.down.weight")
        head([tokens], sizes_of).square().sum().backward()
        assert down.grad is not None
        assert down.grad[:, 2 * config.dec_dim :].abs().max() > 0, "the units that are left over learn"
    assert {name.split(".")[0] for name in report.random}.isdisjoint({"local_head", "world_head"})
    state = {name: t for name, t in pairs.state_dict().items() if "first_head" not in name}
    with pytest.raises(ThreerError, match="linear heads"):
        initialise(CUT3R(config), "cut3r", state, init("dust3r", heads=True))
    wide = CUT3R(replace(config, dec_dim=2 * config.dec_dim))
    with pytest.raises(CheckpointError, match=r"does not fit into local_head.linear"):
        initialise(wide, "cut3r", pairs.state_dict(), init("dust3r", heads=True))


def test_dust3r_starts_fast3r_with_the_head_if_it_fits(dust3r: dict[str, Tensor]) -> None:
    for width in (16, 32):
        model = Fast3R(Fast3RConfig(**SIZES | {"dec_dim": width, "head": "linear"}))  # type: ignore[arg-type]
        report = initialise(model, "fast3r", dust3r, init("dust3r"))
        equal(model, {k: t for k, t in dust3r.items() if k.startswith(("encoder.", "encoder_norm."))})
        assert ("global_head.linear.weight" in report.taken) == (width == 16)
        assert ("first_head.linear.weight" in report.unused) == (width == 32)
        assert "local_head.linear.weight" in report.random
    assert "left random (bridge, decoder" in str(report)


def test_a_stage_goes_on_from_the_last_with_new_heads_if_asked(dust3r: dict[str, Tensor]) -> None:
    model = DUSt3R(DUSt3RConfig(**SIZES))
    assert not initialise(model, "dust3r", dust3r, init("dust3r")).random
    equal(model, dust3r)
    deep = DUSt3R(DUSt3RConfig(**SIZES | {"head": "dpt"}))  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="no place for tensor first_head"):
        initialise(deep, "dust3r", dust3r, init("dust3r"))
    report = initialise(deep, "dust3r", dust3r, init("dust3r", new_head=True))
    assert {name.partition(".")[0] for name in report.random} == {"first_head", "second_head"}


def test_what_does_not_fit_is_named(dust3r: dict[str, Tensor]) -> None:
    model = ImageToPoints(SLAM3RConfig(**SIZES))
    before = copies(model)
    less = {k: t for k, t in dust3r.items() if k != "bridge.bias"}
    with pytest.raises(CheckpointError, match=r"no tensor for bridge\.bias"):
        initialise(model, "slam3r-i2p", less, init("dust3r"))
    with pytest.raises(CheckpointError, match="no rule takes tensor surprise"):
        initialise(model, "slam3r-i2p", dust3r | {"surprise": torch.zeros(1)}, init("dust3r"))
    with pytest.raises(CheckpointError, match=r"bridge\.bias has shape \[3\] .* \[16\]"):
        initialise(model, "slam3r-i2p", dust3r | {"bridge.bias": torch.zeros(3)}, init("dust3r"))
    with pytest.raises(ThreerError, match="no rules lead from fast3r to slam3r-i2p; known: croco to dust3r"):
        initialise(model, "slam3r-i2p", dust3r, init("fast3r"))
    untouched(model, before, tuple(before))


def test_own_checkpoints_are_read(tmp_path: Path) -> None:
    model = DUSt3R(DUSt3RConfig(**SIZES))
    save_checkpoint(model, tmp_path / "own", model.checkpoint)
    state = read_state(tmp_path / "own", "dust3r")
    assert set(state) == set(model.state_dict())
    save_file(model.state_dict(), tmp_path / "bare.safetensors")
    assert set(read_state(tmp_path / "bare.safetensors", "dust3r")) == set(state)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="begins with a"):
        read_state(tmp_path / "foreign.safetensors", "dust3r")
