"""`devaipod demo`: a sample project, one run on it from launch to review, told with times."""

from __future__ import annotations

import shutil
import time
import uuid
from pathlib import Path
from typing import Any

from devaipod_web import home
from devaipod_web.cli import output
from devaipod_web.cli.client import Client, CliError, Refused, segment
from devaipod_web.cli.output import clean, say

PROJECT = "sample"
TASK = (
    "Write down for newcomers how a failed delivery is tried again: when, how often, and when it is given up. "
    "Say where in the code each of these is decided."
)
#: A run of the demo takes seconds; after this long something is wrong.
WAIT_SECONDS = 300.0
REVIEW_WAIT_SECONDS = 20.0


def demo() -> None:
    """Launch a run on the sample project, wait until its review is open, and tell what happened, step by step."""
    began = time.monotonic()
    client = Client()
    made = ensure_sample()
    _tell(began, f"Sample repositories {'made' if made else 'found'} in {home.sample_dir()}")
    project = ensure_project(client)
    _tell(began, f"Project {project['slug']}: upstream and production are local repositories")
    if not project["provider"]:
        _tell(began, f"Model: {project['provider_label']}")
    run = client.send(
        "POST",
        "/runs",
        {"project": project["slug"], "task": TASK},
        headers={"Idempotency-Key": uuid.uuid4().hex},
    )
    _tell(began, f"Run {run['key']} launched: {client.url}/runs/{run['key']}/")
    _follow(client, run["key"], began)
    found = _outcome(client, run["key"])
    seconds = time.monotonic() - began
    if found["state"] != "succeeded" or not found["review"]:
        raise _failure(client, found)
    review = client.get(f"/reviews/{segment(found['review'])}")
    _tell(
        began,
        f"Review {review['key']} is open: {review['commits']} commit(s), {review['files']} file(s), "
        f"+{review['additions']} −{review['deletions']} on {clean(review['branch'])}",
    )
    say()
    say(
        f"Done in {output.duration(seconds)}. Cost {output.money(found['cost'])} (scripted demo, no AI)."
    )
    say(f"  Look at it:   {client.url}/reviews/{review['key']}/")
    say(f"  Promote it:   devaipod promote {review['key']}")
    say(f"  Sign in once, within ten minutes: {_sign_in_link()}")


def ensure_sample() -> bool:
    """Make the demo's upstream and production repositories when they are not there; True when something was made."""
    from devaipod_web.cli.sample_code import fast_import
    from devaipod_web.forges.git import git

    folder = home.sample_dir()
    upstream, production = folder / "courier.git", folder / "production.git"
    if upstream.is_dir() and production.is_dir():
        return False
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for target in (upstream, production):
        if target.is_dir():
            continue
        draft = Path(f"{target}.{uuid.uuid4().hex[:8]}")
        git(
            ["init", "--bare", "--quiet", "--initial-branch=main", "--end-of-options", str(draft)],
            repository=None,
        )
        git(["fast-import", "--quiet", "--done"], repository=draft, stdin=fast_import())
        try:
            draft.rename(target)
        except OSError:
            # Another `devaipod demo` at the same moment was first.
            shutil.rmtree(draft, ignore_errors=True)
            if not target.is_dir():
                raise
    return True


def ensure_project(client: Client) -> dict[str, Any]:
    """The sample project, made over the API when it is not there."""
    try:
        found: dict[str, Any] = client.get(f"/projects/{PROJECT}")
    except Refused as error:
        if error.http_status != 404:
            raise
    else:
        return found
    folder = home.sample_dir()
    made: dict[str, Any] = client.send(
        "POST",
        "/projects",
        {
            "name": "Sample",
            "slug": PROJECT,
            "description": "A small code base that delivers webhooks; made by devaipod demo.",
            "upstream_url": str(folder / "courier.git"),
            "production_url": str(folder / "production.git"),
            "permission_policy": "allow",
        },
    )
    return made


def _follow(client: Client, key: str, began: float) -> None:
    """Tell the run's steps as they happen, until it has ended."""
    deadline = time.monotonic() + WAIT_SECONDS
    titles: dict[str, str] = {}
    for event in client.stream(f"/runs/{segment(key)}/events", follow=True):
        line = _line(event["kind"], event.get("payload") or {}, titles)
        if line:
            _tell(began, clean(line))
        if time.monotonic() > deadline:
            raise CliError(
                f"The run has not ended after {WAIT_SECONDS:.0f} s.",
                next_step=f"Look at {client.url}/runs/{key}/, or `devaipod show {key}`.",
            )


def _line(kind: str, payload: dict[str, Any], titles: dict[str, str]) -> str:
    """An event in a sentence, or nothing for those that are not part of the story."""
    if kind == "run.state":
        reason = payload.get("reason") or ""
        return f"{payload.get('to')}{': ' + str(reason) if reason else ''}"
    if kind == "run.step":
        seconds = payload.get("seconds")
        took = f" ({float(seconds):.1f} s)" if isinstance(seconds, int | float) else ""
        return f"  {payload.get('text') or payload.get('step')}{took}"
    if kind in ("tool_call", "tool_call.update"):
        ident = str(payload.get("tool_call_id"))
        if payload.get("title"):
            titles[ident] = str(payload["title"])[:100]
        if payload.get("status") in ("completed", "failed") and ident in titles:
            mark = "✓" if payload["status"] == "completed" else "✗"
            return f"  agent: {mark} {titles.pop(ident)}"
        return ""
    if kind == "work.staged":
        return f"  staged {str(payload.get('head', ''))[:12]}: {payload.get('commits')} commit(s)"
    if kind in ("run.note", "model.refused"):
        return f"  {payload.get('level', 'error')}: {payload.get('text') or payload.get('message')}"
    return ""


def _outcome(client: Client, key: str) -> dict[str, Any]:
    """The run once it has ended; a review may open a moment after the last event."""
    deadline = time.monotonic() + REVIEW_WAIT_SECONDS
    while True:
        found: dict[str, Any] = client.get(f"/runs/{segment(key)}")
        if found["state"] != "succeeded" or found["review"] or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _failure(client: Client, found: dict[str, Any]) -> CliError:
    page = f"{client.url}/runs/{found['key']}/"
    if found["state"] == "succeeded":
        return CliError(
            "The run succeeded and no review was opened.",
            next_step=f"Look at {page} and at `devaipod logs`.",
            status=10,
        )
    return CliError(
        f"The run {found['state'].replace('_', ' ')}: {clean(found['reason']) or 'no reason was given.'}",
        next_step=clean(found["next_step"])
        or f"Look at {page}, or `devaipod logs {found['key']}`.",
        status=10,
    )


def _tell(began: float, text: str) -> None:
    say(f"{time.monotonic() - began:7.1f} s  {text}")


def _sign_in_link() -> str:
    from devaipod_web.cli import setup as verbs

    verbs.django()
    return verbs.sign_in_link()
