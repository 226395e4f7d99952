"""Which process drives which run: leases in the run's row, taken by compare-and-set.

An owner is named by host, pid and the pid's start time, so that a lease of a process of this host that is no more can
be taken over at once; any other is free when it has run out.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from django.db.models import Q

from devaipod_web.runs.models import Run

LEASE = timedelta(seconds=30)
RENEW_SECONDS = 8.0


def host_id() -> str:
    """Eight hexadecimal digits of this host's name and boot, so that a pid is compared only where it means something."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    # Processes of one pid namespace see each other; containers that share a boot do not.
    link = Path("/proc/self/ns/pid")
    space = link.readlink() if link.is_symlink() else ""
    return hashlib.sha256(f"{socket.gethostname()} {boot} {space}".encode()).hexdigest()[:8]


def owner_id(salt: str = "") -> str:
    """The name under which this process holds leases, at most 40 characters."""
    pid = os.getpid()
    return f"{host_id()}:{pid}:{_started(pid)}{salt}"[:40]


def _started(pid: int) -> str:
    """The start time of a process in clock ticks (proc(5) stat field 22), empty when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


def is_dead(owner: str) -> bool:
    """Whether the owner was a process of this host that is no more."""
    host, _, rest = owner.partition(":")
    pid, _, started = rest.partition(":")
    if host != host_id() or not pid.isdigit():
        return False
    return _started(int(pid)) != started.partition("/")[0]


def take(run_id: int, owner: str, *, now: datetime) -> bool:
    """Take the lease of a run when it is free, ours, run out, or its owner is dead. False when another holds it."""
    holder = Run.objects.values_list("lease_owner", flat=True).filter(pk=run_id).first()
    if holder is None:
        return False
    free = Q(lease_owner="") | Q(lease_owner=owner) | Q(lease_until=None) | Q(lease_until__lt=now)
    if holder and is_dead(holder):
        free |= Q(lease_owner=holder)
    taken = Run.objects.filter(free, pk=run_id).update(lease_owner=owner, lease_until=now + LEASE)
    return bool(taken)


def renew(run_ids: Iterable[int], owner: str, *, now: datetime) -> set[int]:
    """Prolong the leases of these runs and return those that are still ours."""
    ids = list(run_ids)
    Run.objects.filter(pk__in=ids, lease_owner=owner).update(lease_until=now + LEASE)
    return set(Run.objects.filter(pk__in=ids, lease_owner=owner).values_list("pk", flat=True))


def release(run_id: int, owner: str) -> None:
    """Give a lease back; another's is left alone."""
    Run.objects.filter(pk=run_id, lease_owner=owner).update(lease_owner="", lease_until=None)
