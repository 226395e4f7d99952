"""Schemas of runs, their turns, permission requests and events."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Field, Schema

from devaipod_web.api.paperclip import PaperclipIn
from devaipod_web.api.schemas.common import Body, Money, RunState, amount, doc, optional
from devaipod_web.api.schemas.projects import DEMO_LABEL, Policy
from devaipod_web.api.schemas.targets import QueuePlaceOut
from devaipod_web.llm import demo
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run
from devaipod_web.runs.services.command import (
    MAX_LABELS,
    MAX_VARIABLES,
    MAX_WORDS,
    MAX_WORKDIR,
)
from devaipod_web.runs.services.input import MAX_INPUT_CHARACTERS
from devaipod_web.runs.services.launch import (
    MAX_TASK_CHARACTERS,
    MAX_WALL_SECONDS,
    MIN_WALL_SECONDS,
)
from devaipod_web.runs.services.pause import held_by
from devaipod_web.runs.services.prompt import MAX_PROMPT_CHARACTERS
from devaipod_web.runs.states import State
from devaipod_web.targets.queries import queue_places

WHEN = "2026-11-24T20:14:03.512Z"


class CommandIn(Body):
    """What a run of the profile `command` executes."""

    argv: list[str] = doc(
        "The program and its arguments.", ["make", "test"], [], max_length=MAX_WORDS
    )
    image: str = doc("The image; empty: the project's.", "", "", max_length=300)
    env: dict[str, str] = doc(
        "Variables of its environment; none may be a credential.",
        {"CI": "true"},
        {},
        max_length=MAX_VARIABLES,
    )
    workdir: str = doc(
        "The folder that it starts in, from the workspace on; empty: the workspace itself.",
        "",
        "",
        max_length=MAX_WORKDIR,
    )
    interactive: bool = doc("Whether its standard input takes what `input` sends.", False, False)


class Labelled(Body):
    """Labels of a new run."""

    labels: dict[str, str] = doc(
        "Names and texts by which the run is found again.",
        {"ticket": "PAY-118"},
        {},
        max_length=MAX_LABELS,
    )
    unique_label: str = doc(
        "The name of one of its labels: no other run of the project that has not ended may have the same text under it.",
        "",
        "",
        max_length=63,
    )


class RunIn(CommandIn, Labelled, PaperclipIn):
    """A task for an agent, or with the agent `command` a program. What is not given is the project's."""

    project: str = doc("The project's short name.", "payments", min_length=1, max_length=60)
    task: str = doc(
        "What the agent should do; a command needs none.",
        "Retry failed webhooks with back-off, and test it.",
        "",
        max_length=MAX_TASK_CHARACTERS,
    )
    title: str = doc("A title; empty: the task's first line.", "Retry webhooks", "", max_length=200)
    agent: str = doc("The agent profile; empty: the project's.", "", "", max_length=40)
    provider: str | None = optional("A provider's key; null: the project's.", None, max_length=40)
    model: str = doc("The model; empty: the project's.", "", "", max_length=200)
    target: str = doc(
        "Where it is to run: a target's name or key; empty: as the project says.",
        "",
        "",
        max_length=40,
    )
    permission_policy: Literal["", "ask", "allow"] = doc(
        "What happens when the agent asks; empty: as the project says.", "ask", ""
    )
    wall_seconds: int | None = optional(
        "How long the run may take, in seconds; null: as long as the project says.",
        3600,
        ge=MIN_WALL_SECONDS,
        le=MAX_WALL_SECONDS,
    )
    budget_usd: str | None = amount(
        "What it may spend on models, in US dollars; null, or more than the project allows: as the project says.",
        "2.50",
        None,
    )
    budget_requests: int | None = optional(
        "How many requests it may send to models; null, or more than the project allows: as the project says.",
        200,
        ge=1,
        le=1_000_000,
    )


class RunBrief(Schema):
    """A run as lists show it."""

    key: str = doc("The run's public key.", "b7kq2mx4dz")
    title: str = doc("Its title.", "Retry webhooks")
    project: str = doc("Its project's short name.", "payments")
    owner: str = doc("Who asked for it: a name for signing in.", "alice")
    state: RunState = doc("Where it is.", "running")
    reason: str = doc("Why it is in this state, in a sentence; may be empty.", "")
    finding_code: str = doc("The finding whose sentence the reason is, or empty.", "")
    waits_for: str = doc("What a waiting or stuck run waits for.", "")
    pause_cause: Literal["", "budget", "loop", "person"] = doc(
        "Of a paused run: a budget is used up, it repeats itself, or a person paused it.", ""
    )
    step: str = doc("The step of starting: mirror, image, pod, …", "")
    agent: str = doc("The agent profile.", "opencode")
    provider_label: str = doc("The name of the provider of its model.", DEMO_LABEL)
    model: str = doc("The model.", "scripted-demo")
    created_at: datetime = doc("When it was asked for, RFC 3339.", WHEN)
    started_at: datetime | None = doc("When its agent first began, or null.", WHEN)
    ended_at: datetime | None = doc("When it ended, or null.", None)
    state_at: datetime = doc("Since when it is in this state.", WHEN)
    last_line: str = doc("What it did last. Comes from the agent.", "Edited hooks.py")
    last_seq: int = doc("The number of its last event: the cursor of its events.", 42)
    branch: str = doc("Its branch on the staging forge.", "agent/b7kq2mx4dz/work")
    additions: int = doc("Lines that it added.", 31)
    deletions: int = doc("Lines that it removed.", 4)
    changed_files: int = doc("Files that it changed.", 2)
    cost: Money = doc("What its calls to models cost, US dollars.", "0.01834500")
    unpriced_calls: int = doc("Calls to models whose price is not known.", 0)
    labels: dict[str, str] = doc("Its labels.", {"ticket": "PAY-118"})
    review: str | None = doc("The key of its review, or null.", None)
    target: str | None = doc(
        "Where it is, or was last: a target's name; null before it had a place.", "podman"
    )

    @staticmethod
    def resolve_project(obj: Run) -> str:
        return obj.project.slug

    @staticmethod
    def resolve_owner(obj: Run) -> str:
        return obj.owner.username

    @staticmethod
    def resolve_provider_label(obj: Run) -> str:
        if obj.provider is None:
            return DEMO_LABEL if obj.model == demo.MODEL else "routes"
        return obj.provider.name

    @staticmethod
    def resolve_review(obj: Run) -> str | None:
        review = getattr(obj, "review", None)
        return str(review.key) if review is not None else None

    @staticmethod
    def resolve_target(obj: Run) -> str | None:
        return obj.target.name if obj.target is not None else None


class PermissionOut(Schema):
    """A permission request: the agent asks before it does something."""

    key: str = doc("The request's key, for the answer.", "w3e6r2t7ya")
    title: str = doc("What the agent wants to do. Comes from the agent.", "Run `ls -la`")
    state: Literal["open", "allowed", "refused", "expired", "withdrawn"] = doc(
        "Whether it was answered, and how.", "open"
    )
    options: list[dict[str, Any]] = doc(
        "What may be answered: `id`, `name` and `kind` of each.",
        [{"id": "once", "name": "Allow once", "kind": "allow_once"}],
    )
    option_id: str = doc("The id of the answer, or empty.", "")
    answered_by: str | None = doc("Who answered, or null.", None)
    by_policy: bool = doc("Whether the project's policy answered.", False)
    asked_at: datetime = doc("When it was asked, RFC 3339.", WHEN)
    expires_at: datetime = doc("When it is refused unless somebody answers.", WHEN)
    answered_at: datetime | None = doc("When it was answered, or null.", None)

    @staticmethod
    def resolve_answered_by(obj: PermissionRequest) -> str | None:
        return obj.answered_by.username if obj.answered_by else None


class RunOut(RunBrief):
    """A run with everything."""

    task: str = doc("What the agent was asked to do.", "Retry failed webhooks with back-off.")
    next_step: str = doc("What a person can do about its state, or empty.", "")
    notes: list[dict[str, Any]] = doc(
        "Warnings of this run: `level` and `text` of each.",
        [{"level": "warning", "text": "devcontainer.json: `mounts` is ignored."}],
    )
    incident: str | None = doc(
        "The key of the open incident that keeps a paused run from going on, or null.", None
    )
    permission_policy: Policy = doc("What happens when the agent asks.", "ask")
    image: str = doc("The image of its agent, once it is known.", "localhost/devaipod-agent:dev")
    queue_place: int | None = doc(
        "Its place in the queue from 1, at the target where it is the best; or null.", None
    )
    queue_places: list[QueuePlaceOut] = doc(
        "While it is queued: its place at each target that it may go to, the first choice first.",
        [],
    )
    asked_target: str | None = doc(
        "The target that it was asked for, or null: as its project says.", None
    )
    stuck_since: datetime | None = doc("Since when nothing happens in it, or null.", None)
    wall_seconds: int = doc("How long it may take, in seconds.", 7200)
    queued_at: datetime | None = doc("When it was last queued.", WHEN)
    deadline_at: datetime | None = doc(
        "When its time is up, or null: in the queue, after its end, and while it is paused.", WHEN
    )
    keep_warm_until: datetime | None = doc(
        "Until when its pod is kept for a quick follow-up, or null.", None
    )
    last_event_at: datetime | None = doc("When something last happened in it.", WHEN)
    attempts: int = doc("Pods that it has had.", 1)
    session_id: str = doc("The agent's own id of the session.", "ses_4f1c")
    base_commit: str = doc("The commit that it started from, or empty.", "9f2c" * 10)
    head_commit: str = doc("The commit that it staged last, or empty.", "41ab" * 10)
    tokens_in: int = doc("Tokens that were sent to models.", 18420)
    tokens_cached: int = doc("Of these, tokens that the provider had in its cache.", 12000)
    tokens_out: int = doc("Tokens that models answered.", 930)
    argv: list[str] = doc("Of a command: the program and its arguments.", [])
    env: dict[str, str] = doc("Of a command: variables of its environment.", {})
    workdir: str = doc("Of a command: the folder that it starts in.", "")
    interactive: bool = doc("Whether its standard input takes what `input` sends.", False)
    exit_code: int | None = doc("The exit status of its command, or null.", None)
    pods: list[str] = doc("The names of its pods, by attempt.", ["devaipod-payments-b7kq2mx4dz-1"])
    permissions: list[PermissionOut] = Field(
        ..., description="Permission requests that wait for an answer."
    )

    @staticmethod
    def resolve_incident(obj: Run) -> str | None:
        held = held_by(obj) if obj.state == State.PAUSED else None
        return held.key if held is not None else None

    @staticmethod
    def resolve_queue_place(obj: Run) -> int | None:
        return min((one.place for one in queue_places(obj)), default=None)

    @staticmethod
    def resolve_queue_places(obj: Run) -> list[QueuePlaceOut]:
        return [QueuePlaceOut.of(one) for one in queue_places(obj)]

    @staticmethod
    def resolve_asked_target(obj: Run) -> str | None:
        return obj.asked_target.name if obj.asked_target is not None else None

    @staticmethod
    def resolve_pods(obj: Run) -> list[str]:
        return [pod.name for pod in obj.pods.all()]

    @staticmethod
    def resolve_permissions(obj: Run) -> list[PermissionRequest]:
        """Those that wait for an answer."""
        rows = obj.permissions.filter(state=PermissionState.OPEN).select_related("answered_by")
        return list(rows.order_by("asked_at"))


class PodIn(CommandIn, Labelled, PaperclipIn):
    """A pod that executes a command on a project."""

    project: str = doc("The project's short name.", "payments", min_length=1, max_length=60)
    title: str = doc("A title; empty: the command.", "Nightly tests", "", max_length=200)
    target: str = doc(
        "Where it is to run: a target's name or key; empty: as the project says.",
        "",
        "",
        max_length=40,
    )
    wall_seconds: int | None = optional(
        "How long it may take, in seconds; null: as long as the project says.",
        3600,
        ge=MIN_WALL_SECONDS,
        le=MAX_WALL_SECONDS,
    )


class PodMade(RunOut):
    """The run of a pod that was asked for."""

    pod: str | None = doc(
        "The pod's name, null until it is made: follow by GET /runs/{key}.",
        "devaipod-payments-b7kq2mx4dz-1",
    )

    @staticmethod
    def resolve_pod(obj: Run) -> str | None:
        names = [pod.name for pod in obj.pods.all()]
        return names[-1] if names else None


class InputIn(Body):
    """Text for a command's standard input."""

    text: str = doc(
        "The text as it is: a line ends in a newline.", "yes\n", max_length=MAX_INPUT_CHARACTERS
    )


class InputOut(Schema):
    """Input that is on its way."""

    key: str = doc("Its key.", "c4m2a9x7qe")
    state: str = doc("How far it is: queued, sent, applied or refused.", "queued")


class LabelsIn(Body):
    """Labels to be changed; those not named stay."""

    labels: dict[str, str | None] = doc(
        "Names with the text to set, or null to remove.", {"ticket": "PAY-119", "old": None}
    )


class LabelsOut(Schema):
    """All labels of a run."""

    labels: dict[str, str] = doc("Names and texts.", {"ticket": "PAY-119"})


class PromptIn(Body):
    """A follow-up."""

    text: str = doc(
        "What to say to the agent.",
        "And add a test.",
        min_length=1,
        max_length=MAX_PROMPT_CHARACTERS,
    )


class TurnOut(Schema):
    """A prompt and how its turn ended."""

    number: int = doc("The turn's number, from 1.", 2)
    prompt: str = doc("What was said.", "And add a test.")
    created_at: datetime = doc("When it was said, RFC 3339.", WHEN)
    started_at: datetime | None = doc("When the agent took it, or null.", None)
    ended_at: datetime | None = doc("When its turn ended, or null.", None)
    stop_reason: str = doc("Why the turn ended, as the agent says, or empty.", "")


class AnswerIn(Body):
    """The answer to a permission request."""

    request: str = doc("The request's key.", "w3e6r2t7ya", min_length=1, max_length=40)
    option_id: str = doc("The id of one of its options.", "once", min_length=1, max_length=120)


class StopIn(Body):
    """Why a run is stopped, for the record."""

    reason: str = doc("A sentence; may be empty.", "Not needed any more.", "", max_length=500)


class PauseIn(Body):
    """Why a run is paused, for the record."""

    reason: str = doc("A sentence; may be empty.", "I want to look first.", "", max_length=500)


class ResumeIn(Body):
    """What a paused run is told."""

    text: str = doc(
        "Its next prompt; empty: to go on where it stopped.",
        "Use the other table.",
        "",
        max_length=MAX_PROMPT_CHARACTERS,
    )


class EventOut(Schema):
    """An event of a run: one line of the stream."""

    seq: int = doc("Its number in the run, gapless from 1: the cursor.", 7)
    kind: str = doc("What happened.", "message")
    v: int = doc("The version of the payload's form.", 1)
    at: datetime = doc("When it happened, RFC 3339.", WHEN)
    payload: dict[str, Any] = doc(
        "What belongs to this kind. Its text comes from an agent: show it, never execute it.",
        {"message_id": "m1", "text": "I'll look at hooks.py."},
    )
