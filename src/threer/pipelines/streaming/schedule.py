"""Which frames are registered together, and for which later ones they wait."""

from __future__ import annotations

from dataclasses import dataclass

from threer.config import StreamingConfig


@dataclass(frozen=True)
class Schedule:
    """The rhythm of one stream (pipelines.md sections 1.8 and 1.15).

    stride        frames between keyframes
    radius        neighbours on each side of a frame in its window
    round_frames  how many frames are registered together
    """

    stride: int
    radius: int
    round_frames: int

    @classmethod
    def of(cls, config: StreamingConfig, stride: int) -> Schedule:
        return cls(stride, config.radius, max(1, min((stride + 1) // 2, config.round_frames)))

    @property
    def reach(self) -> int:
        """How far the window of a frame goes, in frames, on each side."""
        return self.radius * self.stride

    def round(self, first: int, count: int, wait: int) -> range:
        """The round that begins at ``first``, empty while one of the ``wait`` frames after it is missing.

        count  frames that have come in
        """
        stop = first + self.round_frames
        return range(first, stop if stop + wait <= count else first)

    def last_round(self, first: int, count: int) -> range:
        """The round that begins at ``first`` when no more frames will come: waits for nothing, may be short."""
        return range(first, min(first + self.round_frames, count))

    def neighbours(self, centre: int, count: int) -> list[int]:
        """The 2 × radius frames nearest to ``centre`` on its grid: more of the past where the future is missing."""
        steps = range(1, 2 * self.radius + 1)
        grid = [centre + sign * i * self.stride for i in steps for sign in (-1, 1)]
        return [i for i in grid if 0 <= i < count][: 2 * self.radius]
