"""Criteria of DUSt3R and SLAM3R under their original names; those of CUT3R and Fast3R are in `sequence_losses`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.criteria import Criterion, parse
from threer.geometry.transforms import apply
from threer.training.losses import (
    ViewLosses,
    confidence_loss,
    match_scale,
    match_shift,
    point_distances,
    regression_loss,
    retrieval_loss,
    within,
)
from threer.training.losses.regression import distances
from threer.training.losses.scale import normalize_points
from threer.training.targets import registration_sample

Result = tuple[dict[str, Tensor], Tensor]
"""Details by name, and the loss."""


def run_case(config: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    results: dict[str, Tensor] = {}
    for name, constructor in config["criteria"].items():
        # every criterion starts from fresh leaves, so that gradients do not add up
        fresh = {k: v.detach().clone() for k, v in inputs.items()}
        leaves = {k: v.requires_grad_() for k, v in fresh.items() if k.startswith("pred")}
        outputs, loss = _evaluate(config, constructor, fresh)
        loss.backward()
        results |= {f"{name}.{k}": v.detach() for k, v in outputs.items()}
        results[f"{name}.loss"] = loss.detach().reshape(1)
        offset = 1 if config.get("mode") == "l2w" else 0
        for key, leaf in leaves.items():
            view, tensor = key.removeprefix("pred").split(".", 1)
            gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(leaf)
            results[f"{name}.grad.pred{int(view) - offset}.{tensor}"] = gradient
    return results


def _evaluate(config: dict[str, Any], constructor: str, inputs: dict[str, Tensor]) -> Result:
    if config.get("mode") == "corr":
        return _retrieval(config, inputs)
    outputs: dict[str, Tensor] = {}
    total = torch.zeros(())
    for weight, criterion in parse(constructor):
        details, loss = _one(config, criterion, inputs)
        outputs |= details
        total = total + weight * loss
    return outputs, total


def _one(config: dict[str, Any], criterion: Criterion, inputs: dict[str, Tensor]) -> Result:
    from adapters import sequence_losses

    names = criterion.name + (criterion.inner.name if criterion.inner else "")
    mode = config.get("mode")
    if mode == "i2p":
        return _image_to_points(config, criterion, inputs)
    if mode == "l2w":
        return _local_to_world(config, criterion, inputs)
    if mode is not None:
        raise LookupError(f"no adapter for loss mode {mode!r}")
    if "Regr3DPose" in names or criterion.name == "RGBLoss":
        return sequence_losses.recurrent(config, criterion, inputs)
    if "Multiview" in names:
        return sequence_losses.fusion(config, criterion, inputs)
    return _pair(config, criterion, inputs)


def stack(inputs: dict[str, Tensor], prefix: str, name: str, views: list[int]) -> Tensor:
    return torch.stack([inputs[f"{prefix}{v}.{name}"] for v in views], dim=1)


def alpha_of(criterion: Criterion) -> float:
    return float(criterion.options.get("alpha", 1.0))


def compared(criterion: Criterion, prediction: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    """Distances of a regression of the Regr3D kind, with its invariances."""
    kind = criterion.name.removeprefix("Jointnorm_")
    if kind not in ("Regr3D", "Regr3D_ShiftInv", "Regr3D_ScaleInv", "Regr3D_ScaleShiftInv"):
        raise LookupError(f"no adapter for criterion {criterion.name!r}")
    if criterion.pixel != "L21":
        raise LookupError(f"no adapter for {criterion.pixel} in {criterion.name}")
    mode, _ = criterion.mode
    if kind == "Regr3D":
        return point_distances(prediction, truth, valid, mode, criterion.keeps_truth)
    prediction, _ = normalize_points(prediction, valid, mode)
    truth, _ = normalize_points(truth, valid, "none" if criterion.keeps_truth else mode)
    if "Shift" in kind:
        prediction, truth = match_shift(prediction, truth, valid)
    if "Scale" in kind:
        prediction, truth = match_scale(prediction, truth, valid, criterion.keeps_truth)
    return distances(prediction, truth)


def _regression(
    criterion: Criterion, prediction: Tensor, confidence: Tensor, truth: Tensor, valid: Tensor
) -> tuple[dict[str, ViewLosses], ViewLosses]:
    inner = criterion.inner or criterion
    if inner.options.get("dist_clip") is not None:
        valid = within(truth, valid, float(inner.options["dist_clip"]))
    apart = compared(inner, prediction, truth, valid)
    plain = regression_loss(apart, valid)
    details = {f"{inner.name.removeprefix('Jointnorm_')}_pts3d": plain}
    if criterion.inner is None:
        return details, plain
    weighted = confidence_loss(apart, confidence, valid, alpha_of(criterion))
    return details | {"conf_loss": weighted}, weighted


def _numbered(details: dict[str, ViewLosses]) -> dict[str, Tensor]:
    return {
        f"detail.{name}_{v + 1}": x.reshape(1)
        for name, losses in details.items()
        for v, x in enumerate(losses.per_view)
    }


def to_reference(inputs: dict[str, Tensor], views: list[int], reference: int) -> Tensor:
    """True points [B, V, H, W, 3] in the camera frame of view ``reference``."""
    return moved_back(inputs, dict.fromkeys(views, reference))


def moved_back(inputs: dict[str, Tensor], frames: dict[int, int]) -> Tensor:
    """True points [B, V, H, W, 3] of the views that are keys, in the camera frames of the views that are values.

    View by view, as one long list, and by a general inverse, as the original does: where prediction and truth agree
    but for rounding, the direction of the gradient is that of the rounding.
    """
    inverses = {v: torch.linalg.inv(inputs[f"gt{v}.camera_pose"]) for v in set(frames.values())}
    points = {view: inputs[f"gt{view}.pts3d"] for view in frames}
    moved = [apply(inverses[f], points[v].flatten(1, 2)).view_as(points[v]) for v, f in frames.items()]
    return torch.stack(moved, dim=1)


def _predicted(inputs: dict[str, Tensor], views: list[int], references: list[int]) -> tuple[Tensor, Tensor]:
    names = ["pts3d" if v in references else "pts3d_in_other_view" for v in views]
    points = torch.stack([inputs[f"pred{v}.{n}"] for v, n in zip(views, names, strict=True)], dim=1)
    return points, stack(inputs, "pred", "conf", views)


def _pair(config: dict[str, Any], criterion: Criterion, inputs: dict[str, Tensor]) -> Result:
    views = [0, 1]
    points, confidence = _predicted(inputs, views, [0])
    valid = stack(inputs, "gt", "valid_mask", views)
    details, losses = _regression(criterion, points, confidence, to_reference(inputs, views, 0), valid)
    outputs = _numbered(details)
    if "detail.conf_loss_2" in outputs:  # so the original logs it
        outputs["detail.conf_loss2"] = outputs.pop("detail.conf_loss_2")
    return outputs, losses.total


def _image_to_points(config: dict[str, Any], criterion: Criterion, inputs: dict[str, Tensor]) -> Result:
    views = list(range(config["num_views"]))
    reference = config["ref_id"] if config["ref_id"] >= 0 else (len(views) - 1) // 2
    points, confidence = _predicted(inputs, views, [reference])
    truth, valid = to_reference(inputs, views, reference), stack(inputs, "gt", "valid_mask", views)
    details, losses = _regression(criterion, points, confidence, truth, valid)
    return _numbered(details), losses.total


def _local_to_world(config: dict[str, Any], criterion: Criterion, inputs: dict[str, Tensor]) -> Result:
    views = list(range(1, config["num_views"]))  # view 0 only names the world frame
    scene = [v for v in views if v - 1 in config["ref_ids"]]
    keys = [v for v in views if v not in scene]
    order = scene + keys
    sample = registration_sample(
        to_reference(inputs, order, 0),
        stack(inputs, "gt", "pts3d_cam", order),
        stack(inputs, "gt", "valid_mask", order),
        len(scene),
    )
    back = [order.index(v) for v in views]
    points, confidence = _predicted(inputs, views, scene)
    details, losses = _regression(criterion, points, confidence, sample.truth[:, back], sample.valid[:, back])
    outputs = _numbered(details)
    for fed, frames, name in ((sample.scene, scene, "pts3d_world"), (sample.keys, keys, "pts3d_cam")):
        for i, view in enumerate(frames):
            outputs[f"model_input{view - 1}.{name}"] = fed[:, i].permute(0, 3, 1, 2)
    return outputs, losses.total


def _retrieval(config: dict[str, Any], inputs: dict[str, Tensor]) -> Result:
    sources = [v for v in range(config["num_views"]) if v != config["ref_id"]]
    losses = retrieval_loss(
        [inputs[f"pred{v}.pseudo_conf"] for v in sources], [inputs[f"pred{v}.conf"] for v in sources]
    )
    named = zip(sources, losses.per_view, strict=True)
    return {f"detail.pseudo_conf_loss_{v}": x.reshape(1) for v, x in named}, losses.total
