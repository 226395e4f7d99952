"""What the tabs of a run's page show: changes, logs, access."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, Q, Sum
from django.urls import reverse

from devaipod_web import home
from devaipod_web.forges.errors import ForgeError
from devaipod_web.llm.models import LlmCall
from devaipod_web.reviews import diff
from devaipod_web.reviews.diff import Diff
from devaipod_web.runs import events, logs, logs_hub
from devaipod_web.runs.models import PermissionRequest, Run, RunEvent
from devaipod_web.targets.models import Target
from pods.sidecar.protocol import EventKind

#: Lines of a log that a page shows at first; the page keeps 5,000.
FIRST_LINES = 500
OLDER_LINES = 500
#: And characters after which they are fewer, since a log may be one line of 100 MB.
PAGE_CHARACTERS = 512 * 1024
REFUSED_SHOWN = 50


@dataclass(frozen=True)
class Changes:
    """The difference of what is staged to the base. `problem` is set when it could not be read."""

    diff: Diff = field(default_factory=Diff)
    base: str = ""
    head: str = ""
    problem: Exception | None = None


def changes(run: Run) -> Changes:
    """What the run has staged so far, as a diff to its base."""
    if not run.base_commit or not run.head_commit or run.base_commit == run.head_commit:
        return Changes()
    repository = home.run_repository(run.project.key, run.key)
    try:
        found = diff.files(repository, run.base_commit, run.head_commit)
    except ForgeError as error:
        return Changes(base=run.base_commit, head=run.head_commit, problem=error)
    return Changes(found, run.base_commit, run.head_commit)


@dataclass(frozen=True)
class Logs:
    """The containers that have a log, and the end of the chosen one's."""

    choices: list[dict[str, Any]]
    pod: str = ""
    container: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)
    last: int = 0
    is_live: bool = False

    @property
    def download(self) -> str:
        """The address of the whole log as a text file."""
        query = urlencode({"container": self.container, "format": "text"})
        return f"{reverse('api:pod_logs', args=[self.pod])}?{query}"

    @property
    def first(self) -> int:
        """The number of the first line shown."""
        return int(self.lines[0]["n"]) if self.lines else 0


def logs_of(run: Run) -> list[tuple[str, str]]:
    """(pod, container) of each log: those on disk, and those that a living pod will have."""
    found = logs.containers(run.key)
    for pod in run.pods.all():
        for container in ("agent", "sidecar"):
            if (pod.name, container) not in found and pod.ended_at is None:
                found.append((pod.name, container))
    return found


def chosen_logs(run: Run, pod: str, container: str) -> Logs:
    """The log that was asked for; without a choice the latest attempt's agent."""
    known = logs_of(run)
    if not known:
        return Logs(choices=[])
    if (pod, container) not in known:
        latest = known[-1][0]
        pod, container = next((pair for pair in known if pair == (latest, "agent")), known[-1])
    attempts = {row.name: row for row in run.pods.all()}
    choices = [
        {
            "pod": name,
            "container": part,
            "attempt": attempts[name].attempt if name in attempts else None,
            "current": (name, part) == (pod, container),
        }
        for name, part in known
    ]
    last = logs.last_number(run.key, pod, container)
    lines = _before(run, pod, container, last + 1, FIRST_LINES)
    row = attempts.get(pod)
    return Logs(
        choices=choices,
        pod=pod,
        container=container,
        lines=lines,
        last=last,
        is_live=row is not None and row.removed_at is None,
    )


def lines_before(run: Run, pod: str, container: str, before: int) -> list[dict[str, Any]]:
    """Older lines of a log, as the socket sends them. Names that are none of this run's give an empty list."""
    if (pod, container) not in logs_of(run):
        return []
    return _before(run, pod, container, before, OLDER_LINES)


def lines_after(run: Run, pod: str, container: str, after: int) -> list[dict[str, Any]]:
    """Newer lines of a log, likewise."""
    if (pod, container) not in logs_of(run):
        return []
    found = logs.read(
        run.key, pod, container, after=after, limit=OLDER_LINES, characters=PAGE_CHARACTERS
    )
    return [logs_hub.shown(line) for line in found]


def whole_line(run: Run, pod: str, container: str, number: int) -> list[dict[str, Any]]:
    """One record with its whole text, alone in a list; empty when there is none."""
    if (pod, container) not in logs_of(run):
        return []
    found = logs.read(run.key, pod, container, after=number - 1, limit=1)
    return [asdict(line) for line in found if line.n == number]


def _before(run: Run, pod: str, container: str, before: int, limit: int) -> list[dict[str, Any]]:
    found = logs.read_before(
        run.key, pod, container, before=before, limit=limit, characters=PAGE_CHARACTERS
    )
    return [logs_hub.shown(line) for line in found]


@dataclass(frozen=True)
class Access:
    """What a run reached, and what was refused. Costs are USD."""

    models: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    permissions: list[PermissionRequest]
    pushes: list[dict[str, Any]]
    network: Network


class Network(StrEnum):
    """What holds a run's pod to the network that it may reach, from the surest to nothing."""

    NONE = "none"  # it has none of its own (podman)
    ENFORCED = "enforced"  # the cluster's network policies
    UNKNOWN = "unknown"  # not known whether the cluster enforces them
    OPEN = "open"  # nothing: the cluster does not enforce them


def network(target: Target | None) -> Network:
    """What holds the pods of a target to their network."""
    if target is None or target.is_podman:
        return Network.NONE
    if target.policies_enforced is None:
        return Network.UNKNOWN
    return Network.ENFORCED if target.policies_enforced else Network.OPEN


def access(run: Run) -> Access:
    """Models by number of calls, refusals, questions and pushes of a run."""
    models = (
        LlmCall.objects.filter(run=run)
        .values("model", "provider_kind", "provider__name")
        .annotate(
            calls=Count("pk"),
            failed=Count("pk", filter=Q(status__gte=400)),
            sent=Sum("tokens_in"),
            received=Sum("tokens_out"),
            spent=Sum("cost"),
        )
        .order_by("-calls")
    )
    refused = RunEvent.objects.filter(run=run, kind=events.Kind.MODEL_REFUSED)
    staged = RunEvent.objects.filter(run=run, kind=EventKind.WORK_STAGED)
    return Access(
        models=[dict(row) for row in models],
        refused=[_told(row) for row in refused.order_by("-seq")[:REFUSED_SHOWN]],
        permissions=list(
            PermissionRequest.objects.filter(run=run)
            .select_related("answered_by")
            .order_by("-asked_at")[:REFUSED_SHOWN]
        ),
        pushes=[_told(row) for row in staged.order_by("-seq")[:REFUSED_SHOWN]],
        network=network(run.target),
    )


def _told(row: RunEvent) -> dict[str, Any]:
    payload = row.payload if isinstance(row.payload, dict) else {}
    return {"at": row.at, **{str(key): value for key, value in payload.items()}}
