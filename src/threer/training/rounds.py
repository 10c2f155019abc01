"""Rounds of generated clips: one further clip for every lane, each known by its number alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import torch
from torch import Tensor

from threer.data.synthetic import HAND_HELD, ClipStyle, HandHeld, Motion
from threer.data.synthetic.clips import ClipBatch, Scenes, draw_scenes, render_scenes
from threer.data.synthetic.photographs import photographs_in
from threer.training.recipes.recipe import Synthetic
from threer.training.sources import number_of

PLAIN_FOV = (36.0, 58.0)  # what the centre square of an ordinary video has


class Kept(NamedTuple):
    """A round as it is kept in memory, one clip for each lane.

    images      [L, N, 3, H, W] uint8
    depth       [L, N, H, W] float16, metres
    c2w         [L, N, 4, 4];  K [L, N, 3, 3]
    distortion  [L, 2], on the CPU
    """

    images: Tensor
    depth: Tensor
    c2w: Tensor
    K: Tensor
    distortion: Tensor

    @classmethod
    def of(cls, clips: ClipBatch) -> Self:
        images = (clips.images * 255).round().to(torch.uint8)
        return cls(images, clips.depth.half(), clips.c2w, clips.K, clips.distortion)


@dataclass(frozen=True)
class Rounds:
    """All the rounds of a pool.

    settings    of the recipe;  size (W, H)
    first_seed  of the first round's first lane; each further clip has the next one
    lanes       that a round has clips for, and ``own``, those of this process
    rising      number of the round from which on `Synthetic.ramp` counts; None where rooms are never emptier
    """

    settings: Synthetic
    size: tuple[int, int]
    first_seed: int
    lanes: int
    own: tuple[int, ...]
    rising: int | None

    @cached_property
    def _style(self) -> ClipStyle:
        return style_of(self.settings)

    def seeds(self, number: int) -> list[int]:
        return [self.first_seed + number * self.lanes + lane for lane in self.own]

    def style(self, number: int) -> ClipStyle:
        settings = self.settings
        if settings.style != "hand-held":
            return self._style
        low, high = settings.clutter
        risen = 1.0
        if settings.ramp and self.rising is not None:
            drawn = max(0, number + 1 - self.rising) * settings.reuse * self.lanes
            risen = min(1.0, drawn / settings.ramp)
        generator = torch.Generator().manual_seed(number_of(self.first_seed, number))
        clutter = low + (high - low) * risen * float(torch.rand((), generator=generator))
        return replace(self._style, room=replace(self._style.room, clutter=clutter))

    def draw(self, number: int) -> Scenes:
        """Rooms, lenses and paths of a round: the CPU's part."""
        return draw_scenes(self.seeds(number), self.settings.frames, self.size, self.style(number))

    def render(self, number: int, scenes: Scenes, device: torch.device) -> Kept:
        """Pictures and depth of a round's scenes, on ``device``."""
        return Kept.of(render_scenes(scenes, self.size, self.style(number), device))


def style_of(settings: Synthetic) -> ClipStyle:
    """Clips without colour changes: those are drawn for every sample.

    Raises `SourceError` where the folder of textures is not there.
    """
    if settings.style == "hand-held":
        photographs = photographs_in(settings.textures) if settings.textures else ()
        room = replace(HAND_HELD.room, photographs=photographs, clutter=settings.clutter[1])
        walk = HandHeld(rate=settings.rate)
        return replace(HAND_HELD, fov=settings.fov or HAND_HELD.fov, room=room, motion=walk)
    motion = Motion(step=settings.step, gaze=settings.gaze)
    return ClipStyle(fov=settings.fov or PLAIN_FOV, motion=motion, colour=0.0)
