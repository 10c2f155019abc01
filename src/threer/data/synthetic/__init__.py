"""Generated rooms with known geometry, for training, tests and the demo."""

from threer.data.synthetic.cameras import Motion
from threer.data.synthetic.clips import Clip, ClipBatch, render_clip, render_clips
from threer.data.synthetic.lenses import Lens
from threer.data.synthetic.sensor import Sensor
from threer.data.synthetic.styles import HAND_HELD, WALK, ClipStyle
from threer.data.synthetic.walks import HandHeld

__all__ = [
    "HAND_HELD",
    "WALK",
    "Clip",
    "ClipBatch",
    "ClipStyle",
    "HandHeld",
    "Lens",
    "Motion",
    "Sensor",
    "render_clip",
    "render_clips",
]
