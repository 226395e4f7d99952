"""Schemas of the control plane's own parts, and of taking the whole into and out of work."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ninja import Schema

from devaipod_web.api.schemas.common import Body, doc

WHEN = "2026-11-24T20:14:03.512Z"
Health = Literal["ok", "degraded", "down", "unknown"]


class ServiceBrief(Schema):
    """A service in the status."""

    name: str = doc("Its name.", "supervisor")
    title: str = doc("What it is called.", "Supervisor")
    health: Health = doc("How it is.", "ok")
    says: str = doc("The same in a sentence.", "It goes round.")


class ServiceOut(ServiceBrief):
    """A part of the control plane."""

    kind: str = doc("What sort of thing it is.", "loop")
    next_step: str = doc("What to do about it, or empty.", "")
    version: str = doc("Its version, or empty.", "0.1.0")
    since: datetime | None = doc("Since when it is as it is, RFC 3339, or null.", WHEN)
    lag_seconds: float | None = doc("Of a loop: how late it came or how long it took.", 0.004)
    last_beat: datetime | None = doc("Of a loop: when it last went round.", WHEN)
    last_error: str = doc("What it last could not do, or empty.", "")
    last_error_at: datetime | None = doc("When that was, or null.", None)
    restart_does: str = doc(
        "What a restart does; empty where there is none.", "Its loops start anew."
    )
    no_restart: str = doc("Why it cannot be restarted from here, or empty.", "")
    restarting: bool = doc("Whether a restart is under way.", False)
    restarted_at: datetime | None = doc("The last restart, or null.", None)
    restart_error: str = doc("What went wrong at the last restart, or empty.", "")
    facts: dict[str, str] = doc("Figures of its own.", {"runs driven": "2"})


class StepOut(Schema):
    """One step of setup or teardown."""

    step: str = doc("What it is about.", "podman")
    result: Literal["ok", "done", "waiting", "failed"] = doc(
        "ok: it was so; waiting: it goes on.", "done"
    )
    says: str = doc("What was found or done, in a sentence.", "podman's API service was started.")
    next_step: str = doc("What to do about it, or empty.", "")


class SetupOut(Schema):
    """What setup found and did."""

    ready: bool = doc("Whether runs can be launched now.", True)
    steps: list[StepOut] = doc("What was looked at, in order.", [])


class TeardownIn(Body):
    """Which installation is taken out of work."""

    confirm: str = doc(
        "The installation's id, as the status names it.", "q3m7zt2aob", max_length=40
    )


class TeardownOut(Schema):
    """What teardown did."""

    done: bool = doc("Whether no run is at work and no pod is left. Else ask again.", True)
    steps: list[StepOut] = doc("What was done, in order.", [])
