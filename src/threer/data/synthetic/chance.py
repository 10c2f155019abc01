"""Random numbers for furniture, one at a time: Python's own generator is several times faster than numpy's."""

from __future__ import annotations

import random

import numpy as np


class Chance(random.Random):
    """``random.Random`` with the one method of numpy's generators that templates need besides."""

    def integers(self, low: int, high: int | None = None) -> int:
        """One of low..high - 1, or of 0..low - 1."""
        first, end = (0, low) if high is None else (low, high)
        return first + int(self.random() * (end - first))


Source = Chance | np.random.Generator
"""What a template draws from: plain rooms, whose draws are fixed, use numpy's."""
