"""The folder of a run: made and locked for one writer, and cleared of an old run without harm to anything else."""

from __future__ import annotations

from pathlib import Path

from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors
from threer.io.runs import layout
from threer.io.runs.lock import RunLock
from threer.io.runs.scene import read_run

_PRODUCTS = (
    layout.RUN,
    layout.REPORT,
    layout.CAMERAS,
    layout.CORRECTIONS,
    layout.TRAJECTORY,
    layout.POINTS,
    layout.PREVIEW,
    layout.MESH,
    layout.MODEL_STATE,
)


def _present(out: Path) -> list[Path]:
    """Files of a run in ``out``, or files that have their names; ``run.json`` first."""
    chunks = sorted((out / layout.FRAMES).glob(layout.CHUNK_PATTERN))
    resume = sorted(path for path in (out / layout.RESUME).glob("*") if path.is_file())
    return [path for path in (*(out / name for name in _PRODUCTS), *chunks, *resume) if path.exists()]


def lock_folder(out: Path) -> RunLock:
    """Make ``out`` if it is not there and keep other writers away.

    Raises `RunError` if it cannot be made, holds files of someone else, or is being written by another process.
    """
    with os_errors_as_run_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    if read_run(out) is None and (present := _present(out)):
        raise RunError(f"{present[0]} is in the way and belongs to no run; choose another folder or move it")
    return RunLock(out)


def make_room(out: Path, overwrite: bool) -> None:
    """Make sure that a new run harms nothing; remove the old one if that is wanted."""
    run = read_run(out)
    if run is None:
        return
    # A run that ended before its first frame has nothing to lose.
    holds_frames = any((out / layout.FRAMES).glob(layout.CHUNK_PATTERN))
    if not overwrite and (run["state"] == "complete" or holds_frames):
        raise RunError(
            f"{out} holds a run already ({run['state']}); choose another folder, or resume or overwrite it"
        )
    # run.json goes last: if this is cut off, what is left is still known as ours.
    for path in reversed(_present(out)):
        path.unlink()
