"""Before the first frame is final: how far apart keyframes should be, and the first piece of the world."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

from threer.config import StreamingConfig
from threer.geometry.scale import mean_distance
from threer.pipelines.streaming.networks import Networks
from threer.pipelines.streaming.state import Draws, Keyframe, Trace
from threer.types import Pointmap

WINDOWS_PER_STRIDE = 10
PATIENCE = 3
"""Strides beyond the margin in a row after which the search stops: mean confidence falls off to one side."""


def search_stride(
    keyframes: Mapping[int, Keyframe], networks: Networks, config: StreamingConfig, draws: Draws
) -> int:
    """The keyframe stride with the best mean window confidence (pipelines.md section 1.4, quirk S7).

    Of the strides within `stride_margin` of the best the largest is taken, because baseline is what a window
    is for; a margin of 0 takes the best itself, the first on ties.
    """
    count = len(keyframes)
    radius = config.stride_radius or config.radius
    largest = min(config.stride_max, (count - 1) // (2 * radius))
    scores: dict[int, float] = {}
    for stride in range(1, largest + 1):
        reach = radius * stride
        centres = draws.choice("stride", reach, count - reach - 1, min(count - 2 * reach, WINDOWS_PER_STRIDE))
        windows = [[keyframes[i] for i in window(c, stride, radius, count)] for c in centres]
        scores[stride] = networks.window_confidence(windows)
        recent = list(scores.values())[-PATIENCE:]
        floor = (1 - config.stride_margin) * max(scores.values())
        if config.stride_margin > 0 and len(recent) == PATIENCE and all(s < floor for s in recent):
            break
    if not scores:
        return 1
    if config.stride_margin == 0:
        return max(scores, key=lambda stride: scores[stride])
    return max(s for s, score in scores.items() if score >= (1 - config.stride_margin) * max(scores.values()))


def window(centre: int, stride: int, radius: int, count: int) -> list[int]:
    """Frame numbers of a window: the centre, then -stride, +stride, -2 stride, … as far as frames 0..count-1 go."""
    offsets = (sign * i * stride for i in range(1, radius + 1) for sign in (-1, 1))
    return [centre] + [centre + offset for offset in offsets if 0 <= centre + offset < count]


def choose_initial(keyframes: Collection[Keyframe], stride: int, most: int, *, least: int = 0) -> list[Keyframe]:
    """The first ``most`` frames, ``stride`` or more apart, that show something, and each something else.

    Of a film without blank and repeated pictures these are frames 0, stride, 2 stride, … Where there are fewer than
    ``least``, repetitions do as well: a camera that never moved gives a scene, though it has no baseline.
    """
    chosen = _spaced(keyframes, stride, most, repeated=False)
    return chosen if len(chosen) >= least else _spaced(keyframes, stride, most, repeated=True)


def _spaced(keyframes: Iterable[Keyframe], stride: int, most: int, *, repeated: bool) -> list[Keyframe]:
    chosen: list[Keyframe] = []
    pictures: set[int] = set()
    for keyframe in keyframes:
        if len(chosen) == most:
            break
        apart = not chosen or keyframe.index - chosen[-1].index >= stride
        if apart and not keyframe.blank and (repeated or keyframe.origin not in pictures):
            chosen.append(keyframe)
            pictures.add(keyframe.origin)
    return chosen


@dataclass(frozen=True)
class Beginning:
    """The initial scene: its keyframes, registered, and which of them is the world's origin."""

    keyframes: list[Keyframe]
    reference: int


def initialize_scene(
    keyframes: Sequence[Keyframe],
    networks: Networks,
    config: StreamingConfig,
    trace: Trace | None = None,
) -> Beginning:
    """Register ``keyframes`` (`choose_initial`) with one another by Image-to-Points (pipelines.md section 1.5).

    Every frame is tried as reference and the one with the best mean confidence becomes the world. A window
    below `init_min_conf` is tried again without its last frame, down to three. The unit of the world is the
    mean distance of all sure points from the origin.
    """
    chosen = list(keyframes)
    while True:
        if trace:
            trace({"kind": "initialize_scene", "frames": [k.index for k in chosen]})
        runs = [networks.local_window(chosen, ref) for ref in range(len(chosen))]
        scores = [float(torch.stack([m.conf.mean() for m in run]).mean()) for run in runs]
        reference = max(range(len(chosen)), key=lambda i: scores[i])
        if scores[reference] >= config.init_min_conf or len(chosen) <= 3:
            break
        chosen.pop()

    maps = runs[reference]
    masks = torch.stack([m.conf > config.point_conf for m in maps])
    factor = mean_distance(torch.stack([m.xyz for m in maps]), masks)
    for i, keyframe in enumerate(chosen):
        xyz = maps[i].xyz / factor
        if config.preset == "parity":  # the original zeroes what it saves, too (quirk S5)
            xyz = torch.where(masks[i][..., None], xyz, 0.0)
        keyframe.register(Pointmap(xyz, maps[i].conf))
        keyframe.localize(runs[i][i] if config.preset != "parity" else Pointmap(xyz, maps[i].conf))
    if trace:
        trace({"kind": "initialized", "num_frames": len(chosen), "ref_id": reference})
    return Beginning(chosen, reference)


def rate_by_registration(beginning: Beginning, networks: Networks) -> None:
    """Give initial frames confidences on the registration scale: each registered against the others (quirk S6)."""
    keyframes = beginning.keyframes
    others = [[k for k in keyframes if k is not key] for key in keyframes]
    rated = networks.registered(others, [[key] for key in keyframes])
    for keyframe, (registered,) in zip(keyframes, rated, strict=True):
        assert keyframe.world is not None
        keyframe.register(Pointmap(keyframe.world.xyz, registered.conf))


def rate_by_ratio(beginning: Beginning, between: Sequence[Keyframe]) -> None:
    """Scale initial confidences by the best mean of the frames ``between`` over the best initial mean.

    The original's way; nothing happens when there are no frames between (stride 1).
    """
    if not between:
        return
    ratio = max(k.world_conf for k in between) / max(k.world_conf for k in beginning.keyframes)
    for keyframe in beginning.keyframes:
        assert keyframe.world is not None
        keyframe.register(Pointmap(keyframe.world.xyz, keyframe.world.conf * ratio))
