"""Constructor arguments of the published code, and the tensors that come under several names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from golden_cases import load_case
from threer.errors import CheckpointError, ThreerError
from threer.models import SLAM3R, DUSt3R
from threer.models.arguments import as_published
from threer.models.official import detect_family, from_official
from threer.nn.dpt import DPTDims

SQUARE = "dust3r_linear_square"


@pytest.fixture(scope="module")
def official() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    case = load_case(SQUARE)
    return case.config["constructor"], case.weights


def test_arguments_are_taken_verbatim(official: Any) -> None:
    arguments, state = official
    plain = from_official("dust3r", arguments, state).config
    assert (plain.enc_dim, plain.enc_depth, plain.enc_heads) == (64, 3, 4)
    assert not plain.stored_landscape
    assert not plain.landscape_maps
    trained = from_official(
        "dust3r", dict(arguments) | {"patch_embed_cls": "ManyAR_PatchEmbed", "landscape_only": True}, state
    ).config
    assert trained == replace(plain, stored_landscape=True, landscape_maps=True)
    without = {k: v for k, v in arguments.items() if k != "landscape_only"}
    assert from_official("dust3r", without, state).config.landscape_maps, "the published default"
    assert from_official("dust3r", as_published(without), state).config == plain


def test_reduced_heads_are_named(official: Any) -> None:
    case = load_case("cut3r_dpt_narrow_seq4")
    model = from_official("cut3r", case.config["constructor"], case.weights, case.config["dpt_dims"])
    assert model.config.dpt == DPTDims(16, 8, (8, 12, 16, 24))
    with pytest.raises(CheckpointError, match=r"tensor downstream_head\.dpt_self\..* has shape"):
        from_official("cut3r", case.config["constructor"], case.weights)


def test_prefix_of_data_parallel_training_goes(official: Any) -> None:
    arguments, state = official
    model = from_official("dust3r", arguments, {f"module.{k}": t for k, t in state.items()})
    assert torch.equal(model.bridge.weight, state["decoder_embed.weight"])


def test_one_decoder_serves_both_sides_without_being_shared(official: Any) -> None:
    arguments, state = official
    single = {k: t for k, t in state.items() if not k.startswith("dec_blocks2.")}
    model = from_official("dust3r", arguments, single)
    first, second = model.decoder.first[1].mlp.up.weight, model.decoder.second[1].mlp.up.weight
    assert torch.equal(first, second)
    with torch.no_grad():
        second.add_(1)
    assert not torch.equal(first, second)


def test_two_names_of_one_tensor_must_agree() -> None:
    case = load_case("cut3r_dpt_narrow_seq4")
    name = "downstream_head.dpt_cross.scratch.layer_rn.2.weight"
    state = dict(case.weights) | {name: case.weights[name] + 1}
    with pytest.raises(CheckpointError, match=r"layer(3_rn|_rn\.2)\.weight must be equal and are not"):
        from_official("cut3r", case.config["constructor"], state, case.config["dpt_dims"])


def test_both_halves_of_slam3r() -> None:
    case = load_case("slam3r_e2e_auto_reservoir")
    model = from_official("slam3r", case.config, case.weights)
    assert isinstance(model, SLAM3R)
    assert model.l2w.encoder is None
    assert torch.equal(model.l2w.point_embed.void, case.weights["l2w.void_pe_token"])
    with pytest.raises(CheckpointError, match="'l2w' is missing"):
        from_official("slam3r", {"i2p": case.config["i2p"]}, case.weights)
    with pytest.raises(CheckpointError, match="tensor stray belongs to neither half"):
        from_official("slam3r", case.config, dict(case.weights) | {"stray": torch.zeros(1)})


def test_local_to_world_with_an_encoder_of_its_own_takes_images() -> None:
    i2p = load_case("slam3r_i2p_L5_ref2")
    case = load_case("slam3r_l2w_K3_1")
    encoder = {k: t for k, t in i2p.weights.items() if k.startswith(("enc_blocks.", "patch_embed."))}
    state = dict(case.weights) | encoder
    whole = from_official("slam3r_l2w", case.config["constructor"] | {"need_encoder": True}, state)
    assert whole.encoder is not None
    bare = from_official("slam3r_l2w", case.config["constructor"], state)
    assert bare.encoder is None, "need_encoder False drops the blocks"
    with pytest.raises(ValueError, match="no encoder of its own"):
        bare.encode(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("output_mode", "pts3d+desc", "output_mode='pts3d\\+desc' is not supported"),
        ("pos_embed", "cosine", "pos_embed 'cosine' is not supported"),
        ("depth_mode", ["exp", 0, "inf"], "depth_mode .* is not supported"),
        ("conf_mode", ["sigmoid", 0, 1], "conf_mode .* is not supported"),
        ("patch_size", 14, "patch_size=14 is not supported"),
    ],
)
def test_what_cannot_be_run_is_refused(official: Any, argument: str, value: Any, message: str) -> None:
    arguments, state = official
    with pytest.raises(CheckpointError, match=message):
        from_official("dust3r", dict(arguments) | {argument: value}, state)


def test_unknown_family_lists_the_known(official: Any) -> None:
    with pytest.raises(CheckpointError, match=r"unknown family 'mast3r'; valid: dust3r, slam3r"):
        from_official("mast3r", *official)


def test_detection(official: Any) -> None:
    assert detect_family(official[1]) == "dust3r"
    assert detect_family({"prediction_head.weight", "dec_blocks.0.norm1.weight"}) == "croco"
    assert detect_family({"layer1.0.conv1.weight"}) is None
    assert isinstance(from_official("dust3r", *official), DUSt3R)


def test_arguments_without_effect_are_mentioned(official: Any, caplog: pytest.LogCaptureFixture) -> None:
    arguments, state = official
    from_official("dust3r", dict(arguments) | {"freeze": "encoder"}, state)
    assert not caplog.records
    from_official("dust3r", dict(arguments) | {"new_option": 3}, state)
    assert "without effect here: new_option" in caplog.text


def test_arguments_of_cut3r() -> None:
    case = load_case("cut3r_linear_eps")
    arguments = case.config["constructor"]
    config = from_official("cut3r", arguments, case.weights).config
    assert (config.state_size, config.state_heads, config.memory_size, config.ray_heads) == (20, 8, 8, 16)
    assert config.state_positions == "grid"
    line = from_official("cut3r", dict(arguments) | {"state_pe": "1d", "patch_embed_cls": "ManyAR"}, case.weights)
    assert line.config.state_positions == "line"
    assert not line.config.stored_landscape, "this system keeps images as they are stored"
    modes = dict(arguments) | {"pose_mode": ["square", "-inf", "inf"]}
    assert from_official("cut3r", modes, case.weights).config.pose_mode == "square"
    for change, message in (
        ({"state_pe": "none"}, "state_pe='none' is not supported, only '2d' and '1d'"),
        ({"pose_mode": ["exp", 0, 1]}, "pose_mode .* is not supported"),
        ({"rgb_head": False}, "rgb_head=False is not supported"),
        ({"output_mode": "pts3d"}, "output_mode='pts3d' is not supported"),
    ):
        with pytest.raises(CheckpointError, match=message):
            from_official("cut3r", dict(arguments) | change, case.weights)


def test_head_count_of_the_state_is_sixteen_unless_told() -> None:
    case = load_case("cut3r_linear_eps")
    wide = {k: v for k, v in case.config["constructor"].items() if k != "state_dec_num_heads"}
    with pytest.raises(ThreerError, match="dec_dim 32 cannot be split into state_heads 16"):
        from_official("cut3r", wide, case.weights)


def test_one_decoder_serves_the_state_too() -> None:
    case = load_case("cut3r_linear_eps")
    single = {k: t for k, t in case.weights.items() if not k.startswith("dec_blocks_state.")}
    model = from_official("cut3r", case.config["constructor"], single)
    assert torch.equal(model.decoder.second[1].mlp.up.weight, case.weights["dec_blocks.1.mlp.fc1.weight"])


def test_arguments_of_fast3r(caplog: pytest.LogCaptureFixture) -> None:
    case = load_case("fast3r_full_v2")
    arguments = case.config["constructor"]
    config = from_official("fast3r", arguments, case.weights).config
    assert (config.enc_dim, config.dec_dim, config.dec_depth, config.dec_heads) == (64, 32, 10, 4)
    assert (config.random_ids, config.sharpen, config.local_head) == (False, False, True)
    assert config.stored_landscape
    assert config.landscape_maps
    plain = from_official("fast3r", as_published(arguments), case.weights).config
    assert plain == replace(config, stored_landscape=False, landscape_maps=False)
    assert not caplog.records, "every published argument is known"

    def changed(part: str, **values: Any) -> dict[str, Any]:
        return dict(arguments) | {part: dict(arguments[part]) | values}

    assert from_official("fast3r", {}, case.weights).config.random_ids, "the published defaults"
    assert from_official("fast3r", {}, case.weights).config.sharpen
    bare = {k: t for k, t in case.weights.items() if not k.startswith("downstream_head_local.")}
    single = from_official("fast3r", changed("head_args", with_local_head=False), bare)
    assert single.local_head is None
    for part, values, message in (
        (
            "decoder_args",
            {"enc_embed_dim": 32},
            "encoder_args.embed_dim=64 and decoder_args.enc_embed_dim=32 contra",
        ),
        ("decoder_args", {"decoder_type": "llama"}, "decoder_args.decoder_type='llama' is not supported"),
        ("encoder_args", {"encoder_type": "dino_v2"}, "encoder_args.encoder_type='dino_v2' is not supported"),
        ("head_args", {"output_mode": "pts3d+desc"}, "output_mode='pts3d\\+desc' is not supported"),
    ):
        with pytest.raises(CheckpointError, match=message):
            from_official("fast3r", changed(part, **values), case.weights)
