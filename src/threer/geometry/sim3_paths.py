"""Ways between similarities: one for each frame from those that are known of some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from threer.types import FloatArray, Sim3

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


def interpolate(
    indices: npt.ArrayLike, known: Sequence[Sim3], wanted: Sequence[int] | npt.NDArray[np.integer]
) -> list[Sim3]:
    """The similarities at ``wanted`` from those ``known`` at ascending ``indices``.

    Between two of them along the geodesic of the group; beyond the first and last they stay. Known ones come back
    as they are.
    """
    places, asked = np.asarray(indices), np.asarray(wanted)
    after = np.searchsorted(places, asked)
    out: list[Sim3] = [known[min(k, len(places) - 1)] for k in after.tolist()]
    inner = (after > 0) & (after < len(places))
    inner[inner] = places[after[inner]] != asked[inner]
    rows = np.flatnonzero(inner)
    if len(rows):
        k = after[rows]
        used, way = np.unique(k, return_inverse=True)
        ways = _log([known[end - 1].inverse().after(known[end]) for end in used.tolist()])
        share = (asked[rows] - places[k - 1]) / (places[k] - places[k - 1])
        parts = _exp(share[:, None] * ways[way])
        for row, end, part in zip(rows.tolist(), k.tolist(), parts, strict=True):
            out[row] = known[end - 1].after(part)
    return out


def log(sim3: Sim3) -> FloatArray:
    """[7] rotation vector (radians), translational part, log scale: `exp` takes it back."""
    (way,) = _log([sim3])
    return np.asarray(way)


def exp(way: FloatArray) -> Sim3:
    """The similarity that [7] ``way``, as `log` gives it, leads to."""
    (sim3,) = _exp(way[None])
    return sim3


def _log(sims: Sequence[Sim3]) -> FloatArray:
    """[N, 7], of all at once: a long run has many frames."""
    turn = Rotation.from_matrix(np.stack([sim3.R for sim3 in sims])).as_rotvec()
    growth = np.log([sim3.scale for sim3 in sims])
    along = np.linalg.solve(_integrals(turn, growth), np.stack([sim3.t for sim3 in sims])[..., None])[..., 0]
    return np.column_stack([turn, along, growth])


def _exp(ways: FloatArray) -> list[Sim3]:
    """Of [N, 7], all at once."""
    turn, along, growth = ways[:, :3], ways[:, 3:6], ways[:, 6]
    R = Rotation.from_rotvec(turn).as_matrix()
    t = np.einsum("nij,nj->ni", _integrals(turn, growth), along)
    return [Sim3(*parts) for parts in zip(np.exp(growth).tolist(), R, t, strict=True)]


def _integrals(turn: FloatArray, growth: FloatArray) -> FloatArray:
    """[N, 3, 3] ∫ exp(s (growth · I + [turn]×)) ds over s in 0..1: what a constant velocity becomes on the way.

    By quadrature, which has no special case where nothing turns or grows: exact to rounding up to half a turn and
    a growth of e³.
    """
    total = np.zeros((len(turn), 3, 3))
    for s, weight in zip((NODES + 1) / 2, WEIGHTS / 2, strict=True):
        total += (weight * np.exp(s * growth))[:, None, None] * Rotation.from_rotvec(s * turn).as_matrix()
    return total
