"""Streaming reconstruction with SLAM3R."""

from threer.pipelines.streaming.session import StreamingSession

__all__ = ["StreamingSession"]
