"""Close loops while a stream goes on: recognise places, bend the way between them, say how earlier frames move."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from threer.config import LoopConfig
from threer.pipelines.classical.colmap import pycolmap
from threer.pipelines.classical.matching import describe, find_words
from threer.pipelines.refine.loops import (
    LEAST_GAIN,
    LEAST_LIKENESS,
    LOOKS,
    Limits,
    Loop,
    left_meanwhile,
    misfit,
    split,
    without_support,
)
from threer.pipelines.refine.pose_graph import between, close, gtsam
from threer.pipelines.streaming.places import Place, compare, remember
from threer.types import Moves, Sim3, Update

MOST_PLACES = 256
"""When there are more, every second one that no loop needs is let go, and new ones come half as often."""
MOST_LOOPS = 48
MOST_POINTS = 64
"""That are kept of a loop, to tell how well it closes."""
WORDS_AT = (16, 64, 256)
"""Places at which the words that pictures are compared by are found (again)."""
PAUSE = 4
"""Places between two attempts to close loops."""
WORTH = 0.02
"""Share of their depth by which matched points must miss each other before anything is moved."""


@dataclass(eq=False)
class Found:
    """A loop with three quarters of its points, and with the others, which only judge.

    settled  the poses know it
    """

    kept: Loop
    held: Loop
    settled: bool = False


class LoopCloser:
    """Watches the final frames of a stream, and finds out how they have to move so that loops close.

    A frame every so often is a place (`places.Place`). Each new one is compared with earlier ones that look like
    it, between which the camera was elsewhere; what `refine.loops.verify` takes for the same place is an edge in a
    graph of similarities. What is kept, and the work for a frame, does not grow with the length of the stream.

    corrections  how many there were

    Raises ThreerError without pycolmap and GTSAM.
    """

    def __init__(self, config: LoopConfig | None = None) -> None:
        pycolmap()
        gtsam()
        config = config or LoopConfig()
        self._gap, self._similar, self._seed = config.gap, config.similar, config.seed
        self._inliers, self._agreement, self._support = config.inliers, config.agreement, config.support
        self.corrections = 0
        self.compared = 0
        self._places: list[Place] = []
        self._thinned = 0
        self._last = -1  # index of the latest frame
        self._waited = 0  # frames since the newest place; of a live source not all come, so indices do not tell
        self._loops: list[Found] = []
        self._news = False  # a loop was found since the last attempt
        self._since = 0  # places since then
        self._words: Tensor | None = None
        self._pooled: list[Tensor] = []

    @property
    def report(self) -> dict[str, int]:
        """What happened on the way."""
        return {"compared": self.compared, "found": len(self._loops), "corrections": self.corrections}

    @property
    def nbytes(self) -> int:
        """Memory of what is kept of places."""
        return sum(place.nbytes for place in self._places) + sum(tensor.nbytes for tensor in self._pooled)

    def look(self, update: Update, spacing: int) -> None:
        """Take in the next final (or failed) frame, where all corrections so far have left the world.

        spacing  frames between two places
        """
        self._last = update.frame.index
        self._waited += 1
        latest = self._places[-1] if self._places else None
        if latest and self._waited < spacing * 2**self._thinned:
            return
        place = remember(update) if update.kind == "final" else None
        if place is None:
            return
        self._waited = 0
        if latest:
            place.chain = latest.chain.after(between(latest.now, place.now))
        self._places.append(place)
        self._since += 1
        self._describe()
        limits = Limits(inliers=self._inliers, agreement=self._agreement, support=self._support)
        for other in self._candidates():
            self.compared += 1
            loop = compare(other, place, limits, seed=self._seed)
            if isinstance(loop, Loop):
                kept, held = split(loop)
                self._loops.append(Found(_fewer(kept), _fewer(held)))
                self._news = True
        self._thin()

    def moves(self, *, ending: bool = False) -> Moves | None:
        """How the frames so far have to move, if loops were found that they do not close; None mostly.

        ending  no other chance will come
        """
        if not self._news or (self._since < PAUSE and not ending):
            return None
        self._news, self._since = False, 0
        rows = {place.index: row for row, place in enumerate(self._places)}
        alone = without_support(
            [_by_row(found.kept, rows) for found in self._loops],
            dict(enumerate(place.chain for place in self._places)),
            self._support,
        )
        loops = [found for k, found in enumerate(self._loops) if k not in set(alone)]
        new = [found for found in loops if not found.settled]
        now = {place.index: place.now for place in self._places}
        if not new:
            return None
        if misfit([found.held for found in new], now) <= WORTH:
            for found in new:
                found.settled = True
            return None
        chain = [place.chain for place in self._places]
        try:
            closed = close(chain, [_by_row(found.kept, rows).edge for found in loops])
        except RuntimeError:  # how GTSAM says that a graph has no solution
            return None
        then = dict(zip(now, closed.poses, strict=True))
        trusted = {id(found) for found, good in zip(loops, closed.trusted, strict=True) if good}
        if not self._better(loops, trusted, now, then):
            return None
        for found in loops:
            found.settled = id(found) in trusted
        moves = [after.after(place.now.inverse()) for place, after in zip(self._places, closed.poses, strict=True)]
        for place, pose in zip(self._places, closed.poses, strict=True):
            place.now = pose
        indices = list(now)
        if indices[-1] < self._last:
            indices, moves = [*indices, self._last], [*moves, moves[-1]]
        self.corrections += 1
        return Moves(np.array(indices, np.int64), tuple(moves))

    @staticmethod
    def _better(loops: list[Found], trusted: set[int], now: dict[int, Sim3], then: dict[int, Sim3]) -> bool:
        """Whether points that took no part meet better than before, and those of earlier loops no worse."""
        if not all(np.isfinite(pose.t).all() and 0 < pose.scale < np.inf for pose in then.values()):
            return False
        new = [found.held for found in loops if not found.settled]
        old = [found.held for found in loops if found.settled]
        if not any(id(found) in trusted for found in loops if not found.settled):
            return False
        kept = not old or misfit(old, then) <= max(WORTH, misfit(old, now) / LEAST_GAIN)
        return kept and misfit(new, then) <= LEAST_GAIN * misfit(new, now)

    def _describe(self) -> None:
        """Give the new place its vector; all of them, when there are enough for better words."""
        if len(self._places) in WORDS_AT and not self._thinned:
            self._words = find_words([place.descriptors.numpy() for place in self._places], seed=self._seed)
            self._pooled = [self._vector(place) for place in self._places]
        elif self._words is not None:
            self._pooled.append(self._vector(self._places[-1]))

    def _vector(self, place: Place) -> Tensor:
        assert self._words is not None
        return torch.from_numpy(describe(place.descriptors.numpy(), self._words))

    def _candidates(self) -> list[Place]:
        """Earlier places that look like the newest one, between which the camera was elsewhere; the best first."""
        if len(self._pooled) < 3:
            return []
        *_, newest = self._places
        pooled = torch.stack(self._pooled)
        likeness = (pooled @ pooled[-1]).numpy()
        least = max(0.0, LEAST_LIKENESS * float((pooled[1:] * pooled[:-1]).sum(1).median()))
        early = np.array([place.index < newest.index - self._gap for place in self._places])
        allowed = early & (likeness > least)
        order = np.argsort(np.where(allowed, -likeness, np.inf), kind="stable")[: self._similar]
        return [self._places[k] for k in sorted(order.tolist()) if allowed[k] and self._left(k)]

    def _left(self, row: int) -> bool:
        """Whether the camera saw something else between a place and the newest one."""
        way = self._places[row + 1 : -1]
        if not way:
            return False
        looks = [way[k] for k in np.unique(np.linspace(0, len(way) - 1, min(LOOKS, len(way))).astype(int))]
        c2w = np.tile(np.eye(4), (len(looks), 1, 1))
        for pose, place in zip(c2w, looks, strict=True):
            pose[:3, :3], pose[:3, 3] = place.now.R, place.now.t
        first = self._places[row]
        K, size = np.stack([place.K for place in looks]), np.array([place.size for place in looks])
        return left_meanwhile(first.frame(first.now), c2w, K, size)

    def _thin(self) -> None:
        if len(self._loops) > MOST_LOOPS:
            settled = [found for found in self._loops if found.settled] or self._loops
            away = {id(found) for found in settled[::2]}
            self._loops = [found for found in self._loops if id(found) not in away]
        if len(self._places) > MOST_PLACES:
            needed = {k for found in self._loops for k in (found.kept.edge.first, found.kept.edge.second)}
            last = len(self._places) - 1
            kept = [k for k, place in enumerate(self._places) if k % 2 == 0 or k == last or place.index in needed]
            self._places = [self._places[k] for k in kept]
            self._pooled = [self._pooled[k] for k in kept]
            self._thinned += 1


def _by_row(loop: Loop, rows: dict[int, int]) -> Loop:
    edge = loop.edge
    return replace(loop, edge=replace(edge, first=rows[edge.first], second=rows[edge.second]))


def _fewer(loop: Loop) -> Loop:
    return replace(loop, points=loop.points[:: max(1, -(-len(loop.points) // MOST_POINTS))])
