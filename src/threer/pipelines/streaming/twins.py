"""Pictures that say nothing new (a camera at rest, frames that a recorder wrote twice), or nothing at all."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from threer.types import Frame

BLOCK = 8
"""Side of the squares whose mean colours are compared, in pixels: large enough to average sensor noise out, small
enough for half a pixel of motion to show at an edge."""


def is_blank(frame: Frame, tolerance: float) -> bool:
    """Whether all squares of a picture have one mean colour, up to ``tolerance``: a lens cap, a blank wall."""
    colors = F.avg_pool2d(frame.image, BLOCK).flatten(1)
    return tolerance > 0 and float((colors.amax(1) - colors.amin(1)).max()) <= tolerance


class Twins:
    """Tells which frame a new frame is a repetition of.

    Frames are compared with the latest one that was new, not with the one before, so slow motion adds up until it
    counts.

    tolerance  0..1; a frame is new if the mean colour of any square differs by more
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._index = 0
        self._colors: Tensor | None = None

    def of(self, frame: Frame, index: int) -> int | None:
        """The number of the frame that ``frame``, the next with number ``index``, repeats; None if it is new."""
        if self._tolerance <= 0:
            return None
        colors = F.avg_pool2d(frame.image, BLOCK)
        if self._colors is not None and float((colors - self._colors).abs().max()) <= self._tolerance:
            return self._index
        self._index, self._colors = index, colors
        return None
