"""From the constructor arguments of the published code, taken verbatim, to the settings of our networks."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import Tensor

from threer.errors import CheckpointError
from threer.models.backbone import NetworkConfig
from threer.models.cut3r import CUT3RConfig
from threer.models.dust3r import DUSt3RConfig
from threer.models.fast3r import Fast3RConfig
from threer.models.slam3r import SLAM3RConfig
from threer.nn.dpt import DPTDims

log = logging.getLogger(__name__)

Arguments = Mapping[str, Any]
Config = TypeVar("Config", bound=NetworkConfig)

SIZES = {
    "enc_embed_dim": "enc_dim",
    "enc_depth": "enc_depth",
    "enc_num_heads": "enc_heads",
    "dec_embed_dim": "dec_dim",
    "dec_depth": "dec_depth",
    "dec_num_heads": "dec_heads",
    "mlp_ratio": "mlp_ratio",
}
# Arguments with one value that this code knows how to run, for each kind of settings.
FIXED: dict[type[NetworkConfig], dict[str, Any]] = {
    DUSt3RConfig: {"output_mode": "pts3d"},
    SLAM3RConfig: {
        "output_mode": "pts3d",
        "mv_dec1": "MultiviewDecoderBlock_max",
        "mv_dec2": "MultiviewDecoderBlock_max",
    },
    CUT3RConfig: {"output_mode": "pts3d+pose", "pose_head": True, "rgb_head": True},
    Fast3RConfig: {
        "output_mode": "pts3d",
        "encoder_args.encoder_type": "croco",
        "decoder_args.decoder_type": "fast3r",
        "decoder_args.qkv_bias": True,
    },
}
FIXED_ALWAYS = {"patch_size": 16, "norm_im2_in_dec": True}
READ = {
    *("pos_embed", "img_size", "head_type", "depth_mode", "conf_mode", "patch_embed_cls", "landscape_only"),
    *("pose_mode", "state_pe"),
}
OWN_ARGUMENTS = {
    CUT3RConfig: {
        "state_size": "state_size",
        "state_dec_num_heads": "state_heads",
        "local_mem_size": "memory_size",
        "ray_enc_depth": "ray_depth",
    },
    Fast3RConfig: {
        "decoder_args.random_image_idx_embedding": "random_ids",
        "decoder_args.attn_bias_for_inference_enabled": "sharpen",
        "with_local_head": "local_head",
    },
}
# Fast3R names the arguments of its parts apart; what the parts share has the name of the other systems' argument.
FAST3R_ARGUMENTS = {
    "encoder_args": {
        "embed_dim": "enc_embed_dim",
        "num_heads": "enc_num_heads",
        "depth": "enc_depth",
        **{name: name for name in ("img_size", "patch_size", "patch_embed_cls", "mlp_ratio", "pos_embed")},
    },
    "decoder_args": {
        "enc_embed_dim": "enc_embed_dim",
        "embed_dim": "dec_embed_dim",
        "num_heads": "dec_num_heads",
        "depth": "dec_depth",
        "mlp_ratio": "mlp_ratio",
    },
    "head_args": {
        name: name
        for name in (
            *("head_type", "output_mode", "landscape_only", "depth_mode", "conf_mode", "patch_size"),
            "with_local_head",
        )
    },
}
# Arguments about training, chunking or kernels, without influence on results.
WITHOUT_EFFECT = {"freeze", "enc_minibatch", "need_encoder"} | {
    f"{part}.{name}"
    for part in ("encoder_args", "decoder_args")
    for name in ("attn_implementation", "drop", "attn_drop")
}


def settings_from(
    kind: type[Config], arguments: Arguments, state: Mapping[str, Tensor], dpt_dims: Arguments | None
) -> Config:
    """Settings of ``kind`` from published arguments; sizes that they do not name are read from the tensors.

    Raises CheckpointError, naming the argument, for what this code does not run.
    """
    given = dict(_flat(arguments))
    fixed, own = FIXED_ALWAYS | FIXED[kind], OWN_ARGUMENTS.get(kind, {})
    for name, value in fixed.items():
        if given.get(name, value) != value:
            raise CheckpointError(f"{name}={given[name]!r} is not supported, only {value!r}")
    strange = sorted(set(given) - set(SIZES) - set(fixed) - set(own) - READ - WITHOUT_EFFECT)
    if strange:
        log.warning("constructor arguments without effect here: %s", ", ".join(strange))
    settings = _sizes(state) | _own_sizes(kind, state)
    settings |= {ours: given[theirs] for theirs, ours in (SIZES | own).items() if theirs in given}
    settings["point_mode"] = _point_mode("depth_mode", given)
    mode, settings["conf_min"], settings["conf_max"] = _mode(given.get("conf_mode", ("exp", 1, "inf")))
    if mode != "exp":
        raise CheckpointError(f"conf_mode {given['conf_mode']} is not supported: only exp")
    if kind is CUT3RConfig:
        settings["pose_mode"] = _point_mode("pose_mode", given)
        settings["state_positions"] = _state_positions(given.get("state_pe", "2d"))
    if dpt_dims is not None:
        settings["dpt"] = DPTDims(dpt_dims["feature_dim"], dpt_dims["last_dim"], tuple(dpt_dims["layer_dims"]))
    sides = given.get("img_size", 224)
    return kind(
        **settings,
        image_size=sides if isinstance(sides, int) else max(sides),
        rope_base=_rope_base(str(given.get("pos_embed", "RoPE100"))),
        head=given.get("head_type", "dpt" if any(".dpt" in name for name in state) else "linear"),
        # CUT3R's class of that name keeps every image as it is stored.
        stored_landscape=kind is not CUT3RConfig and "ManyAR" in given.get("patch_embed_cls", ""),
        landscape_maps=bool(given.get("landscape_only", True)),
    )


def as_published(arguments: Arguments) -> dict[str, Any]:
    """Constructor arguments as published inference rewrites them: images keep their orientation throughout."""
    plain = {"patch_embed_cls": "PatchEmbedDust3R", "landscape_only": False}
    if "encoder_args" not in arguments:
        return dict(arguments) | plain
    rewritten = dict(arguments)
    for part, name in (("encoder_args", "patch_embed_cls"), ("head_args", "landscape_only")):
        rewritten[part] = dict(arguments.get(part, {})) | {name: plain[name]}
    return rewritten


def _flat(arguments: Arguments) -> Iterator[tuple[str, Any]]:
    """Arguments by the name that all systems share; what only a part of Fast3R knows is called "part.name".

    Raises CheckpointError where two parts disagree.
    """
    told: dict[str, tuple[str, Any]] = {}
    for part, value in arguments.items():
        if part not in FAST3R_ARGUMENTS:
            yield part, value
            continue
        for name, inner in value.items():
            shared = FAST3R_ARGUMENTS[part].get(name)
            if shared is None:
                yield f"{part}.{name}", inner
                continue
            before, known = told.setdefault(shared, (f"{part}.{name}", inner))
            if known != inner:
                raise CheckpointError(f"{before}={known!r} and {part}.{name}={inner!r} contradict each other")
    yield from ((shared, inner) for shared, (_, inner) in told.items())


def _mode(value: Any) -> tuple[str, float, float]:
    mode, least, most = value
    return str(mode), float(least), float(most)


def _point_mode(name: str, given: Arguments) -> str:
    mode, least, most = _mode(given.get(name, ("exp", "-inf", "inf")))
    if mode not in ("exp", "linear", "square") or (least, most) != (-float("inf"), float("inf")):
        raise CheckpointError(f"{name} {given[name]} is not supported: exp, linear or square, unbounded")
    return mode


def _state_positions(state_pe: str) -> str:
    known = {"2d": "grid", "1d": "line"}
    if state_pe not in known:
        raise CheckpointError(f"state_pe={state_pe!r} is not supported, only {' and '.join(map(repr, known))}")
    return known[state_pe]


def _rope_base(pos_embed: str) -> float:
    match = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", pos_embed)
    if not match:
        raise CheckpointError(f"pos_embed {pos_embed!r} is not supported, only RoPE with its base, as in RoPE100")
    return float(match[1])


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell. Head counts are not among it: published ones are width / 64."""
    sizes = {}
    for stem, widths, blocks in (
        ("enc", r"(encoder\.)?enc_norm\.weight", r"(?:encoder\.)?enc_blocks\.(\d+)\..*"),
        ("dec", r"(decoder\.)?dec_norm\.weight", r"(?:decoder\.|mv_)?dec_blocks1?\.(\d+)\..*"),
    ):
        for name, tensor in state.items():
            if re.fullmatch(widths, name):
                sizes[f"{stem}_dim"] = tensor.shape[0]
                sizes[f"{stem}_heads"] = max(1, tensor.shape[0] // 64)
        found = [int(m[1]) for name in state if (m := re.fullmatch(blocks, name))]
        if found:
            sizes[f"{stem}_depth"] = max(found) + 1
    return sizes


def _own_sizes(kind: type[NetworkConfig], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What tensors that only one system has tell."""
    if kind is Fast3RConfig:
        return {"local_head": any(name.startswith("downstream_head_local.") for name in state)}
    sizes = {}
    for name, ours, axis in (("register_tokens.weight", "state_size", 0), ("pose_retriever.mem", "memory_size", 1)):
        if name in state and state[name].ndim > axis:
            sizes[ours] = state[name].shape[axis]
    return sizes
