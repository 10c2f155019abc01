"""What tells a broken model from a good one: structure from motion mostly fails without a word."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from threer.pipelines.classical.model import SparseModel

MOST_ERROR_PX, CLEAR_ERROR_PX = 0.9, 0.4
ERROR_SIDE = 1000
"""Up to so many pixels good models have about 0.55 px and bad ones 0.9 or more; beyond, in proportion."""
PLAUSIBLE_FOCAL = (0.35, 4.0)
"""In units of the longer image side: 110° to 14° of view."""
FEWEST_OBSERVATIONS = 20
LEAST_ANGLE_DEG = 1.5
MOST_MISSING_SHARE = 0.05


@dataclass(frozen=True)
class ModelFacts:
    """What is worth knowing about a model.

    images           registered pictures
    points           sparse points
    error_px         mean reprojection error, NaN without points
    focals           focal lengths in units of the longer side, one for each camera in use
    angle_deg        median over points of the largest angle between two of its rays
    longest_side     of its pictures, in pixels
    """

    images: int
    points: int
    error_px: float
    focals: tuple[float, ...]
    angle_deg: float
    longest_side: int


def broken(facts: ModelFacts) -> list[str]:
    """Why a model cannot be true, one phrase each; empty for one that may be."""
    problems = []
    if facts.images < 2 or facts.points < FEWEST_OBSERVATIONS:
        return [f"only {facts.images} pictures with {facts.points} points hold together"]
    allowed = MOST_ERROR_PX * max(1.0, facts.longest_side / ERROR_SIDE)
    if not facts.error_px < allowed:
        problems.append(f"points miss their pixels by {facts.error_px:.2f} px, {allowed:.2f} is the most to expect")
    bad = [focal for focal in facts.focals if not PLAUSIBLE_FOCAL[0] <= focal <= PLAUSIBLE_FOCAL[1]]
    if bad:
        problems.append(f"a focal length of {bad[0]:.2f} image sides is not plausible")
    if not facts.angle_deg >= LEAST_ANGLE_DEG:
        problems.append(
            f"half of the points are seen under at most {facts.angle_deg:.2f}°: the camera hardly moved"
        )
    return problems


def doubtful(facts: ModelFacts) -> bool:
    """Whether a model that is not broken should be held against another mapper's: wrong ones reach 0.5 px."""
    return not facts.error_px < CLEAR_ERROR_PX * max(1.0, facts.longest_side / ERROR_SIDE)


def better(one: ModelFacts, other: ModelFacts) -> bool:
    """Whether ``one`` of two models that may be true has clearly more pictures, or as many and misses less."""
    if one.images < (1 - MOST_MISSING_SHARE) * other.images:
        return False
    return other.images < (1 - MOST_MISSING_SHARE) * one.images or one.error_px < other.error_px


def incomplete(images: int, sizes: list[int]) -> str | None:
    """What is missing from the largest of models of ``sizes``, largest first, of ``images`` pictures.

    None where the largest one has nearly everything.
    """
    if sizes and sizes[0] >= (1 - MOST_MISSING_SHARE) * images:
        return None
    parts = ", ".join(map(str, sizes)) or "none"
    return f"{images} pictures fall into {len(sizes)} models of {parts}"


def loose(model: SparseModel) -> list[int]:
    """Ids of pictures that do not hang together with the largest part of their own model.

    Two pictures hang together that share 20 points. The global mapper places every picture, those with hardly a
    point anywhere; and two halves that share hardly a point have no common scale.
    """
    count = len(model.images)
    entries = (np.ones(len(model.seen), np.int64), (model.seen, model.point))
    observed = csr_array(entries, shape=(count, len(model.points)))
    shared = observed @ observed.T
    shared.setdiag(0)
    shared.data = shared.data * (shared.data >= FEWEST_OBSERVATIONS)
    shared.eliminate_zeros()
    _, part = connected_components(shared, directed=False)
    largest = int(np.bincount(part, minlength=1).argmax())
    return [image for image, belongs in zip(model.images, part == largest, strict=True) if not belongs]


def median_angle(model: SparseModel) -> float:
    """Median over points of the largest angle, in degrees, under which two cameras see it; NaN without points."""
    rays = model.points[model.point] - model.c2w[model.seen, :3, 3]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True).clip(1e-12)
    starts = np.searchsorted(model.point, np.arange(len(model.points) + 1))
    widest = [(r @ r.T).min() for r in (rays[a:b] for a, b in itertools.pairwise(starts)) if len(r)]
    return float(np.degrees(np.arccos(np.clip(np.median(widest), -1, 1)))) if widest else float("nan")
