"""What a room holds before it becomes tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from threer.data.synthetic.furniture import Vector
from threer.data.synthetic.placing import Placed


@dataclass(frozen=True)
class Light:
    """How a room is lit.

    lamp     [3, 3] positions of the point lights;  power [3, 3] their linear RGB
    ambient  [3] linear RGB
    falloff  how fast lamps fade: by 1 + falloff · distance²
    disc     radius of the main lamp in metres; 0 for hard shadows
    """

    lamp: np.ndarray
    power: np.ndarray
    ambient: np.ndarray
    falloff: float = 0.35
    disc: float = 0.0


@dataclass(frozen=True)
class Scene:
    """One room: half sizes, n parts, for each property of a material [n + 6, ...] (faces last), and light."""

    size: Vector
    parts: list[Placed]
    materials: dict[str, np.ndarray]
    light: Light
