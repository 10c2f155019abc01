"""Criteria of SLAM3R under their original names and constructors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from threer.geometry.transforms import apply, invert
from threer.training.losses import (
    Normalization,
    ViewLosses,
    confidence_loss,
    point_distances,
    regression_loss,
    retrieval_loss,
)
from threer.training.targets import registration_sample


@dataclass(frozen=True)
class Criterion:
    normalization: Normalization
    alpha: float | None  # None: plain regression


def run_case(config: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    modes = {"i2p": _image_to_points, "l2w": _local_to_world, "corr": _retrieval}
    mode = config["mode"]
    if mode not in modes:
        raise LookupError(f"no adapter for loss mode {mode!r}")
    results: dict[str, Tensor] = {}
    for name, constructor in config["criteria"].items():
        # every criterion starts from fresh leaves, so that gradients do not add up
        fresh = {k: v.detach().clone() for k, v in inputs.items()}
        leaves = {k: v.requires_grad_() for k, v in fresh.items() if k.startswith("pred")}
        outputs, loss, offset = modes[mode](config, constructor, fresh)
        loss.backward()
        results |= {f"{name}.{k}": v for k, v in outputs.items()}
        results[f"{name}.loss"] = loss.detach().reshape(1)
        for key, leaf in leaves.items():
            view, field = key.removeprefix("pred").split(".", 1)
            gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
            results[f"{name}.grad.pred{int(view) - offset}.{field}"] = gradient
    return results


def parse(constructor: str, default_normalization: str | None = "avg_dis") -> Criterion:
    """Read e.g. ``Jointnorm_ConfLoss(Jointnorm_Regr3D(L21,norm_mode='avg_dis'),alpha=0.2)``."""
    inner = re.search(r"Regr3D\(([^()]*)\)", constructor)
    if inner is None:
        raise LookupError(f"no adapter for criterion {constructor!r}")
    arguments = dict(re.findall(r"(\w+)=([^,]+)", inner.group(1)))
    mode = arguments.get("norm_mode", repr(default_normalization)).strip("'\"")
    if mode not in ("avg_dis", "None"):
        raise LookupError(f"no adapter for norm_mode {mode!r}")
    gt_scale = arguments.get("gt_scale") == "True"
    normalization: Normalization = "none" if mode == "None" else "prediction" if gt_scale else "both"
    alpha = None
    if "ConfLoss(" in constructor:
        given = re.search(r"alpha=([0-9.eE+-]+)", constructor)
        alpha = float(given.group(1)) if given else 1.0
    return Criterion(normalization, alpha)


def _stack(inputs: dict[str, Tensor], prefix: str, field: str, views: list[int]) -> Tensor:
    return torch.stack([inputs[f"{prefix}{v}.{field}"] for v in views], dim=1)


def _evaluate(
    criterion: Criterion, prediction: Tensor, confidence: Tensor, truth: Tensor, valid: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    distances = point_distances(prediction, truth, valid, criterion.normalization)
    plain = regression_loss(distances, valid)
    outputs = _details("Regr3D_pts3d", plain)
    if criterion.alpha is None:
        return outputs, plain.total
    weighted = confidence_loss(distances, confidence, valid, criterion.alpha)
    return outputs | _details("conf_loss", weighted), weighted.total


def _details(name: str, losses: ViewLosses) -> dict[str, Tensor]:
    return {f"detail.{name}_{v + 1}": x.detach().reshape(1) for v, x in enumerate(losses.per_view)}


def _to_reference(inputs: dict[str, Tensor], views: list[int], reference: int) -> Tensor:
    """True points [B, V, H, W, 3] in the camera frame of view ``reference``."""
    return apply(invert(inputs[f"gt{reference}.camera_pose"]), _stack(inputs, "gt", "pts3d", views))


def _predicted(inputs: dict[str, Tensor], views: list[int], references: list[int]) -> tuple[Tensor, Tensor]:
    fields = ["pts3d" if v in references else "pts3d_in_other_view" for v in views]
    points = torch.stack([inputs[f"pred{v}.{f}"] for v, f in zip(views, fields, strict=True)], dim=1)
    return points, _stack(inputs, "pred", "conf", views)


def _image_to_points(
    config: dict[str, Any], constructor: str, inputs: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor, int]:
    views = list(range(config["num_views"]))
    reference = config["ref_id"] if config["ref_id"] >= 0 else (len(views) - 1) // 2
    points, confidence = _predicted(inputs, views, [reference])
    truth = _to_reference(inputs, views, reference)
    outputs, loss = _evaluate(
        parse(constructor), points, confidence, truth, _stack(inputs, "gt", "valid_mask", views)
    )
    return outputs, loss, 0


def _local_to_world(
    config: dict[str, Any], constructor: str, inputs: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor, int]:
    views = list(range(1, config["num_views"]))  # view 0 only names the world frame
    scene = [v for v in views if v - 1 in config["ref_ids"]]
    keys = [v for v in views if v not in scene]
    order = scene + keys
    sample = registration_sample(
        _to_reference(inputs, order, 0),
        _stack(inputs, "gt", "pts3d_cam", order),
        _stack(inputs, "gt", "valid_mask", order),
        len(scene),
    )
    back = [order.index(v) for v in views]
    points, confidence = _predicted(inputs, views, scene)
    outputs, loss = _evaluate(parse(constructor), points, confidence, sample.truth[:, back], sample.valid[:, back])
    for fed, frames, field in ((sample.scene, scene, "pts3d_world"), (sample.keys, keys, "pts3d_cam")):
        for i, view in enumerate(frames):
            outputs[f"model_input{view - 1}.{field}"] = fed[:, i].permute(0, 3, 1, 2)
    return outputs, loss, 1


def _retrieval(
    config: dict[str, Any], constructor: str, inputs: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Tensor, int]:
    sources = [v for v in range(config["num_views"]) if v != config["ref_id"]]
    losses = retrieval_loss(
        [inputs[f"pred{v}.pseudo_conf"] for v in sources], [inputs[f"pred{v}.conf"] for v in sources]
    )
    named = zip(sources, losses.per_view, strict=True)
    return {f"detail.pseudo_conf_loss_{v}": x.detach().reshape(1) for v, x in named}, losses.total, 0
