"""Networks from the constructor arguments and tensor names of the published code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from threer.errors import CheckpointError
from threer.models import keymap
from threer.models.arguments import Arguments, settings_from
from threer.models.cut3r import CUT3R, CUT3RConfig
from threer.models.dust3r import DUSt3R, DUSt3RConfig
from threer.models.fast3r import Fast3R, Fast3RConfig
from threer.models.slam3r import SLAM3R, ImageToPoints, LocalToWorld, SLAM3RConfig

Network = DUSt3R | ImageToPoints | LocalToWorld | SLAM3R | CUT3R | Fast3R


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

    family      "dust3r", "cut3r", "fast3r", "slam3r_i2p", "slam3r_l2w", or "slam3r": then ``config`` holds the
                arguments of both halves under "i2p" and "l2w", and tensor names start with "i2p." and "l2w."
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
            state = keymap.duplicate_decoder(state, "dec_blocks2")
            rules = keymap.DUST3R
            network = DUSt3R(settings_from(DUSt3RConfig, config, state, dpt_dims))
        elif family == "slam3r_i2p":
            rules = keymap.SLAM3R_I2P
            network = ImageToPoints(settings_from(SLAM3RConfig, config, state, dpt_dims))
        elif family == "slam3r_l2w":
            encoder = bool(config.get("need_encoder", "enc_blocks.0.norm1.weight" in state))
            rules = keymap.SLAM3R_L2W_WITH_ENCODER if encoder else keymap.SLAM3R_L2W
            settings = settings_from(SLAM3RConfig, config, state, dpt_dims)
            network = LocalToWorld(settings if encoder else replace(settings, stored_landscape=False), encoder)
        elif family == "cut3r":
            state = keymap.duplicate_decoder(state, "dec_blocks_state")
            rules = keymap.CUT3R
            network = CUT3R(settings_from(CUT3RConfig, config, state, dpt_dims))
        elif family == "fast3r":
            rules = keymap.FAST3R
            network = Fast3R(settings_from(Fast3RConfig, config, state, dpt_dims))
        else:
            valid = "dust3r, slam3r, slam3r_i2p, slam3r_l2w, cut3r, fast3r"
            raise CheckpointError(f"unknown family {family!r}; valid: {valid}")
    keymap.load_renamed(network, state, rules)
    return network.eval()
