"""Reference cases of pair graphs, reciprocal matches, global alignment, and what scale-free comparisons fix."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threer.geometry import gauge, transforms
from threer.geometry.matching import reciprocal_neighbours
from threer.geometry.pnp_search import search_camera
from threer.geometry.projection import unproject
from threer.pipelines.alignment import pairs as graphs
from threer.pipelines.alignment.cleaning import without_floaters
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.published import optimise_published
from threer.pipelines.alignment.scene import Aligned, Known, alignment_loss
from threer.pipelines.alignment.spanning_tree import grow_scene, scene_on_known_cameras, spanning_tree
from threer.types import Pointmap

Tensors = dict[str, Tensor]
MASK_CONF = 3.0


def run_case(config: dict[str, Any], inputs: Tensors, weights: Tensors) -> Tensors:
    return {"pairs": _graphs, "recip": _reciprocal, "misc": _scales, "ga": _alignment}[config["fn"]](config, inputs)


def _graphs(config: dict[str, Any], inputs: Tensors) -> Tensors:
    results = {}
    for count in config["n_images"]:
        for name in config["graphs"]:
            for both in (0, 1):
                drawn = _graph(name, count)
                if both:
                    drawn = graphs.symmetrized(drawn)
                key = f"n{count}.{name}.sym{both}"
                for suffix, edges in (
                    ("", drawn),
                    (".seq2", graphs.within(drawn, 2)),
                    (".cyc2", graphs.within(drawn, 2, cyclic_of=count)),
                ):
                    results[key + suffix] = torch.tensor(edges, dtype=torch.int64).reshape(-1, 2)
    return results


def _graph(name: str, count: int) -> list[graphs.Pair]:
    """A graph by its official name: kind, then a number, then `noncyclic`."""
    kind, *rest = name.split("-")
    number = int(rest[0]) if rest and rest[0].isdecimal() else None
    if kind == "complete":
        return graphs.complete(count)
    if kind == "oneref":
        return graphs.one_reference(count, number or 0)
    cyclic = "noncyclic" not in rest
    if kind == "swin":
        found = graphs.sliding_window(count, number or 3, cyclic=cyclic, self_pairs=True)
    else:
        assert kind == "logwin", kind
        found = graphs.log_window(count, number or 3, cyclic=cyclic)
    return list(set(found))  # the original's order is that of a set


def _reciprocal(config: dict[str, Any], inputs: Tensors) -> Tensors:
    nearest, closed = reciprocal_neighbours(inputs["P1"].numpy(), inputs["P2"].numpy())
    return {
        "nn2_in_P1": torch.from_numpy(nearest),
        "reciprocal_in_P2": torch.from_numpy(closed),
        "num_matches": torch.tensor([int(closed.sum())]),
    }


def _scales(config: dict[str, Any], inputs: Tensors) -> Tensors:
    points = torch.stack([inputs["pts1"], inputs["pts2"]], dim=1)
    masks = torch.stack([inputs["valid1"], inputs["valid2"]], dim=1)
    predicted = torch.stack([inputs["pr1"], inputs["pr2"]], dim=1)
    results = {}
    for name, how in (
        ("avg_dis", "mean"),
        ("median_dis", "median"),
        ("sqrt_dis", "sqrt"),
        ("avg_log1p", "log1p"),
        ("avg_warp-log1p", "warp-log1p"),
    ):
        scaled, factor = gauge.divide_by_size(points, masks, how)
        results[f"normalize.{name}.factor"] = factor[:, None, None, None]
        results |= {f"normalize.{name}.pts{v + 1}": scaled[:, v] for v in (0, 1)}
    centre, along_z = (gauge.joint_centre(points, masks, depth_only=only) for only in (False, True))
    results["joint_depth"] = gauge.joint_depth(points, masks)
    results["joint_center"] = results["joint_center_nc"] = centre[:, None, None]
    results["joint_center_z"] = along_z[:, None, None]
    for suffix, origin in (("", centre), ("_z", along_z), ("_nc", None)):
        results[f"joint_scale{suffix}"] = gauge.joint_scale(points, masks, origin)[:, None, None, None]
    for name, fit in (("avg", "mean"), ("median", "median"), ("weiszfeld_stop_grad", "weiszfeld")):
        results[f"opt_scaling.{name}"] = gauge.best_scale(points, predicted, masks, fit)
    local = unproject(inputs["depth"], inputs["K"])
    results["unproject.cam"] = local
    results["unproject.world"] = transforms.apply(inputs["c2w"], local)
    results["unproject.valid"] = inputs["depth"] > 0
    height, width = inputs["depth"].shape
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    centre = np.array([width / 2, height / 2])
    for name, focal in (("known", float(inputs["K"][0, 0])), ("unknown", None)):
        world = inputs["world_pts"].reshape(-1, 3).numpy()
        found = search_camera(world, pixels, centre, (width, height), focal=focal)
        assert found is not None
        results[f"pnp_{name}_focal.c2w"] = torch.from_numpy(found[0])
        results[f"pnp_{name}_focal.focal"] = torch.tensor([found[1]], dtype=torch.float64)
    return results


def pairs_of(inputs: Tensors) -> Pairs:
    edges = inputs["edges"].numpy()
    sizes: dict[int, tuple[int, int]] = {}
    own, other = [], []
    for e, (i, j) in enumerate(edges.tolist()):
        own.append(Pointmap(inputs["pred1.pts3d"][e], inputs["pred1.conf"][e]))
        other.append(Pointmap(inputs["pred2.pts3d_in_other_view"][e], inputs["pred2.conf"][e]))
        sizes |= {i: tuple(own[-1].conf.shape), j: tuple(other[-1].conf.shape)}
    return Pairs(edges, own, other, [sizes[i] for i in range(len(sizes))])


def known_of(config: dict[str, Any], inputs: Tensors, count: int) -> Known:
    known = Known.nothing(count)
    for name in config.get("preset", ()):
        field = {"poses": "c2w", "focals": "focals"}.get(name, "principal_points")
        given = next(v for k, v in inputs.items() if re.fullmatch(rf"preset\.(im_)?{name}", k))
        getattr(known, field)[:] = given.double().reshape(getattr(known, field).shape).numpy()
    return known


def _alignment(config: dict[str, Any], inputs: Tensors) -> Tensors:
    pairs = pairs_of(inputs)
    known = known_of(config, inputs, pairs.count)
    given = torch.from_numpy(known.principal_points)
    halves = torch.tensor([[width / 2, height / 2] for height, width in pairs.sizes], dtype=torch.float64)
    centres = torch.where(given.isfinite(), given, halves)
    if config.get("init", "mst") == "known_poses":
        start = scene_on_known_cameras(pairs, known, centres)
    else:
        start = grow_scene(pairs, known, centres, published=True)
    final, course = optimise_published(
        start,
        pairs,
        known,
        iterations=config["niter"],
        rate=config["lr"],
        schedule=config["schedule"],
    )
    tree = sorted(pairs.edges[e].tolist() for e in spanning_tree(pairs))
    conf = pairs.confidence()
    cleaned = without_floaters(final, conf, in_turn=True)
    return {
        "edge_scores": torch.from_numpy(pairs.scores()),
        "mst_edges": torch.tensor(tree),
        **_described("init", start, pairs),
        **_described("final", final, pairs),
        "final.pts3d": torch.stack([final.points(i) for i in range(pairs.count)]).float(),
        "loss_curve": torch.tensor(course.losses, dtype=torch.float64),
        "lr_curve": torch.tensor(course.rates, dtype=torch.float64),
        "returned_loss": torch.tensor([course.losses[-1]], dtype=torch.float64),
        "im_conf": torch.stack(conf),
        "masks": torch.stack(conf) > MASK_CONF,
        "im_conf_after_clean_pointcloud": torch.stack(cleaned),
    }


def _described(name: str, scene: Aligned, pairs: Pairs) -> Tensors:
    return {
        f"{name}.im_poses": scene.c2w,
        f"{name}.focals": scene.focals,
        f"{name}.principal_points": scene.principal_points,
        f"{name}.depthmaps": torch.stack(list(scene.depth)),
        f"{name}.pw_poses": scene.pair_poses,
        f"{name}.pw_scale": scene.scales,
        f"{name}.loss": torch.tensor([alignment_loss(scene, pairs)], dtype=torch.float64),
    }
