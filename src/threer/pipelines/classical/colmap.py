"""pycolmap, asked for only when it is needed, and kept quiet."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

import PIL.Image  # noqa: F401  (before pycolmap 4.2's libraries: loaded after them, Pillow's PNG writer crashes)

from threer.errors import ThreerError

NOTHING = 3
"""glog's level above its errors: COLMAP tells of every pair and step, and what fails is told by us."""


def pycolmap() -> ModuleType:
    """The module. Raises ThreerError, with the command that installs it, where it is missing or too old."""
    try:
        module = import_module("pycolmap")
    except ImportError:
        raise ThreerError("this needs pycolmap: pip install 'threer[refine]'") from None
    if int(module.__version__.split(".")[0]) < 4:
        raise ThreerError(f"this needs pycolmap 4, found {module.__version__}: pip install -U 'threer[refine]'")
    return module


@contextmanager
def quiet() -> Iterator[ModuleType]:
    """pycolmap, with its log silenced."""
    module = pycolmap()
    before = module.logging.minloglevel
    module.logging.minloglevel = NOTHING
    try:
        yield module
    finally:
        module.logging.minloglevel = before
