"""Trajectories in the TUM format: ``timestamp tx ty tz qx qy qz qw``, camera-to-world."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from threer.errors import SourceError
from threer.io.atomic import replacing
from threer.types import Trajectory


def write_tum(path: Path, trajectory: Trajectory | Iterable[Trajectory]) -> int:
    """Write the poses that were found, one a line; returns how many were not and are left out.

    Of several trajectories, one after the other, one is in memory at a time. Raises `RunError` if the file cannot
    be written.
    """
    parts = [trajectory] if isinstance(trajectory, Trajectory) else trajectory
    missing = 0
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write("# timestamp tx ty tz qx qy qz qw (camera-to-world)\n")
        for part in parts:
            found = np.isfinite(part.c2w).all(axis=(1, 2))
            missing += int((~found).sum())
            c2w = part.c2w[found]
            quaternions = Rotation.from_matrix(c2w[:, :3, :3]).as_quat() if len(c2w) else np.empty((0, 4))  # xyzw
            rows = np.column_stack([part.timestamps[found], c2w[:, :3, 3], quaternions])
            np.savetxt(file, rows, fmt=["%.6f", *["%.9g"] * 7])
    return missing


def read_tum(path: Path) -> Trajectory:
    """Read a TUM trajectory. Raises `SourceError` naming the line that is wrong."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"cannot read {path} as a TUM trajectory: {error}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            row = [float(word) for word in words]
        except ValueError:
            row = []
        if len(row) != 8 or not np.isfinite(row).all() or not np.any(row[4:]):
            raise SourceError(f"{path}, line {number}: expected 't tx ty tz qx qy qz qw', got {line[:80]!r}")
        rows.append(row)
    table = np.array(rows).reshape(-1, 8)
    c2w = np.tile(np.eye(4), (len(table), 1, 1))
    if len(table):
        c2w[:, :3, :3] = Rotation.from_quat(table[:, 4:]).as_matrix()
    c2w[:, :3, 3] = table[:, 1:4]
    return Trajectory(table[:, 0], c2w)
