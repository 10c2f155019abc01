"""From predictions of pairs to one scene, with a word about every photo that has no place in it."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from threer.config import AlignmentConfig
from threer.errors import ReconstructionError
from threer.geometry.focal import weiszfeld_focal
from threer.geometry.projection import pixel_grid, project
from threer.geometry.transforms import invert
from threer.pipelines.alignment.cleaning import without_floaters
from threer.pipelines.alignment.optimise import optimise
from threer.pipelines.alignment.pairs import components
from threer.pipelines.alignment.predictions import Pairs
from threer.pipelines.alignment.published import optimise_published
from threer.pipelines.alignment.scene import Aligned, Known, alignment_loss, weights_of
from threer.pipelines.alignment.spanning_tree import NoCameraError, grow_scene, scene_on_known_cameras
from threer.pipelines.pairwise import NO_BASELINE, wrong_intrinsics
from threer.pipelines.sessions import Progress
from threer.types import FloatArray

AGREEING_PIXELS = 0.022
"""A pixel agrees with its camera within this share of the longer side: 5 pixels of 224."""
LEAST_AGREEING = 0.25
"""A camera that fewer of the sure pixels agree with is chance."""
MOST_SPOILING = 1 / 3
"""Where more of the photos agree with no camera, nobody knows which of them are right."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """A scene of some of N photos.

    photos    numbers of those with a place, in the order of ``scene``
    scene     in the frame of the first of them (of the known cameras if any are), in the unit of an average pair
              (of the known cameras if two or more are)
    conf      [H, W] of each, 0 where a point hides what others see
    problems  why a photo has no place, or no camera, by its number
    doubts    what is found but could not be checked, one line each
    report    counts and the loss
    spoiling  photos in the scene whose points agree with no camera
    """

    photos: Sequence[int]
    scene: Aligned
    conf: Sequence[Tensor]
    problems: Mapping[int, str]
    doubts: Sequence[str]
    report: Mapping[str, Any]
    spoiling: frozenset[int] = frozenset()


def align(
    pairs: Pairs,
    config: AlignmentConfig | None = None,
    *,
    known: Known | None = None,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Alignment:
    """One scene from predictions of pairs (DUSt3R 3.4).

    known     cameras, or parts of them, that are given and never change
    names     of the photos, for messages
    progress  is told what goes on

    Where a few photos agree with no camera, the rest is aligned once more without them: they bend it. Not so where
    the known poses of the rest would no longer say where the world is, or how large.

    Raises ReconstructionError when no two photos hang together.
    """
    known = known or Known.nothing(pairs.count)
    found = suspects = _align(pairs, config, known, names, progress, {})
    if _too_many(found) and known.poses.any():  # a foreign photo that is held in a known place bends nearly all
        free = dataclasses.replace(known, c2w=np.full_like(known.c2w, np.nan))
        suspects = _align(pairs, config, free, names, progress, {})
    if not suspects.spoiling or _too_many(suspects):
        return found
    rest = [photo for photo in found.photos if photo not in suspects.spoiling]
    if _place_and_size(known, rest) != _place_and_size(known, found.photos):
        return found
    gone = {
        photo: f"{suspects.problems[photo]}, and the others were aligned without it" for photo in suspects.spoiling
    }
    try:
        again = _align(pairs, config, known, names, progress, gone)
    except ReconstructionError:
        return found
    return again if list(again.photos) == rest else found  # it may be what joins others


def _too_many(found: Alignment) -> bool:
    return len(found.spoiling) > MOST_SPOILING * len(found.photos)


def _place_and_size(known: Known, photos: Sequence[int]) -> tuple[bool, bool]:
    """Whether known poses of these photos say where the world is, and how large."""
    here = known.subset(photos)
    return bool(here.poses.any()), here.fixes_scale


def _align(
    pairs: Pairs,
    config: AlignmentConfig | None,
    known: Known | None,
    names: Sequence[str] | None,
    progress: Progress | None,
    gone: dict[int, str],
) -> Alignment:
    """One alignment; ``gone`` says of photos to leave out why, and more are added to it."""
    config = config or AlignmentConfig()
    known = known or Known.nothing(pairs.count)
    if len(known.focals) != pairs.count:
        raise ValueError(f"known is about {len(known.focals)} photos, the pairs about {pairs.count}")
    names = names or [f"photo {i}" for i in range(pairs.count)]
    parity = config.published_alignment
    if not (known.focals[np.isfinite(known.focals)] > 0).all():
        raise ReconstructionError("known focal lengths must be positive")
    pairs = pairs.masked().without(e for e, (i, j) in enumerate(pairs.edges.tolist()) if i == j)
    sure = pairs if parity else pairs.without(unsure_pairs(pairs, config.weakest_pair))
    unsure = len(pairs) - len(sure)
    sure = sure.without(np.flatnonzero(np.isin(sure.edges, list(gone)).any(axis=1)).tolist())
    while True:
        photos, problems = _connected(sure, names, gone)
        used = sure.subset(photos)
        known_here = known.subset(photos)
        try:
            start = _first_scene(used, known_here, parity)
            break
        except NoCameraError as error:  # the others go on without it
            gone[photos[error.photo]] = error.why
            sure = sure.without(np.flatnonzero((sure.edges == photos[error.photo]).any(axis=1)).tolist())
    options: dict[str, Any] = {
        "weighting": config.pair_weighting,
        "principal_points": config.find_principal_points,
        "shared_focal": config.shared_focal,
        "progress": progress,
    }
    if parity:
        scene, _ = optimise_published(
            start,
            used,
            known_here,
            iterations=config.alignment_steps,
            rate=config.alignment_rate,
            schedule=config.alignment_schedule,
            **options,
        )
        settled = True
    else:
        scene, how = optimise(
            start, used, known_here, sampled=config.alignment_pixels, seed=config.alignment_seed, **options
        )
        settled = how.converged
    loss = alignment_loss(scene, used, config.pair_weighting)
    conf = used.confidence()
    spoiling: frozenset[int] = frozenset()
    doubts = [] if settled else ["the alignment was still improving when its steps ran out"]
    if not parity:
        wrong, scattered = _without_camera(scene, used, known_here)
        problems |= {photos[k]: why for k, why in {**wrong, **scattered}.items()}
        spoiling = frozenset(photos[k] for k in scattered)
        scene = _from_first_camera(scene, known_here)
        doubts += _doubts(scene, [names[i] for i in photos])
    if config.hide_floaters:
        conf = without_floaters(scene, conf, pairs=None if parity else used, in_turn=parity)
    report = {
        "pairs": len(used),
        "unsure_pairs": unsure,
        "loss": loss,
        "start_loss": alignment_loss(start, used, config.pair_weighting),
    }
    return Alignment(photos, scene, conf, problems, doubts, report, spoiling)


def _first_scene(pairs: Pairs, known: Known, parity: bool) -> Aligned:
    middles = _principal_points(pairs, known, parity)
    if known.poses.all() and np.isfinite(known.focals).all():
        return scene_on_known_cameras(pairs, known, middles)
    return grow_scene(pairs, known, middles, published=parity)


def unsure_pairs(pairs: Pairs, weakest: float) -> list[int]:
    """Pairs of which one map has hardly any confidence: below ``weakest`` of the usual mean logarithm."""
    means = [
        min(float(weights_of(points.conf.float()).mean()) for points in both)
        for both in zip(pairs.own, pairs.other, strict=True)
    ]
    if not means:
        return []
    usual = statistics.median(means)
    return [e for e, mean in enumerate(means) if not mean > weakest * usual]


def _connected(pairs: Pairs, names: Sequence[str], gone: Mapping[int, str]) -> tuple[list[int], dict[int, str]]:
    """The photos of the largest set that hangs together, and why the others are not in it.

    gone  photos that were taken out, and why
    """
    sets = components(pairs.count, [(i, j) for i, j in pairs.edges.tolist()])
    if len(sets[0]) < 2:
        raise ReconstructionError(
            "no two of the photos fit together: no pair of them has points the network is sure of"
            + "".join(f"; {names[photo]}: {why}" for photo, why in gone.items())
            + "; they may show different places, or nothing to go by"
        )
    problems = {}
    for members in sets[1:]:
        others = [names[k] for k in members]
        company = f" (it goes with {', '.join(others[:3])} only)" if len(members) > 1 else ""
        for photo in members:
            problems[photo] = f"no sure pair joins it to the {len(sets[0])} photos of the scene{company}"
    return sets[0], {**problems, **gone}


def _principal_points(pairs: Pairs, known: Known, parity: bool) -> Tensor:
    """[N, 2]: those known, else the image centre; the original's lies half a pixel off (quirk D11)."""
    less = 0 if parity else 1
    centres = np.array([[(width - less) / 2, (height - less) / 2] for height, width in pairs.sizes])
    return torch.from_numpy(np.where(np.isfinite(known.principal_points), known.principal_points, centres))


def _without_camera(scene: Aligned, pairs: Pairs, known: Known) -> tuple[dict[int, str], dict[int, str]]:
    """Photos that contradict their known focal length, and those whose pixels agree with no camera; and why."""
    problems, scattered = {}, {}
    for photo, (height, width) in enumerate(pairs.sizes):
        grid = pixel_grid(height, width, dtype=torch.float64)
        near = AGREEING_PIXELS * max(height, width)
        agreeing = total = 0
        for pair, _, points in pairs.seen(photo):
            seen = project(scene.in_camera(photo, scene.moved(pair, points.xyz)), scene.K(photo))
            sure = points.conf >= points.conf.float().median()
            apart = torch.linalg.vector_norm(seen - grid, dim=-1).nan_to_num(nan=torch.inf)
            agreeing += int((apart[sure] < near).sum())
            total += int(sure.sum())
        wrong = _wrong_focal(pairs, photo, known)
        if wrong is not None:
            problems[photo] = wrong
        elif agreeing < LEAST_AGREEING * total:
            scattered[photo] = f"only {agreeing / total:.0%} of its surest points agree with any camera"
    return problems, scattered


def _wrong_focal(pairs: Pairs, photo: int, known: Known) -> str | None:
    """What is wrong with a photo's known focal length, if its own points ask for quite another."""
    given = float(known.focals[photo])
    if math.isnan(given):
        return None
    centre = known.principal_points[photo]
    middle = torch.from_numpy(centre).float() if np.isfinite(centre).all() else None
    asked = [
        float(weiszfeld_focal(points.xyz.float(), middle, points.conf.float()))
        for _, role, points in pairs.seen(photo)
        if role == 0
    ]
    asked = [focal for focal in asked if focal > 0]
    if not asked:
        return None
    return wrong_intrinsics(given, statistics.median(asked))


def _from_first_camera(scene: Aligned, known: Known) -> Aligned:
    """The scene seen from its first camera, in the unit of an average pair; what is known stays."""
    if not known.poses.any():
        back = invert(scene.c2w[0])
        scene = dataclasses.replace(
            scene,
            c2w=back @ scene.c2w,
            rotations=back[:3, :3] @ scene.rotations,
            shifts=scene.shifts @ back[:3, :3].T + back[:3, 3],
        )
    if known.fixes_scale:
        return scene
    return scene.resized(1 / float(scene.scales.log().mean().exp()), torch.from_numpy(known.hub))


def _doubts(scene: Aligned, names: Sequence[str]) -> list[str]:
    """What no second viewpoint confirms."""
    depth = float(torch.stack([d.median() for d in scene.depth]).median())
    centres: FloatArray = scene.c2w[:, :3, 3].numpy()
    spread = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    if spread.max() < NO_BASELINE * depth:
        return [
            f"all {len(names)} photos were taken from one place, or are the same: nothing confirms their depth but "
            "the network's guess"
        ]
    twins = np.argwhere(np.triu(spread < NO_BASELINE * depth, 1))
    return [f"{names[i]} and {names[j]} were taken from one place, or are the same" for i, j in twins[:5].tolist()]
