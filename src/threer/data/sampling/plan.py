"""Which views make a sample: every possible start of a data set, numbered, and the views drawn from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from threer.data.datasets.format import Dataset, IntArray, Scene, Track
from threer.data.samples import Modality
from threer.data.sampling import clips, pairs, sets, windows
from threer.data.sampling.sets import Bounds, Graph
from threer.errors import ThreerError

Kind = Literal["pair", "window", "clip", "set"]
KEPT_GRAPHS = 64


class NoRoomError(ThreerError):
    """A start that has no room for so many views."""


@dataclass(frozen=True)
class ViewPlan:
    """How views are chosen; None means what the data set itself recommends (`Traits`).

    kind                "pair" overlaps; "window" is consecutive at a stride, or an arc; "clip" has random gaps,
                        ordered or not; "set" is a random part of a neighbourhood, unsorted
    overlap, parallax   bounds on what views of a pair or neighbours of a set share, and on the angle in degrees
                        between their rays: where a scene knows them (`threer.data.overlap`)
    """

    kind: Kind
    interval: int | None = None
    ordered: float | None = None
    steady: float | None = None
    modality: Modality | None = None
    overlap: Bounds | None = None
    parallax: Bounds | None = None


@dataclass(frozen=True)
class Draw:
    """Views of a sample as (scene, view), and what of each is shown."""

    views: tuple[tuple[int, int], ...]
    seen: tuple[bool, ...]
    rays: tuple[bool, ...]


class Draws:
    """All that can be drawn from a data set by a plan: numbered from 0, in an order that does not change.

    fewest  views of the smallest sample: starts without room for it are left out
    """

    def __init__(self, dataset: Dataset, plan: ViewPlan, fewest: int) -> None:
        self.dataset, self.plan, self.fewest = dataset, plan, fewest
        traits = dataset.traits
        self.interval = traits.interval if plan.interval is None else plan.interval
        self.ordered = traits.ordered if plan.ordered is None else plan.ordered
        self.steady = traits.steady if plan.steady is None else plan.steady
        self.modality = traits.modality if plan.modality is None else plan.modality
        self._graphs: dict[int, Graph] = {}
        if not len(self):
            raise ThreerError(
                f"{dataset.name} at {dataset.root} has no {plan.kind} of {fewest} views; "
                f"take fewer views, another sampling or a smaller interval"
            )

    @cached_property
    def _parts(self) -> tuple[list[tuple[int, int, IntArray]], IntArray]:
        """(scene, track or -1, starts) in order, and how many draws come before each."""
        parts = [
            (index, track, starts)
            for index, scene in enumerate(self.dataset.scenes)
            for track, starts in self._starts(scene, index)
            if len(starts)
        ]
        return parts, np.cumsum([0, *(len(starts) for *_, starts in parts)])

    def __len__(self) -> int:
        return int(self._parts[1][-1])

    def _starts(self, scene: Scene, index: int) -> list[tuple[int, IntArray]]:
        kind, fewest = self.plan.kind, self.fewest
        if self.dataset.traits.single_view:
            return [(-1, np.arange(len(scene)))]
        tracks = list(enumerate(scene.tracks))
        if kind == "window":
            return [(t, self._window_starts(track)) for t, track in tracks]
        bounded = self.plan.overlap is not None or self.plan.parallax is not None
        if scene.edges is not None and (kind == "pair" or not tracks or (kind == "set" and bounded)):
            if kind == "pair":
                return [(-1, np.arange(len(self._edges(scene))))]
            graph = self.graph(index)
            return [(-1, np.array([n for n in sorted(graph) if self._connected(graph, n)], np.int64))]
        if kind == "clip":
            fewest = clips.fewest_frames(fewest)
        return [(t, np.arange(len(track) if len(track) >= fewest else 0)) for t, track in tracks]

    def _connected(self, graph: Graph, start: int) -> bool:
        return len(sets.reachable(graph, start, self.fewest)) >= self.fewest

    def _window_starts(self, track: Track) -> IntArray:
        if track.loop:
            return np.arange(len(track) if len(track) >= self.fewest else 0)
        return windows.window_starts(track, self.fewest, self.interval)

    def _edges(self, scene: Scene) -> IntArray:
        assert scene.edges is not None
        kept = scene.edges[:, 0] != scene.edges[:, 1]
        for bounds, values in ((self.plan.overlap, scene.scores), (self.plan.parallax, scene.angles)):
            if bounds is not None and values is not None:
                kept &= (values >= bounds[0]) & (values <= bounds[1])
        edges: IntArray = scene.edges[kept]
        return edges

    def graph(self, scene: int) -> Graph:
        """Which views of a scene overlap, within the bounds of the plan."""
        if scene not in self._graphs:
            if len(self._graphs) >= KEPT_GRAPHS:
                self._graphs.pop(next(iter(self._graphs)))
            self._graphs[scene] = sets.graph_of(self.dataset.scenes[scene], self.plan.overlap, self.plan.parallax)
        return self._graphs[scene]

    def draw(self, index: int, views: int, rng: np.random.Generator) -> Draw:
        """The views of a draw. The same number, count and state of ``rng`` give the same views.

        Raises `NoRoomError` when this start has no room for so many; IndexError beyond the last draw.
        """
        if self.plan.kind == "pair" and views != 2:
            raise ValueError(f"a pair has two views, {views} wanted")
        if not 0 <= index < len(self):
            raise IndexError(f"draw {index} of {len(self)}")
        parts, before = self._parts
        part = int(np.searchsorted(before, index, side="right")) - 1
        scene, track, starts = parts[part]
        start = int(starts[index - int(before[part])])
        try:
            if self.dataset.traits.single_view:
                chosen = self._strangers(scene, start, views, rng)
            elif track < 0:
                chosen = [(scene, v) for v in self._from_graph(scene, start, views, rng)]
            else:
                chosen = [(scene, v) for v in self._from_track(scene, track, start, views, rng)]
        except ValueError as error:
            raise NoRoomError(f"{self.dataset.name} {self.dataset.scenes[scene].name}: {error}") from None
        seen, rays = self._modalities(views, rng)
        return Draw(tuple(chosen), seen, rays)

    def _from_track(self, scene: int, number: int, start: int, views: int, rng: np.random.Generator) -> list[int]:
        place = self.dataset.scenes[scene]
        track = place.tracks[number]
        interval = self.interval if track.interval is None else min(self.interval, track.interval)
        kind = self.plan.kind
        if kind == "pair":
            found = (
                pairs.loop_pair(track, start, rng) if track.loop else pairs.near_pair(track, start, interval, rng)
            )
        elif kind == "window" and track.loop:
            found = windows.arc(track, start, views, rng)
        elif kind == "window":
            if start + interval * (views - 1) >= len(track):
                raise ValueError(f"no room for {views} views from frame {start}")
            found = windows.window(start, views, interval)
        elif kind == "set":
            found = sets.neighbourhood(track, start, views, self.dataset.traits.window, rng)
        else:
            ordered = self.ordered
            if place.collections and rng.random() >= ordered:
                return self._collection(place, views, rng)
            ordered = 1.0 if place.collections else ordered
            found = clips.clip(len(track), start, views, interval, ordered, self.steady, rng)
        return [int(view) for view in track.views[found]]

    def _collection(self, scene: Scene, views: int, rng: np.random.Generator) -> list[int]:
        group = scene.collections[int(rng.integers(len(scene.collections)))]
        if len(group) < views:
            return clips.again(group, views, rng)
        return [int(view) for view in rng.permutation(group)[:views]]

    def _from_graph(self, scene: int, start: int, views: int, rng: np.random.Generator) -> list[int]:
        if self.plan.kind == "pair":
            pair = self._edges(self.dataset.scenes[scene])[start]
            return [int(view) for view in (pair if rng.random() < 0.5 else pair[::-1])]
        walk = sets.breadth_first if self.plan.kind == "set" else sets.random_walk
        return walk(self.graph(scene), start, views, rng)

    def _strangers(self, scene: int, start: int, views: int, rng: np.random.Generator) -> list[tuple[int, int]]:
        chosen = [(scene, start)]
        for _ in range(views - 1):
            other = int(rng.integers(len(self.dataset.scenes)))
            chosen.append((other, int(rng.integers(len(self.dataset.scenes[other])))))
        return chosen

    def _modalities(self, views: int, rng: np.random.Generator) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
        """What is shown of each view: the first one's image always, cameras only where they are metric."""
        kinds = rng.choice(3, views, p=self.modality)
        traits = self.dataset.traits
        if self.plan.kind != "clip" or not traits.metric or traits.single_view:
            kinds = np.zeros(views, int)
        kinds[0] = 0
        return tuple(bool(k != 1) for k in kinds), tuple(bool(k > 0) for k in kinds)
