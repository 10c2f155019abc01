"""Refine a finished run of any method: a second run beside the first one, or a reason why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from threer.config import RefineConfig
from threer.errors import RunError
from threer.io.atomic import plain, write_json
from threer.io.runs import Scene, lock_folder
from threer.io.runs.layout import REPORT
from threer.io.runs.lock import RunLock
from threer.pipelines.classical.colmap import pycolmap
from threer.pipelines.refine.bundle import Adjusted, adjust
from threer.pipelines.refine.observations import gather
from threer.pipelines.refine.pictures import Matched, match_frames
from threer.pipelines.refine.refit import Correction, between, corrected_points, fit, sample
from threer.pipelines.refine.second_run import REFINED, as_frame
from threer.pipelines.refine.verdict import FEWEST_OBSERVATIONS, Verdict, follow, judge
from threer.types import FloatArray, Pointmap, Update

FEWEST = 3
SAME_LENS = 1.03
"""Photos of one size whose focal lengths differ by a larger factor were taken with another zoom."""


@dataclass(frozen=True, eq=False)
class Refinement:
    """What became of a run.

    scene    the refined run, or the one that was given where that is no better
    verdict  why, in figures
    """

    scene: Scene
    verdict: Verdict


def refine(
    scene: Scene,
    out: Path | None = None,
    config: RefineConfig | None = None,
    *,
    lock: RunLock | None = None,
) -> Refinement:
    """Adjust cameras and depths of a complete run to features of its pictures, all at once.

    scene  a run of any method; its pictures are read again
    out    folder of the refined run; `refined` in the folder of the first if not given
    lock   of the run's folder, if it is locked already

    The refined run is whole and stands in ``out`` at once when it is finished; the first one stays as it is but
    for an entry in its report. Where refinement does not help, nothing is written but the reason, in that entry.
    Raises `RunError` for a run that is not complete, pictures that cannot be read, or an ``out`` that is taken;
    `ThreerError` without pycolmap.
    """
    config = config or RefineConfig()
    pycolmap()
    if scene.state != "complete":
        raise RunError(f"{scene.path} is not complete ({scene.state}): let it finish first")
    if REFINED.marker in scene.settings:
        origin = scene.settings[REFINED.marker]
        raise RunError(f"{scene.path} is refined already: refine the run it was made from, {origin}")
    out = scene.path / REFINED.name if out is None else out
    REFINED.check_free(out, config.overwrite)
    if scene.cameras.found.sum() < FEWEST:
        raise RunError(f"{scene.path} has {int(scene.cameras.found.sum())} cameras, and it takes {FEWEST}")
    matched = match_frames(scene, config)
    refined = _refined(scene, matched, config)
    accepted = refined.verdict.accepted
    told = {**dataclasses.asdict(refined.verdict), "folder": str(out.resolve()) if accepted else None}
    result = REFINED.write(scene, _updates(scene, refined), out, told) if accepted else scene
    with nullcontext() if lock else lock_folder(scene.path):
        write_json(scene.path / REPORT, {**scene.report, REFINED.name: plain(told)})
    return Refinement(result, refined.verdict)


@dataclass(frozen=True, eq=False)
class _Refined:
    verdict: Verdict
    c2w: FloatArray
    K: FloatArray
    corrections: list[Correction]


def _refined(scene: Scene, matched: Matched, config: RefineConfig) -> _Refined:
    rows = np.array(matched.positions, np.int64)
    start, K = scene.cameras.c2w[rows], scene.cameras.K[rows]
    side = float(scene.cameras.size[rows].max())
    seen, held = gather(matched.matches, matched.pixels, seed=config.seed)
    found = adjust(seen, start, K, lens=_lenses(scene, rows), side=side)
    verdict = judge(found, seen, held, start, K, side=side)
    c2w, lens = scene.cameras.c2w.copy(), scene.cameras.K.copy()
    corrections = [Correction(1.0, None)] * len(scene)
    if verdict.accepted:
        known = np.flatnonzero(scene.cameras.found)
        after, few = scene.cameras.c2w[known].copy(), np.ones(len(known), bool)
        place = np.searchsorted(known, rows)
        after[place], few[place] = found.c2w, found.counts < FEWEST_OBSERVATIONS
        c2w[known] = follow(after, scene.cameras.c2w[known], few)
        lens[rows] = found.K
        _share_lens(scene, lens, rows)
        corrections = _corrections(scene, found, rows)
    return _Refined(verdict, c2w, lens, corrections)


def _lenses(scene: Scene, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """The number of each view's lens, None for known ones: pictures of one size share one unless told otherwise.

    Structure from motion knows zoomed photos from others: there the focal length has to be much the same as well.
    """
    if scene.settings.get("intrinsics") is not None:
        return None
    if scene.settings.get("focal") == "per-image":
        return np.arange(len(rows), dtype=np.int64)
    size = scene.cameras.size[rows]
    zoom = np.zeros(len(rows), np.int64)
    if scene.settings.get("method") == "sfm":
        for one in np.unique(size, axis=0):
            same = (size == one).all(axis=1)
            zoom[same] = _alike(scene.cameras.K[rows[same], 0, 0])
    number = np.unique(np.column_stack([size, zoom]), axis=0, return_inverse=True)[1]
    return np.asarray(number, np.int64).reshape(-1)


def _alike(focals: FloatArray) -> npt.NDArray[np.int64]:
    """Numbers of groups in which no focal length is longer than the shortest by more than `SAME_LENS`."""
    group = np.zeros(len(focals), np.int64)
    number, shortest = -1, 0.0
    for k in np.argsort(focals, kind="stable"):
        if number < 0 or focals[k] > SAME_LENS * shortest:
            number, shortest = number + 1, float(focals[k])
        group[k] = number
    return group


def _share_lens(scene: Scene, K: FloatArray, rows: npt.NDArray[np.int64]) -> None:
    """Repeated pictures get the lens of a view of the same size that began with the nearest focal length."""
    size, focal = scene.cameras.size, scene.cameras.K[:, 0, 0]
    for position in np.setdiff1d(np.flatnonzero(scene.cameras.found), rows):
        same = rows[(size[rows] == size[position]).all(axis=1)]
        if len(same):
            nearest = np.lexsort((np.abs(same - position), np.abs(focal[same] - focal[position])))[0]
            K[position] = K[same[nearest]]


def _corrections(scene: Scene, found: Adjusted, rows: npt.NDArray[np.int64]) -> list[Correction]:
    fitted: list[Correction | None] = [None] * len(scene)
    for view, position in enumerate(rows.tolist()):
        mine = found.seen.view == view
        if mine.sum() < FEWEST_OBSERVATIONS:
            continue
        frame = scene.frame(position)
        offset = found.points[found.seen.track[mine]] - found.c2w[view, :3, 3]
        samples = sample(frame, found.seen.pixel[mine], offset @ found.c2w[view, :3, 2])
        height, width = frame.conf.shape
        fitted[position] = fit(samples, (width, height))
    return between(fitted)


def _updates(scene: Scene, refined: _Refined) -> Iterator[Update]:
    for position in range(len(scene)):
        frame = scene.frame(position)
        c2w, K = refined.c2w[position], refined.K[position]
        if np.isfinite(c2w).all() and np.isfinite(K).all():
            points = corrected_points(frame, refined.corrections[position], c2w, K)
        else:
            points = frame.points
        known = (frame.conf > 0) & np.isfinite(points).all(axis=-1)
        pointmap = Pointmap(
            torch.from_numpy(np.where(known[..., None], points, 0.0).astype(np.float32)),
            torch.from_numpy(np.where(known, frame.conf, 0.0).astype(np.float32)),
        )
        yield Update("final" if known.any() else "failed", as_frame(frame), points=pointmap, c2w=c2w, K=K)
