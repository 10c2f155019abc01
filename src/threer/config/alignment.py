"""Settings of DUSt3R on many photos."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from threer.config.checks import at_least, check_choices, positive, share_below_one


@dataclass(frozen=True)
class AlignmentConfig:
    """Settings of DUSt3R on three photos or more. ``AlignmentConfig.parity()`` gives the official behaviour."""

    published_alignment: bool = False
    """Align by the original's own schedule and with its quirks; `--preset parity` sets it."""
    pair_graph: Literal["auto", "complete", "sliding", "log", "one-reference", "retrieval"] = "auto"
    """Which photos are looked at in pairs: all; each with the next ones; each with those 1, 2, 4 … away; one with
    all; each with those it resembles. `auto`: all pairs of up to 16 photos, of more those that are alike."""
    pair_window: int = 3
    """Of `sliding` the photos ahead, of `log` the steps to each side."""
    pair_cycle: bool = False
    """The first photo follows the last one again, in windows and in `pair_distance`."""
    pair_reference: int = 0
    """The photo of `one-reference` that goes with all others, counted from 0."""
    pair_neighbours: int = 8
    """Photos each one goes with in `retrieval`."""
    pair_distance: int | None = None
    """Leave out pairs of photos further apart in order than this."""
    both_orders: bool = True
    """Look at each pair in both orders."""
    pairs_at_once: int = 8
    """Pairs in one batch of the decoder. Bounds the memory, does not change results."""
    pair_storage: Literal["float32", "float16"] = "float32"
    """Precision in which the pairs' points are kept; half of it halves the memory."""
    weakest_pair: float = 0.1
    """Pairs with less confidence than this share of the usual, in the mean logarithm, join nothing; 0 takes all."""
    pair_weighting: Literal["log", "sqrt", "minus-one", "identity"] = "log"
    """How much a point counts by its confidence."""
    shared_focal: bool = False
    """One focal length for all photos instead of one for each."""
    find_principal_points: bool = False
    """Find the principal points as well; else they stay at the image centres."""
    alignment_pixels: int = 2000
    """Pixels of each photo that decide about its camera; the depth of all follows."""
    hide_floaters: bool = True
    """Take the confidence from points that hide what other photos see more surely."""
    alignment_seed: int = 0
    """Draws the pixels that decide."""
    alignment_steps: int = 300
    """Steps of the official schedule, with `published_alignment` only; the next two as well."""
    alignment_rate: float = 0.01
    alignment_schedule: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        at_least(
            self,
            pair_window=1,
            pair_reference=0,
            pair_neighbours=1,
            pair_distance=1,
            pairs_at_once=1,
            alignment_pixels=50,
            alignment_steps=1,
        )
        check_choices(self)
        share_below_one(self, "weakest_pair")
        positive(self, "alignment_rate")

    @classmethod
    def parity(cls, **changes: object) -> AlignmentConfig:
        """The official program's behaviour, quirks included (pipelines.md section 2)."""
        official = cls(published_alignment=True, pair_graph="complete", pair_cycle=True, weakest_pair=0.0)
        return dataclasses.replace(official, **changes)  # type: ignore[arg-type]
