"""Whether depth, poses and intrinsics of neighbouring views tell of the same surfaces; if not, what would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from threer.data.datasets.ase import depth_from_ray_length
from threer.data.overlap import overlap
from threer.data.samples import RawView
from threer.geometry.transforms import is_pose

ENOUGH = 0.1
"""Share of a view that its neighbour must see before the two are compared."""
AGREE = 0.5
"""Share of what is compared that must agree within 10 %."""
SURE = 0.8
"""From here on nothing else is tried: views that differ little agree by most readings of their cameras."""
BETTER = 0.15
"""How much more must agree under another reading of the files for it to be named."""


@dataclass
class Outcome:
    """Pairs compared, their agreement, and findings (level, kind, where, message)."""

    pairs: int = 0
    agree: list[float] = field(default_factory=list)
    findings: list[tuple[str, str, str, str]] = field(default_factory=list)


def compared(views: Sequence[RawView], names: Sequence[str]) -> Outcome:
    """Compare each view with the next one."""
    outcome = Outcome()
    usable = [(v, n) for v, n in zip(views, names, strict=True) if _comparable(v)]
    pairs = [(usable[i], usable[i + 1]) for i in range(len(usable) - 1)]
    for (first, name), (second, other) in pairs:
        outcome.pairs += 1
        shared = overlap(first, second)
        if shared.inside >= ENOUGH:
            outcome.agree.append(shared.agree)
            hint = "" if shared.agree >= SURE else _hint(first, second, shared.agree)
            if shared.agree < AGREE or hint:
                message = f"only {shared.agree:.0%} of the depth agrees with {other} within 10 %"
                outcome.findings.append(("error", "reprojection", name, message + hint))
            continue
        hint = _hint(first, second, 0.0)
        level = "error" if hint else "warning"
        message = f"{other}, its neighbour, sees {shared.inside:.0%} of it"
        outcome.findings.append((level, "overlap", name, message + hint))
    return outcome


def _comparable(view: RawView) -> bool:
    focal = np.diag(view.K)[:2]
    return is_pose(view.c2w) and bool((focal > 0).all() and np.isfinite(view.K).all() and (view.depth > 0).any())


def _hint(first: RawView, second: RawView, agree: float) -> str:
    """The reading of the files under which the two views would agree, if there is one."""
    best, words = agree + BETTER, ""
    for name, change in READINGS.items():
        shared = overlap(change(first), change(second))
        if shared.inside >= ENOUGH and shared.agree > best:
            best, words = shared.agree, f"; {name} would agree in {shared.agree:.0%}"
    return words


def _inverted(view: RawView) -> RawView:
    return replace(view, c2w=np.linalg.inv(view.c2w))


def _opengl(view: RawView) -> RawView:
    return replace(view, c2w=view.c2w @ np.diag([1.0, -1.0, -1.0, 1.0]))


def _from_rays(view: RawView) -> RawView:
    return replace(view, depth=depth_from_ray_length(view.depth, view.K))


def _scaled(factor: float) -> Callable[[RawView], RawView]:
    return lambda view: replace(view, depth=(view.depth * factor).astype(np.float32))


READINGS: dict[str, Callable[[RawView], RawView]] = {
    "world-to-camera poses": _inverted,
    "OpenGL cameras (y up, z backward)": _opengl,
    "the length of rays as depth": _from_rays,
    "depth in millimetres": _scaled(1e-3),
    "depth in thousandths of what it is": _scaled(1e3),
}
