"""The command line: each verb is a function of its own file, imported only when it is called."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``threer``. Exit codes: 0 done, 1 a stated error, 2 wrong usage, 130 interrupted."""
    from threer.cli.app import run

    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # whoever read what we print has seen enough: `threer models list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains as it ends
        return 1
