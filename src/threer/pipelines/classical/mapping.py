"""Cameras and sparse points from matches: COLMAP's mappers, tried until a model stands up to `checks`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from threer.errors import ReconstructionError
from threer.pipelines.classical.checks import ModelFacts, better, broken, doubtful, incomplete, loose, median_angle
from threer.pipelines.classical.colmap import quiet
from threer.pipelines.classical.features import FeatureStore
from threer.pipelines.classical.model import as_sparse_model
from threer.pipelines.sessions import Progress

SMALLEST_MODEL = 3
FEW_FEATURES = 100
MOSTLY = 0.5


@dataclass(frozen=True)
class Attempt:
    """A mapper and its settings.

    init_angle_deg  least angle of rays at the first two pictures of the incremental mapper (COLMAP: 16)
    """

    mapper: Literal["incremental", "global"]
    init_angle_deg: float = 4.0
    seed: int = 0

    def __str__(self) -> str:
        return self.mapper if self.mapper == "global" else f"{self.mapper} from {self.init_angle_deg:g}°"


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt: pictures in each model, error of the largest, and what is wrong with it."""

    attempt: str
    models: tuple[int, ...]
    error_px: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Mapped:
    """A model, and how it was found.

    model     pycolmap's Reconstruction: world-to-camera, pixel centres at halves
    chosen    the outcome it is from
    outcomes  of every attempt, in order
    """

    model: Any
    chosen: Outcome
    outcomes: tuple[Outcome, ...]


def attempts(known: bool, seed: int) -> list[Attempt]:
    """What to try, the most promising first: the incremental mapper rarely finds an unknown focal length."""
    incremental = [Attempt("incremental", angle, seed) for angle in (4.0, 6.0, 16.0)]
    at_once, again = Attempt("global", seed=seed), Attempt("global", seed=seed + 1)
    if known:
        return [incremental[0], at_once, *incremental[1:]]
    return [at_once, incremental[0], again, *incremental[1:]]


def map_images(
    store: FeatureStore, images: Sequence[int], *, seed: int = 0, progress: Progress | None = None
) -> Mapped:
    """The model of the largest part of ``images`` that holds together.

    The first attempt whose model is beyond doubt and has nearly all pictures wins. One that may be true is held
    against that of the other mapper. Raises ReconstructionError where no model may be true.
    """
    distinct = sorted(set(images))
    reachable = largest_linked(store, distinct)
    outcomes: list[Outcome] = []
    complete: set[str] = set()
    best: tuple[Any, Outcome, ModelFacts] | None = None
    planned = attempts(store.intrinsics is not None, seed)
    for number, attempt in enumerate(planned, 1):
        if progress:
            progress("mapping, attempt", number, len(planned))
        models = run_attempt(attempt, store, distinct)
        models.sort(key=lambda model: (-model.num_reg_images(), -model.num_points3D()))
        judged = [(model, facts := facts_of(model), broken(facts)) for model in models]
        sound = [(model, facts) for model, facts, problems in judged if not problems]
        problems = list(judged[0][2]) if judged else ["no two pictures give a start"]
        missing = incomplete(reachable, [facts.images for _, facts in sound]) if sound else None
        outcome = Outcome(
            str(attempt),
            tuple(facts.images for _, facts, _ in judged),
            round(judged[0][1].error_px, 3) if judged else None,
            tuple(problems + ([missing] if missing else [])),
        )
        outcomes.append(outcome)
        if not sound:
            continue
        model, facts = sound[0]
        if best is None or better(facts, best[2]):
            best = model, outcome, facts
        if not missing:
            complete.add(attempt.mapper)
            if not doubtful(facts) or len(complete) > 1:
                break
    if best is None:
        reasons = "; ".join(dict.fromkeys(problem for outcome in outcomes for problem in outcome.problems))
        raise ReconstructionError(
            f"the classical baseline finds no camera path to stand for, in {len(outcomes)} attempts: {reasons}; "
            f"{advice(store, distinct)}"
        )
    return Mapped(best[0], best[1], tuple(outcomes))


def largest_linked(store: FeatureStore, images: Sequence[int]) -> int:
    """How many pictures confirmed matches link to each other: no model can have more."""
    rows = {image: row for row, image in enumerate(images)}
    links = [(rows[a], rows[b]) for a, b in store.verified(set(images))]
    if not links:
        return 1
    first, second = np.array(links).T
    graph = coo_array((np.ones(len(links)), (first, second)), shape=(len(images),) * 2)
    return int(np.bincount(connected_components(graph, directed=False)[1]).max())


def advice(store: FeatureStore, images: Sequence[int]) -> str:
    """What the pictures lack, as far as features and matches tell."""
    features = int(np.median([len(store.keypoints(image)) for image in images]))
    if features < FEW_FEATURES:
        return f"the pictures show {features} features each, so they lack texture or are blurred"
    if not store.verified(set(images)):
        return "no two pictures show the same things: they must overlap more"
    if store.degenerate_share() > MOSTLY:
        return "most pairs show a mere rotation, or a plane: move the camera sideways"
    return "it needs pictures that overlap, of a scene at rest, from a camera that moves sideways"


def run_attempt(attempt: Attempt, store: FeatureStore, images: Sequence[int]) -> list[Any]:
    """All models of one mapper, in no order, without the pictures that do not hang together with the rest.

    What the global mapper loses that way, the incremental one tries to add again.
    """
    names = [store.name(image) for image in images]
    if attempt.mapper == "incremental":
        models = _incremental(attempt, store, names)
    else:
        models = _global(attempt, store, names)
    for model in models:
        prune(model)
    if attempt.mapper == "global" and models:
        largest = max(models, key=lambda model: model.num_reg_images())
        if SMALLEST_MODEL <= largest.num_reg_images() < len(images):
            grown = _incremental(attempt, store, names, begin=largest)
            for model in grown:
                prune(model)
            models = [model for model in models if model is not largest] + (grown or [largest])
    return [model for model in models if model.num_reg_images() >= SMALLEST_MODEL]


def prune(model: Any) -> None:
    """Take pictures out of a pycolmap Reconstruction that do not hang together with the rest."""
    while out := loose(as_sparse_model(model)):
        for image in out:
            model.deregister_frame(model.images[image].frame_id)


def facts_of(model: Any) -> ModelFacts:
    """Look at a pycolmap Reconstruction."""
    sparse = as_sparse_model(model)
    cameras = {model.images[image].camera_id for image in sparse.images}
    sides = {camera: max(model.cameras[camera].width, model.cameras[camera].height) for camera in cameras}
    return ModelFacts(
        images=len(sparse.images),
        points=len(sparse.points),
        error_px=float(model.compute_mean_reprojection_error()) if len(sparse.points) else float("nan"),
        focals=tuple(float(model.cameras[c].mean_focal_length()) / side for c, side in sorted(sides.items())),
        angle_deg=median_angle(sparse),
        longest_side=max(sides.values(), default=0),
    )


def _incremental(attempt: Attempt, store: FeatureStore, names: list[str], begin: Any = None) -> list[Any]:
    known = store.intrinsics is not None
    with quiet() as colmap, tempfile.TemporaryDirectory() as out:
        options = colmap.IncrementalPipelineOptions()
        options.image_names = names
        options.num_threads = store.threads
        options.min_model_size = SMALLEST_MODEL
        options.mapper.init_min_tri_angle = attempt.init_angle_deg
        options.mapper.abs_pose_refine_focal_length = not known
        options.ba_refine_focal_length = not known
        options.ba_refine_extra_params = False
        options.extract_colors = False
        for part in (options, options.mapper, options.triangulation):
            part.random_seed = attempt.seed
        colmap.set_random_seed(attempt.seed)
        options.multiple_models = begin is None
        given = Path(out) / "given"
        if begin is not None:
            given.mkdir()
            begin.write(given)
        models = colmap.incremental_mapping(store.path, out, out, options, given if begin is not None else "")
        return list(models.values())


def _global(attempt: Attempt, store: FeatureStore, names: list[str]) -> list[Any]:
    known = store.intrinsics is not None
    with quiet() as colmap, tempfile.TemporaryDirectory() as out:
        options = colmap.GlobalPipelineOptions()
        options.image_names = names
        options.num_threads = store.threads
        options.min_model_size = SMALLEST_MODEL
        mapper = options.mapper
        mapper.bundle_adjustment.refine_focal_length = not known
        mapper.bundle_adjustment.refine_extra_params = False
        for part in (
            options,
            mapper,
            mapper.rotation_averaging,
            mapper.global_positioning,
            mapper.retriangulation,
        ):
            part.random_seed = attempt.seed
        colmap.set_random_seed(attempt.seed)
        return list(colmap.global_mapping(store.path, out, out, options).values())
