"""Does a frame show anything that is known? Tracking is lost when several in a row do not (quirk S18)."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

from threer.config import StreamingConfig
from threer.pipelines.streaming.state import Keyframe, normalized

MEMORY = 100
"""Frames whose confidence makes up what is usual."""


class Tracking:
    """Compares how surely frames are registered with what was usual in this stream.

    losses      how often tracking was lost
    recoveries  how often it was found again
    """

    def __init__(self, config: StreamingConfig, initial: Sequence[Keyframe]) -> None:
        self._config = config
        self._usual = deque((normalized(k.world_conf) for k in initial), maxlen=MEMORY)
        self._failing = 0
        self._since = 0
        self._reason = ""  # of the latest failure, in its own words
        self.losses = 0
        self.recoveries = 0

    def doubt(self, keyframe: Keyframe) -> str:
        """Why this registered frame is not believed, or nothing."""
        found, usual = normalized(keyframe.world_conf), statistics.median(self._usual)
        if found >= self._config.track_min_conf * usual:
            return ""
        return (
            f"registered with a confidence of {keyframe.world_conf:.2f}, where {1 / (1 - usual):.2f} is usual: "
            "it shows nothing that is known"
        )

    def is_lost_with(self, keyframes: Sequence[Keyframe]) -> bool:
        """Whether tracking is lost once these frames, the next in order, are taken into account."""
        failing = self._failing
        for keyframe in keyframes:
            fails = bool(keyframe.failure) if keyframe.twin is None else failing > 0
            failing = failing + 1 if fails else 0
        return failing >= self._config.lost_after

    def begin(self, keyframes: Sequence[Keyframe], initial: Sequence[Keyframe]) -> None:
        """Take all frames up to the last ``initial`` one into account: those are the world, others in doubt."""
        for keyframe in keyframes:
            if keyframe in initial:
                self._failing = 0
                continue
            if keyframe.twin is None:
                keyframe.failure = keyframe.failure or self.doubt(keyframe)
            self.note(keyframe)

    def note(self, keyframe: Keyframe) -> None:
        """Take the next frame into account, and write into it what it means for tracking.

        A repeated picture fails with the one it repeats, and counts as much; a good one says nothing new.
        """
        if keyframe.twin is not None:
            if not self._failing:
                return
            keyframe.failure = self._reason
        if not keyframe.failure:
            self._usual.append(normalized(keyframe.world_conf))
            if self._failing >= self._config.lost_after:
                self.recoveries += 1
                keyframe.note = f"tracking found again after {self._failing} frames"
            self._failing = 0
            return
        if self._failing == 0:
            self._since = keyframe.index
        self._reason = keyframe.failure
        self._failing += 1
        if self._failing == self._config.lost_after:
            self.losses += 1
        if self._failing >= self._config.lost_after:
            keyframe.failure = f"tracking lost since frame {self._since}: {keyframe.failure}"
