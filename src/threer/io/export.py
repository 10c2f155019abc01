"""Save a scene in a format of the reader's choice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from threer.errors import RunError
from threer.io.cameras import write_cameras
from threer.io.ply import write_ply
from threer.io.trajectory import write_tum

if TYPE_CHECKING:
    from threer.io.runs.scene import Scene

_SUFFIXES = (".ply", ".tum", ".json")


def write(scene: Scene, path: str | Path) -> None:
    """Write what the suffix asks for: .ply the cloud, .tum the trajectory, .json the cameras.

    Raises `RunError` for another suffix or if the file cannot be written.
    """
    path = Path(path)
    match path.suffix.lower():
        case ".ply":
            write_ply(path, scene.cloud())
        case ".tum":
            write_tum(path, scene.trajectory)
        case ".json":
            write_cameras(path, scene.table)
        case _:
            raise RunError(f"cannot save a scene as {path.name}: give a name that ends in {', '.join(_SUFFIXES)}")
