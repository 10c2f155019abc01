"""Triangle meshes as PLY, GLB or OBJ, with a colour for every vertex."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import trimesh

from threer.errors import RunError
from threer.geometry.surface import Mesh
from threer.io.atomic import replacing

MESH_SUFFIXES = (".ply", ".glb", ".obj")
_TO_GLTF = np.array([1.0, -1.0, -1.0])  # glTF: y up and z backward; ours: y down and z forward


def check_mesh_name(path: Path) -> None:
    """Raises `RunError` for a name of none of the formats."""
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise RunError(f"cannot write a mesh as {path.name}: give a name that ends in {', '.join(MESH_SUFFIXES)}")


def write_mesh(path: Path, mesh: Mesh) -> None:
    """Write what the suffix asks for. PLY and OBJ keep the world's axes; GLB is turned to its own, y up.

    Raises `RunError` for another suffix, or if the file cannot be written.
    """
    check_mesh_name(path)
    kind = path.suffix.lower()[1:]
    vertices = mesh.vertices * _TO_GLTF if kind == "glb" else mesh.vertices
    shape = trimesh.Trimesh(vertices, mesh.faces, vertex_colors=mesh.rgb, process=False)
    with replacing(path) as part:
        shape.export(part, file_type=kind)
