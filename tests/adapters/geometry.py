"""Reference cases of closed-form geometry and of trajectory metrics."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from threer.evaluation.trajectory import ate, rpe
from threer.geometry import transforms
from threer.geometry.focal import median_focal, weiszfeld_focal
from threer.geometry.procrustes import align_cameras, align_points
from threer.geometry.scale import mean_distance, normalize
from threer.types import Trajectory

Tensors = dict[str, Tensor]


def run_case(config: dict[str, Any], inputs: Tensors, weights: Tensors) -> Tensors:
    cases = {"norm": _normalization, "focal": _focals, "rigid": _similarities, "traj": _trajectory}
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
