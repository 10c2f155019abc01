"""Where undoing distortion left nothing to see: pixels beyond the edge of the original picture have no points."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from threer.io.intrinsics import Undistortion
from threer.types import Frame, Observer, Pointmap, Update


def only_seen(observers: Sequence[Observer], undistortion: Undistortion | None) -> Sequence[Observer]:
    """The same observers, told confidence 0 where the original picture shows nothing."""
    return observers if undistortion is None else [_OnlySeen(observers, undistortion)]


class _OnlySeen:
    def __init__(self, observers: Sequence[Observer], undistortion: Undistortion) -> None:
        self._observers = observers
        self._undistortion = undistortion

    def on(self, update: Update) -> None:
        if update.points is not None or update.local is not None:
            seen = seen_by_network(self._undistortion, update.frame)
            if seen is not None:
                update = dataclasses.replace(
                    update, points=_within(update.points, seen), local=_within(update.local, seen)
                )
        for observer in self._observers:
            observer.on(update)


def seen_by_network(undistortion: Undistortion, frame: Frame) -> Tensor | None:
    """[H, W] bool: which pixels of the network's image the original picture shows; None for all."""
    seen = undistortion.seen(frame.original_size)
    if seen is None:
        return None
    width, height = frame.size
    v, u = np.indices((height, width))
    x, y = np.rint(np.stack([u, v, np.ones_like(u)], axis=-1) @ frame.to_original.T).astype(int).transpose(2, 0, 1)
    inside = (x >= 0) & (x < seen.shape[1]) & (y >= 0) & (y < seen.shape[0])
    return torch.from_numpy(inside & seen[y.clip(0, seen.shape[0] - 1), x.clip(0, seen.shape[1] - 1)])


def _within(points: Pointmap | None, seen: Tensor) -> Pointmap | None:
    return (
        None if points is None else Pointmap(points.xyz, torch.where(seen.to(points.conf.device), points.conf, 0.0))
    )
