"""Schemas of this installation's figures."""

from __future__ import annotations

from datetime import datetime

from ninja import Schema

from devaipod_web.api.schemas.common import doc
from devaipod_web.api.schemas.services import Health, ServiceBrief


class AgentOut(Schema):
    """An agent that a run may have."""

    key: str = doc("Its word in the API and for `--agent`.", "codex")
    title: str = doc("Its name.", "Codex")
    program: str = doc("The program that its image must hold.", "codex-acp")
    forms: list[str] = doc(
        "The wire forms that it speaks, the one that it speaks best first: a provider must speak one of them.",
        ["openai-responses"],
    )
    image: str = doc(
        "The installation's image for it, where neither project nor devcontainer.json names one.",
        "localhost/devaipod-agent-codex:dev",
    )


class StatusOut(Schema):
    """This installation and the caller."""

    version: str = doc("The server's version.", "0.1.0")
    installation: str = doc("The installation's id, which labels its pods.", "q3m7zt2aob")
    user: str = doc("The caller's name for signing in.", "alice")
    role: str = doc(
        "What the caller may do now: viewer, operator, reviewer, manager, or empty. By a token, at most the token's.",
        "operator",
    )
    project: str | None = doc(
        "The one project that the caller's token counts for, or null for all.", None
    )
    max_runs: int | None = doc(
        "Runs that the targets take at once, all together; the rest are queued. Null: one of them has no bound.",
        4,
    )
    active_runs: int = doc("Runs that have a place now.", 2)
    queued_runs: int = doc("Runs that wait for a place.", 0)
    waiting_permissions: int = doc("Permission requests that wait for a person.", 1)
    open_reviews: int = doc("Reviews that wait for a person.", 3)
    supervisor_last_beat: datetime | None = doc(
        "When the supervisor's loop last went round, RFC 3339; null when it runs elsewhere or not at all.",
        "2026-11-24T20:14:03.512Z",
    )
    supervisor_error: str = doc("What the supervisor last could not do, or empty.", "")
    health: Health = doc("That of the service that is worst off.", "ok")
    agents: list[AgentOut] = doc("The agents that a run may have.", [])
    services: list[ServiceBrief] = doc("The control plane's own parts.", [])
    draining_since: datetime | None = doc("Since when no new runs are taken, or null.", None)
    disk_free_bytes: int = doc("Free bytes of the disk of DEVAIPOD_HOME.", 42_000_000_000)
    disk_total_bytes: int = doc("All bytes of that disk.", 120_000_000_000)
