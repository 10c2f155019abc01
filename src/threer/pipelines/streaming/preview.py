"""Provisional pointmaps: what can be said about a frame before its window is complete."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from threer.pipelines.streaming.networks import Networks
from threer.pipelines.streaming.schedule import Schedule
from threer.pipelines.streaming.state import Keyframe, distinct


class Previewer:
    """Reconstructs frames ``deadline`` frames after they came, from the neighbours that are there by then.

    It works on drafts and changes nothing that final results are made from: neither keyframes nor buffer nor
    random numbers know whether there were previews.
    """

    def __init__(self, networks: Networks, schedule: Schedule, deadline: int, first: int) -> None:
        self._networks = networks
        self._schedule = schedule
        self._deadline = deadline
        self._next = first

    def due(self, final: int, count: int) -> range:
        """Frames to preview next, given that frames before ``final`` are final and ``count`` came in; or none."""
        self._next = max(self._next, final)
        frames = self._schedule.round(self._next, count, self._deadline)
        self._next = max(self._next, frames.stop)
        return frames

    def drafts(
        self, frames: Sequence[int], count: int, keyframes: Mapping[int, Keyframe], buffer: Sequence[Keyframe]
    ) -> list[Keyframe]:
        """Registered stand-ins for ``frames``; all frames that came in must have their tokens."""
        if not frames:
            return []
        drafts = [dataclasses.replace(keyframes[i]) for i in frames]
        windows = []
        for draft in drafts:
            around = self._schedule.neighbours(draft.index, count)
            windows.append(distinct([draft] + [keyframes[i] for i in around if i in keyframes]))
        self._networks.localize(windows)
        scene = self._networks.retrieve([drafts[len(drafts) // 2]], buffer)
        self._networks.register(scene, drafts)
        return drafts
