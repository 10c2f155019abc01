"""Sets of views: neighbourhoods of Fast3R, walks over graphs of overlap (training.md, sections 5.3 and 6)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from threer.data.datasets.format import IntArray, Scene, Track

JITTER, LOOP_JITTER = 2, 4
Bounds = tuple[float, float]
Graph = Mapping[int, tuple[IntArray, np.ndarray]]
"""For each view, those that overlap with it and how much."""


def neighbourhood(
    track: Track, centre: int, views: int, width: float, rng: np.random.Generator, jitter: int = JITTER
) -> list[int]:
    """Positions of different views, unsorted, out of a window of ``width`` × views frames about ``centre``.

    A loop is its own window. Raises ValueError with fewer frames than views: nothing is repeated (quirk F3).
    """
    count = len(track)
    if count < views:
        raise ValueError(f"a set of {views} views needs so many frames, got {count}")
    if track.loop:
        window = np.arange(count)
        jitter = LOOP_JITTER
    else:
        size = min(count, max(views, round(width * views)))
        first = min(max(centre - size // 2, 0), count - size)
        window = np.arange(first, first + size)
    members = rng.permutation(window)[:views]
    moved = np.clip(members + rng.integers(-jitter, jitter + 1, views), 0, count - 1)
    taken = set(members.tolist())
    for slot, (old, new) in enumerate(zip(members.tolist(), moved.tolist(), strict=True)):
        if new not in taken:
            taken.remove(old)
            taken.add(new)
            members[slot] = new
    return [int(m) for m in members]


def graph_of(scene: Scene, overlap: Bounds | None = None, parallax: Bounds | None = None) -> Graph:
    """Which views overlap. Bounds leave out pairs with another overlap, or another parallax in degrees.

    Bounds on what a scene does not know are passed over.
    """
    if scene.edges is None:
        return {}
    edges = scene.edges
    scores = np.ones(len(edges)) if scene.scores is None else np.asarray(scene.scores, float)
    kept = edges[:, 0] != edges[:, 1]
    if overlap is not None and scene.scores is not None:
        kept &= (scores >= overlap[0]) & (scores <= overlap[1])
    if parallax is not None and scene.angles is not None:
        kept &= (scene.angles >= parallax[0]) & (scene.angles <= parallax[1])
    both = np.concatenate([edges[kept], edges[kept][:, ::-1]])
    weight = np.tile(scores[kept], 2)
    order = np.argsort(both[:, 0], kind="stable")
    nodes, starts = np.unique(both[order, 0], return_index=True)
    parts = np.split(order, starts[1:])
    return {int(n): (both[p, 1], weight[p]) for n, p in zip(nodes, parts, strict=True)}


def reachable(graph: Graph, start: int, most: int | None = None) -> list[int]:
    """Views that a walk from ``start`` can get to, up to ``most``."""
    seen, queue = {start: None}, [start]
    while queue and (most is None or len(seen) < most):
        for other in graph.get(queue.pop(), ((), ()))[0]:
            if int(other) not in seen:
                seen[int(other)] = None
                queue.append(int(other))
    return list(seen)


def breadth_first(graph: Graph, start: int, views: int, rng: np.random.Generator) -> list[int]:
    """The ``views`` nearest to ``start``, neighbours in random order; half of the time from the far end.

    Raises ValueError when the walk does not reach so many.
    """
    order, front = {start: None}, [start]
    while front and len(order) < views:
        following = []
        for node in front:
            for other in rng.permutation(graph[node][0]) if node in graph else ():
                if int(other) not in order:
                    order[int(other)] = None
                    following.append(int(other))
        front = following
    chosen = list(order)[:views]
    if len(chosen) < views:
        raise ValueError(f"only {len(chosen)} views are connected with view {start}, {views} wanted")
    return chosen if rng.random() < 0.5 else chosen[::-1]


def random_walk(graph: Graph, start: int, views: int, rng: np.random.Generator) -> list[int]:
    """Each next view overlaps with the last one, the likelier the more; from a dead end on from an earlier view.

    Raises ValueError when the walk does not reach so many.
    """
    chosen, place = [start], start
    while len(chosen) < views:
        options = _unvisited(graph, place, chosen)
        if options is None:
            open_places = [c for c in chosen if _unvisited(graph, c, chosen) is not None]
            if not open_places:
                raise ValueError(f"only {len(chosen)} views are connected with view {start}, {views} wanted")
            place = int(rng.choice(open_places))
            continue
        others, weights = options
        place = int(rng.choice(others, p=weights / weights.sum()))
        chosen.append(place)
    return chosen


def _unvisited(graph: Graph, place: int, chosen: list[int]) -> tuple[IntArray, np.ndarray] | None:
    if place not in graph:
        return None
    others, weights = graph[place]
    fresh = ~np.isin(others, chosen)
    return (others[fresh], np.maximum(weights[fresh], 1e-9)) if fresh.any() else None
