"""Ways between similarities: one for each frame from those that are known of some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from threer.types import FloatArray, Sim3


def interpolate(
    indices: npt.ArrayLike, known: Sequence[Sim3], wanted: Sequence[int] | npt.NDArray[np.integer]
) -> list[Sim3]:
    """The similarities at ``wanted`` from those ``known`` at ascending ``indices``.

    Between two of them along the geodesic of the group; beyond the first and last they stay. Known ones come back
    as they are.
    """
    places, asked = np.asarray(indices), np.asarray(wanted)
    after = np.searchsorted(places, asked)
    ways = {
        k: log(known[k - 1].inverse().after(known[k])) for k in np.unique(after).tolist() if 0 < k < len(places)
    }
    out = []
    for index, k in zip(asked.tolist(), after.tolist(), strict=True):
        if k < len(places) and places[k] == index:
            out.append(known[k])
        elif k in (0, len(places)):
            out.append(known[min(k, len(places) - 1)])
        else:
            share = (index - places[k - 1]) / (places[k] - places[k - 1])
            out.append(known[k - 1].after(exp(share * ways[k])))
    return out


def log(sim3: Sim3) -> FloatArray:
    """[7] rotation vector (radians), translational part, log scale: `exp` takes it back."""
    turn, growth = Rotation.from_matrix(sim3.R).as_rotvec(), float(np.log(sim3.scale))
    return np.concatenate([turn, np.linalg.solve(_integral(turn, growth), sim3.t), [growth]])


def exp(way: FloatArray) -> Sim3:
    """The similarity that [7] ``way``, as `log` gives it, leads to."""
    turn, along, growth = way[:3], way[3:6], float(way[6])
    return Sim3(float(np.exp(growth)), Rotation.from_rotvec(turn).as_matrix(), _integral(turn, growth) @ along)


def _integral(turn: FloatArray, growth: float) -> FloatArray:
    """[3, 3] ∫ exp(s A) ds over s in 0..1 for A = [turn]× + growth · I: what it makes of a constant velocity."""
    x, y, z = turn
    generator = np.zeros((6, 6))
    generator[:3, :3] = [[growth, -z, y], [z, growth, -x], [-y, x, growth]]
    generator[:3, 3:] = np.eye(3)
    return np.asarray(expm(generator)[:3, 3:])
