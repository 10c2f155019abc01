"""A graph of similarities: frames chained to their neighbours, and loops that bring the ends of the chain together.

Strasdat et al. 2010 (scale drifts as well, so edges are similarities) on GTSAM, with graduated non-convexity
(Yang et al. 2020) to take away the say of loops that contradict the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from threer.errors import ThreerError
from threer.types import FloatArray, Sim3

LEAST_STEP = np.array([np.radians(0.1)] * 3 + [0.01] * 3 + [0.002])
"""Standard deviation of a step from frame to frame that counts as known exactly: rotation in radians, translation
in median steps, log scale."""
PROBABILITY = 0.99
"""Of a true loop to be kept."""
FIXED = 1e-6
ENOUGH = 0.7
"""Share of the loops that must agree with the chain before it is taken for worse than it seemed."""
LADDER = 4.0


@dataclass(frozen=True, eq=False)
class Edge:
    """What was measured between two nodes.

    relative    moves coordinates of node ``second`` into those of ``first``
    covariance  [7, 7] of its error in the coordinates of ``second``: rotation (radians), translation, log scale
    """

    first: int
    second: int
    relative: Sim3
    covariance: FloatArray


@dataclass(frozen=True, eq=False)
class Closed:
    """poses: where each node is now. trusted [L]: the loops that had a say."""

    poses: list[Sim3]
    trusted: npt.NDArray[np.bool_]


def gtsam() -> ModuleType:
    """The module. Raises ThreerError, with the command that installs it, where it is missing or too old."""
    try:
        module = import_module("gtsam")
    except ImportError:
        raise ThreerError("closing loops needs GTSAM: pip install 'threer[refine]'") from None
    if not hasattr(module, "BetweenFactorSimilarity3"):
        raise ThreerError("closing loops needs GTSAM 4.3 or newer: pip install -U 'threer[refine]'")
    return module


def close(poses: Sequence[Sim3], loops: Sequence[Edge]) -> Closed:
    """Spread the disagreement between a chain of ``poses`` (node to world) and ``loops`` over the chain.

    The first node stays. Where loops disagree with each other those that most agree with are kept. How far the
    chain may be bent follows from how far the loops find it off: the run itself does not know how much it drifts.
    Without loops the poses are given back as they are.
    """
    if not loops:
        return Closed(list(poses), np.zeros(0, bool))
    closed = Closed(list(poses), np.zeros(len(loops), bool))
    for sigmas in step_sigmas(poses, loops):
        found = _optimise(poses, loops, sigmas)
        if found.trusted.sum() > closed.trusted.sum():
            closed = found
        if closed.trusted.mean() >= ENOUGH:
            break
    return closed


def _optimise(poses: Sequence[Sim3], loops: Sequence[Edge], sigmas: FloatArray) -> Closed:
    library = gtsam()
    graph, start = library.NonlinearFactorGraph(), library.Values()
    fixed = library.noiseModel.Isotropic.Sigma(7, FIXED)
    graph.add(library.PriorFactorSimilarity3(0, _theirs(poses[0]), fixed))
    step_noise = library.noiseModel.Diagonal.Sigmas(sigmas)
    for k in range(len(poses) - 1):
        step = _theirs(between(poses[k], poses[k + 1]))
        graph.add(library.BetweenFactorSimilarity3(k, k + 1, step, step_noise))
    for edge in loops:
        noise = library.noiseModel.Gaussian.Covariance(edge.covariance)
        graph.add(library.BetweenFactorSimilarity3(edge.first, edge.second, _theirs(edge.relative), noise))
    for k, pose in enumerate(poses):
        start.insert(k, _theirs(pose))

    settings = library.GncLMParams(library.LevenbergMarquardtParams())
    settings.setKnownInliers(list(range(len(poses))))  # the prior and the chain
    search = library.GncLMOptimizer(graph, start, settings)
    search.setInlierCostThresholdsAtProbability(PROBABILITY)
    found = search.optimize()
    weights = np.asarray(search.getWeights())[len(poses) :]
    return Closed([_ours(found.atSimilarity3(k)) for k in range(len(poses))], weights > 0.5)


def step_sigmas(poses: Sequence[Sim3], loops: Sequence[Edge]) -> list[FloatArray]:
    """[7] standard deviations of one step of the chain, as the median loop finds it; at least `LEAST_STEP`.

    Errors of n steps add up to √n times that of one. Turn and scale can be told so, but most of what the ends of
    the chain are apart comes from them as well. So at first the place of a step counts as known to the share of its
    length to which its turn and scale are; where loops contradict that, it may be ever more wrong, up to all that
    they find.
    """
    library = gtsam()
    centres = np.array([pose.t for pose in poses])
    length = float(np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1))) or 1.0
    off = []
    for edge in loops:
        chain = between(poses[edge.first], poses[edge.second])
        error = library.Similarity3.Logmap(_theirs(edge.relative.inverse().after(chain)))
        off.append(np.abs(error) / np.sqrt(max(1, abs(edge.second - edge.first))))
    per_step = np.asarray(off)
    turn = max(LEAST_STEP[0], float(np.median(np.linalg.norm(per_step[:, :3], axis=1))))
    scale = max(LEAST_STEP[6], float(np.median(per_step[:, 6])))
    least = max(turn, scale, LEAST_STEP[3]) * length
    most = max(least, float(np.median(np.linalg.norm(per_step[:, 3:6], axis=1))))
    tries = 1 + int(np.ceil(np.log(most / least) / np.log(LADDER)))
    return [np.array([turn] * 3 + [place] * 3 + [scale]) for place in np.geomspace(least, most, tries)]


def between(first: Sim3, second: Sim3) -> Sim3:
    """What moves coordinates of ``second`` into those of ``first``; both are node to world."""
    return first.inverse().after(second)


def _theirs(sim3: Sim3) -> Any:
    """GTSAM's similarity is X' = scale · (R X + t)."""
    library = gtsam()
    return library.Similarity3(library.Rot3(np.asarray(sim3.R, np.float64)), sim3.t / sim3.scale, sim3.scale)


def _ours(sim3: Any) -> Sim3:
    scale = float(sim3.scale())
    return Sim3(scale, np.asarray(sim3.rotation().matrix()), scale * np.asarray(sim3.translation()))
