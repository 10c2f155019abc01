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
    _layer(r"corr_score_proj\.fc1", "affinity_head.mlp.up"),
    _layer(r"corr_score_proj\.fc2", "affinity_head.mlp.down"),
]
_L2W = [
    *_SLAM3R,
    _layer("ponit_embedder", "point_embed.patch.conv"),
    Rule("void_pe_token", "point_embed.void"),
]
SLAM3R_L2W = [*WITHOUT_ENCODER, *_L2W]
SLAM3R_L2W_WITH_ENCODER = [*ENCODER, *_L2W]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _rename(name: str, rules: Iterable[Rule]) -> tuple[bool, str | None]:
    """(whether a rule matched, our name or None)."""
    for rule in rules:
        match = _compiled(rule.pattern).fullmatch(name)
        if match:
            return True, None if rule.target is None else match.expand(rule.target)
    return False, None


def strip_prefix(state: State, prefix: str = "module.") -> dict[str, Tensor]:
    """Drop the prefix that data-parallel training leaves, if every name has it."""
    if state and all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def duplicate_decoder(state: State) -> dict[str, Tensor]:
    """A file with one decoder (CroCo) starts both decoders of DUSt3R."""
    if any(name.startswith("dec_blocks2.") for name in state):
        return dict(state)
    copies = {
        name.replace("dec_blocks.", "dec_blocks2.", 1): tensor.clone()
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
        known, target = _rename(name, rules)
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
