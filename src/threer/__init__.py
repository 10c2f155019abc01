"""threer: feed-forward 3D reconstruction, usable.

    scene = threer.reconstruct("walk.mp4", out="out")
    xyz, rgb, conf = scene.cloud()

Names are loaded when they are first used, so that importing threer is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from threer.config import ReconstructConfig, StreamingConfig
    from threer.errors import ThreerError
    from threer.io.runs import Scene
    from threer.models import load_model
    from threer.pipelines.depth import DepthMap, monocular_depth, multi_view_depth
    from threer.pipelines.localization import LocalizedCamera, localize
    from threer.pipelines.query import query
    from threer.pipelines.reconstruct import reconstruct
    from threer.pipelines.streaming import StreamingSession

_HOME = {
    "ReconstructConfig": "threer.config",
    "StreamingConfig": "threer.config",
    "ThreerError": "threer.errors",
    "Scene": "threer.io.runs",
    "load_model": "threer.models",
    "LocalizedCamera": "threer.pipelines.localization",
    "localize": "threer.pipelines.localization",
    "DepthMap": "threer.pipelines.depth",
    "monocular_depth": "threer.pipelines.depth",
    "multi_view_depth": "threer.pipelines.depth",
    "query": "threer.pipelines.query",
    "reconstruct": "threer.pipelines.reconstruct",
    "StreamingSession": "threer.pipelines.streaming",
}

__all__ = [
    "DepthMap",
    "LocalizedCamera",
    "ReconstructConfig",
    "Scene",
    "StreamingConfig",
    "StreamingSession",
    "ThreerError",
    "load_model",
    "localize",
    "monocular_depth",
    "multi_view_depth",
    "query",
    "reconstruct",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'threer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
