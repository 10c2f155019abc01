"""What clips look like: lens, motion, sensor and rooms in one setting, and three of them by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from threer.data.synthetic.cameras import Motion
from threer.data.synthetic.lenses import Lens
from threer.data.synthetic.room_style import LIVED_IN, PLAIN, RoomStyle
from threer.data.synthetic.sensor import Sensor
from threer.data.synthetic.walks import HandHeld


@dataclass(frozen=True)
class ClipStyle:
    """What clips look like.

    fov         horizontal field of view in degrees: (smallest, largest), drawn once per clip
    motion      how the camera moves: smooth curves, or as a person with a phone
    colour      strength of the photometric changes; 0 for none
    exposure    how bright: linear light that is shown at 63 % is 1 / exposure. A sensor exposes by itself
    antialias   four rays a pixel instead of one; "edges": only to see which surfaces a pixel beside an edge shows
    room        what stands in the rooms
    lens        crops, distortion; None for a pinhole whose picture ``fov`` spans
    sensor      what a video camera does to the light; None for a perfect picture
    """

    fov: tuple[float, float] = (42.0, 78.0)
    motion: Motion | HandHeld = field(default_factory=Motion)
    colour: float = 1.0
    exposure: float = 1.4
    antialias: bool | Literal["edges"] = False
    room: RoomStyle = PLAIN
    lens: Lens | None = None
    sensor: Sensor | None = None


WALK = ClipStyle(
    fov=(60.0, 60.0),
    motion=Motion(step=(0.035, 0.05), gaze=(0.05, 0.08), eye=(1.3, 1.6), roll=0.5, shake=0.4, tries=48),
    colour=0.15,
    exposure=1.0,
    antialias=True,
)
"""A calm walk with a good camera, as the demo films it."""

HAND_HELD = ClipStyle(
    fov=(45.0, 85.0),
    motion=HandHeld(),
    colour=0.0,
    antialias="edges",
    room=LIVED_IN,
    lens=Lens(),
    sensor=Sensor(),
)
"""A phone's video of a walk through lived-in rooms, for training."""
