"""The command line: each verb is a function of its own file, imported only when it is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``threer``. Exit codes: 0 done, 1 a stated error, 2 wrong usage, 130 interrupted."""
    from threer.cli.app import run

    return run(list(sys.argv[1:] if argv is None else argv))
