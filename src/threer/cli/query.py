"""`threer query`: views that no camera took, out of what CUT3R remembers of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from scipy.spatial.transform import Rotation

from threer.errors import ThreerError
from threer.io.atomic import replacing
from threer.io.runs import Scene
from threer.io.video import write_video
from threer.pipelines.query import RememberedScene
from threer.render.pictures import save_png
from threer.types import FloatArray

FILM_FPS = 24
LONGEST = 3600
SHORTEST = 1e-6
"""A quaternion of this length or less is taken for a mistake."""


def query(
    run: Path,
    picture: Path | None,
    film: Path | None,
    *,
    frame: int | None,
    move: tuple[float, ...] | None,
    pose: tuple[float, ...] | None,
    seconds: float,
    weights: str | None,
    device: str,
) -> int:
    """Write ``picture``, as seen from ``pose`` or from where ``frame`` was, ``move``d, and ``film``."""
    if picture is None and film is None:
        raise ThreerError("nothing to make: name a picture (-o view.png) or a film (--fly-through film.mp4)")
    if picture is None and (frame, move, pose) != (None, None, None):
        raise ThreerError("no picture to make from there: name one (-o view.png)")
    if picture is not None and picture.suffix.lower() != ".png":
        raise ThreerError(f"cannot write {picture}: give a name that ends in .png")
    if pose is not None and move is not None:
        raise ThreerError("a pose says where the camera is; --move moves that of a frame: give one of them")
    if not 0 < seconds <= LONGEST:
        raise ThreerError(f"seconds must be positive and at most {LONGEST}, got {seconds}")
    console = Console(stderr=True)
    scene = Scene.open(run)
    remembered = RememberedScene.open(scene, weights=weights, device=device)
    if remembered.begun:
        console.print(
            f"note     the state was reset on the way: only frames from {remembered.begun} on are remembered",
            highlight=False,
            soft_wrap=True,
        )
    if picture is not None:
        position = _position(scene, remembered.begun if frame is None else frame, posed=pose is None)
        c2w = scene.cameras.c2w[position].copy() if pose is None else _camera(pose)
        if move is not None:
            c2w[:3, 3] += c2w[:3, :3] @ np.array(move)
        lens = remembered.lens(position)
        view = remembered.query(c2w, lens.K, lens.size)
        with replacing(picture) as part:
            save_png(part, view.rgb)
        console.print(f"picture  {picture}", highlight=False, markup=False, soft_wrap=True)
    if film is not None:
        count = max(2, round(seconds * FILM_FPS))
        pictures = remembered.fly_through(count)
        silent = not console.is_terminal
        write_video(
            film, track(pictures, "flying", count, console=console, transient=True, disable=silent), FILM_FPS
        )
        console.print(f"film     {film}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _position(scene: Scene, index: int, *, posed: bool) -> int:
    """Where the frame ``index`` of the source is in the run; its lens must be known, its pose where it is used."""
    places = np.flatnonzero(scene.table.indices == index)
    if not len(places):
        known = f"{scene.table.indices.min()} to {scene.table.indices.max()}" if len(scene) else "none"
        raise ThreerError(f"{scene.path} has no frame {index}; there are: {known}")
    position = int(places[0])
    if not np.isfinite(scene.cameras.K[position]).all():
        raise ThreerError(
            f"the focal length of frame {index} was not found; name another frame, or reconstruct with --intrinsics"
        )
    if posed and not scene.cameras.found[position]:
        raise ThreerError(f"the camera of frame {index} was not found; name another frame")
    return position


def _camera(pose: tuple[float, ...]) -> FloatArray:
    """Camera-to-world [4, 4] of a pose in the order of a TUM file: tx, ty, tz, qx, qy, qz, qw."""
    if not np.isfinite(pose).all() or np.linalg.norm(pose[3:]) < SHORTEST:
        raise ThreerError(f"a pose is tx,ty,tz,qx,qy,qz,qw with a quaternion that is not zero, got {pose}")
    c2w = np.eye(4)
    c2w[:3, :3] = Rotation.from_quat(pose[3:]).as_matrix()
    c2w[:3, 3] = pose[:3]
    return c2w
