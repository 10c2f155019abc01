"""Bundle adjustment from cameras that are roughly right: triangulate, adjust, look again, ever more strictly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from threer.geometry.pnp import solve_pnp
from threer.pipelines.classical.checks import PLAUSIBLE_FOCAL
from threer.pipelines.classical.colmap import quiet
from threer.pipelines.refine.observations import Observations
from threer.pipelines.refine.triangulation import reprojection, triangulate
from threer.types import FloatArray, Sim3

ROUNDS = ((40.0, 20.0), (20.0, 8.0), (10.0, 3.0), (4.0, 1.0))
"""Largest error of an observation that takes part, and scale of the Cauchy loss, in pixels of ``SIDE``."""
FREE_FOCAL_ROUNDS = 2
SIDE = 1000
"""Larger pictures are allowed errors in proportion."""
LEAST_ANGLE_DEG = 1.5
PRIOR_SHARE = 0.02
"""Standard deviation of the known positions, as a share of the path: a tighter prior does harm."""
MOST_FOCAL_CHANGE = 1.5
LOST = 0.3
"""A camera that a smaller share of its observations agrees with is looked for anew."""
FEWEST_TO_PLACE = 20
ITERATIONS = 50


@dataclass(frozen=True, eq=False)
class Adjusted:
    """What came out.

    c2w     [N, 4, 4] in the world of the start; cameras without an observation as they were
    K       [N, 3, 3]
    points  [T, 3], NaN where none was found
    seen    the observations that agree with it
    error   [M] their errors in pixels
    """

    c2w: FloatArray
    K: FloatArray
    points: FloatArray
    seen: Observations
    error: FloatArray

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """[N] observations of each camera."""
        return np.bincount(self.seen.view, minlength=len(self.c2w))


def adjust(
    seen: Observations,
    c2w: FloatArray,
    K: FloatArray,
    *,
    lens: npt.NDArray[np.int64] | None = None,
    side: float | None = None,
) -> Adjusted:
    """Cameras and points with the least reprojection error near ``c2w`` [N, 4, 4] and ``K`` [N, 3, 3], finite.

    lens   [N] number of the lens that each picture was taken with, if its focal length is to be found as well, one
           for all pictures of a lens; None: K is known
    side   longer side of the pictures in pixels, or None for `SIDE`

    All positions are held weakly, which says where the world is and how large: with two cameras held instead, the
    scale between them and the rest drifts, and a single held one contradicts the others where it is off. Where a
    focal length leaves the plausible, the last rounds are done again with the start's. Deterministic.
    """
    spread = _spread(c2w)
    unit = max(1.0, (side or SIDE) / SIDE)
    scaled = c2w.copy()
    middle = c2w[:, :3, 3].mean(axis=0)
    scaled[:, :3, 3] = (c2w[:, :3, 3] - middle) / spread
    length = np.linalg.norm(np.diff(scaled[:, :3, 3], axis=0), axis=1).sum()
    problem = _Problem(seen, scaled[:, :3, 3].copy(), max(PRIOR_SHARE * float(length), 1e-3), lens)
    state = scaled, _one_focal(K, lens)
    early = len(ROUNDS) - FREE_FOCAL_ROUNDS
    for most, loss in ROUNDS[:early]:
        state = problem.round(*state, most * unit, loss * unit, free_focal=False)
    before = state
    for most, loss in ROUNDS[early:]:
        state = problem.round(*state, most * unit, loss * unit, free_focal=lens is not None)
    if lens is not None and not _plausible(before[1], state[1], side):
        state = before
        for most, loss in ROUNDS[early:]:
            state = problem.round(*state, most * unit, loss * unit, free_focal=False)
    most = ROUNDS[-1][0] * unit
    points, keep = triangulate(seen, *state, most_error_px=most, least_angle_deg=LEAST_ANGLE_DEG)
    return _back(state, points, seen.chosen(keep), c2w, spread, middle)


@dataclass(frozen=True, eq=False)
class _Problem:
    """Observations, where cameras are expected [N, 3] and how surely, and which share a focal length."""

    seen: Observations
    expected: FloatArray
    sigma: float
    lens: npt.NDArray[np.int64] | None

    def round(
        self, c2w: FloatArray, K: FloatArray, most: float, loss: float, *, free_focal: bool
    ) -> tuple[FloatArray, FloatArray]:
        """One triangulation and one adjustment."""
        points, keep = triangulate(self.seen, c2w, K, most_error_px=most, least_angle_deg=LEAST_ANGLE_DEG)
        replaced = self._placed_again(points, keep, c2w, K, most)
        if replaced is not c2w:
            c2w = replaced
            points, keep = triangulate(self.seen, c2w, K, most_error_px=most, least_angle_deg=LEAST_ANGLE_DEG)
        if not keep.any():
            return c2w, K
        return self._solve(self.seen.chosen(keep), points, c2w, K, loss, free_focal)

    def _placed_again(
        self, points: FloatArray, keep: npt.NDArray[np.bool_], c2w: FloatArray, K: FloatArray, most: float
    ) -> FloatArray:
        """Cameras so far off that little agrees with them, put where most of what the others see in them does."""
        offered = np.bincount(self.seen.view, minlength=len(c2w))
        agreeing = np.bincount(self.seen.view[keep], minlength=len(c2w))
        moved = c2w
        for view in np.flatnonzero((agreeing < LOST * offered) & (offered >= FEWEST_TO_PLACE)).tolist():
            mine = self.seen.view == view
            known = points[self.seen.track[mine]]
            good = np.isfinite(known).all(axis=1)
            found = solve_pnp(known[good], self.seen.pixel[mine][good], K[view], threshold=most)
            if found is None or found.inliers.sum() < max(FEWEST_TO_PLACE, 2 * agreeing[view], LOST * good.sum()):
                continue
            if moved is c2w:
                moved = c2w.copy()
            moved[view] = found.c2w
        return moved

    def _solve(
        self, seen: Observations, points: FloatArray, c2w: FloatArray, K: FloatArray, loss: float, free_focal: bool
    ) -> tuple[FloatArray, FloatArray]:
        views = np.unique(seen.view)
        lens = np.arange(len(K)) if self.lens is None else self.lens
        with quiet() as colmap:
            model = colmap.Reconstruction()
            config = colmap.BundleAdjustmentConfig()
            for number in np.unique(lens[views]).tolist():
                _add_camera(colmap, model, number, K[lens == number][0], free_focal)
                if not free_focal:
                    config.set_constant_cam_intrinsics(number + 1)
            priors = []
            for view in views.tolist():
                image = _add_image(colmap, model, view, int(lens[view]), seen.pixel[seen.view == view], c2w[view])
                config.add_image(view + 1)
                prior = colmap.PosePrior(position=self.expected[view], corr_data_id=image.data_id)
                prior.position_covariance = self.sigma**2 * np.eye(3)
                prior.coordinate_system = colmap.PosePriorCoordinateSystem.CARTESIAN
                priors.append(prior)
            _add_points(colmap, model, seen, points)
            options = colmap.BundleAdjustmentOptions()
            options.refine_focal_length, options.refine_extra_params = free_focal, False
            options.print_summary = False
            options.ceres.loss_function_type = colmap.LossFunctionType.CAUCHY
            options.ceres.loss_function_scale = loss
            options.ceres.solver_options.num_threads = 1
            options.ceres.solver_options.max_num_iterations = ITERATIONS
            options.ceres.solver_options.function_tolerance = 1e-6
            weak = colmap.PosePriorBundleAdjustmentOptions()
            weak.alignment_ransac.random_seed = 0
            colmap.set_random_seed(0)
            colmap.create_pose_prior_bundle_adjuster(options, weak, config, priors, model).solve()
            return _read(model, views, lens, c2w, K)


def same_world(source: FloatArray, target: FloatArray) -> Sim3:
    """Similarity that moves cameras ``source`` [N, 4, 4] onto ``target``, turned as their axes say.

    Along a straight path the positions alone leave the turn about it open.
    """
    U, _, Vt = np.linalg.svd(np.einsum("nij,nkj->ik", target[:, :3, :3], source[:, :3, :3]))
    R = U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt
    x, y = source[:, :3, 3] @ R.T, target[:, :3, 3]
    a, b = x - x.mean(axis=0), y - y.mean(axis=0)
    size = float(np.square(a).sum())
    scale = float((a * b).sum()) / size if size > 0 else 1.0
    scale = scale if scale > 0 else 1.0
    return Sim3(scale, R, y.mean(axis=0) - scale * x.mean(axis=0))


def _add_camera(colmap: Any, model: Any, number: int, K: FloatArray, square: bool) -> None:
    kind, params = ("SIMPLE_PINHOLE", [K[0, 0]]) if square else ("PINHOLE", [K[0, 0], K[1, 1]])
    size = [max(1, round(2 * float(c) + 1)) for c in K[:2, 2]]
    camera = colmap.Camera(model=kind, width=size[0], height=size[1], params=[*params, K[0, 2], K[1, 2]])
    camera.camera_id = number + 1
    model.add_camera_with_trivial_rig(camera)


def _add_image(colmap: Any, model: Any, view: int, lens: int, pixels: FloatArray, c2w: FloatArray) -> Any:
    image = colmap.Image(name=str(view), keypoints=pixels, camera_id=lens + 1, image_id=view + 1)
    model.add_image_with_trivial_frame(image, colmap.Rigid3d(np.linalg.inv(c2w)[:3]))
    return model.images[view + 1]


def _add_points(colmap: Any, model: Any, seen: Observations, points: FloatArray) -> None:
    order = np.argsort(seen.view, kind="stable")
    place = np.empty(len(order), np.int64)  # of each observation among those of its picture
    _, starts, counts = np.unique(seen.view[order], return_index=True, return_counts=True)
    place[order] = np.arange(len(order)) - np.repeat(starts, counts)
    present, begin = np.unique(seen.track, return_index=True)
    views, places = (seen.view + 1).tolist(), place.tolist()
    for number, first, last in zip(present.tolist(), begin, [*begin[1:], len(seen.track)], strict=True):
        track = colmap.Track()
        for k in range(first, last):
            track.add_element(views[k], places[k])
        model.add_point3D(points[number], track)


def _read(
    model: Any, views: npt.NDArray[np.int64], lens: npt.NDArray[np.int64], c2w: FloatArray, K: FloatArray
) -> tuple[FloatArray, FloatArray]:
    c2w, K = c2w.copy(), K.copy()
    for view in views.tolist():
        w2c = np.eye(4)
        w2c[:3] = model.images[view + 1].cam_from_world().matrix()
        c2w[view] = np.linalg.inv(w2c)
    for number in np.unique(lens[views]).tolist():
        K[lens == number] = model.cameras[number + 1].calibration_matrix()
    return c2w, K


def _one_focal(K: FloatArray, lens: npt.NDArray[np.int64] | None) -> FloatArray:
    """Pictures of one lens get the median of their focal lengths and centres."""
    if lens is None:
        return K
    K = K.copy()
    for number in np.unique(lens):
        one = np.median(K[lens == number], axis=0)
        one[0, 0] = one[1, 1] = (one[0, 0] + one[1, 1]) / 2
        K[lens == number] = one
    return K


def _plausible(before: FloatArray, after: FloatArray, side: float | None) -> bool:
    change = np.abs(np.log(after[:, 0, 0] / before[:, 0, 0]))
    low, high = PLAUSIBLE_FOCAL
    longest = side or float(2 * before[:, :2, 2].max() + 1)
    inside = (after[:, 0, 0] >= low * longest) & (after[:, 0, 0] <= high * longest)
    return bool((change <= np.log(MOST_FOCAL_CHANGE)).all() and inside.all())


def _spread(c2w: FloatArray) -> float:
    """Root mean square distance of the cameras from their middle."""
    centres = c2w[:, :3, 3]
    return max(float(np.sqrt(np.square(centres - centres.mean(axis=0)).sum(axis=1).mean())), 1e-12)


def _back(
    state: tuple[FloatArray, FloatArray],
    points: FloatArray,
    seen: Observations,
    start: FloatArray,
    spread: float,
    middle: FloatArray,
) -> Adjusted:
    """Move everything to where the start was: nothing in the pictures says where the world is, and how large."""
    c2w, K = state
    error = reprojection(seen, points, c2w, K)[0]
    c2w = c2w.copy()
    c2w[:, :3, 3] = c2w[:, :3, 3] * spread + middle
    points = points * spread + middle
    seeing = np.unique(seen.view)
    if len(seeing) >= 2:
        back = same_world(c2w[seeing], start[seeing])
        c2w, points = back.apply_to_cameras(c2w), back.apply(points)
    blind = np.setdiff1d(np.arange(len(c2w)), seeing)
    c2w[blind] = start[blind]
    return Adjusted(c2w, K, points, replace(seen), error)
