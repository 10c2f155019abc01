"""What can be wrong with one view: its pose, its intrinsics, its depth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from threer.data.crops import LEAST_MARGIN
from threer.data.samples import RawView, Traits
from threer.geometry.transforms import is_pose

Said = tuple[str, str, str]
"""Level, kind, message."""

FOCAL = (0.25, 5.0)
"""Focal lengths, in long sides of the picture, between extreme wide angle and telephoto."""
METRES = (0.1, 300.0)
"""Median depths of metric sets that are likely to be metres."""
LEAST_KNOWN = 0.02


def camera_findings(view: RawView, traits: Traits) -> Iterator[Said]:
    """Poses that are no rigid motions, intrinsics that no camera has."""
    if not traits.single_view:
        if not np.isfinite(view.c2w).all():
            yield "error", "pose", "the pose is not finite"
        elif not is_pose(view.c2w):
            scale = float(np.cbrt(abs(np.linalg.det(view.c2w[:3, :3]))))
            mirrored = np.linalg.det(view.c2w[:3, :3]) < 0
            what = (
                "it mirrors" if mirrored else f"it scales by {scale:.3g}" if abs(scale - 1) > 1e-3 else "it shears"
            )
            yield "error", "pose", f"the pose is no rigid motion: {what}"
    yield from _intrinsics(view)


def _intrinsics(view: RawView) -> Iterator[Said]:
    W, H = view.size
    K = view.K
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    if not np.isfinite(K).all() or fx <= 0 or fy <= 0 or not np.allclose(K[2], (0, 0, 1)):
        yield (
            "error",
            "intrinsics",
            f"K is no camera: focal lengths {fx:.4g}, {fy:.4g}, last row {K[2].tolist()}",
        )
        return
    if not FOCAL[0] <= max(fx, fy) / max(W, H) <= FOCAL[1]:
        degrees = 2 * np.degrees(np.arctan(max(W, H) / 2 / max(fx, fy)))
        yield "error", "intrinsics", f"a focal length of {fx:.4g} for {W}×{H} is a view of {degrees:.1f} degrees"
    if not 2 / 3 <= fx / fy <= 3 / 2:
        yield "error", "intrinsics", f"focal lengths {fx:.4g} and {fy:.4g} differ too much for square pixels"
    if abs(K[0, 1]) > 0.01 * fx or K[1, 0]:
        yield "warning", "intrinsics", f"a skew of {K[0, 1]:.3g} is passed over"
    margin = min(cx + 0.5, W - 0.5 - cx) / W, min(cy + 0.5, H - 0.5 - cy) / H
    if min(margin) < LEAST_MARGIN:
        yield "error", "intrinsics", f"the principal point ({cx:.1f}, {cy:.1f}) is at the border of {W}×{H}"


def depth_findings(view: RawView, traits: Traits) -> Iterator[Said]:
    """No depth, the same depth everywhere, a range that is not in metres."""
    if traits.camera_only:
        return
    known = view.depth[view.depth > 0]
    if not known.size:
        yield "error", "depth", "no pixel has depth"
        return
    if known.size < LEAST_KNOWN * view.depth.size:
        yield "warning", "depth", f"only {known.size / view.depth.size:.1%} of the pixels have depth"
    middle = float(np.median(known))
    if known.size > 1 and np.ptp(known) == 0:
        yield "warning", "depth", f"every pixel has the same depth, {middle:.3g}"
    if traits.metric and not METRES[0] <= middle <= METRES[1]:
        unit = "millimetres" if middle > METRES[1] else "kilometres, or scaled"
        yield "error", "depth unit", f"a median depth of {middle:.3g} m is not likely: {unit}?"
