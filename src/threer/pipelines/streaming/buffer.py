"""The scene frames kept for retrieval: at most `buffer_size`, one candidate per stride segment."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from threer.config import StreamingConfig
from threer.pipelines.streaming.state import Draws, Keyframe, normalized


class SceneBuffer:
    """Reservoir or first-in-first-out buffer of registered frames (pipelines.md section 1.10).

    With the reservoir policy every candidate ever offered is present with the same probability
    `buffer_size` / candidates, whatever its age.
    """

    def __init__(self, config: StreamingConfig, draws: Draws, stride: int, initial: list[Keyframe]) -> None:
        self._config = config
        self._draws = draws
        self._stride = stride
        self._seen = len(initial)
        self.keyframes = list(initial)
        self.milestone = initial[-1].index + 1
        """First frame whose segment has not been considered yet; frames before it can be let go."""
        self.anchors: list[int] = []
        """Frames that never leave, spread over the stream: when there are too many, every second is let go."""
        self._anchor_distance = stride
        for keyframe in initial:
            self._anchor(keyframe)

    def __contains__(self, index: int) -> bool:
        return any(keyframe.index == index for keyframe in self.keyframes)

    def __len__(self) -> int:
        return len(self.keyframes)

    def consider(self, upto: int, registered: Mapping[int, Keyframe]) -> None:
        """Look at all complete segments before frame ``upto``, once enough of them have been collected."""
        if upto - self.milestone < self._config.interval * self._stride:
            return
        while upto - self.milestone >= self._stride:
            self._consider_segment(registered)
            self.milestone += self._stride

    def _consider_segment(self, registered: Mapping[int, Keyframe]) -> None:
        # At least three quarters of a stride from the newest entry, which is always the last of the list.
        nearest = self.keyframes[-1].index + 3 * self._stride // 4
        segment = (registered[i] for i in range(max(self.milestone, nearest), self.milestone + self._stride))
        best = max((k for k in segment if not k.failure and k.twin is None), key=lambda k: k.score, default=None)
        if best is None:
            return
        size, reservoir = self._config.buffer_size, self._config.policy == "reservoir"
        self._seen += 1
        full = 0 < size <= len(self.keyframes)
        if full and reservoir and not self._draws.uniform("buffer") < size / self._seen:
            return
        if self._too_unsure(best):
            return
        if full:
            # The newcomer never evicts itself: the draw is among the old entries only.
            free = [i for i, k in enumerate(self.keyframes) if k.index not in self.anchors]
            del self.keyframes[free[self._draws.below("buffer", len(free)) if reservoir else 0]]
        self.keyframes.append(best)
        self._anchor(best)

    def _anchor(self, keyframe: Keyframe) -> None:
        """Protect ``keyframe`` if it is far enough from the last anchor; thin anchors when they are too many."""
        most = self._config.anchors
        if not most or (self.anchors and keyframe.index - self.anchors[-1] < self._anchor_distance):
            return
        self.anchors.append(keyframe.index)
        if len(self.anchors) > most:
            self.anchors = self.anchors[::2][:most]
            self._anchor_distance *= 2

    def _too_unsure(self, candidate: Keyframe) -> bool:
        """A frame that was registered badly would contaminate the buffer (quirk S18)."""
        usual = statistics.median(normalized(k.world_conf) for k in self.keyframes)
        return normalized(candidate.world_conf) < self._config.buffer_min_conf * usual
