"""What every way of reconstructing has in common: frames in one by one, updates out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch

from threer.errors import CheckpointError
from threer.types import Frame, Pointmap, Update, View

Progress = Callable[[str, int, int], None]
"""Is told what is going on, how many steps of it are done, and how many there are: 0 where that is not known."""


class Session(Protocol):
    """A reconstruction under way: `push` every frame in order, then `finish`; both return what became ready."""

    @property
    def report(self) -> Mapping[str, Any]:
        """What is worth knowing about the way it went, for the run's report."""
        ...

    def push(self, frame: Frame) -> list[Update]: ...

    def finish(self) -> Iterable[Update]: ...


def as_view(frame: Frame, device: torch.device) -> View:
    """A batch of one frame, as networks want it: values in [-1, 1]."""
    return View(frame.image[None].to(device) * 2 - 1)


def first_sample(points: Pointmap) -> Pointmap:
    """The first of a batch, on the CPU, in float32."""
    return Pointmap(points.xyz[0].float().cpu(), points.conf[0].float().cpu())


def check_finite(frame: Frame, points: Pointmap) -> None:
    """Raises CheckpointError, naming the frame, if a network gave anything that is not a number."""
    if not (torch.isfinite(points.xyz).all() and torch.isfinite(points.conf).all()):
        raise CheckpointError(
            f"the network gave points that are not finite for frame {frame.index} ({frame.name}): its weights are "
            "broken; look at them with `threer models check`"
        )
