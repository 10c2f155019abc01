"""Refine a finished run of any method: a second run beside the first one, or a reason why not."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from threer.config import RefineConfig
from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors, plain, write_json
from threer.io.runs import RunWriter, Scene, StoredFrame, lock_folder
from threer.io.runs.layout import PREVIEW, REPORT
from threer.io.runs.lock import RunLock
from threer.io.runs.scene import read_run
from threer.pipelines.classical.colmap import pycolmap
from threer.pipelines.refine.bundle import Adjusted, adjust
from threer.pipelines.refine.observations import gather
from threer.pipelines.refine.pictures import Matched, match_frames
from threer.pipelines.refine.refit import Correction, between, corrected_points, fit, sample
from threer.pipelines.refine.verdict import FEWEST_OBSERVATIONS, Verdict, follow, judge
from threer.render.overview import overview
from threer.render.pictures import save_png
from threer.types import FloatArray, Frame, Pointmap, Update

REFINED = "refined"
"""Of a run: the folder of the refined one, and the entry of both reports."""
FROM = "refined_from"
FEWEST = 3
PREVIEW_POINTS = 1_000_000


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
    if FROM in scene.settings:
        raise RunError(f"{scene.path} is refined already: refine the run it was made from, {scene.settings[FROM]}")
    out = scene.path / REFINED if out is None else out
    _check_free(out, config.overwrite)
    if scene.cameras.found.sum() < FEWEST:
        raise RunError(f"{scene.path} has {int(scene.cameras.found.sum())} cameras, and it takes {FEWEST}")
    matched = match_frames(scene, config)
    refined = _refined(scene, matched, config)
    told = {**dataclasses.asdict(refined.verdict), "folder": str(out) if refined.verdict.accepted else None}
    result = _write(scene, refined, out, told) if refined.verdict.accepted else scene
    with nullcontext() if lock else lock_folder(scene.path):
        write_json(scene.path / REPORT, {**scene.report, REFINED: plain(told)})
    return Refinement(result, refined.verdict)


def discard(run: Path) -> None:
    """Remove the refined run from the folder of another one, which is to be replaced. Nobody else's is touched."""
    folder = run / REFINED
    refined = read_run(folder)
    if refined is not None and FROM in refined["settings"]:
        with os_errors_as_run_errors(folder):
            shutil.rmtree(folder)


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
    """The number of each view's lens, None for known ones: pictures of one size share one unless told otherwise."""
    if scene.settings.get("intrinsics") is not None:
        return None
    if scene.settings.get("focal") == "per-image":
        return np.arange(len(rows), dtype=np.int64)
    number = np.unique(scene.cameras.size[rows], axis=0, return_inverse=True)[1]
    return np.asarray(number, np.int64).reshape(-1)


def _share_lens(scene: Scene, K: FloatArray, rows: npt.NDArray[np.int64]) -> None:
    """Repeated pictures get the lens of a view of the same size."""
    size = scene.cameras.size
    for position in np.setdiff1d(np.flatnonzero(scene.cameras.found), rows):
        same = rows[(size[rows] == size[position]).all(axis=1)]
        if len(same):
            K[position] = K[same[np.argmin(np.abs(same - position))]]


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


def _write(scene: Scene, refined: _Refined, out: Path, told: Mapping[str, Any]) -> Scene:
    """A whole run in a folder of its own, moved into its place at the end."""
    run = read_run(scene.path) or {}
    store = run.get("store", {})
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    with os_errors_as_run_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)
    try:
        writer = RunWriter(
            part,
            {**scene.settings, FROM: str(scene.path)},
            weights=run.get("weights"),
            metric=scene.metric,
            **{name: store[name] for name in ("precision", "cloud_budget", "keep", "normals") if name in store},
        )
        try:
            for update in _updates(scene, refined):
                writer.on(update)
            kept = {k: v for k, v in scene.report.items() if k not in ("counts", "state", REFINED)}
            written = writer.finish("complete", {**kept, REFINED: plain(dict(told))})
        finally:
            writer.close()
        cloud = written.cloud(max_points=PREVIEW_POINTS)
        save_png(part / PREVIEW, overview(cloud.xyz, cloud.rgb, written.trajectory))
        with os_errors_as_run_errors(out):
            if out.exists():
                shutil.rmtree(out)
            os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Scene.open(out)


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
        yield Update("final" if known.any() else "failed", _frame(frame), points=pointmap, c2w=c2w, K=K)


def _frame(stored: StoredFrame) -> Frame:
    image = torch.from_numpy(stored.colours).permute(2, 0, 1).float() / 255
    size = int(stored.size[0]), int(stored.size[1])
    return Frame(image, stored.index, stored.timestamp, stored.name, size, stored.to_original)


def _check_free(out: Path, overwrite: bool) -> None:
    """Raises `RunError` if a folder holds anything but a refined run that may be replaced."""
    with os_errors_as_run_errors(out):
        if not out.exists():
            return
        if not out.is_dir():
            raise RunError(f"{out} is a file; choose another folder for the refined run")
        if not any(out.iterdir()):
            return
    run = read_run(out)
    if run is None or FROM not in run["settings"]:
        raise RunError(f"{out} holds something that is no refined run; choose another folder")
    if not overwrite:
        raise RunError(f"{out} holds a refined run already; overwrite it, or choose another folder")
