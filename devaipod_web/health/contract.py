"""What a service is, and what is asked of it.

A *service* is a part of the control plane that can be well or not: a loop, a listener, a program, a model provider. A *process* is
what `devaipod serve` runs: web, gateway and supervisor, in one or apart. Each service is looked after by one kind of process; a
*source* names the services of such a kind at this moment (`registry.py` lists them all).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from devaipod_web.health.models import Health
from devaipod_web.parts import Part

__all__ = ["Health", "Kind", "Named", "Report", "Service", "Source"]


class Kind(StrEnum):
    """What sort of thing a service is."""

    LISTENER = "listener"  # answers requests: web, gateway
    LOOP = "loop"  # goes round by itself: supervisor, deliveries
    BACKEND = "backend"  # where pods live
    CLUSTER = "cluster"  # the same, and another party's
    FORGE = "forge"
    STORE = "store"
    PROVIDER = "provider"  # of models
    TOOLS = "tools"  # an MCP server


@dataclass(frozen=True)
class Report:
    """What a check found. `says` is a sentence, `next_step` another; `lag_seconds` and `last_beat` belong to loops."""

    health: Health
    says: str
    next_step: str = ""
    version: str = ""
    lag_seconds: float | None = None
    last_beat: datetime | None = None
    #: An error that is over, or that the sentence does not tell; else what is said while not well counts as the last error.
    last_error: str = ""
    last_error_at: datetime | None = None
    facts: Mapping[str, str] = field(default_factory=dict)


class Service(Protocol):
    """One part and how it is asked. Every method runs on the process's event loop and must not block it."""

    #: Stable, unique in the installation: `gateway`, `provider-<key>`. Letters, digits and `-`.
    name: str
    title: str
    kind: Kind
    #: Seconds between two checks.
    every: float
    #: What a restart does, as a sentence that a person is asked; empty when there is none.
    restart_does: str
    #: Why there is none, and what to do instead.
    no_restart: str

    async def check(self) -> Report:
        """Look now. Called again and again, never twice at once; after `beat.CHECK_SECONDS` it is cancelled and counts as down.
        What it raises is shown as the cause."""
        ...

    async def restart(self) -> None:
        """Start anew, and return when that is done. Safe to repeat. Only called when `restart_does` is not empty. What it raises
        is shown as the cause."""
        ...


#: Names the services of one kind now; asked on every beat, so it keeps those that it has named before (they have a memory).
Named = Callable[[], Awaitable[Sequence[Service]]]


@dataclass(frozen=True)
class Source:
    """Services, the process that looks after them, and what makes them there from that process's parts."""

    process: str
    make: Callable[[Mapping[str, Part]], Named]
