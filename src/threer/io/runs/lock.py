"""One process at a time writes a run folder."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from threer.errors import RunError
from threer.io.atomic import os_errors_as_run_errors
from threer.io.runs.scene import read_run

LOCK = ".lock"


def this_process() -> dict[str, Any]:
    """Who writes, for ``run.json``: so that others can be told."""
    return {"pid": os.getpid(), "host": platform.node()}


class RunLock:
    """Held until `release`, or until the process ends in whatever way: the operating system lets go of it.

    Raises `RunError`, naming the process that writes ``folder``, if there is one.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = FileLock(folder / LOCK)
        with os_errors_as_run_errors(folder):
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                raise RunError(f"{folder} is being written by {_holder(folder)}; wait for it, or stop it") from None

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        self._lock.release()


def _holder(folder: Path) -> str:
    run = read_run(folder)
    process = run.get("process") if run else None
    if not process:  # it has the lock, and is about to write its run.json
        return "another process"
    return f"process {process['pid']} on {process['host']}"
