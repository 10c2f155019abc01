"""Networks from the constructor arguments and tensor names of the published code."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from threer.errors import CheckpointError
from threer.models import keymap
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.slam3r import SLAM3R, ImageToPoints, LocalToWorld, SLAM3RConfig
from threer.models.trunk import TrunkConfig
from threer.nn.dpt import DPTDims

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=TrunkConfig)
Arguments = Mapping[str, Any]
Network = DUSt3R | ImageToPoints | LocalToWorld | SLAM3R

SIZES = {
    "enc_embed_dim": "enc_dim",
    "enc_depth": "enc_depth",
    "enc_num_heads": "enc_heads",
    "dec_embed_dim": "dec_dim",
    "dec_depth": "dec_depth",
    "dec_num_heads": "dec_heads",
    "mlp_ratio": "mlp_ratio",
}
# Arguments with one value that this code knows how to run.
FIXED = {
    "output_mode": "pts3d",
    "patch_size": 16,
    "norm_im2_in_dec": True,
    "mv_dec1": "MultiviewDecoderBlock_max",
    "mv_dec2": "MultiviewDecoderBlock_max",
}
READ = {"pos_embed", "img_size", "head_type", "depth_mode", "conf_mode", "patch_embed_cls", "landscape_only"}
# Arguments about training or chunking, without influence on results.
WITHOUT_EFFECT = {"freeze", "enc_minibatch", "need_encoder"}


def detect_family(names: Iterable[str]) -> str | None:
    """Which published network has tensors of these names (keymap.md section 0); None for a foreign file."""
    names = set(names)

    def has(*starts: str) -> bool:
        return all(any(name.startswith(start) for name in names) for start in starts)

    if "pose_retriever.mem" in names:
        return "cut3r"
    if has("mv_dec_blocks1.0."):
        if "corr_score_norm.weight" in names:
            return "slam3r_i2p"
        return "slam3r_l2w" if "ponit_embedder.weight" in names else None
    if has("encoder.enc_blocks.0.", "decoder.dec_blocks.0."):
        return "fast3r"
    if has("dec_blocks2.0.", "downstream_head1."):
        return "dust3r"
    if "prediction_head.weight" in names and not has("dec_blocks2."):
        return "croco"
    return None


def from_official(
    family: str, config: Arguments, state_dict: Mapping[str, Tensor], dpt_dims: Arguments | None = None
) -> Network:
    """A network from published constructor arguments and tensors, both taken verbatim.

    family      "dust3r", "slam3r_i2p", "slam3r_l2w", or "slam3r": then ``config`` holds the arguments of both
                halves under "i2p" and "l2w", and tensor names start with "i2p." and "l2w."
    config      constructor arguments under their published names; infinities may be the texts "inf", "-inf".
                Sizes not named are read from the tensors.
    dpt_dims    feature_dim, last_dim, layer_dims of a DPT head that is not of the published width

    `landscape_only` and the class of the patch embedding count as given (see `as_published` for inference). Raises
    CheckpointError for arguments or tensors that do not fit, naming them.
    """
    if family == "slam3r":
        halves = {}
        for half in ("i2p", "l2w"):
            if half not in config:
                raise CheckpointError(f"SLAM3R needs constructor arguments of both halves; {half!r} is missing")
            own = {k.removeprefix(f"{half}."): t for k, t in state_dict.items() if k.startswith(f"{half}.")}
            halves[half] = from_official(f"slam3r_{half}", config[half], own, dpt_dims)
        strays = [k for k in state_dict if not k.startswith(("i2p.", "l2w."))]
        if strays:
            raise CheckpointError(f"tensor {strays[0]} belongs to neither half of SLAM3R (i2p., l2w.)")
        i2p, l2w = halves["i2p"], halves["l2w"]
        assert isinstance(i2p, ImageToPoints)
        assert isinstance(l2w, LocalToWorld)
        return SLAM3R(i2p, l2w)

    state = keymap.strip_prefix(state_dict)
    network: Network
    with torch.device("meta"):
        if family == "dust3r":
            state = keymap.duplicate_decoder(state)
            rules = keymap.DUST3R
            network = DUSt3R(_config(DUSt3RConfig, config, state, dpt_dims))
        elif family == "slam3r_i2p":
            rules = keymap.SLAM3R_I2P
            network = ImageToPoints(_config(SLAM3RConfig, config, state, dpt_dims))
        elif family == "slam3r_l2w":
            encoder = bool(config.get("need_encoder", "enc_blocks.0.norm1.weight" in state))
            rules = keymap.SLAM3R_L2W_WITH_ENCODER if encoder else keymap.SLAM3R_L2W
            settings = _config(SLAM3RConfig, config, state, dpt_dims)
            network = LocalToWorld(settings if encoder else replace(settings, stored_landscape=False), encoder)
        else:
            raise CheckpointError(f"unknown family {family!r}; valid: dust3r, slam3r, slam3r_i2p, slam3r_l2w")
    keymap.load_renamed(network, state, rules)
    return network.eval()


def as_published(config: Arguments) -> dict[str, Any]:
    """Constructor arguments as published inference rewrites them: images keep their orientation throughout."""
    return dict(config) | {"patch_embed_cls": "PatchEmbedDust3R", "landscape_only": False}


def _config(
    kind: type[Config], given: Arguments, state: Mapping[str, Tensor], dpt_dims: Arguments | None
) -> Config:
    for name, value in FIXED.items():
        if given.get(name, value) != value:
            raise CheckpointError(f"{name}={given[name]!r} is not supported, only {value!r}")
    strange = sorted(set(given) - set(SIZES) - set(FIXED) - READ - WITHOUT_EFFECT)
    if strange:
        log.warning("constructor arguments without effect here: %s", ", ".join(strange))
    settings: dict[str, Any] = _sizes(state)
    settings |= {ours: given[theirs] for theirs, ours in SIZES.items() if theirs in given}
    mode, least, most = _mode("depth_mode", given)
    if mode not in ("exp", "linear", "square") or (least, most) != (-float("inf"), float("inf")):
        raise CheckpointError(
            f"depth_mode {given['depth_mode']} is not supported: exp, linear or square, unbounded"
        )
    settings["point_mode"] = mode
    mode, settings["conf_min"], settings["conf_max"] = _mode("conf_mode", given)
    if mode != "exp":
        raise CheckpointError(f"conf_mode {given['conf_mode']} is not supported: only exp")
    if dpt_dims is not None:
        settings["dpt"] = DPTDims(dpt_dims["feature_dim"], dpt_dims["last_dim"], tuple(dpt_dims["layer_dims"]))
    sides = given.get("img_size", 224)
    return kind(
        **settings,
        image_size=sides if isinstance(sides, int) else max(sides),
        rope_base=_rope_base(str(given.get("pos_embed", "RoPE100"))),
        head=given.get("head_type", "dpt" if any(".dpt." in name for name in state) else "linear"),
        stored_landscape="ManyAR" in given.get("patch_embed_cls", ""),
        landscape_maps=bool(given.get("landscape_only", True)),
    )


def _mode(name: str, given: Arguments) -> tuple[str, float, float]:
    default = {"depth_mode": ("exp", "-inf", "inf"), "conf_mode": ("exp", 1, "inf")}[name]
    mode, least, most = given.get(name, default)
    return str(mode), float(least), float(most)


def _rope_base(pos_embed: str) -> float:
    match = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", pos_embed)
    if not match:
        raise CheckpointError(f"pos_embed {pos_embed!r} is not supported, only RoPE with its base, as in RoPE100")
    return float(match[1])


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    """What the shapes tell. Head counts are not among it: published ones are width / 64."""
    sizes = {}
    for stem, widths, blocks in (
        ("enc", "enc_norm.weight", r"enc_blocks\.(\d+)\..*"),
        ("dec", "dec_norm.weight", r"(?:mv_dec_blocks1|dec_blocks)\.(\d+)\..*"),
    ):
        if widths in state:
            sizes[f"{stem}_dim"] = state[widths].shape[0]
            sizes[f"{stem}_heads"] = max(1, state[widths].shape[0] // 64)
        found = [int(m[1]) for name in state if (m := re.fullmatch(blocks, name))]
        if found:
            sizes[f"{stem}_depth"] = max(found) + 1
    return sizes
