"""A diagnosis as plain text: for a bug report, the command and a failing test's message. The document is the API's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

MARKS = {"error": "✗", "warning": "▲", "info": "·"}


def as_text(
    document: Mapping[str, Any], *, clean: Callable[[object], str] = str, logs: bool = True
) -> str:
    """The document as lines: what is wrong, the containers, and their last lines. `clean` makes a pod's text harmless."""
    return "\n".join(lines(document, clean=clean, logs=logs)) + "\n"


def lines(
    document: Mapping[str, Any], *, clean: Callable[[object], str] = str, logs: bool = True
) -> Iterator[str]:
    """The lines of `as_text`."""
    pod = document.get("name")
    yield f"Run {document.get('run')} ({document.get('run_state')})"
    if pod:
        made = f"on {document.get('backend')}, made {document.get('created_at')}"
        yield f"Pod {pod}: {document.get('state')}, attempt {document.get('attempt')}, {made}"
    else:
        yield "Pod: there is none"
    yield ""
    yield "Findings"
    found = document.get("findings") or []
    for one in found:
        about = f" [{one['container']}]" if one.get("container") else ""
        yield f"  {MARKS.get(one['severity'], '·')} {one['code']}{about}: {clean(one['message'])}"
        yield f"    → {clean(one['next_step'])}"
    if not found:
        yield "  Nothing is wrong."
    containers = document.get("containers") or []
    if containers:
        yield ""
        yield "Containers"
    for one in containers:
        yield f"  {one['name']}: {_facts(one, clean)}"
    if not logs or not containers:
        return
    yield ""
    yield "Container Logs"
    for one in containers:
        yield f"  --- {one['name']} (last {len(one['logs'])} lines)"
        for text in one["logs"]:
            yield f"  {clean(text)}"


def _facts(one: Mapping[str, Any], clean: Callable[[object], str]) -> str:
    facts = [str(one["state"])]
    if one.get("exit_code") is not None:
        facts.append(f"exit code {one['exit_code']}")
    if one.get("oom_killed"):
        facts.append("killed for memory")
    if one.get("health"):
        facts.append(f"health {one['health']}")
    if one.get("started_at"):
        facts.append(f"started {one['started_at']}")
    if one.get("finished_at"):
        facts.append(f"finished {one['finished_at']}")
    if one.get("image"):
        facts.append(f"image {clean(one['image'])}")
    return ", ".join(facts)
