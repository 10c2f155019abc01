"""How rich generated rooms are: what stands in them, what they are made of, and how light moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RoomStyle:
    """What rooms look like. The defaults give the plain rooms of the demo; each field adds something to them.

    clutter      0..1: small and thin things, further furniture, ceiling panels; the knob of a curriculum
    photographs  image files of tileable surfaces (``photographs_in`` lists a folder), mixed with drawn textures
    shadows      of the main lamp: a point's ("hard") or a disc's ("soft")
    occlusion    0..1: how dark it gets where surfaces meet
    bounce       0..1: share of the ambient light that comes from walls, floor and ceiling, in their colours
    glare        0..1: how often there are over-exposed windows, mirrors, and surfaces that reflect
    varied       rooms from 2.2 m to 12 m, corridors and open floors with pillars and partitions
    """

    clutter: float = 0.0
    photographs: tuple[str, ...] = ()
    shadows: Literal["hard", "soft"] = "hard"
    occlusion: float = 0.0
    bounce: float = 0.0
    glare: float = 0.0
    varied: bool = False

    def __post_init__(self) -> None:
        for name in ("clutter", "occlusion", "bounce", "glare"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"RoomStyle.{name} must lie in 0..1, got {getattr(self, name)}")
        if self.shadows not in ("hard", "soft"):
            raise ValueError(f"RoomStyle.shadows must be 'hard' or 'soft', got {self.shadows!r}")


PLAIN = RoomStyle()
"""Some thirty primitives under point lights: cheap to render, and what the demo and the figures show."""

LIVED_IN = RoomStyle(clutter=1.0, shadows="soft", occlusion=0.8, bounce=0.6, glare=0.7, varied=True)
"""All of it, for training; photographs are the user's: ``replace(LIVED_IN, photographs=photographs_in("..."))``."""
