"""Which views of a data set make a sample: pairs, windows, clips and sets."""

from __future__ import annotations

from threer.data.sampling.plan import Draw, Draws, Kind, NoRoomError, ViewPlan

__all__ = ["Draw", "Draws", "Kind", "NoRoomError", "ViewPlan"]
