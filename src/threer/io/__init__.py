"""Frames in, results out."""

from threer.io.export import write

__all__ = ["write"]
