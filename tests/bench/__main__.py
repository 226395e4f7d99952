"""Run the benchmarks and print their figures; exit 1 when one misses its bound."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from tests.agents.image import scripted_image
from tests.bench import click_to_agent, diagnostics, log_latency, logs, viewers
from tests.e2e.installation import installed, make_upstream


def main() -> int:
    """All five, in one installation; `python -m tests.bench click|latency|diagnostics|viewers|logs` runs one.

    `logs:0.1` takes a tenth of the amount.
    """
    words = dict(word.partition(":")[::2] for word in sys.argv[1:])
    wanted = set(words) or {"click", "latency", "diagnostics", "viewers", "logs"}
    folder = Path(tempfile.mkdtemp(prefix="devaipod-bench-"))
    good = True
    try:
        with installed(
            folder / "home", DEVAIPOD_MAX_RUNS="50", DEVAIPOD_KEEP_WARM_SECONDS="0"
        ) as place:
            project = place.api(
                "POST",
                "/projects",
                {
                    "name": "bench",
                    "upstream_url": str(make_upstream(folder / "bench")),
                    "image": scripted_image(),
                    "permission_policy": "allow",
                },
            )["slug"]
            if "click" in wanted:
                good &= click_to_agent.measure(place, project)
            if "latency" in wanted:
                good &= log_latency.measure(place, project)
            if "diagnostics" in wanted:
                good &= diagnostics.measure(place, project)
            if "viewers" in wanted:
                good &= viewers.measure(place, project)
            if "logs" in wanted:
                good &= logs.measure(place, project, scale=float(words.get("logs") or 1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
