"""SLAM3R's pipeline: whole runs with the parity preset, and the choice of scene frames by score."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from threer.config import StreamingConfig
from threer.models import from_official
from threer.models.slam3r import SLAM3R
from threer.pipelines.streaming import StreamingSession
from threer.pipelines.streaming.networks import best_by_score
from threer.types import Frame, Update

# official argument -> our setting
ARGUMENTS = {
    "keyframe_stride": "stride",
    "keyframe_adapt_max": "stride_max",
    "initial_winsize": "init_frames",
    "win_r": "radius",
    "conf_thres_i2p": "point_conf",
    "num_scene_frame": "scene_frames",
    "max_num_register": "round_frames",
    "norm_input": "normalize_references",
    "update_buffer_intv": "interval",
    "buffer_size": "buffer_size",
    "buffer_strategy": "policy",
    "seed": "seed",
}


def run_case(config: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    if config["fn"] == "sel":
        return _select(config, inputs)
    return run_pipeline(config, inputs, weights)[0]


def run_pipeline(
    config: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Results under the reference names, and every decision in the order it was taken."""
    model = SLAM3R(*(_network(part, config[part], weights) for part in ("i2p", "l2w"))).eval()
    decisions: list[dict[str, Any]] = []
    session = StreamingSession(model, parity_settings(config), trace=decisions.append)
    updates: list[Update] = []
    for index, image in enumerate(inputs["frames_u8"]):
        updates += session.push(_frame(image, index))
    updates += session.finish()
    assert [u.frame.index for u in updates] == list(range(len(updates)))

    worlds = [u.points for u in updates if u.points is not None]
    locals_ = [u.local for u in updates if u.local is not None]
    results = {
        "registered_pcds": torch.stack([w.xyz for w in worlds]),
        "registered_confs": torch.stack([w.conf for w in worlds]),
        "local_confs": torch.stack([m.conf for m in locals_]),
    }
    if not config.get("drop_local"):
        local = torch.stack([m.xyz for m in locals_])
        start = next(d for d in decisions if d["kind"] == "initialized")
        frames = [d for d in decisions if d["kind"] == "initialize_scene"][-1]["frames"]
        for position, frame in enumerate(frames):  # the original keeps no local map of the other initial frames
            if position != start["ref_id"]:
                local[frame] = 0
        results["local_pcds"] = local
    return results, decisions


def parity_settings(config: dict[str, Any]) -> StreamingConfig:
    arguments = {**config["default_args"], **config["args"]}
    settings = {ours: arguments[official] for official, ours in ARGUMENTS.items()}
    if settings["stride"] == -1:
        settings["stride"] = "auto"
    settings["encode_batch"] = 10
    return StreamingConfig.parity(**settings)


def _network(part: str, constructor: dict[str, Any], weights: dict[str, Tensor]) -> torch.nn.Module:
    own = {name.removeprefix(f"{part}."): w for name, w in weights.items() if name.startswith(f"{part}.")}
    return from_official(f"slam3r_{part}", constructor, own)


def _frame(image: Tensor, index: int) -> Frame:
    height, width = image.shape[1:]
    return Frame(image.float() / 255, index, float(index), f"{index}", (width, height), np.eye(2, 3))


def _select(config: dict[str, Any], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    modifiers = {
        "plain": {},
        "conf": {"confidences": inputs["confs"]},
        "count": {"uses": inputs["count"]},
        "both": {"confidences": inputs["confs"], "uses": inputs["count"]},
    }
    return {
        f"{name}.n{number}": torch.tensor(best_by_score(inputs["corr_scores"], number, **given)[0])
        for name, given in modifiers.items()
        for number in config["sel_nums"]
    }
