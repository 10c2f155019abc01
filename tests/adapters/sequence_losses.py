"""Criteria of CUT3R and Fast3R under their original names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.criteria import Criterion
from adapters.losses import Result, alpha_of, moved_back, stack, to_reference
from threer.geometry.transforms import relative_pose
from threer.training.losses import (
    SequencePoints,
    colour_errors,
    confidence_loss,
    fusion_distances,
    match_scale,
    match_shift,
    mean_pose_error,
    pose_errors,
    regression_loss,
    sequence_distances,
    sequence_scales,
    sky_included,
    typed_distances,
)
from threer.training.losses.regression import distances


def fusion(config: dict[str, Any], criterion: Criterion, inputs: dict[str, Tensor]) -> Result:
    views = list(range(config["num_views"]))
    inner = criterion.inner or criterion
    valid = stack(inputs, "gt", "valid_mask", views)
    world = to_reference(inputs, views, 0)
    own = moved_back(inputs, {v: v for v in views})
    names = ("pts3d_in_other_view", "pts3d_local")
    apart = fusion_distances(
        (stack(inputs, "pred", names[0], views), stack(inputs, "pred", names[1], views)),
        (world, own),
        valid,
        inner.mode[0],
        consistent=bool(inner.options.get("local_scale_consistent", False)),
        keep_truth=inner.keeps_truth,
    )
    outputs, terms = {}, []
    for part, tensor, d in zip(("global", "local"), ("conf", "conf_local"), apart, strict=True):
        plain = regression_loss(d, valid)
        outputs |= _listed(f"Regr3DMultiviewV3_pts3d_loss_{part}", plain.per_view)
        if criterion.inner is not None:
            plain = confidence_loss(d, stack(inputs, "pred", tensor, views), valid, alpha_of(criterion))
            outputs |= _listed(f"{criterion.name}_conf_loss_{part}", plain.per_view)
        terms.append(plain.per_view)
    return outputs, torch.cat(terms).mean()


def recurrent(config: dict[str, Any], criterion: Criterion, inputs: dict[str, Tensor]) -> Result:
    views = list(range(config["num_views"]))
    if criterion.name == "RGBLoss":
        if criterion.pixel not in ("MSE", "L21"):
            raise LookupError(f"no adapter for {criterion.pixel} in RGBLoss")
        colours, images = stack(inputs, "pred", "rgb", views), stack(inputs, "gt", "img", views)
        per_view = colour_errors(colours, images, squared=criterion.pixel == "MSE").mean(dim=0)
        return {f"detail.RGBLoss_rgb/{v + 1}": x.reshape(1) for v, x in enumerate(per_view)}, per_view.mean()
    return _points(criterion, inputs, views)


def _points(criterion: Criterion, inputs: dict[str, Tensor], views: list[int]) -> Result:
    inner = criterion.inner or criterion
    typed = "BatchList" in inner.name
    invariance = inner.name.replace("Regr3DPose", "").replace("BatchList", "")
    if invariance not in ("", "_ScaleInv", "_ShiftInv", "_ScaleShiftInv") or inner.pixel != "L21":
        raise LookupError(f"no adapter for criterion {inner.name!r} of {inner.pixel}")

    def flag(name: str) -> Tensor:
        return inputs[f"gt0.{name}"]

    valid, c2w = stack(inputs, "gt", "valid_mask", views), stack(inputs, "gt", "camera_pose", views)
    confidence = (stack(inputs, "pred", "conf_self", views), stack(inputs, "pred", "conf", views))
    prediction = SequencePoints(
        stack(inputs, "pred", "pts3d_in_self_view", views), stack(inputs, "pred", "pts3d_in_other_view", views)
    )
    own = moved_back(inputs, {v: v for v in views})
    truth = SequencePoints(own, to_reference(inputs, views, 0))
    mode, metric = inner.mode
    if mode not in ("none", "avg_dis") or inner.options.get("dist_clip") is not None:
        raise LookupError(f"no adapter for the options of {inner.name}: {inner.options}")
    true_scales = sequence_scales(prediction, truth, valid, flag("is_metric") if metric else None, confidence)
    ones = torch.ones(len(c2w))
    scales = (ones, ones) if inner.keeps_truth or mode == "none" else true_scales
    apart = sequence_distances(prediction, truth, valid, scales)
    if invariance:
        apart = tuple(  # type: ignore[assignment]
            _invariant(invariance, p, t, valid, inner.keeps_truth)
            for p, t in ((prediction.own, truth.own), (prediction.world, truth.world))
        )
    sky = stack(inputs, "gt", "sky_mask", views)
    value = float(inner.options.get("sky_loss_value", 2))
    counted = valid | sky if value > 0 else valid
    camera_only = flag("camera_only") if typed else torch.zeros(len(c2w), dtype=torch.bool)
    if typed:
        loose = flag("single_view") & ~flag("is_metric")
        apart = typed_distances(
            apart, prediction, truth, valid, counted,
            camera_only=camera_only, depth_only=flag("depth_only"), loose=loose,
        )  # fmt: skip
    apart = tuple(sky_included(d, valid, sky, value) for d in apart)  # type: ignore[assignment]
    masks = (counted, counted & ~camera_only[:, None, None, None])
    plain = [regression_loss(d, m) for d, m in zip(apart, masks, strict=True)]

    errors = pose_errors(
        stack(inputs, "pred", "camera_pose", views), relative_pose(c2w, c2w[:, :1]), *scales,
        own_path=camera_only, either_sign=False,
    )  # fmt: skip
    judged = torch.ones(len(c2w), len(views), dtype=torch.bool)
    if typed:
        judged = judged & inputs[f"gt{views[-1]}.img_mask"].unsqueeze(1)
    pose = mean_pose_error(errors, scales[1], camera_only, judged)

    outputs = {"detail.pose_loss": pose.reshape(1)}
    for part, losses in zip(("self_pts3d", "pts3d"), plain, strict=True):
        outputs |= {f"detail.{inner.name}_{part}/{v + 1}": x.reshape(1) for v, x in enumerate(losses.per_view)}
    if criterion.inner is None:
        return outputs, plain[0].total + plain[1].total
    weighted = [
        confidence_loss(d, c, m, alpha_of(criterion)) for d, c, m in zip(apart, confidence, masks, strict=True)
    ]
    for part, losses in zip(("_self", ""), weighted, strict=True):
        named = f"detail.{criterion.name}({inner.name}(L21Loss()))_conf_loss{part}"
        outputs |= {f"{named}/{v + 1}": x.reshape(1) for v, x in enumerate(losses.per_view)}
    return outputs, 2 * torch.cat([w.per_view for w in weighted]).mean() + pose


def _invariant(kind: str, prediction: Tensor, truth: Tensor, valid: Tensor, keep_truth: bool) -> Tensor:
    mask = valid.unsqueeze(-1)
    prediction, truth = torch.where(mask, prediction, 0.0), torch.where(mask, truth, 0.0)
    if "Shift" in kind:
        prediction, truth = match_shift(prediction, truth, valid)
    if "Scale" in kind:
        prediction, truth = match_scale(prediction, truth, valid, keep_truth)
    return distances(prediction, truth)


def _listed(name: str, per_view: Tensor) -> dict[str, Tensor]:
    return {f"detail.{name}/{v:02d}": x.reshape(1) for v, x in enumerate(per_view)}
