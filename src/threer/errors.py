"""Errors a user can act on. Each message is one plain line: what, where, what to do."""

from __future__ import annotations


class ThreerError(Exception):
    """Base of every error that threer raises on purpose; the command line prints it and exits with 1."""


class SourceError(ThreerError):
    """The images or the video cannot be read: no such file, nothing in it, not an image."""


class CheckpointError(ThreerError):
    """A weight file is wrong, truncated, foreign or unsafe to read."""


class ReconstructionError(ThreerError):
    """The input was read but cannot be reconstructed: too few frames, for example."""


class RunError(ThreerError):
    """A run folder cannot be written, or what lies in it is not a run."""
