"""`threer mesh`: the surface of a finished run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.progress import track

from threer.config import MeshConfig
from threer.errors import RunError
from threer.io.mesh import check_mesh_name, write_mesh
from threer.io.runs import Scene
from threer.io.runs.layout import POINTS
from threer.pipelines.surfaces import surface


def mesh(run: Path, out: Path, config: MeshConfig) -> int:
    """Write the mesh of ``run`` to ``out``, telling on standard error what happens."""
    check_mesh_name(out)
    scene = Scene.open(run)
    _check_place(out, run)
    console = Console(stderr=True)

    def watch(positions: Iterable[int], what: str) -> Iterable[int]:
        return track(list(positions), what, console=console, transient=True, disable=not console.is_terminal)

    found = surface(scene, config, watch)
    write_mesh(out, found.mesh)
    unit = " m" if scene.metric else ""
    lines = [
        ("frames", f"{found.frames}, {found.left_out} without a camera or depth"),
        ("voxel", f"{found.voxel:.4g}{unit}"),
        ("faces", f"{len(found.mesh.faces):,} on {len(found.mesh.vertices):,} vertices"),
        *(("note", note) for note in found.notes),
        ("mesh", str(out)),
    ]
    for name, text in lines:
        console.print(f"{name:<9}{text}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _check_place(out: Path, run: Path) -> None:
    """Raises `RunError` now for what would be an error, or a loss, after all the work."""
    if not out.parent.is_dir():
        raise RunError(f"there is no folder {out.parent} to write {out.name} into: make it first")
    if out.is_dir():
        raise RunError(f"{out} is a folder: name a file")
    if out.resolve() == (run / POINTS).resolve():
        raise RunError(f"{out} is the cloud of the run: give the mesh another name")
