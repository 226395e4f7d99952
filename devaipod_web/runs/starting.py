"""The steps of a run's start, as the transcript shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

#: Steps of starting, in their order, with the words for them.
STEPS = {
    "queued": "Queued",
    "mirror": "Fetch the upstream",
    "image": "Get the image",
    "pod": "Make the pod",
    "clone": "Clone the repository",
    "agent": "Start the agent",
}


def new_start(at: datetime) -> dict[str, Any]:
    """The data of a start that has just been asked for."""
    return {"steps": {}, "state": "queued", "began": at}


def steps_of(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a start as rows: `look` is done, now, failed or later."""
    rows: list[dict[str, Any]] = []
    state, reached = data["state"], True
    for name, label in STEPS.items():
        step = data["steps"].get(name, {})
        seconds = step.get("seconds")
        if seconds is not None or state == "done":
            look = "done"
        elif reached:
            look, reached = ("failed" if state == "ended" else "now"), False
        else:
            look = "later"
        rows.append(
            {"label": label, "look": look, "seconds": seconds, "text": step.get("text", "")}
        )
    return rows
