"""What the streaming pipeline keeps of a frame, and the random numbers it draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from threer.config import StreamingConfig
from threer.types import Frame, Pointmap, Sim3, View

Trace = Callable[[dict[str, Any]], None]
Purpose = Literal["stride", "buffer"]


def normalized(confidence: float) -> float:
    """(c - 1) / c, in [0, 1) for a mean confidence c >= 1."""
    return (confidence - 1.0) / confidence


@dataclass(eq=False)
class Keyframe:
    """One frame on its way through the pipeline; fields are filled as it goes and dropped when no longer needed.

    tokens      [N, C] encoder output before the encoder's final norm
    local       [H, W] pointmap in the frame's own camera, network scale
    world       [H, W] registered pointmap, world frame
    local_conf  mean confidence of `local`
    world_conf  mean confidence of `world`
    failure     why the frame could not be reconstructed, or nothing
    note        what else is to be said about it
    twin        the earlier frame that this one repeats; it takes over that one's results
    blank       it shows nothing that a scene could begin with
    version     how many updates with points of this frame went out
    source      its index in the source, of which the stream may not see all
    """

    index: int
    frame: Frame | None
    true_shape: tuple[int, int]
    tokens: Tensor | None = None
    local: Pointmap | None = None
    world: Pointmap | None = None
    local_conf: float = 0.0
    world_conf: float = 0.0
    failure: str = ""
    note: str = ""
    twin: int | None = None
    blank: bool = False
    version: int = 0
    source: int = -1

    def register(self, world: Pointmap) -> None:
        self.world = world
        self.world_conf = float(world.conf.mean())

    def move(self, by: Sim3) -> None:
        """The world has changed: move what is known of this frame in it."""
        if self.world is not None:
            self.world = Pointmap(packed(moved(self.world.xyz, by), self.world.xyz.dtype), self.world.conf)

    def localize(self, local: Pointmap) -> None:
        self.local = local
        self.local_conf = float(local.conf.mean())

    @property
    def origin(self) -> int:
        """The frame whose picture this is."""
        return self.index if self.twin is None else self.twin

    def pack(self, storage: torch.dtype) -> None:
        """Keep the registered map in the precision ``storage``."""
        if self.world is not None and self.world.xyz.dtype != storage:
            self.world = Pointmap(packed(self.world.xyz, storage), packed(self.world.conf, storage))

    @property
    def score(self) -> float:
        """How good a scene frame it would make (pipelines.md section 1.10)."""
        return normalized(self.world_conf) * normalized(self.local_conf)


def distinct(window: list[Keyframe]) -> list[Keyframe]:
    """The frames of a window without repetitions, of which it keeps one only if nothing else is left."""
    different = {keyframe.origin: keyframe for keyframe in reversed(window)}
    kept = [keyframe for keyframe in window if different[keyframe.origin] is keyframe]
    return kept if len(kept) > 1 else window[:2]


def packed(values: Tensor, storage: torch.dtype) -> Tensor:
    """A copy of ``values`` in the precision ``storage``; what it cannot hold becomes the largest it can."""
    limit = torch.finfo(storage).max
    return values.clamp(-limit, limit).to(storage)  # always a copy: clamp never gives its input back


def moved(points: Tensor, by: Sim3) -> Tensor:
    """[..., 3] float64 ``points`` under a similarity; what is at the origin, which marks it as unknown, stays."""
    R, t = torch.from_numpy(by.R).to(points.device), torch.from_numpy(by.t).to(points.device)
    known = (points != 0).any(dim=-1, keepdim=True)
    return torch.where(known, by.scale * points.double() @ R.T + t, 0.0)


def stack_views(
    keyframes: list[Keyframe], points: list[Tensor] | None = None, *, dtype: torch.dtype = torch.float32
) -> View:
    """One View whose batch is ``keyframes`` (all encoded), with their [H, W, 3] ``points`` if given.

    dtype  what the network computes in; tokens may be stored in another precision
    """
    tokens = []
    for keyframe in keyframes:
        assert keyframe.tokens is not None, f"frame {keyframe.index} has no tokens"
        tokens.append(keyframe.tokens)
    return View(
        tokens=torch.stack(tokens).to(dtype),
        true_shape=torch.tensor([keyframe.true_shape for keyframe in keyframes]),
        points=None if points is None else torch.stack(points),
    )


class Draws:
    """Random numbers of one run.

    Each purpose has a generator of its own, so that a stride search cannot change what the buffer keeps. The
    parity preset shares one legacy stream between both, as the original does.
    """

    def __init__(self, config: StreamingConfig, trace: Trace | None = None) -> None:
        self._trace = trace
        self._legacy = np.random.RandomState(config.seed) if config.preset == "parity" else None
        purposes: tuple[Purpose, ...] = ("stride", "buffer")
        self._own = {name: np.random.default_rng([config.seed, k]) for k, name in enumerate(purposes)}

    def choice(self, purpose: Purpose, first: int, last: int, size: int) -> list[int]:
        """``size`` distinct numbers out of first..last, both included."""
        generator = self._legacy or self._own[purpose]
        drawn = [int(x) for x in generator.choice(np.arange(first, last + 1), size, replace=False)]
        self._tell(kind="random.choice", population=[first, last, last - first + 1], size=size, result=drawn)
        return drawn

    def uniform(self, purpose: Purpose) -> float:
        """A number in [0, 1)."""
        drawn = float(self._legacy.rand() if self._legacy else self._own[purpose].random())
        self._tell(kind="random.rand", result=drawn)
        return drawn

    def below(self, purpose: Purpose, high: int) -> int:
        """A whole number in 0..high-1."""
        drawn = int(self._legacy.randint(high) if self._legacy else self._own[purpose].integers(high))
        self._tell(kind="random.randint", high=high, result=drawn)
        return drawn

    def _tell(self, **event: Any) -> None:
        if self._trace:
            self._trace(event)
