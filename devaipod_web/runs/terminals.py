"""Terminals in pods: who may have one, how many there are, why they end, and what the audit log says of them.

The connection itself is `api/exec.py`, the program in the container `pods/terminal.py`. Only `agent` is entered, by those with the
permission `attach`. Begin and end of each stand in the audit log; what was typed and shown stands nowhere.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum

from django.conf import settings
from django.urls import reverse
from django.utils import timezone

from devaipod_web.accounts.callers import Caller
from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Permission
from devaipod_web.home import new_key
from devaipod_web.reviews import audit
from devaipod_web.reviews.models import AuditEntry
from devaipod_web.runs.models import RunPod
from devaipod_web.runs.supervisor.lease import is_dead, owner_id

#: Characters of the command that the audit log keeps.
AUDITED_CHARACTERS = 300
#: How far `close_left` looks back.
LOOK_BACK = timedelta(days=30)
#: Terminals of this process by the name of their pod.
_open: Counter[str] = Counter()


class Close(IntEnum):
    """The code with which a terminal's socket closes; 4xxx are ours (RFC 6455 §7.4.2)."""

    ENDED = 1000
    TOO_BIG = 1009
    STALLED = 1013
    NOT_UNDERSTOOD = 4400
    FORBIDDEN = 4403
    IDLE = 4408
    TOO_MANY = 4409
    POD_GONE = 4410
    NOT_STARTED = 4411


@dataclass(frozen=True)
class End:
    """How a terminal ended. `code` is None when the client left by itself; `reason` has at most 123 bytes (RFC 6455 §5.5)."""

    code: Close | None
    reason: str
    exit_code: int | None = None


def find(name: str) -> RunPod | None:
    """The pod of this name among this installation's rows, with its run. Blocking."""
    return RunPod.objects.select_related("run", "target").filter(name=name).first()


def refusal(pod: RunPod) -> End | None:
    """Why the pod can't be entered now, or None."""
    if pod.ended_at is not None:
        return End(Close.POD_GONE, "The pod has ended. Prompt the run for a new one.")
    if pod.agent_started_at is None:
        return End(Close.POD_GONE, "The agent's container has not started yet.")
    if _open[pod.name] >= settings.MAX_TERMINALS:
        return End(
            Close.TOO_MANY, f"The pod has {settings.MAX_TERMINALS} terminals already: end one."
        )
    return None


def still(caller: Caller, permission: Permission, pod: RunPod) -> End | None:
    """Why an open terminal must end, or None while it may go on. Blocking; asked again and again."""
    if not caller.may(permission):
        return End(Close.FORBIDDEN, "Your session, token or role has ended.")
    if not RunPod.objects.filter(pk=pod.pk, ended_at=None).exists():
        return End(Close.POD_GONE, "The pod has ended.")
    return None


def opened(pod: RunPod, user: User, argv: list[str]) -> str:
    """Say in the audit log that a terminal begins, and return its key there. Blocking."""
    command = " ".join(argv)[:AUDITED_CHARACTERS] or "a shell"
    key = new_key()
    _audit("terminal.opened", pod, user, {"command": command, "terminal": key, "by": owner_id()})
    return key


def closed(
    key: str,
    pod: RunPod,
    user: User,
    end: End,
    *,
    seconds: float,
    bytes_in: int,
    bytes_out: int,
) -> None:
    """Say in the audit log that it has ended. Blocking."""
    detail: dict[str, object] = {"reason": end.reason, "exit_code": end.exit_code, "terminal": key}
    detail |= {"seconds": round(seconds, 1), "bytes_in": bytes_in, "bytes_out": bytes_out}
    _audit("terminal.closed", pod, user, detail)


def close_left() -> int:
    """Say in the audit log that terminals of processes that were killed have ended. Returns how many. Blocking."""
    since = timezone.now() - LOOK_BACK
    entries = AuditEntry.objects.filter(at__gte=since, action__startswith="terminal.")
    left: dict[str, AuditEntry] = {}
    for entry in entries.select_related("actor").order_by("id"):
        key = str(entry.detail.get("terminal", ""))
        if entry.action == "terminal.opened" and key:
            left[key] = entry
        else:
            left.pop(key, None)
    dead = {key: entry for key, entry in left.items() if is_dead(str(entry.detail.get("by", "")))}
    for key, entry in dead.items():
        audit.write(
            entry.actor,
            "terminal.closed",
            actor_name=entry.actor_name,
            target=entry.target,
            target_url=entry.target_url,
            detail={"reason": "The server was killed.", "exit_code": None, "terminal": key},
        )
    return len(dead)


def _audit(action: str, pod: RunPod, user: User, detail: dict[str, object]) -> None:
    page = reverse("run_terminal", args=[pod.run.key])
    audit.write(user, action, target=f"{pod.name}/agent", target_url=page, detail=detail)


def take_place(pod: RunPod) -> None:
    """Count a terminal of this pod."""
    _open[pod.name] += 1


def give_place_back(pod: RunPod) -> None:
    """Count it no more."""
    _open[pod.name] -= 1
    if not _open[pod.name]:
        del _open[pod.name]
