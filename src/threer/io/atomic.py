"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from threer.errors import RunError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder; it becomes ``path`` when the block ends well, and is gone otherwise.

    Raises `RunError` when the operating system refuses (no permission, disk full, ...).
    """
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    with os_errors_as_run_errors(path):
        try:
            yield part
            with open(part, "rb+") as written:
                os.fsync(written.fileno())
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)


_PART = re.compile(r"\..+\.\d+\.part(\.\w+)?")


def remove_parts(folder: Path) -> None:
    """Remove what `replacing` left in ``folder`` when its process was killed."""
    with os_errors_as_run_errors(folder):
        for entry in list(folder.iterdir()):
            if _PART.fullmatch(entry.name):
                entry.unlink(missing_ok=True)


@contextmanager
def os_errors_as_run_errors(path: Path) -> Iterator[None]:
    """Turn what the operating system says about writing ``path`` into one plain line."""
    try:
        yield
    except PermissionError as error:
        raise RunError(f"no permission to write {path}; choose another folder") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise RunError(f"cannot write {path}: it, or a folder above it, is a file") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunError(
                f"the disk is full: cannot write {path}; free some space or choose another disk"
            ) from error
        raise RunError(f"cannot write {path}: {error}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Strictly valid JSON (null for numbers that are not finite), replaced atomically."""
    text = json.dumps(plain(content), indent=1, allow_nan=False, ensure_ascii=False)
    with replacing(path) as part:
        part.write_text(text + "\n", encoding="utf-8")


def plain(value: Any) -> Any:
    """The same in types that JSON has; numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
