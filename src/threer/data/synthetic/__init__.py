"""Generated rooms with known geometry, for training, tests and the demo."""

from threer.data.synthetic.cameras import Motion
from threer.data.synthetic.clips import WALK, Clip, ClipBatch, ClipStyle, render_clip, render_clips

__all__ = ["WALK", "Clip", "ClipBatch", "ClipStyle", "Motion", "render_clip", "render_clips"]
