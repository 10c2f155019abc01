"""From keyframes with tokens to registered ones: local maps, retrieval, registration, and what to do when lost."""

from __future__ import annotations

from collections.abc import Sequence

from threer.config import StreamingConfig
from threer.pipelines.streaming.networks import Networks
from threer.pipelines.streaming.state import Keyframe
from threer.pipelines.streaming.tracking import Tracking


def localize(windows: Sequence[Sequence[Keyframe]], networks: Networks, config: StreamingConfig) -> None:
    """Give its local map to the first frame of each window; one without a sure point is marked as failed."""
    if not windows:
        return
    networks.localize(windows)
    for keyframe, *_ in windows:
        keyframe.failure = why_unusable(keyframe, config)


def why_unusable(keyframe: Keyframe, config: StreamingConfig) -> str:
    """Why this localized frame cannot be registered, or nothing."""
    assert keyframe.local is not None
    if config.preset == "parity" or (keyframe.local.conf > config.point_conf).any():
        return ""
    return f"no point is more confident than {config.point_conf}"


def register_round(
    round_: Sequence[Keyframe],
    buffer: Sequence[Keyframe],
    networks: Networks,
    config: StreamingConfig,
    tracking: Tracking,
) -> None:
    """Register a round together against what is retrieved from ``buffer`` (pipelines.md section 1.8).

    All but repeated pictures must be localized; those take no part. Frames that show nothing known are marked as
    failed. Once several in a row did, the whole buffer is searched.
    """
    keys = [key for key in round_ if key.twin is None]
    if not keys:
        return
    queries = keys[::2] if config.retrieval_queries == "every_second" else [keys[len(keys) // 2]]
    networks.register(networks.retrieve(queries, buffer), keys)
    for key in keys:
        key.failure = key.failure or tracking.doubt(key)
    if tracking.is_lost_with(round_):
        _search(keys, buffer, networks, config, tracking)


def _search(
    keys: Sequence[Keyframe],
    buffer: Sequence[Keyframe],
    networks: Networks,
    config: StreamingConfig,
    tracking: Tracking,
) -> None:
    """Look for the lost ``keys`` in all of ``buffer``, `scene_frames` at a time, the most alike first.

    One of them is tried everywhere; where it is recognised, the others are registered, too.
    """
    lost = [key for key in keys if key.failure and not why_unusable(key, config)]
    if not lost:
        return
    probe = max(lost, key=lambda k: k.local_conf)
    ranked = networks.ranked(probe, buffer)
    for start in range(0, len(ranked), config.scene_frames):
        scene = ranked[start : start + config.scene_frames]
        networks.register(scene, [probe])
        if not tracking.doubt(probe):
            networks.register(scene, lost)
            for key in lost:
                key.failure = tracking.doubt(key)
            return
