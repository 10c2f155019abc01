"""Answers on disk: everything as JSON, and the cameras in the forms that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from threer.io.atomic import os_errors_as_run_errors, write_json
from threer.io.cameras import FrameCameras, write_cameras
from threer.io.runs import Scene
from threer.io.runs.layout import CAMERAS, TRAJECTORY
from threer.io.trajectory import write_tum
from threer.pipelines.localization.result import LocalizedCamera
from threer.types import Cameras

ANSWERS = "localisation.json"


def save_answers(folder: Path, scene: Scene, answers: Sequence[LocalizedCamera]) -> None:
    """Write localisation.json, cameras.json and trajectory.tum, whose time is the number of the picture.

    Raises `RunError` where the disk refuses.
    """
    with os_errors_as_run_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    numbers = np.arange(len(answers))
    cameras = Cameras(
        np.array([answer.c2w for answer in answers]).reshape(-1, 4, 4),
        np.array([answer.K for answer in answers]).reshape(-1, 3, 3),
        np.array([answer.size for answer in answers], np.int64).reshape(-1, 2),
    )
    table = FrameCameras(cameras, tuple(answer.name for answer in answers), numbers, numbers.astype(float))
    write_cameras(folder / CAMERAS, table)
    write_tum(folder / TRAJECTORY, table.trajectory)
    write_json(folder / ANSWERS, {"run": scene.path, "metric": scene.metric, "pictures": list(answers)})
