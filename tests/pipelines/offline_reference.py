"""The official program's order of work, plain and unbounded: three passes over a video that is all in memory.

Everything that the online session adds to it is missing here: no ring, no forgetting, no waiting, no events. The
passes only use what decides about frames, never the session that decides when. Written to be compared bit for bit,
so frames run through the networks in the same groups as online.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from threer.config import StreamingConfig
from threer.geometry.scale import mean_distance
from threer.pipelines.streaming.networks import Networks, StreamingModel
from threer.pipelines.streaming.state import Draws, Keyframe, normalized
from threer.types import Frame, Pointmap


def reconstruct_offline(
    model: StreamingModel, frames: Sequence[Frame], config: StreamingConfig
) -> list[tuple[Pointmap, Pointmap]]:
    """(registered, local) pointmap of every frame, for a fixed stride and `encode_batch` 1."""
    assert config.stride != "auto"
    assert config.encode_batch == 1
    with torch.inference_mode():
        return _three_passes(model, frames, config, config.stride)


def _three_passes(
    model: StreamingModel, frames: Sequence[Frame], config: StreamingConfig, stride: int
) -> list[tuple[Pointmap, Pointmap]]:
    networks = Networks(model, config)
    video = [Keyframe(i, f, (f.size[1], f.size[0])) for i, f in enumerate(frames)]
    size = max(1, min((stride + 1) // 2, config.round_frames))

    # Pass 1: encode everything, then make the initial scene.
    for keyframe in video:
        networks.encode([keyframe])
    count = min(config.init_frames, len(video) // stride)
    initial = [video[i * stride] for i in range(count)]
    while True:
        runs = [networks.local_window(initial, ref) for ref in range(len(initial))]
        scores = [float(torch.stack([m.conf.mean() for m in run]).mean()) for run in runs]
        if max(scores) >= config.init_min_conf or len(initial) <= 3:
            break
        initial.pop()
    maps = runs[scores.index(max(scores))]
    unit = mean_distance(
        torch.stack([m.xyz for m in maps]), torch.stack([m.conf > config.point_conf for m in maps])
    )
    for i, keyframe in enumerate(initial):
        keyframe.register(Pointmap(maps[i].xyz / unit, maps[i].conf))
        keyframe.localize(runs[i][i])
    rated = networks.registered([[k for k in initial if k is not key] for key in initial], [[k] for k in initial])
    for keyframe, (points,) in zip(initial, rated, strict=True):
        assert keyframe.world is not None
        keyframe.register(Pointmap(keyframe.world.xyz, points.conf))

    # Pass 2: a local pointmap for every other frame, from the neighbours `stride` apart.
    last = initial[-1].index
    between = [k for k in video[:last] if k.index % stride]
    rounds = [video[i : i + size] for i in range(last + 1, len(video), size)]
    for group in ([between] if between else []) + rounds:
        windows = []
        for key in group:
            offsets = [sign * i * stride for i in range(1, config.radius + 1) for sign in (-1, 1)]
            inside = [key.index + o for o in offsets if 0 <= key.index + o < len(video)]
            windows.append([key] + [video[i] for i in inside])
        networks.localize(windows)

    # Pass 3: frames between the initial ones against those, then rounds against what is retrieved.
    for start in range(0, len(between), config.round_frames):
        chunk = between[start : start + config.round_frames]
        for key, (points,) in zip(
            chunk, networks.registered([initial] * len(chunk), [[k] for k in chunk]), strict=True
        ):
            key.register(points)
    buffer = list(initial)
    draws = Draws(config)
    milestone, seen = last + 1, len(buffer)
    for keys in rounds:
        queries = keys[::2] if config.retrieval_queries == "every_second" else [keys[len(keys) // 2]]
        networks.register(networks.retrieve(queries, buffer), keys)
        upto = keys[-1].index + 1
        if upto - milestone < config.interval * stride:
            continue
        while upto - milestone >= stride:
            seen += 1
            full = 0 < config.buffer_size <= len(buffer)
            if not full or config.policy == "fifo" or draws.uniform("buffer") < config.buffer_size / seen:
                first = max(milestone, buffer[-1].index + 3 * stride // 4)
                best = max(video[first : milestone + stride], key=lambda k: k.score)
                usual = sorted(normalized(k.world_conf) for k in buffer)
                middle = (usual[(len(usual) - 1) // 2] + usual[len(usual) // 2]) / 2
                if normalized(best.world_conf) >= config.buffer_min_conf * middle:
                    if full:
                        buffer.pop(draws.below("buffer", len(buffer)) if config.policy == "reservoir" else 0)
                    buffer.append(best)
            milestone += stride
    return [(k.world, k.local) for k in video]  # type: ignore[misc]
