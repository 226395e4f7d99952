"""What the API takes and answers. Costs are USD as decimal strings, times RFC 3339, ids public keys."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from ninja import Schema

from devaipod_web.accounts.models import ApiToken
from devaipod_web.llm.models import Provider, ProviderKind
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Promotion, Review
from devaipod_web.runs import logs, queries
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run, RunPod

DEMO_LABEL = ProviderKind.DEMO.label


class ProblemOut(Schema):
    """A problem document (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    next_step: str = ""


class StatusOut(Schema):
    """This installation and the caller."""

    version: str
    installation: str
    user: str
    role: str
    max_runs: int
    active_runs: int
    queued_runs: int
    waiting_permissions: int
    open_reviews: int
    supervisor_last_beat: datetime | None
    supervisor_error: str


class ProviderOut(Schema):
    """A provider without its credential."""

    key: str
    name: str
    kind: str
    base_url: str


class ProjectOut(Schema):
    """A project and its settings."""

    key: str
    slug: str
    name: str
    description: str
    upstream_url: str
    upstream_branch: str
    production_url: str
    production_prefix: str
    agent: str
    provider: str | None
    provider_label: str
    model: str
    permission_policy: str
    image: str
    image_pattern: str
    allowed_images: list[str]
    wall_seconds: int
    memory_bytes: int
    cpus: float
    pids: int
    workspace_bytes: int
    workspace_inodes: int
    is_sample: bool
    created_at: datetime
    archived_at: datetime | None

    @staticmethod
    def resolve_provider(obj: Project) -> str | None:
        return obj.provider.key if obj.provider else None

    @staticmethod
    def resolve_provider_label(obj: Project) -> str:
        return obj.provider.name if obj.provider else DEMO_LABEL


class ProjectIn(Schema, extra="forbid"):
    """A new project. What is not given has the installation's default."""

    name: str
    upstream_url: str
    slug: str | None = None
    description: str | None = None
    upstream_branch: str | None = None
    production_url: str | None = None
    production_prefix: str | None = None
    agent: str | None = None
    provider: str | None = None
    model: str | None = None
    permission_policy: str | None = None
    image: str | None = None
    image_pattern: str | None = None
    allowed_images: list[str] | None = None
    wall_seconds: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    workspace_bytes: int | None = None
    workspace_inodes: int | None = None


class ProjectChanges(Schema, extra="forbid"):
    """Fields of a project to be changed; those not named stay. `provider` null means the scripted demo."""

    name: str | None = None
    description: str | None = None
    upstream_url: str | None = None
    upstream_branch: str | None = None
    production_url: str | None = None
    production_prefix: str | None = None
    agent: str | None = None
    provider: str | None = None
    model: str | None = None
    permission_policy: str | None = None
    image: str | None = None
    image_pattern: str | None = None
    allowed_images: list[str] | None = None
    wall_seconds: int | None = None
    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int | None = None
    workspace_bytes: int | None = None
    workspace_inodes: int | None = None


class RunIn(Schema, extra="forbid"):
    """A task for an agent. What is not given is the project's. `provider` is a provider's key."""

    project: str
    task: str
    title: str = ""
    agent: str = ""
    provider: str | None = None
    model: str = ""
    permission_policy: str = ""
    wall_seconds: int | None = None


class RunBrief(Schema):
    """A run as lists show it."""

    key: str
    title: str
    project: str
    owner: str
    state: str
    reason: str
    finding_code: str
    waits_for: str
    step: str
    agent: str
    provider_label: str
    model: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    state_at: datetime
    last_line: str
    last_seq: int
    branch: str
    additions: int
    deletions: int
    changed_files: int
    cost: Decimal
    unpriced_calls: int
    review: str | None

    @staticmethod
    def resolve_project(obj: Run) -> str:
        return obj.project.slug

    @staticmethod
    def resolve_owner(obj: Run) -> str:
        return obj.owner.username

    @staticmethod
    def resolve_provider_label(obj: Run) -> str:
        return obj.provider.name if obj.provider else DEMO_LABEL

    @staticmethod
    def resolve_review(obj: Run) -> str | None:
        review = getattr(obj, "review", None)
        return str(review.key) if review is not None else None


class PermissionOut(Schema):
    """A permission request. `options` are what may be answered: {id, name, kind}."""

    key: str
    title: str
    state: str
    options: list[dict[str, Any]]
    option_id: str
    answered_by: str | None
    by_policy: bool
    asked_at: datetime
    expires_at: datetime
    answered_at: datetime | None

    @staticmethod
    def resolve_answered_by(obj: PermissionRequest) -> str | None:
        return obj.answered_by.username if obj.answered_by else None


class RunOut(RunBrief):
    """A run with everything."""

    task: str
    next_step: str
    notes: list[dict[str, Any]]
    permission_policy: str
    image: str
    queue_place: int | None
    stuck_since: datetime | None
    wall_seconds: int
    queued_at: datetime | None
    deadline_at: datetime | None
    keep_warm_until: datetime | None
    last_event_at: datetime | None
    attempts: int
    session_id: str
    base_commit: str
    head_commit: str
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    pods: list[str]
    permissions: list[PermissionOut]

    @staticmethod
    def resolve_queue_place(obj: Run) -> int | None:
        return queries.queue_place(obj)

    @staticmethod
    def resolve_pods(obj: Run) -> list[str]:
        return [pod.name for pod in obj.pods.all()]

    @staticmethod
    def resolve_permissions(obj: Run) -> list[PermissionRequest]:
        """Those that wait for an answer."""
        rows = obj.permissions.filter(state=PermissionState.OPEN).select_related("answered_by")
        return list(rows.order_by("asked_at"))


class PromptIn(Schema, extra="forbid"):
    """A follow-up."""

    text: str


class TurnOut(Schema):
    """A prompt and how its turn ended."""

    number: int
    prompt: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    stop_reason: str


class AnswerIn(Schema, extra="forbid"):
    """The answer to a permission request: one of its options' ids."""

    request: str
    option_id: str


class StopIn(Schema, extra="forbid"):
    """Why a run is stopped, for the record."""

    reason: str = ""


class PodOut(Schema):
    """One attempt of a run."""

    name: str
    run: str
    project: str
    attempt: int
    backend: str
    image: str
    steps: dict[str, Any]
    created_at: datetime
    connected_at: datetime | None
    agent_started_at: datetime | None
    ended_at: datetime | None
    removed_at: datetime | None

    @staticmethod
    def resolve_run(obj: RunPod) -> str:
        return str(obj.run.key)

    @staticmethod
    def resolve_project(obj: RunPod) -> str:
        return str(obj.run.project.slug)


class PodDetail(PodOut):
    """One attempt with what was kept when it ended, and the containers that have logs."""

    diagnostics: dict[str, Any]
    containers: list[str]

    @staticmethod
    def resolve_containers(obj: RunPod) -> list[str]:
        return [container for pod, container in logs.containers(obj.run.key) if pod == obj.name]


class ContainerDiagnosisOut(Schema):
    """A container of a diagnosis. `state` is created, running, exited, unknown or gone; `health` empty without a health check."""

    name: str
    state: str
    exit_code: int | None
    oom_killed: bool
    health: str
    health_said: str
    error: str
    started_at: datetime | None
    finished_at: datetime | None
    image: str
    logs: list[str]


class FindingOut(Schema):
    """Something to know: a stable code, a severity (error, warning, info), what the cause is, and what to do."""

    code: str
    severity: str
    message: str
    next_step: str
    container: str


class DiagnosisOut(Schema):
    """The diagnosis of a run's pod, alive or gone; without a pod its fields are null. Secrets are masked.

    `state` is starting, running, degraded, exited, gone, or unknown when the backend does not answer.
    """

    run: str
    run_state: str
    attempt: int | None
    name: str | None
    state: str | None
    created_at: datetime | None
    backend: str | None
    containers: list[ContainerDiagnosisOut]
    findings: list[FindingOut]


class PromotionOut(Schema):
    """One push of a reviewed commit to the production remote."""

    key: str
    head: str
    target_url: str
    target_branch: str
    by: str | None
    state: str
    message: str
    started_at: datetime
    ended_at: datetime | None

    @staticmethod
    def resolve_by(obj: Promotion) -> str | None:
        return obj.by.username if obj.by else None


class ReviewOut(Schema):
    """What a run staged. `risks` are {id, code, path, text, tick}; those with `tick` need one at promotion."""

    key: str
    run: str
    title: str
    project: str
    owner: str
    branch: str
    state: str
    base: str
    head: str
    diff_digest: str
    revision: int
    commits: int
    files: int
    additions: int
    deletions: int
    risks: list[dict[str, Any]]
    opened_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    closed_by: str | None

    @staticmethod
    def resolve_run(obj: Review) -> str:
        return str(obj.run.key)

    @staticmethod
    def resolve_title(obj: Review) -> str:
        return obj.run.title

    @staticmethod
    def resolve_project(obj: Review) -> str:
        return str(obj.run.project.slug)

    @staticmethod
    def resolve_owner(obj: Review) -> str:
        return obj.run.owner.username

    @staticmethod
    def resolve_branch(obj: Review) -> str:
        return obj.run.branch

    @staticmethod
    def resolve_closed_by(obj: Review) -> str | None:
        return obj.closed_by.username if obj.closed_by else None


class ReviewDetail(ReviewOut):
    """A review with its promotions, newest first."""

    promotions: list[PromotionOut]

    @staticmethod
    def resolve_promotions(obj: Review) -> list[Promotion]:
        return list(obj.promotions.select_related("by"))


class PromoteIn(Schema, extra="forbid"):
    """What is promoted: `head` is the commit that was looked at, `ticks` the ids of the risks that were looked at."""

    head: str
    ticks: list[str] = []
    branch: str = ""


class RejectIn(Schema, extra="forbid"):
    """Why a review is closed. `head`, when given, is the commit that was looked at."""

    head: str = ""
    reason: str = ""


class RetentionItem(Schema):
    """Something that is old enough to be removed: `what` is `logs` or `volumes`, `bytes` 0 where unknown."""

    what: str
    run: str
    title: str
    ended_at: str
    names: list[str]
    bytes: int


class TokenIn(Schema, extra="forbid"):
    """A new token. `days` is how long it counts; 0 means until it is revoked."""

    name: str
    days: int = 90


class TokenOut(Schema):
    """A token without its text."""

    key: str
    name: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class TokenMade(TokenOut):
    """A new token with its text, which is shown this once."""

    token: str


def token_made(token: ApiToken, text: str) -> dict[str, Any]:
    """The answer to the making of a token."""
    return {
        "key": token.key,
        "name": token.name,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
        "last_used_at": token.last_used_at,
        "token": text,
    }


def provider_out(provider: Provider) -> dict[str, Any]:
    """A provider as the API shows it."""
    return {
        "key": provider.key,
        "name": provider.name,
        "kind": provider.kind,
        "base_url": provider.base_url,
    }
