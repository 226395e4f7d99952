"""`python3 -m pods.sidecar`: the program of the sidecar's container."""

from __future__ import annotations

import sys

from pods.sidecar.main import main

if __name__ == "__main__":
    sys.exit(main())
