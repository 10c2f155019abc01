"""Close the loops of a finished run: a second run beside the first one, or a reason why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from threer.config import LoopConfig
from threer.errors import RunError
from threer.geometry.sim3_paths import interpolate
from threer.io.atomic import plain, write_json
from threer.io.runs import Scene, lock_folder
from threer.io.runs.layout import REPORT
from threer.pipelines.classical.colmap import pycolmap
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.classical.matching import match, pool
from threer.pipelines.classical.session import FOLDER
from threer.pipelines.localization.landmarks import SMALL_FOLDER
from threer.pipelines.localization.pictures import run_pictures, small_pictures
from threer.pipelines.lookup import points_at
from threer.pipelines.refine.loops import (
    LEAST_GAIN,
    LEAST_LIKENESS,
    LOOKS,
    Limits,
    Loop,
    as_similarity,
    left_meanwhile,
    misfit,
    split,
    verify,
    without_support,
)
from threer.pipelines.refine.moved_run import moved
from threer.pipelines.refine.pose_graph import close, gtsam
from threer.pipelines.refine.second_run import CLOSED

AT_ONCE = ("sfm", "dust3r", "fast3r")
MOST_TOLD = 100


@dataclass(frozen=True, eq=False)
class Tried:
    """A pair of frames, by their index in the source. why: it was refused; empty for a loop that had its say."""

    first: int
    second: int
    inliers: int
    scale: float
    why: str


@dataclass(frozen=True, eq=False)
class Closing:
    """What became of a run.

    scene     the run with closed loops, or the one that was given where there are none
    why       nothing was changed; empty if it was
    compared  pairs of frames whose pictures were matched
    tried     what was found, pair by pair, in order
    misfit    (before, after) median distance of matched points that took no part, as a share of their depth; NaN
              without loops
    """

    scene: Scene
    why: str
    compared: int
    tried: list[Tried]
    misfit: tuple[float, float]

    @property
    def loops(self) -> list[Tried]:
        """Those that had their say."""
        return [pair for pair in self.tried if not pair.why]


def close_loops(scene: Scene, out: Path | None = None, config: LoopConfig | None = None) -> Closing:
    """Find where the camera of a complete run came back, and bend the run so that it meets itself there.

    scene  a run that was made frame by frame; its pictures are read again
    out    folder of the corrected run; `closed` in the folder of the first if not given

    Each frame is moved by a similarity of its own, points and camera alike, so that a drifting scale is corrected
    as well. The first run stays as it is but for an entry in its report; where there is no loop, or closing it does
    not help, nothing else is written. Raises `RunError` for a run that is not complete or was placed all at once,
    pictures that cannot be read, or an ``out`` that is taken; `ThreerError` without pycolmap and GTSAM.
    """
    config = config or LoopConfig()
    pycolmap()
    gtsam()
    if scene.state != "complete":
        raise RunError(f"{scene.path} is not complete ({scene.state}): let it finish first")
    if CLOSED.marker in scene.settings:
        raise RunError(f"the loops of {scene.path} are closed already: take the run it was made from")
    if scene.settings.get("method") in AT_ONCE:
        raise RunError(f"{scene.settings['method']} places all frames at once and drifts along no path")
    out = scene.path / CLOSED.name if out is None else out
    CLOSED.check_free(out, config.overwrite)
    loops, refused, compared = _find(scene, config)
    result = _close(scene, loops, refused, compared, out)
    told = {
        "folder": None if result.why else str(out.resolve()),
        "why": result.why,
        "compared": compared,
        "loops": len(result.loops),
        "refused": len(result.tried) - len(result.loops),
        "misfit": result.misfit,
        "pairs": [dataclasses.asdict(pair) for pair in sorted(result.tried, key=lambda t: bool(t.why))[:MOST_TOLD]],
    }
    with lock_folder(scene.path):
        write_json(scene.path / REPORT, {**scene.report, CLOSED.name: plain(told)})
    return result


def _close(scene: Scene, loops: list[Loop], refused: list[Tried], compared: int, out: Path) -> Closing:
    """Loops by their positions in the scene."""
    if not loops:
        why = f"no loop was found in {compared} pairs of frames that look alike"
        return Closing(scene, why, compared, refused, (float("nan"), float("nan")))
    found = np.flatnonzero(scene.cameras.found)
    row = {int(position): k for k, position in enumerate(found)}
    poses = [as_similarity(scene.cameras.c2w[position]) for position in found]
    parts = [split(loop) for loop in loops]
    edges = [
        dataclasses.replace(kept.edge, first=row[kept.edge.first], second=row[kept.edge.second])
        for kept, _ in parts
    ]
    closed = close(poses, edges)
    held = [part for _, part in parts]
    before = misfit(held, {int(p): pose for p, pose in zip(found, poses, strict=True)})
    after = misfit(held, {int(p): pose for p, pose in zip(found, closed.poses, strict=True)})
    tried = [
        _tried(scene, loop, "" if trusted else "it contradicts the other loops")
        for loop, trusted in zip(loops, closed.trusted, strict=True)
    ]
    result = Closing(scene, "", compared, sorted([*tried, *refused], key=_order), (before, after))
    why = ""
    if not closed.trusted.any():
        why = "no loop agrees with the run and the others"
    elif not all(np.isfinite(p.t).all() and 0 < p.scale < np.inf for p in closed.poses):
        why = "the graph came apart"
    elif not after <= LEAST_GAIN * before:
        why = f"points that took no part meet no better: {before:.2%} of their depth before, {after:.2%} after"
    if why:
        return dataclasses.replace(result, why=why)
    moves = [now.after(was.inverse()) for now, was in zip(closed.poses, poses, strict=True)]
    corrections = interpolate(found, moves, range(len(scene)))
    told = {"from": str(scene.path), "loops": int(closed.trusted.sum()), "misfit": (before, after)}
    return dataclasses.replace(result, scene=CLOSED.write(scene, moved(scene, corrections), out, told))


def _find(scene: Scene, config: LoopConfig) -> tuple[list[Loop], list[Tried], int]:
    """Loops that passed every test, pairs that were refused, and how many were looked at."""
    small = config.pictures == "run"
    pictures = small_pictures(scene) if small else run_pictures(scene, config.source)
    first = next(pictures, None)  # what is wrong with the source is told before anything is made
    store = FeatureStore(scene.path / (SMALL_FOLDER if small else FOLDER))
    try:
        ids = {} if first is None else {first[0]: store.add(first[1])}
        ids.update({position: store.add(picture) for position, picture in pictures})
        usable = scene.cameras.found & np.isfinite(scene.cameras.K).all(axis=(1, 2))
        positions = [position for position in sorted(ids) if usable[position]]
        pairs = _returns(scene, positions, _alike(store, [ids[p] for p in positions], positions, config))
        match(store, [(ids[a], ids[b]) for a, b in pairs], seed=config.seed)
        limits = Limits(inliers=config.inliers, agreement=config.agreement, support=config.support)
        loops, refused = [], []
        for a, b in pairs:
            features = store.matches(ids[a], ids[b])
            found: Loop | str = "too few features match"
            if len(features) >= config.inliers:
                frames = scene.frame(a), scene.frame(b)
                points = [
                    points_at(frame, store.keypoints(ids[p])[features[:, k]].astype(np.float64), small=small)
                    for k, (p, frame) in enumerate(zip((a, b), frames, strict=True))
                ]
                found = verify((a, b), frames, (points[0], points[1]), limits, seed=config.seed)
            if isinstance(found, str):
                refused.append(_refused(scene, a, b, found))
            else:
                loops.append(found)
    finally:
        store.close()
    poses = {k: as_similarity(scene.cameras.c2w[k]) for loop in loops for k in (loop.edge.first, loop.edge.second)}
    alone = set(without_support(loops, poses, limits.support))
    refused += [_tried(scene, loops[k], "no neighbouring pair says the same") for k in sorted(alone)]
    return [loop for k, loop in enumerate(loops) if k not in alone], refused, len(pairs)


def _alike(
    store: FeatureStore, images: Sequence[int], positions: Sequence[int], config: LoopConfig
) -> list[tuple[int, int]]:
    """Pairs of positions far apart in time that look alike; pictures that are the same file are none."""
    if len(images) < 3:
        return []
    pooled = pool(store, images, seed=config.seed)
    likeness = pooled @ pooled.T
    least = LEAST_LIKENESS * float(np.median(np.diagonal(likeness, 1)))
    place = np.asarray(positions)
    picture = np.asarray(images)
    pairs = []
    for k, row in enumerate(likeness):
        allowed = (place - place[k] > config.gap) & (row > max(least, 0.0)) & (picture != picture[k])
        best = np.argsort(np.where(allowed, -row, np.inf), kind="stable")[: config.similar]
        pairs += [(positions[k], positions[j]) for j in sorted(best) if allowed[j]]
    return pairs


def _returns(scene: Scene, positions: Sequence[int], pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those between which the camera was elsewhere."""
    cameras, kept = scene.cameras, []
    usable = np.asarray(positions)
    for a, b in pairs:
        way = usable[(usable > a) & (usable < b)]
        looks = way[np.unique(np.linspace(0, len(way) - 1, min(LOOKS, len(way))).astype(np.int64))]
        if left_meanwhile(scene.frame(a), cameras.c2w[looks], cameras.K[looks], cameras.size[looks]):
            kept.append((a, b))
    return kept


def _order(pair: Tried) -> tuple[int, int]:
    return pair.first, pair.second


def _tried(scene: Scene, loop: Loop, why: str) -> Tried:
    first, second = (int(scene.table.indices[k]) for k in (loop.edge.first, loop.edge.second))
    return Tried(first, second, len(loop.points), loop.edge.relative.scale, why)


def _refused(scene: Scene, first: int, second: int, why: str) -> Tried:
    return Tried(int(scene.table.indices[first]), int(scene.table.indices[second]), 0, float("nan"), why)
