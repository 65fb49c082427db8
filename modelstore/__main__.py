"""`python -m modelstore` is the command `modelstore`."""

from __future__ import annotations

import sys

from modelstore.cli import main

if __name__ == "__main__":
    sys.exit(main())
