"""The similarity between two sets of points of which many do not correspond (RANSAC, Fischler and Bolles 1981)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from threer.geometry.procrustes import align_points
from threer.types import FloatArray, Sim3

POLISHING = 5


def find_similarity(
    source: FloatArray, target: FloatArray, tolerance: FloatArray, *, rounds: int = 400, seed: int = 0
) -> tuple[Sim3, npt.NDArray[np.bool_]] | None:
    """The similarity on which most pairs agree, fitted to them, and which they are [N].

    source, target  [N, 3] finite
    tolerance       [N] > 0: how far from ``target`` a pair that agrees may end
    rounds          samples of three pairs

    None where no sample determines a similarity: fewer than 3 pairs, or all on one line.
    """
    if len(source) < 3:
        return None
    generator = np.random.default_rng(seed)
    picks = np.argsort(generator.random((rounds, len(source))), axis=1)[:, :3]
    scale, R, t, good = _from_triples(source[picks], target[picks])
    if not good.any():
        return None
    moved = scale[good, None, None] * np.einsum("sij,nj->sni", R[good], source) + t[good, None]
    with np.errstate(over="ignore", invalid="ignore"):
        counts = (np.linalg.norm(moved - target, axis=-1) <= tolerance).sum(axis=1)
    best = np.flatnonzero(good)[int(np.argmax(counts))]
    found = Sim3(float(scale[best]), R[best], t[best])
    inliers = agreeing(found, source, target, tolerance)
    for _ in range(POLISHING):
        weights = np.where(inliers, 1 / np.square(tolerance), 0.0)
        better = align_points(source, target, weights)
        if better is None:
            break
        again = agreeing(better, source, target, tolerance)
        if again.sum() < inliers.sum():
            break
        same = bool((again == inliers).all())
        found, inliers = better, again
        if same:
            break
    return found, inliers


def agreeing(sim3: Sim3, source: FloatArray, target: FloatArray, tolerance: FloatArray) -> npt.NDArray[np.bool_]:
    """[N] pairs that the similarity brings within their tolerance."""
    return np.asarray(np.linalg.norm(sim3.apply(source) - target, axis=-1) <= tolerance)


def _from_triples(
    source: FloatArray, target: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Umeyama's solution for S triples [S, 3, 3] at once: scale [S], R [S, 3, 3], t [S, 3], and which exist [S]."""
    from_centre, to_centre = source.mean(axis=1), target.mean(axis=1)
    x, y = source - from_centre[:, None], target - to_centre[:, None]
    spread = np.square(x).sum(axis=(1, 2))
    U, D, Vt = np.linalg.svd(np.einsum("sni,snj->sij", y, x))
    signs = np.ones_like(D)
    signs[:, 2] = np.sign(np.linalg.det(U) * np.linalg.det(Vt))
    R = np.einsum("sik,sk,skj->sij", U, signs, Vt)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = (D * signs).sum(axis=1) / spread
        good = np.isfinite(scale) & (scale > 0) & (D[:, 1] > 1e-6 * D[:, 0])
    scale = np.where(good, scale, 1.0)
    return scale, R, to_centre - scale[:, None] * np.einsum("sij,sj->si", R, from_centre), good
