"""Reference cases of the networks: final maps and the steps on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from threer.geometry.transforms import quaternion_from_matrix
from threer.models.cut3r import CUT3R, State
from threer.models.dust3r import DUSt3R
from threer.models.fast3r import Fast3R
from threer.models.official import from_official
from threer.models.slam3r import ImageToPoints, LocalToWorld
from threer.models.trunk import Trunk
from threer.nn.fusion import draw_view_ids
from threer.types import Prediction, View

Results = dict[str, Tensor]


def run_case(config: dict[str, Any], inputs: dict[str, Tensor], weights: dict[str, Tensor]) -> Results:
    """All results of a network's case under the reference names."""
    family, run = FAMILIES[config["model"].removeprefix("SLAM3R ").split()[0]]
    model = from_official(family, config["constructor"], weights, config.get("dpt_dims"))
    with torch.no_grad():
        results: Results = run(model, config, _views(inputs))
    return {name: tensor.detach().contiguous() for name, tensor in results.items()}


def run_dust3r(model: DUSt3R, config: dict[str, Any], inputs: dict[str, Results]) -> Results:
    sides = ("view1", "view2")
    images = [inputs[side]["img"] for side in sides]
    shapes = [inputs[side]["true_shape"] for side in sides]
    instances = [inputs[side].get("instance", torch.arange(0)) for side in sides]
    symmetrized = bool(config.get("symmetrize")) or _swapped(*instances)
    if config.get("symmetrize"):
        images = _both_orders(*images)
        shapes = _both_orders(*shapes)
    views = [View(image, shape) for image, shape in zip(images, shapes, strict=True)]
    with recorded(model) as calls:
        predictions = model(views, symmetrized=symmetrized)
    results = {}
    for i, side in enumerate(sides):
        results[f"pos.{side}"] = model.layout([views[i]]).positions()
        results[f"enc_tokens.{side}"] = calls["encoder_norm"][i].squeeze(1)
        results[f"decoder_embed.{side}"] = calls["bridge"][i].squeeze(1)
        results[f"dec_block0.{side}"] = calls[("first_block", "second_block")[i]][0].squeeze(1)
        results[f"dec_norm.{side}"] = calls["decoder_norm"][i].squeeze(1)
    return results | _maps(predictions, first_is_own=[True, False], start=1)


def run_i2p(model: ImageToPoints, config: dict[str, Any], inputs: dict[str, Results]) -> Results:
    views = [View(v.get("img"), v["true_shape"], v.get("img_tokens")) for v in inputs.values()]
    ref = config.get("ref_id", -1)
    ref = (len(views) - 1) // 2 if ref == -1 else ref
    with recorded(model) as calls:
        predictions = model(views, ref)
    results = _sides(calls) | _maps(predictions, [i == ref for i in range(len(views))])
    for i, (view, tokens) in enumerate(zip(views, model.tokens_of(views), strict=True)):
        results[f"pos.view{i}"] = model.layout([view]).positions()
        results[f"enc_tokens_raw.view{i}"] = tokens
        if i != ref:
            logits = predictions[i].logits
            assert logits is not None
            results[f"pred{i}.pseudo_conf"] = logits
    sources = [view for i, view in enumerate(views) if i != ref]
    for depth in config.get("corr_depths", []):
        chosen = {} if depth == -1 else {"depth": depth}
        results[f"corr_score.depth{depth}"] = model.affinity(views[ref], sources, **chosen)
    return results


def run_l2w(model: LocalToWorld, config: dict[str, Any], inputs: dict[str, Results]) -> Results:
    views = []
    for v in inputs.values():
        points = v["pts3d_world"] if "pts3d_world" in v else v["pts3d_cam"]
        points = points.movedim(1, -1) if points.shape[-1] != 3 else points
        views.append(View(v.get("img"), v["true_shape"], v.get("img_tokens"), points, v.get("patch_mask")))
    scene = list(config["ref_ids"])
    order = scene + [i for i in range(len(views)) if i not in scene]
    with recorded(model) as calls:
        ordered = model([views[i] for i in scene], [views[i] for i in order[len(scene) :]])
    predictions = [ordered[order.index(i)] for i in range(len(views))]
    results = _sides(calls) | _maps(predictions, [i in scene for i in range(len(views))])
    embedded = calls["point_embed"][0].chunk(len(views))  # [V·B, N, C], scene frames first
    for i, view in enumerate(views):
        grid = model.layout([view]).grid
        results[f"point_embed.view{i}"] = embedded[order.index(i)].transpose(1, 2).unflatten(2, grid)
        results[f"pos.view{i}"] = model.layout([view]).positions()
    return results


def run_cut3r(model: CUT3R, config: dict[str, Any], inputs: dict[str, Results]) -> Results:
    frames = [v for name, v in inputs.items() if name != "query"]
    views = [_cut3r_view(frame) for frame in frames]
    update = [frame.get("update", torch.tensor(True)) for frame in frames]
    reset = [frame.get("reset", torch.tensor(False)) for frame in frames]

    def one_by_one() -> Iterator[tuple[State, Prediction]]:
        state = model.start(views[0].batch)
        for view, keep, forget in zip(views, update, reset, strict=True):
            state, prediction = model.step(state, view, keep, forget)
            yield state, prediction

    results, state = _stream(model, "recurrent", one_by_one())
    results |= _stream(model, "rollout", model.rollout(views, update, reset))[0]
    if "query" in inputs:
        results |= _frame("query_step", model.query(state, _cut3r_view(inputs["query"])))
    return results


def _stream(model: CUT3R, prefix: str, frames: Iterator[tuple[State, Prediction]]) -> tuple[Results, State]:
    steps = {
        "enc_tokens": model.encoder_norm,
        "ray_tokens": model.ray_norm,
        "dec_block0": model.decoder.first[0],
        "dec_state_block0": model.decoder.second[0],
        "dec_norm": model.decoder_norm,
        "dec_norm_state": model.state_norm,
    }
    if model.config.head == "linear":
        steps["self_proj_raw"] = model.local_head.linear
    results, asked = {}, []
    handle = model.decoder.register_forward_pre_hook(
        lambda module, args, named: asked.append(args), with_kwargs=True
    )
    state = model.start()
    with hooked(steps) as calls:
        for i, (state, prediction) in enumerate(frames):
            results[f"{prefix}.state_after{i}"], results[f"{prefix}.mem_after{i}"] = state.tokens, state.memory
            results |= _frame(f"{prefix}.frame{i}", prediction)
            if len(calls["dec_norm_state"]) == i:  # a state that is not kept is not worked out
                depth = model.decoder.depth
                full = [list(c) for c in (calls["dec_block0"], calls["dec_state_block0"])]
                model.state_norm(model.decoder(*asked[-1], keep={depth})[1][depth])
                calls["dec_block0"], calls["dec_state_block0"] = full
    handle.remove()
    for name, outputs in calls.items():
        for k, output in enumerate(outputs):
            results[f"{prefix}.{name}.call{k}"] = output.squeeze(1) if output.ndim == 4 else output
    results |= {
        f"{prefix}.init_state_feat": state.initial_tokens,
        f"{prefix}.init_mem": state.initial_memory,
        f"{prefix}.state_pos": state.positions,
    }
    return results, state


def _frame(prefix: str, prediction: Prediction) -> Results:
    local, c2w, rgb = prediction.local, prediction.c2w, prediction.rgb
    assert local is not None
    assert c2w is not None
    assert rgb is not None
    return {
        f"{prefix}.pts3d_in_self_view": local.xyz,
        f"{prefix}.conf_self": local.conf,
        f"{prefix}.pts3d_in_other_view": prediction.points.xyz,
        f"{prefix}.conf": prediction.points.conf,
        f"{prefix}.camera_pose": torch.cat((c2w[:, :3, 3], quaternion_from_matrix(c2w[:, :3, :3])), dim=-1),
        f"{prefix}.rgb": rgb,
    }


def _cut3r_view(frame: Results) -> View:
    image, rays, shape = frame.get("img"), frame.get("ray_map"), frame["true_shape"]
    image_mask = None if image is None else frame.get("img_mask")
    ray_mask = None if rays is None else frame.get("ray_mask")
    return View(image, shape, ray_map=rays, image_mask=image_mask, ray_mask=ray_mask)


def run_fast3r(model: Fast3R, config: dict[str, Any], inputs: dict[str, Results]) -> Results:
    views = [View(v["img"], v["true_shape"]) for v in inputs.values()]
    ids = None
    if model.config.random_ids:
        # The reference draws a seed from the global generator, then the ids from a generator of that seed.
        torch.manual_seed(config["torch_seed"])
        ids = draw_view_ids(views[0].batch, len(views), seed=int(torch.randint(0, 2**32, (1,))))
    results: Results = {} if ids is None else {"view_index_ids": ids}
    steps = {
        "decoder_embed": model.bridge,
        "dec_block0": model.decoder.blocks[0],
        "dec_norm": model.decoder_norm,
        "enc_tokens": model.encoder_norm,
    }
    with hooked(steps) as calls:
        predictions = model(views, ids)
    results |= {name: calls[name][0] for name in ("decoder_embed", "dec_block0", "dec_norm")}
    results |= {f"enc_tokens.view{i}": tokens for i, tokens in enumerate(calls["enc_tokens"])}
    results |= _maps(predictions, first_is_own=[False] * len(views))
    for i, prediction in enumerate(predictions):
        if prediction.local is not None:
            results[f"pred{i}.pts3d_local"] = prediction.local.xyz
            results[f"pred{i}.conf_local"] = prediction.local.conf
    return results


FAMILIES: dict[str, tuple[str, Callable[..., Results]]] = {
    "DUSt3R": ("dust3r", run_dust3r),
    "Image2PointsModel": ("slam3r_i2p", run_i2p),
    "Local2WorldModel": ("slam3r_l2w", run_l2w),
    "CUT3R": ("cut3r", run_cut3r),
    "Fast3R": ("fast3r", run_fast3r),
}


def recorded(model: Trunk) -> AbstractContextManager[dict[str, list[Tensor]]]:
    """Outputs of the steps that the reference data of DUSt3R and SLAM3R names, call by call, while one runs."""
    steps: dict[str, nn.Module] = {
        "encoder_norm": model.encoder_norm,
        "bridge": model.bridge,
        "first_block": model.decoder.first[0],
        "second_block": model.decoder.second[0],
        "decoder_norm": model.decoder_norm,
    }
    if isinstance(model, LocalToWorld):
        steps["point_embed"] = model.point_embed
    return hooked(steps)


@contextmanager
def hooked(steps: dict[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Outputs of ``steps``, call by call, while a network runs."""
    calls: dict[str, list[Tensor]] = defaultdict(list)

    def recorder(name: str) -> Any:
        return lambda module, args, output: calls[name].append(output)

    handles = [step.register_forward_hook(recorder(name)) for name, step in steps.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _sides(calls: dict[str, list[Tensor]]) -> Results:
    """[B, V, N, C] of both streams with the views in front, as the reference has them."""
    first, second = calls["decoder_norm"]
    return {
        "dec_block0.ref": calls["first_block"][0].transpose(0, 1),
        "dec_block0.src": calls["second_block"][0].transpose(0, 1),
        "dec_norm.ref": first.transpose(0, 1),
        "dec_norm.src": second.transpose(0, 1),
    }


def _maps(predictions: list[Prediction], first_is_own: list[bool], start: int = 0) -> Results:
    results = {}
    for i, (prediction, own) in enumerate(zip(predictions, first_is_own, strict=True)):
        name = f"pred{i + start}.pts3d" if own else f"pred{i + start}.pts3d_in_other_view"
        results[name] = prediction.points.xyz
        results[f"pred{i + start}.conf"] = prediction.points.conf
    return results


def _views(inputs: dict[str, Tensor]) -> dict[str, Results]:
    """Inputs "view3.img" and the like, grouped by view, in the order of their numbers; others last."""
    grouped: dict[str, Results] = defaultdict(dict)
    for key, tensor in inputs.items():
        view, _, name = key.partition(".")
        grouped[view][name] = tensor
    numbers = {view: view.removeprefix("view") for view in grouped}
    order = sorted(grouped, key=lambda v: int(numbers[v]) if numbers[v].isdigit() else len(grouped))
    return {view: grouped[view] for view in order}


def _both_orders(a: Tensor, b: Tensor) -> list[Tensor]:
    return [torch.stack(order, dim=1).flatten(0, 1) for order in ((a, b), (b, a))]


def _swapped(a: Tensor, b: Tensor) -> bool:
    """Whether instance lists of two views say that each even sample comes again, swapped, right after."""
    even = len(a) > 0 and len(a) % 2 == 0
    return even and bool((a[::2] == b[1::2]).all() and (a[1::2] == b[::2]).all())
