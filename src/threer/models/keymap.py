"""From the tensor names of published files to ours: ordered rules, first match wins, nothing passes unnoticed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from threer.errors import CheckpointError

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rule:
    """A published name (regular expression, matched in full) and our name for it; None = dropped on purpose."""

    pattern: str
    target: str | None


ENCODER_BLOCK = {
    "norm1": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "mlp_norm",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
MODULATED_BLOCK = {
    "norm1.norm": "attention_norm.norm",
    "norm1.mlp.1": "attention_norm.modulation",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2.norm": "mlp_norm.norm",
    "norm2.mlp.1": "mlp_norm.modulation",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
DECODER_BLOCK = {
    "norm1": "attention_norm",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.out",
    "norm2": "query_norm",
    "norm_y": "memory_norm",
    "cross_attn.projq": "cross.query",
    "cross_attn.projk": "cross.key",
    "cross_attn.projv": "cross.value",
    "cross_attn.proj": "cross.out",
    "norm3": "mlp_norm",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}


def _layer(official: str, ours: str) -> Rule:
    """A layer with weight and bias; ``official`` must not hold groups of its own."""
    return Rule(rf"{official}\.(weight|bias)", rf"{ours}.\1")


def _blocks(official: str, ours: str, names: Mapping[str, str]) -> list[Rule]:
    return [
        Rule(rf"{official}\.(\d+)\.{re.escape(theirs)}\.(weight|bias)", rf"{ours}.\1.{name}.\2")
        for theirs, name in names.items()
    ]


def _mlp(official: str, ours: str) -> list[Rule]:
    return [_layer(rf"{official}\.fc1", f"{ours}.up"), _layer(rf"{official}\.fc2", f"{ours}.down")]


def _dpt(official: str, ours: str) -> list[Rule]:
    rules = [
        Rule(rf"{official}\.act_postprocess\.([0-3])\.0\.(weight|bias)", rf"{ours}.project.\1.\2"),
        Rule(rf"{official}\.act_postprocess\.([013])\.1\.(weight|bias)", rf"{ours}.resize.\1.\2"),
        # The coarsest level has no lateral input: its first residual unit is never run.
        Rule(rf"{official}\.scratch\.refinenet4\.resConfUnit1\..*", None),
        # One tensor under two names: files hold both or either.
        Rule(rf"{official}\.scratch\.layer_rn\.([0-3])\.weight", rf"{ours}.level.\1.weight"),
        _layer(rf"{official}\.head\.0", f"{ours}.narrow"),
        _layer(rf"{official}\.head\.2", f"{ours}.smooth"),
        _layer(rf"{official}\.head\.4", f"{ours}.out"),
    ]
    for k in range(4):
        fusion = rf"{official}\.scratch\.refinenet{k + 1}"
        rules += [
            Rule(rf"{official}\.scratch\.layer{k + 1}_rn\.weight", f"{ours}.level.{k}.weight"),
            Rule(rf"{fusion}\.resConfUnit1\.(conv[12]\.(?:weight|bias))", rf"{ours}.fuse.{k}.lateral.\1"),
            Rule(rf"{fusion}\.resConfUnit2\.(conv[12]\.(?:weight|bias))", rf"{ours}.fuse.{k}.refine.\1"),
            _layer(rf"{fusion}\.out_conv", f"{ours}.fuse.{k}.out"),
        ]
    return rules


ENCODER = [
    _layer(r"patch_embed\.proj", "encoder.patch.conv"),
    *_blocks("enc_blocks", "encoder.blocks", ENCODER_BLOCK),
]
WITHOUT_ENCODER = [Rule(r"patch_embed\..*", None), Rule(r"enc_blocks\..*", None)]
BODY = [
    _layer("enc_norm", "encoder_norm"),
    _layer("decoder_embed", "bridge"),
    _layer("dec_norm", "decoder_norm"),
    _layer(r"downstream_head1\.proj", "first_head.linear"),
    _layer(r"downstream_head2\.proj", "second_head.linear"),
]
DUST3R = [
    *ENCODER,
    *BODY,
    *_blocks("dec_blocks", "decoder.first", DECODER_BLOCK),
    *_blocks("dec_blocks2", "decoder.second", DECODER_BLOCK),
    *_dpt(r"downstream_head1\.dpt", "first_head"),
    *_dpt(r"downstream_head2\.dpt", "second_head"),
    Rule("mask_token", None),
    Rule(r"prediction_head\..*", None),
]
_SLAM3R = [
    *BODY,
    *_blocks("mv_dec_blocks1", "decoder.first", DECODER_BLOCK),
    *_blocks("mv_dec_blocks2", "decoder.second", DECODER_BLOCK),
]
SLAM3R_I2P = [
    *ENCODER,
    *_SLAM3R,
    _layer("corr_score_norm", "affinity_head.norm"),
    *_mlp("corr_score_proj", "affinity_head.mlp"),
]
_L2W = [
    *_SLAM3R,
    _layer("ponit_embedder", "point_embed.patch.conv"),
    Rule("void_pe_token", "point_embed.void"),
]
SLAM3R_L2W = [*WITHOUT_ENCODER, *_L2W]
SLAM3R_L2W_WITH_ENCODER = [*ENCODER, *_L2W]

CUT3R = [
    *ENCODER,
    _layer("enc_norm", "encoder_norm"),
    _layer("decoder_embed", "bridge"),
    _layer("dec_norm", "decoder_norm"),
    *_blocks("dec_blocks", "decoder.first", DECODER_BLOCK),
    *_blocks("dec_blocks_state", "decoder.second", DECODER_BLOCK),
    _layer("decoder_embed_state", "state_bridge"),
    _layer("dec_norm_state", "state_norm"),
    Rule(r"register_tokens\.weight", "state_table"),
    Rule("pose_token", "first_pose"),
    Rule("masked_img_token", "no_image"),
    Rule("masked_ray_map_token", "no_rays"),
    _layer(r"patch_embed_ray_map\.proj", "ray_encoder.patch.conv"),
    *_blocks("enc_blocks_ray_map", "ray_encoder.blocks", ENCODER_BLOCK),
    _layer("enc_norm_ray_map", "ray_norm"),
    _layer(r"pose_retriever\.proj_q", "memory.embed_key"),
    Rule(r"pose_retriever\.masked_token", "memory.unknown"),
    Rule(r"pose_retriever\.mem", "memory.empty"),
    *_blocks(r"pose_retriever\.write_blocks", "memory.writers", DECODER_BLOCK),
    *_blocks(r"pose_retriever\.read_blocks", "memory.readers", DECODER_BLOCK),
    *_mlp(r"downstream_head\.pose_head\.mlp", "pose_head"),
    *_blocks(r"downstream_head\.final_transform", "world_blocks", MODULATED_BLOCK),
    *_mlp(r"downstream_head\.proj", "local_head.linear"),
    *_mlp(r"downstream_head\.cross_proj", "world_head.linear"),
    *_mlp(r"downstream_head\.rgb_proj", "colour_head.linear"),
    *_dpt(r"downstream_head\.dpt_self", "local_head"),
    *_dpt(r"downstream_head\.dpt_cross", "world_head"),
    *_dpt(r"downstream_head\.dpt_rgb", "colour_head"),
]
FAST3R = [
    _layer(r"encoder\.patch_embed\.proj", "encoder.patch.conv"),
    *_blocks(r"encoder\.enc_blocks", "encoder.blocks", ENCODER_BLOCK),
    _layer(r"encoder\.enc_norm", "encoder_norm"),
    _layer(r"decoder\.decoder_embed", "bridge"),
    *_blocks(r"decoder\.dec_blocks", "decoder.blocks", ENCODER_BLOCK),
    _layer(r"decoder\.dec_norm", "decoder_norm"),
    *_dpt(r"downstream_head\.dpt", "global_head"),
    *_dpt(r"downstream_head_local\.dpt", "local_head"),
]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def rename(name: str, rules: Iterable[Rule]) -> tuple[bool, str | None]:
    """(whether a rule matched, our name or None)."""
    for rule in rules:
        match = _compiled(rule.pattern).fullmatch(name)
        if match:
            return True, None if rule.target is None else match.expand(rule.target)
    return False, None


def strip_prefix(state: State) -> dict[str, Tensor]:
    """Names as the network itself has them: without what data-parallel training or Lightning put in front.

    A Lightning file may hold more than the network, whose names then start with ``net.``.
    """
    if state and all(name.startswith("module.") for name in state):
        return {name.removeprefix("module."): tensor for name, tensor in state.items()}
    inner = {name.removeprefix("net."): tensor for name, tensor in state.items() if name.startswith("net.")}
    return inner or dict(state)


def duplicate_decoder(state: State, second: str) -> dict[str, Tensor]:
    """A file with one decoder (CroCo, DUSt3R) starts both: its blocks are copied to the name ``second``."""
    if any(name.startswith(f"{second}.") for name in state):
        return dict(state)
    copies = {
        name.replace("dec_blocks", second, 1): tensor.clone()
        for name, tensor in state.items()
        if name.startswith("dec_blocks.")
    }
    return dict(state) | copies


def load_renamed(model: nn.Module, state: State, rules: Sequence[Rule]) -> None:
    """Fill ``model`` with the tensors of ``state`` under published names, in float32.

    Every tensor must have a rule and every parameter a tensor of its shape. Raises CheckpointError, naming the
    tensor at fault. Tensors that are float32 already are taken over, not copied.
    """
    renamed: dict[str, Tensor] = {}
    origin: dict[str, str] = {}
    unknown = []
    for name, tensor in state.items():
        known, target = rename(name, rules)
        if not known:
            unknown.append(name)
        elif target is not None:
            twin = renamed.setdefault(target, tensor)
            if twin is not tensor and not (twin.is_meta or torch.equal(twin, tensor)):
                raise CheckpointError(f"tensors {origin[target]} and {name} must be equal and are not")
            origin.setdefault(target, name)
    if unknown:
        raise CheckpointError(f"nothing here takes {_some(unknown)}")
    fill(model, renamed, origin)


def fill(model: nn.Module, state: State, origin: Mapping[str, str] | None = None) -> None:
    """Give every parameter of ``model`` its tensor of ``state``, in float32. Raises CheckpointError."""
    named = origin or {}
    wanted = model.state_dict()
    missing = [name for name in wanted if name not in state]
    if missing:
        raise CheckpointError(f"no tensor for {_some(missing)}")
    surplus = [named.get(name, name) for name in state if name not in wanted]
    if surplus:
        raise CheckpointError(f"the network has no place for {_some(surplus)}")
    for name, parameter in wanted.items():
        if state[name].shape != parameter.shape:
            raise CheckpointError(
                f"tensor {named.get(name, name)} has shape {list(state[name].shape)}, "
                f"expected {list(parameter.shape)}"
            )
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]}{more}"
