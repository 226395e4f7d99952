"""Waiting for a run, with a failure that says what is wrong: findings, container logs and the last seen pod state are in its message."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pods.diagnostics_text import as_text

ENDED = frozenset({"succeeded", "failed", "stopped", "timed_out"})
LOOK_SECONDS = 0.3

#: A call of the API: method and path below its root → the answer's document.
Api = Callable[[str, str], Any]


@dataclass(frozen=True)
class RunHandle:
    """A run of an installation, by its key."""

    api: Api
    key: str

    def now(self) -> dict[str, Any]:
        """The run as the API shows it."""
        found: dict[str, Any] = self.api("GET", f"/runs/{self.key}")
        return found

    def diagnostics(self) -> dict[str, Any]:
        """The diagnosis of its last pod, or of the run alone when it has had none."""
        found: dict[str, Any] = self.api("GET", f"/runs/{self.key}/diagnostics")
        pods = self.now()["pods"]
        if found["name"] is None and pods:
            found = self.api("GET", f"/pods/{pods[-1]}/diagnostics")
        return found

    def codes(self) -> list[str]:
        """The codes of its findings, the worst first."""
        return [finding["code"] for finding in self.diagnostics()["findings"]]


class NotThere(AssertionError):
    """A run did not come to where it was expected. The message is a whole diagnosis."""


def wait_for_state(run: RunHandle, *states: str, timeout: float = 120) -> dict[str, Any]:
    """Wait until the run is in one of `states` and return it.

    Raises NotThere after `timeout` seconds, and at once when it has ended in another state.
    """
    return wait_until(
        run, lambda found: found["state"] in states, f"{' or '.join(states)}", timeout=timeout
    )


def wait_for_findings(run: RunHandle, *codes: str, timeout: float = 120) -> dict[str, Any]:
    """Wait until the diagnosis of a run in progress has all of these findings, and return it. Raises NotThere as `wait_for_state`."""
    seen: dict[str, Any] = {}

    def has_them(_: dict[str, Any]) -> bool:
        nonlocal seen
        seen = run.diagnostics()
        return set(codes) <= {finding["code"] for finding in seen["findings"]}

    wait_until(run, has_them, f"found to be {', '.join(codes)}", timeout=timeout)
    return seen


def wait_until(
    run: RunHandle, condition: Callable[[dict[str, Any]], bool], what: str, *, timeout: float
) -> dict[str, Any]:
    """Wait until a condition holds on the run and return it. Raises NotThere as `wait_for_state`."""
    deadline = time.monotonic() + timeout
    last: dict[str, Any] = {}
    while time.monotonic() < deadline:
        found = run.now()
        if condition(found):
            return found
        last = found
        if found["state"] in ENDED:
            break
        time.sleep(LOOK_SECONDS)
    raise NotThere(told(run, last, what, timeout))


def told(run: RunHandle, last: dict[str, Any], what: str, timeout: float) -> str:
    """What is said when a run is not where it was expected."""
    state = last.get("state", "unknown")
    when = "it ended so" if state in ENDED else f"waited {timeout:.0f} s"
    lines = [f"run {run.key} is not {what}: it is {state} ({when})"]
    for name in ("reason", "next_step", "waits_for", "step"):
        if last.get(name):
            lines.append(f"  {name}: {last[name]}")
    try:
        found = run.diagnostics()
    except Exception as error:
        return "\n".join([*lines, f"  and its diagnosis can't be had: {error}"])
    lines.append(f"  last seen pod state: {found['state'] or 'there is no pod'}")
    return "\n".join([*lines, "", as_text(found)])
