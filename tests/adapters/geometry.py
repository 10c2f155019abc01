"""Reference cases of closed-form geometry, of trajectory metrics and of pose encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from threer.evaluation.trajectory import ate, rpe
from threer.geometry import transforms
from threer.geometry.focal import median_focal, weiszfeld_focal
from threer.geometry.gauge import joint_centre, joint_depth, joint_scale, size_of
from threer.geometry.pnp import camera_from_pointmap
from threer.geometry.pnp_search import search_camera
from threer.geometry.procrustes import align_cameras, align_points
from threer.geometry.raymap import ray_map
from threer.geometry.scale import mean_distance, normalize
from threer.nn.heads import to_colour, to_confidence, to_points, to_pose, turn_to_front
from threer.pipelines.cameras import estimate_focal
from threer.pipelines.joint import FOCAL_ITERATIONS, FOCAL_KEEP, align_local, moved
from threer.pipelines.pairwise import Edge, place_pair
from threer.types import FloatArray, Pointmap, Trajectory

Tensors = dict[str, Tensor]
MASK_CONF = 3.0


def run_case(config: dict[str, Any], inputs: Tensors, weights: Tensors) -> Tensors:
    cases = {
        "norm": _normalization,
        "focal": _focals,
        "rigid": _similarities,
        "traj": _trajectory,
        "pose": _poses,
        "geom": _cameras_of_cut3r,
        "ga": _pair,
    }
    if config["fn"] == "poses":
        return _joint(config, inputs)
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


def _published_K(focal: float, height: int, width: int) -> FloatArray:
    """Intrinsics with the published principal point, half a pixel off the centre (quirk D11)."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])


def _joint(config: dict[str, Any], inputs: Tensors) -> Tensors:
    """Fast3R's places and cameras; the focal length is the first view's, from either head, or each view's own."""
    views = config["num_views"]
    batch, height, width = inputs["pred0.conf"].shape

    def pointmap(v: int, b: int, head: str) -> Pointmap:
        points, conf = {"global": ("pts3d_in_other_view", "conf"), "local": ("pts3d_local", "conf_local")}[head]
        return Pointmap(inputs[f"pred{v}.{points}"][b], inputs[f"pred{v}.{conf}"][b])

    results: dict[str, list[Any]] = {}
    for b in range(batch):
        own = pointmap(0, b, "local")
        for v in range(views):
            local, world = pointmap(v, b, "local"), pointmap(v, b, "global")
            valid = inputs[f"view{v}.valid_mask"][b]
            known = Pointmap(torch.where(valid[..., None], local.xyz, torch.nan), local.conf)
            similarity = align_local(known, world, config["percentile"] / 100)
            assert similarity is not None
            placed = moved(local, similarity)
            results.setdefault(f"local_aligned{v}", []).append(placed.xyz)
            own = placed if v == 0 else own
        alone: list[tuple[FloatArray, float]] = []
        for head in ("global", "local"):
            centre = torch.tensor([width / 2, height / 2])
            first = pointmap(0, b, head) if head == "global" else own
            focal = estimate_focal(first, keep=FOCAL_KEEP, iterations=FOCAL_ITERATIONS, principal_point=centre)
            if head == "global":
                results[f"focal_view0_global.b{b}"] = [focal]
            K = _published_K(focal, height, width)
            poses = []
            for v in range(views):
                world = pointmap(v, b, "global")
                found = camera_from_pointmap(world.xyz, world.conf, K)
                assert found is not None
                poses.append(torch.from_numpy(found.c2w))
                if head == "global":
                    alone.append(_searched(world, config["niter"]))
            results.setdefault(f"first_view_from_{head}_head.c2w", []).append(torch.stack(poses))
            results.setdefault(f"first_view_from_{head}_head.focals", []).append(
                torch.full((views,), focal).double()
            )
        poses, lengths = zip(*alone, strict=True)
        results.setdefault("individual.c2w", []).append(torch.from_numpy(np.stack(poses)))
        results.setdefault("individual.focals", []).append(torch.tensor(lengths, dtype=torch.float64))
    return {
        name: torch.stack(found) if isinstance(found[0], Tensor) else torch.tensor(found)
        for name, found in results.items()
    }


def _searched(world: Pointmap, tried: int) -> tuple[FloatArray, float]:
    """Camera and focal length of a view by itself, the most agreed with of ``tried``."""
    height, width = world.conf.shape
    rows, columns = np.nonzero(world.conf.numpy() > 1)
    found = search_camera(
        world.xyz.numpy()[rows, columns],
        np.stack([columns, rows], axis=1),
        np.array([width / 2, height / 2]),
        (width, height),
        tried=tried,
    )
    assert found is not None
    return found


def _pair(inputs: Tensors) -> Tensors:
    """Two photos in closed form."""
    edges = [
        Edge(
            Pointmap(inputs["pred1.pts3d"][e], inputs["pred1.conf"][e]),
            Pointmap(inputs["pred2.pts3d_in_other_view"][e], inputs["pred2.conf"][e]),
        )
        for e in sorted(range(2), key=lambda e: int(inputs["edges"][e, 0]))
    ]
    height, width = edges[0].own.conf.shape
    centre = torch.tensor([width / 2, height / 2])
    focals = [estimate_focal(edge.own, keep=1.0, principal_point=centre) for edge in edges]
    K = [_published_K(focal, height, width) for focal in focals]
    anchor = int(edges[1].score > edges[0].score)
    photos = place_pair(edges, K, anchor, published=True)
    poses = torch.stack([torch.from_numpy(photo.c2w) for photo in photos])
    points = torch.stack([photo.points.xyz for photo in photos])
    conf = torch.stack([photo.points.conf for photo in photos])
    return {
        "final.im_poses": poses,
        "final.focals": torch.tensor(focals),
        "final.principal_points": centre.expand(2, 2),
        "final.depthmaps": transforms.apply(transforms.invert(poses), points.double())[..., 2],
        "final.pts3d": points,
        "im_conf": conf,
        "masks": conf > MASK_CONF,
    }


def _cameras_of_cut3r(inputs: Tensors) -> Tensors:
    """Poses without scale, focal lengths, points moved by poses, ray maps, scales of groups of views."""
    points = torch.stack([inputs[f"pts{i}"] for i in range(3)], dim=1)
    masks = torch.stack([inputs[f"valid{i}"] for i in range(3)], dim=1)
    conf = torch.stack([inputs[f"conf{i}"] for i in range(3)], dim=1)
    factors = {
        "norm_factor.noconf": size_of(torch.where(masks[..., None], points, 0.0)),
        "norm_factor.conf": size_of(points, masks, weights=conf),
        "norm_factor.log1p": size_of(points, masks, "log1p", weights=conf),
        "norm_factor.median": size_of(points, masks, "median"),
        "group_scale": joint_scale(points, masks, joint_centre(points, masks)),
    }
    results = {name: factor[:, None, None, None] for name, factor in factors.items()}
    results["group_depth"] = joint_depth(points, masks)
    results["group_center"] = joint_centre(points, masks)[:, None, None]
    for name, weights in (("procrustes", inputs["w"]), ("procrustes_unweighted", [None, None])):
        moves = [
            align_points(a.numpy(), b.numpy(), None if w is None else w.numpy(), with_scale=False)
            for a, b, w in zip(inputs["A"], inputs["B"], weights, strict=True)
        ]
        results[f"{name}.R"] = torch.stack([torch.from_numpy(move.R) for move in moves])
        results[f"{name}.t"] = torch.stack([torch.from_numpy(move.t) for move in moves])
    results["procrustes.T"] = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    results["procrustes.T"][:, :3, :3] = results["procrustes.R"]
    results["procrustes.T"][:, :3, 3] = results["procrustes.t"]
    height, width = inputs["pts0"].shape[1:3]
    centre = torch.tensor([width // 2, height // 2], dtype=torch.float32)
    results["focal_weiszfeld"] = weiszfeld_focal(inputs["pts0"], centre)
    results["world_from_self"] = transforms.apply(inputs["c2w"], inputs["pts0"])
    seen_from_first = transforms.relative_pose(inputs["c2w2"], inputs["c2w1"])
    results["ray_map.training"] = ray_map(seen_from_first, inputs["K"], (width, height))
    return results
