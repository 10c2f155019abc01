"""Score a reconstruction against known depth and cameras, beside answers that look at no image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from threer.errors import ThreerError
from threer.evaluation.baselines import constant_depth, straight_line
from threer.evaluation.clouds import cloud_errors
from threer.evaluation.depth import depth_errors
from threer.evaluation.trajectory import ate
from threer.geometry.procrustes import align_points
from threer.types import FloatArray, Frame, Trajectory, Update

SEGMENT = 60
"""Frames over which a path is aligned and scored: a straight line already fits longer ones badly."""


@dataclass(frozen=True)
class Truth:
    """What is known about N frames.

    depth  [N, H, W] metres in original pixels, 0 or NaN where unknown
    c2w    [N, 4, 4] camera-to-world
    K      [3, 3] original pixels
    """

    depth: FloatArray
    c2w: FloatArray
    K: FloatArray


@dataclass(frozen=True)
class Score:
    """Means over all frames (depth) or segments (path, cloud); NaN where nothing could be compared.

    abs_rel, delta_1_25   depth in each frame's own camera, median-scaled per frame
    ate_share             root mean square camera error after a similarity, as a share of the path's length
    accuracy_m            mean distance from the cloud to the true one, after a similarity fitted to points
    completeness_m        and back
    missing_cameras       share of frames without a camera
    """

    name: str
    abs_rel: float
    delta_1_25: float
    ate_share: float
    accuracy_m: float
    completeness_m: float
    missing_cameras: float = 0.0


class Collector:
    """Observer that keeps what scoring needs of each frame, at network size."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.local_depth: list[FloatArray] = []  # [H, W] z in the frame's own camera
        self.world: list[FloatArray] = []  # [H, W, 3]
        self.conf: list[FloatArray] = []  # [H, W]
        self.c2w: list[FloatArray] = []

    def on(self, update: Update) -> None:
        if update.kind not in ("final", "failed") or update.points is None:
            return
        self.frames.append(update.frame)
        self.world.append(update.points.xyz.float().numpy())
        self.conf.append(update.points.conf.float().numpy())
        nothing = torch.full(update.points.conf.shape, torch.nan)
        self.local_depth.append((nothing if update.local is None else update.local.depth.float()).numpy())
        self.c2w.append(np.full((4, 4), np.nan) if update.c2w is None else update.c2w)


def score_run(
    run: Collector, truth: Truth, mean_map: FloatArray, *, segment: int = SEGMENT, cloud_points: int = 200_000
) -> list[Score]:
    """Scores of a run and of two answers that look at no image, on a straight path at constant speed.

    mean_map  [h, w, 3] mean training pointmap, for any input size

    Raises ThreerError when run and truth have no frame in common.
    """
    indices = [f.index for f in run.frames]
    if not indices or max(indices) >= len(truth.depth):
        raise ThreerError(
            f"truth has {len(truth.depth)} frames, the run {len(indices)}: they do not belong together"
        )
    depths = [true_depth(frame, truth) for frame in run.frames]
    true_points = [_true_points(frame, truth, depth) for frame, depth in zip(run.frames, depths, strict=True)]
    times = np.array([f.timestamp for f in run.frames])
    true_path = Trajectory(times, truth.c2w[indices])
    path = Trajectory(times, np.stack(run.c2w))
    shape = depths[0].shape
    ours = Score(
        "threer",
        *_depth_score(run.local_depth, depths),
        _path_score(path, true_path, segment),
        *_cloud_score(run.world, run.conf, true_points, segment, cloud_points),
        missing_cameras=float((~np.isfinite(path.c2w).all(axis=(1, 2))).mean()),
    )
    scores = [ours]
    for name, depth in (
        ("mean pointmap", _resize(mean_map[..., 2], shape)),
        ("constant depth", constant_depth(shape)),
    ):
        guesses = [depth] * len(indices)
        world = _on_a_line(guesses, depths, run.frames, truth, true_path, segment)
        scores.append(
            Score(
                name,
                *_depth_score(guesses, depths),
                _path_score(straight_line(times), true_path, segment),
                *_cloud_score(world, [np.ones(shape)] * len(world), true_points, segment, cloud_points),
            )
        )
    return scores


def score_table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table; smaller is better except for δ. ATE is a share of the path's length."""
    lines = [
        "| | AbsRel | δ<1.25 | ATE % | acc. m | compl. m | no camera |",
        "|---|---|---|---|---|---|---|",
    ]
    for s in scores:
        missing = f"{s.missing_cameras:.0%}" if s.missing_cameras else "–"
        lines.append(
            f"| {s.name} | {s.abs_rel:.3f} | {s.delta_1_25:.3f} | {100 * s.ate_share:.1f} | "
            f"{s.accuracy_m:.3f} | {s.completeness_m:.3f} | {missing} |"
        )
    return "\n".join(lines)


def _depth_score(predicted: Sequence[FloatArray], truth: Sequence[FloatArray]) -> tuple[float, float]:
    results = []
    for guess, known in zip(predicted, truth, strict=True):
        try:
            results.append(depth_errors(guess, known))
        except ThreerError:  # a frame without truth, or without a prediction: counted below
            continue
    if not results:
        return float("nan"), float("nan")
    with_truth = sum(bool((t > 0).any()) for t in truth)
    # A frame without a usable prediction has no pixel within the factor; its relative error is not defined.
    return (
        float(np.mean([r.abs_rel for r in results])),
        float(np.sum([r.delta_1_25 for r in results]) / with_truth),
    )


def _path_score(path: Trajectory, truth: Trajectory, segment: int) -> float:
    shares = []
    for part in _segments(len(path.timestamps), segment):
        times = path.timestamps[part]
        try:
            result = ate(Trajectory(times, path.c2w[part]), Trajectory(times, truth.c2w[part]))
        except ThreerError:
            continue
        shares.append(result.share_of_path)
    return float(np.mean(shares)) if shares else float("nan")


def _cloud_score(
    world: Sequence[FloatArray],
    conf: Sequence[FloatArray],
    truth: Sequence[FloatArray],
    segment: int,
    points: int,
    keep: float = 0.7,
) -> tuple[float, float]:
    """Accuracy and completeness in metres, the most confident share of each frame against all true points."""
    results = []
    for part in _segments(len(world), segment):
        predicted, paired, known = [], [], []
        for k in range(part.start, part.stop):
            valid = np.isfinite(truth[k]).all(axis=-1)
            known.append(truth[k][valid])
            sure = (conf[k] > 0) & (conf[k] >= np.quantile(conf[k], 1 - keep)) & np.isfinite(world[k]).all(axis=-1)
            predicted.append(world[k][valid & sure])
            paired.append(truth[k][valid & sure])
        cloud, partners, target = np.concatenate(predicted), np.concatenate(paired), np.concatenate(known)
        sim3 = align_points(cloud, partners) if len(cloud) >= 3 else None
        if sim3 is None:
            continue
        results.append(cloud_errors(sim3.apply(cloud), target, max_points=points))
    if not results:
        return float("nan"), float("nan")
    return float(np.mean([r.accuracy_m for r in results])), float(np.mean([r.completeness_m for r in results]))


def _on_a_line(
    guesses: Sequence[FloatArray],
    depths: Sequence[FloatArray],
    frames: Sequence[Frame],
    truth: Truth,
    true_path: Trajectory,
    segment: int,
) -> list[FloatArray]:
    """World points of guessed depths, each at its best scale, seen from the straight path that fits best."""
    times = true_path.timestamps
    world: list[FloatArray] = []
    for part in _segments(len(times), segment):
        line = straight_line(times[part])
        sim3 = ate(line, Trajectory(times[part], true_path.c2w[part])).sim3
        cameras = sim3.apply_to_cameras(line.c2w)
        # A line leaves the turn about itself open, so the cameras look where the first true one does.
        cameras[:, :3, :3] = true_path.c2w[part.start, :3, :3]
        for k, c2w in zip(range(part.start, part.stop), cameras, strict=True):
            valid = depths[k] > 0
            scale = np.median(depths[k][valid]) / np.median(guesses[k][valid]) if valid.any() else 1.0
            world.append(_unproject(frames[k], guesses[k] * scale, truth.K) @ c2w[:3, :3].T + c2w[:3, 3])
    return world


def _segments(count: int, size: int) -> list[range]:
    """Ranges of ``size`` frames; a short rest joins the one before."""
    number = max(1, count // size)
    edges = [i * size for i in range(number)] + [count]
    return [range(a, b) for a, b in itertools.pairwise(edges)]


def _original_pixels(frame: Frame) -> FloatArray:
    """[H, W, 2] original pixel of every network pixel."""
    width, height = frame.size
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    ones = np.ones_like(u)
    return np.asarray(np.stack([u, v, ones], axis=-1) @ frame.to_original.T)


def true_depth(frame: Frame, truth: Truth) -> FloatArray:
    """[H, W] true depth at every network pixel, 0 where unknown."""
    height, width = truth.depth.shape[1:]
    pixels = np.rint(_original_pixels(frame)).astype(int)
    inside = (pixels >= 0).all(axis=-1) & (pixels[..., 0] < width) & (pixels[..., 1] < height)
    pixels = np.clip(pixels, 0, [width - 1, height - 1])
    depth = truth.depth[frame.index][pixels[..., 1], pixels[..., 0]]
    return np.where(inside & np.isfinite(depth), depth, 0.0)


def _true_points(frame: Frame, truth: Truth, depth: FloatArray) -> FloatArray:
    """[H, W, 3] true world points, NaN where unknown."""
    c2w = truth.c2w[frame.index]
    points = _unproject(frame, np.where(depth > 0, depth, np.nan), truth.K)
    return np.asarray(points @ c2w[:3, :3].T + c2w[:3, 3])


def _unproject(frame: Frame, depth: FloatArray, K: FloatArray) -> FloatArray:
    pixels = _original_pixels(frame)
    rays = (pixels - K[:2, 2]) / np.diagonal(K)[:2]
    return np.asarray(np.concatenate([rays * depth[..., None], depth[..., None]], axis=-1))


def _resize(image: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Bilinear resize of [h, w] to ``shape``."""
    if image.shape == shape:
        return image
    tensor = torch.from_numpy(np.asarray(image, dtype=np.float32))[None, None]
    resized = torch.nn.functional.interpolate(tensor, size=shape, mode="bilinear", align_corners=False)
    return np.asarray(resized[0, 0].numpy())
