"""What can be done to a target: add, change, remove, and note what was found there. A kubeconfig goes in and never comes out."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.health.models import Health
from devaipod_web.llm import vault
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import ENDED
from devaipod_web.targets import kubeconfig, queries
from devaipod_web.targets.errors import InvalidTarget, TargetInUse
from devaipod_web.targets.models import PODMAN_NAME, GatewayMode, Target, TargetKind

if TYPE_CHECKING:
    from pods.kubernetes_relay import RelayState

#: The name of the target that `DEVAIPOD_TARGET` makes.
OWN_NAME = "cluster"
#: A DNS-1123 label (RFC 1123 §2.1): names and namespaces stand in names of objects.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
MAX_NAME = 40
MAX_NAMESPACE = 63
MAX_RUNS = 100_000
#: How long a target that refused for want of room is not asked, and the longest of such pauses: each further refusal doubles it.
FULL_PAUSE = timedelta(seconds=15)
FULL_PAUSE_MOST = timedelta(minutes=5)


def save(
    by: User,
    target: Target | None,
    *,
    name: str,
    namespace: str = "",
    kubeconfig_text: str = "",
    context: str = "",
    gateway_address: str = "",
    gateway_mode: str = GatewayMode.DIRECT,
    enabled: bool = True,
    max_runs: int | None = None,
) -> Target:
    """Add a cluster (`target` None) or change a target.

    An empty kubeconfig keeps what is there; for a new target it means the service account of the pod that the server runs in. Of
    podman only `enabled` and `max_runs` can be changed. Raises InvalidTarget.
    """
    row = target or Target(kind=TargetKind.KUBERNETES)
    errors: dict[str, str] = {}
    if max_runs is not None and not 1 <= max_runs <= MAX_RUNS:
        errors["max_runs"] = f"A number of runs lies between 1 and {MAX_RUNS:,}."
    values: dict[str, Any] = {"enabled": enabled, "max_runs": max_runs}
    if not row.is_podman:
        values |= _of_cluster(
            row,
            errors,
            name=name,
            namespace=namespace,
            kubeconfig_text=kubeconfig_text,
            context=context,
            gateway_address=gateway_address,
            gateway_mode=gateway_mode,
            is_new=target is None,
        )
    if errors:
        raise InvalidTarget(errors)
    made = target is None
    changed = [field for field, value in values.items() if getattr(row, field) != value]
    for field in changed:
        setattr(row, field, values[field])
    if not made and set(changed) - {"enabled", "max_runs"}:
        # What was found was found elsewhere.
        row.health, row.error, row.next_step, row.version = Health.UNKNOWN, "", "", ""
        row.capacity = row.policies_enforced = row.checked_at = None
    row.full_until, row.full_reason = None, ""
    try:
        with transaction.atomic():
            row.save()
            audit.write(
                by,
                "target.added" if made else "target.changed",
                target=row.name,
                target_url=f"/targets/{row.key}/",
                detail={"kind": row.kind, "changed": changed},
            )
    except IntegrityError:
        raise InvalidTarget({"name": f"There is a target {row.name} already."}) from None
    return row


def _of_cluster(
    row: Target,
    errors: dict[str, str],
    *,
    name: str,
    namespace: str,
    kubeconfig_text: str,
    context: str,
    gateway_address: str,
    gateway_mode: str,
    is_new: bool,
) -> dict[str, Any]:
    """The fields of a cluster as they may be; what is wrong goes into `errors`."""
    name, context = name.strip(), context.strip()
    values: dict[str, Any] = {"name": name, "gateway_mode": gateway_mode}
    if not LABEL.fullmatch(name) or len(name) > MAX_NAME or name == PODMAN_NAME:
        errors["name"] = (
            f"A name has 1 to {MAX_NAME} lower-case letters, digits and hyphens, and is not {PODMAN_NAME}."
        )
    if gateway_mode not in GatewayMode.values:
        errors["gateway_mode"] = f"The gateway's mode is one of: {', '.join(GatewayMode.values)}."
    found = _credential(row, errors, kubeconfig_text, context, is_new=is_new)
    if found is not None:
        values |= {
            "kubeconfig": vault.seal(found.text.encode()),
            "context": found.context,
            "server": found.server,
        }
        namespace = namespace.strip() or found.namespace
    namespace = namespace.strip() or row.namespace
    if not LABEL.fullmatch(namespace) or len(namespace) > MAX_NAMESPACE:
        errors["namespace"] = "A namespace is a lower-case name such as devaipod-agents."
    values["namespace"] = namespace
    values["gateway_address"] = _address(gateway_address, errors)
    return values


def _credential(
    row: Target, errors: dict[str, str], text: str, context: str, *, is_new: bool
) -> kubeconfig.Kubeconfig | None:
    """What is to be stored of a kubeconfig that was given; None when nothing is to change."""
    if not text.strip():
        if is_new and not in_cluster():
            errors["kubeconfig"] = (
                "A kubeconfig is needed: the server runs in no cluster whose service account it could use."
            )
        if not is_new and context and context != row.context:
            errors["context"] = (
                "Of a kubeconfig one context is kept: give the kubeconfig again for another."
            )
        return None
    try:
        return kubeconfig.read(text, context=context)
    except ValueError as error:
        errors["kubeconfig"] = str(error)
        return None


def _address(text: str, errors: dict[str, str]) -> str:
    text = text.strip().rstrip("/")
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError:
        port = None
    whole = (parts.path, parts.query, parts.fragment, parts.username) == ("", "", "", None)
    if text and not (parts.scheme in ("http", "https") and parts.hostname and port and whole):
        errors["gateway_address"] = (
            "The gateway's address is http://ADDRESS:PORT, as pods of the cluster reach it, and nothing behind it."
        )
    return text


def in_cluster() -> bool:
    """Whether this process runs in a pod of a cluster, whose service account it then has."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def kubeconfig_of(target: Target) -> str:
    """The stored kubeconfig in clear, empty for the service account. Raises vault.CannotUnseal."""
    return vault.unseal(bytes(target.kubeconfig)).decode() if target.kubeconfig else ""


def remove(by: User, target: Target) -> None:
    """Remove a cluster that no project names and where no run is. Raises TargetInUse.

    What runs that ended left there (their workspaces) is out of reach from then on: a further prompt starts from what was staged.
    """
    if target.is_podman:
        raise TargetInUse(
            "This host's podman is always there.",
            next_step="Switch it off here, or set DEVAIPOD_PODMAN=off and restart the server.",
        )
    names = [p.name for p in Project.objects.order_by("name") if target.key in p.targets][:5]
    if names:
        raise TargetInUse(
            f"{', '.join(names)} {'names' if len(names) == 1 else 'name'} this target.",
            next_step="Choose others in those projects first.",
        )
    there = RunPod.objects.filter(target=target, removed_at=None).count()
    there += Run.objects.filter(target=target).exclude(state__in=ENDED).count()
    if there:
        raise TargetInUse(
            "Runs are there.", next_step="Switch it off, and remove it when they have ended."
        )
    with transaction.atomic():
        audit.write(by, "target.removed", target=target.name)
        Run.objects.filter(target=target, volumes_pruned_at=None).update(
            volumes_pruned_at=timezone.now()
        )
        target.delete()


# --- what is there by itself --------------------------------------------------------------------------------------


def ensure_own() -> None:
    """Make the targets that nobody adds: podman's row, and the cluster that `DEVAIPOD_TARGET` names. Safe to repeat."""
    Target.objects.get_or_create(name=PODMAN_NAME, defaults={"kind": TargetKind.PODMAN})
    if settings.OWN_NAMESPACE:
        row, _ = Target.objects.get_or_create(
            name=OWN_NAME,
            defaults={"kind": TargetKind.KUBERNETES, "namespace": settings.OWN_NAMESPACE},
        )
        if row.namespace != settings.OWN_NAMESPACE and not row.kubeconfig:
            Target.objects.filter(pk=row.pk).update(namespace=settings.OWN_NAMESPACE)


# --- what was found -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a look at a target brought: its version when it answers, else what is wrong and what to do."""

    version: str = ""
    capacity: int | None = None
    policies_enforced: bool | None = None
    error: str = ""
    next_step: str = ""
    #: What is amiss though it answers.
    warning: str = ""

    @property
    def ok(self) -> bool:
        """Whether it answered."""
        return not self.error


def note_found(target_id: int, found: Found, now: datetime | None = None) -> None:
    """Write down what was found; what is only known while it answers stays as it was when it does not."""
    values: dict[str, Any] = {
        "health": Health.OK if found.ok else Health.DOWN,
        "error": (found.error or found.warning)[:500],
        "next_step": found.next_step[:500],
        "checked_at": now or timezone.now(),
    }
    if found.ok:
        values |= {
            "version": found.version[:80],
            "capacity": found.capacity,
        }
    Target.objects.filter(pk=target_id).update(**values)


def note_relay(target_id: int, state: RelayState) -> None:
    """Write down how the forward to a target's relay is. An address that was known stays while the relay is made anew."""
    values: dict[str, Any] = {
        "relay_connected": state.connected,
        "relay_says": state.says[:500],
        "relay_next_step": state.next_step[:500],
        "relay_since": state.since,
    }
    if state.address:
        values["relay_address"] = state.address
    Target.objects.filter(pk=target_id).update(**values)


def note_policies(target_id: int, enforced: bool | None) -> None:
    """Write down whether it holds pods to their network. A try that told nothing leaves what is known."""
    if enforced is not None:
        row = Target.objects.filter(pk=target_id).exclude(policies_enforced=enforced)
        row.update(policies_enforced=enforced)


def note_full(target_id: int, reason: str, now: datetime | None = None) -> None:
    """It refused a pod for want of room: it is passed over for a while, the longer the sooner this comes again."""
    moment = now or timezone.now()
    row = Target.objects.filter(pk=target_id).first()
    if row is None:
        return
    pause = FULL_PAUSE
    if row.full_until is not None and moment - row.full_until < FULL_PAUSE_MOST:
        last = row.full_until - (row.full_since or row.full_until)
        pause = min(max(FULL_PAUSE, last * 2), FULL_PAUSE_MOST)
    Target.objects.filter(pk=target_id).update(
        full_since=moment, full_until=moment + pause, full_reason=reason[:500]
    )


def note_room(target_id: int) -> None:
    """It took a pod: the next refusal begins with the shortest pause again."""
    Target.objects.filter(pk=target_id).exclude(full_until=None).update(
        full_since=None, full_until=None, full_reason=""
    )


__all__ = [
    "Found",
    "ensure_own",
    "in_cluster",
    "kubeconfig_of",
    "note_found",
    "note_full",
    "note_policies",
    "note_relay",
    "note_room",
    "queries",
    "remove",
    "save",
]
