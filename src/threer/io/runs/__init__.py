"""A reconstruction on disk: written while it runs, readable at any time."""

from threer.io.runs.folder import lock_folder
from threer.io.runs.layout import StoredFrame
from threer.io.runs.scene import Scene
from threer.io.runs.writer import Progress, RunWriter

__all__ = ["Progress", "RunWriter", "Scene", "StoredFrame", "lock_folder"]
