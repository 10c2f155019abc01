"""What ScanNet++ and ARKitScenes share: one NPZ with names, cameras and pairs of all scenes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from threer.data.datasets.format import IntArray, Scene, Track, track_of
from threer.data.datasets.pairs import by_group, columns
from threer.data.reading import intrinsics_of, pose_of, read_arrays
from threer.errors import SourceError


def stem_of(name: Any) -> str:
    """The name of a picture without its suffix; names may hold further dots (times)."""
    return re.sub(r"\.(jpe?g|png)$", "", str(name), flags=re.IGNORECASE)


def fields(path: Path, *names: str) -> list[Any]:
    """Arrays of an NPZ. Raises `SourceError` when one is missing."""
    arrays = read_arrays(path)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise SourceError(f"{path} has no {', '.join(missing)}; it has {', '.join(arrays) or 'nothing'}")
    return [arrays[name] for name in names]


def scenes_of(path: Path, prefix: str = "") -> list[Scene]:
    """Scenes of `all_metadata.npz`: scenes, sceneids, images, intrinsics, trajectories, pairs (i, j[, score])."""
    names, ids, images, intrinsics, poses, pairs = fields(
        path, "scenes", "sceneids", "images", "intrinsics", "trajectories", "pairs"
    )
    first, second, *rest = columns(pairs, 2, path)
    first, second = np.asarray(first, np.int64), np.asarray(second, np.int64)
    scores = np.asarray(rest[0], np.float64) if rest else None
    ids = np.asarray(ids, np.int64)
    if first.size and not 0 <= min(first.min(), second.min()) <= max(first.max(), second.max()) < len(images):
        raise SourceError(f"{path}: pairs name pictures beyond the {len(images)} listed")
    edges = {int(scene): rows for scene, rows in by_group(ids[first], first, second, scores)}
    found = []
    for scene, (members,) in by_group(ids, np.arange(len(ids))):
        a, b, score = edges.get(int(scene), [np.empty(0, np.int64), np.empty(0, np.int64), None])
        position = np.full(len(ids), -1)
        position[members] = np.arange(len(members))
        stems = tuple(stem_of(images[m]) for m in members)
        pair = np.stack([position[a], position[b]], 1)
        if (pair < 0).any():
            raise SourceError(f"{path}: a pair of {names[int(scene)]} has a picture of another scene")
        found.append(
            Scene(
                f"{prefix}{names[int(scene)]}",
                stems,
                tracks_of(stems),
                pair,
                score,
                c2w=np.stack([pose_of(poses[m], str(path)) for m in members]),
                K=np.stack([intrinsics_of(intrinsics[m], str(path)) for m in members]),
            )
        )
    return found


def tracks_of(stems: tuple[str, ...]) -> tuple[Track, ...]:
    """A track for each kind of name (`DSC01234`, `frame_000120`), by rising number."""
    kinds: dict[str, list[tuple[float, int]]] = {}
    for view, stem in enumerate(stems):
        found = re.fullmatch(r"(.*?)(\d+(?:\.\d+)?)", stem)
        kind, number = (found[1], float(found[2])) if found else ("", float(view))
        kinds.setdefault(kind, []).append((number, view))
    tracks = []
    for kind in sorted(kinds):
        members = sorted(kinds[kind])
        times = any(number % 1 for number, _ in members)
        views: IntArray = np.array([view for _, view in members], np.int64)
        tracks.append(track_of(views, None if times else [int(number) for number, _ in members]))
    return tuple(tracks)
