"""`python -m threer` is `threer`."""

import sys

from threer.cli import main

sys.exit(main())
