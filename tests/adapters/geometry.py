"""Reference cases of closed-form geometry, of trajectory metrics and of pose encodings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from threer.evaluation.trajectory import ate, rpe
from threer.geometry import transforms
from threer.geometry.focal import median_focal, weiszfeld_focal
from threer.geometry.procrustes import align_cameras, align_points
from threer.geometry.scale import mean_distance, normalize
from threer.nn.heads import to_colour, to_confidence, to_points, to_pose, turn_to_front
from threer.types import Trajectory

Tensors = dict[str, Tensor]


def run_case(config: dict[str, Any], inputs: Tensors, weights: Tensors) -> Tensors:
    cases = {
        "norm": _normalization,
        "focal": _focals,
        "rigid": _similarities,
        "traj": _trajectory,
        "pose": _poses,
    }
    return cases[config["fn"]](inputs)


def _normalization(inputs: Tensors) -> Tensors:
    points = torch.stack([inputs[f"pts{i}"] for i in range(3)], dim=1)  # [B, V, H, W, 3]
    masks = torch.stack([inputs[f"mask{i}"] for i in range(3)], dim=1)
    results = {"single.factor": mean_distance(points[:, :1], masks[:, :1])[:, None, None, None]}
    for name, used in (("masked", masks), ("unmasked", None)):
        scaled, factor = normalize(points, used)
        results[f"{name}.factor"] = factor[:, None, None, None]
        results |= {f"{name}.pts{i}": scaled[:, i] for i in range(3)}
    return results


def _focals(inputs: Tensors) -> Tensors:
    results = {}
    for name, estimate in (("weiszfeld", weiszfeld_focal), ("median", median_focal)):
        for suffix, bounds in (("", None), (".clipped_0.5_3.5", (0.5, 3.5)), (".clipped_1.2_1.5", (1.2, 1.5))):
            results[f"focal.{name}{suffix}"] = estimate(inputs["pts3d"], inputs["pp"], bounds=bounds)
    return results


def _similarities(inputs: Tensors) -> Tensors:
    flat = {name: inputs[name].reshape(-1, 3).numpy() for name in ("pts1", "pts2")}
    points = align_points(flat["pts1"], flat["pts2"], inputs["conf"].flatten().numpy())
    cameras = align_cameras(inputs["src_poses"].numpy(), inputs["tgt_poses"].numpy())
    assert points is not None
    assert cameras is not None
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(points.scale * points.R)
    matrix[:3, 3] = torch.from_numpy(points.t)
    return {
        "scale": torch.tensor([points.scale]),
        "R": torch.from_numpy(points.R),
        "T": torch.from_numpy(points.t),
        "sRT": matrix,
        "geotrf": transforms.apply(matrix.float(), inputs["pts1"]),
        "inv": transforms.invert(inputs["src_poses"]),
        "poses.scale": torch.tensor([cameras.scale]),
        "poses.R": torch.from_numpy(cameras.R),
        "poses.T": torch.from_numpy(cameras.t),
    }


def _trajectory(inputs: Tensors) -> Tensors:
    times = torch.arange(len(inputs["gt"]), dtype=torch.float64).numpy()
    predicted, truth = (Trajectory(times, inputs[name].numpy()) for name in ("pred", "gt"))
    relative = rpe(predicted, truth)
    quaternions = transforms.quaternion_from_matrix(inputs["pred"][:, :3, :3])
    return {
        "ate_rmse": torch.tensor([ate(predicted, truth).rmse_m]),
        "rpe_trans_rmse": torch.tensor([relative.translation_rmse_m]),
        "rpe_rot_deg_rmse": torch.tensor([relative.rotation_rmse_deg]),
        "tum_pred": torch.cat([inputs["pred"][:, :3, 3], quaternions], dim=1),
    }


def _poses(inputs: Tensors) -> Tensors:
    """All but what this package has no use for: products of quaternions, inverse and sigmoid activations."""
    c2w, raw7, raw = inputs["c2w"], inputs["raw7"], inputs["raw_xyz"]
    encoded = torch.cat([c2w[:, :3, 3], transforms.quaternion_from_matrix(c2w[:, :3, :3])], dim=1)
    decoded = transforms.pose_from_quaternion(inputs["pose7"][:, :3], inputs["pose7"][:, 3:])
    return {
        "decode.c2w": decoded,
        "relative.t": transforms.relative_pose(decoded[1:], decoded[:-1])[:, :3, 3],
        "encode.pose7": encoded,
        "quat_from_matrix": encoded[:, 3:],
        "roundtrip.c2w": transforms.pose_from_quaternion(encoded[:, :3], encoded[:, 3:]),
        "unnormalised_quat_to_matrix": transforms.matrix_from_quaternion(raw7[:, 3:]),
        "standardize": to_pose(raw7)[1],
        "postprocess.exp": torch.cat(to_pose(raw7, "exp"), dim=1),
        "postprocess.square": torch.cat(to_pose(raw7, "square"), dim=1),
        "depth_exp.plain": to_points(raw),
        "depth_exp.pos_z": to_points(turn_to_front(raw)),
        "rgb": to_colour(raw),
        "conf_exp": to_confidence(raw[..., 0]),
        "conf_exp_bounded": to_confidence(3 * raw[..., 0], 1.0, 5.0),
    }
