"""A run's diagnosis: what the backend shows of its pod, what the database knows beside it, and the document that all are shown.

The document is DESIGN §4's: for API, page, `devaipod debug` and the test harness alike. No secret is in it: every text passes the mask.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.utils import timezone

from devaipod_web.llm import refusals
from devaipod_web.masking import mask_lines, mask_text
from devaipod_web.runs import backends, logs, untrusted
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run, RunPod
from devaipod_web.runs.states import ENDED, State
from devaipod_web.runs.tools import call_line
from devaipod_web.targets.models import Target
from pods import causes, diagnostics, reports
from pods.agents import PROFILES
from pods.backend import ContainerBackend
from pods.diagnostics import Facts
from pods.errors import BackendError, BackendUnavailable
from pods.findings import CODES, Finding, finding
from pods.reports import KEPT_LINE_CHARACTERS, KEPT_LINES, ContainerReport, PodReport
from pods.spec import AGENT, LogLine

LOG_SECONDS = 5.0
#: A backend that has not answered by then is a finding.
LOOK_SECONDS = 8.0
#: Findings that the supervisor makes of a run in progress by measuring, or by what its model last said; they stand on the run meanwhile.
STANDING = frozenset(
    {
        "disk-full",
        "logs-not-kept",
        "budget-used-up",
        *(code for code in CODES if code.startswith("provider-")),
    }
)
#: Questions that become findings of their own.
MAX_QUESTIONS = 10

Document = dict[str, Any]


@dataclass(frozen=True)
class Look:
    """What the backend answered: a report, nothing (it has no such pod), or why it did not."""

    report: PodReport | None = None
    error: BackendError | None = None


# --- what the backend shows ---------------------------------------------------------------------------------------


async def last_lines(backend: ContainerBackend, pod: str, container: str) -> list[str]:
    """The last lines of a container's log, empty when they can't be had in time."""
    lines: list[str] = []

    async def read() -> None:
        async with aclosing(backend.logs(pod, container, tail=KEPT_LINES)) as stream:  # type: ignore[type-var]
            async for line in stream:
                lines.append(shown(line))

    with suppress(TimeoutError, BackendError):
        async with asyncio.timeout(LOG_SECONDS):
            await read()
    return lines[-KEPT_LINES:]


_looking: dict[str, Future[Look]] = {}
_lock = threading.Lock()


def look(pod: RunPod) -> Look:
    """What the backend shows of a pod now. However many ask at once, it is asked once. Blocking."""
    name, target = pod.name, pod.target
    with _lock:
        found = _looking.get(name)
        is_first = found is None
        if found is None:
            found = _looking[name] = Future()
    if not is_first:
        return found.result()
    try:
        found.set_result(backends.run(_look(name, target)))
    except BaseException as error:
        found.set_exception(error)
    finally:
        with _lock:
            del _looking[name]
    return found.result()


async def _look(name: str, target: Target | None) -> Look:
    try:
        backend = backends.of_target(target)
        async with asyncio.timeout(LOOK_SECONDS):
            found = await backend.look(name, tail=KEPT_LINES)
    except TimeoutError:
        where = target.name if target is not None else "podman"
        slow = f"The container backend {where} did not answer within {LOOK_SECONDS:.0f} s."
        return Look(error=BackendUnavailable(slow))
    except BackendError as error:
        return Look(error=error)
    if found is None:
        return Look()
    state, tails = found
    lines = {container: [shown(line) for line in tail] for container, tail in tails.items()}
    return Look(reports.report(state, backend=backend.name, lines=lines))


def shown(line: LogLine) -> str:
    """A log line as it is kept and shown: text that can be stored, at most `KEPT_LINE_CHARACTERS` of it."""
    return untrusted.text(line.text.decode("utf-8", "replace"), KEPT_LINE_CHARACTERS)


# --- what the database knows --------------------------------------------------------------------------------------


def facts_of_pod(pod_id: int) -> Facts:
    """The facts about a pod, read anew, for the supervisor: what stands on the run is its own to say. Blocking."""
    pod = RunPod.objects.select_related("run__project").get(pk=pod_id)
    facts = facts_of(pod.run, pod)
    error = refusals.last_word(pod.run_id, since=pod.created_at) if facts.is_active else None
    return replace(facts, model_error=error, noted=())


def facts_of(run: Run, pod: RunPod | None, *, error: BackendError | None = None) -> Facts:
    """What is known of a run beside its pod. Blocking."""
    is_last = pod is None or pod.attempt == run.attempts
    is_over = run.state in ENDED or (_let_go_at(run) is not None and pod is not None)
    is_active = is_last and not is_over and (pod is None or pod.ended_at is None)
    profile = PROFILES.get(run.agent)
    return Facts(
        now=timezone.now(),
        state=run.state if is_last else "",
        is_active=is_active,
        over_at=None if is_active else _over_at(run, pod, is_last=is_last),
        own=_own_word(run) if is_last else None,
        program=profile.program if profile else run.agent,
        memory_bytes=run.project.memory_bytes,
        made_at=_step_time(pod, "pod"),
        connected_at=pod.connected_at if pod else None,
        is_stuck=is_active and run.stuck_since is not None,
        waits_for=run.waits_for or "the agent",
        questions=_questions(run) if is_active and run.state == State.WAITING else (),
        backend_error=error,
        noted=_standing(run) if is_active and run.state != State.PAUSED else (),
    )


def _over_at(run: Run, pod: RunPod | None, *, is_last: bool) -> datetime | None:
    """When the pod was no longer needed: with its run, or when it was given up."""
    of_run = run.ended_at if run.state in ENDED else _let_go_at(run)
    ends = [of_run if is_last else None, pod.ended_at if pod else None]
    return min((at for at in ends if at is not None), default=None)


def _let_go_at(run: Run) -> datetime | None:
    """When the pod of a paused run was kept no longer; None while it is, and for every other run."""
    until = run.keep_warm_until
    return until if run.state == State.PAUSED and until and until <= timezone.now() else None


def _own_word(run: Run) -> Finding | None:
    """What an ended run says about its end, and a paused one about its pause; None when it ended as it should, or a person paused it."""
    if run.state == State.PAUSED and run.finding_code in CODES:
        return finding(run.finding_code, run.reason, next_step=run.next_step)
    if run.state not in ENDED or not run.reason:
        return None
    code = run.finding_code
    if not code and run.state in (State.FAILED, State.TIMED_OUT):
        code = "timed-out" if run.state == State.TIMED_OUT else "run-failed"
    if code not in CODES:
        return None
    found = finding(code, run.reason, next_step=run.next_step)
    return found.lowered() if run.state == State.SUCCEEDED else found


def _standing(run: Run) -> tuple[Finding, ...]:
    if run.finding_code not in STANDING:
        return ()
    return (finding(run.finding_code, run.reason, next_step=run.next_step),)


def _questions(run: Run) -> tuple[str, ...]:
    open_ones = PermissionRequest.objects.filter(run=run, state=PermissionState.OPEN)
    return tuple(
        call_line(one.tool_call, one.title)[:300]
        for one in open_ones.order_by("asked_at")[:MAX_QUESTIONS]
    )


def _step_time(pod: RunPod | None, step: str) -> datetime | None:
    text = pod.steps.get(step) if pod is not None else None
    return datetime.fromisoformat(text) if text else None


# --- the document -------------------------------------------------------------------------------------------------


def of_run(run: Run, attempt: int | None = None) -> Document:
    """The diagnosis of a run: of the pod of one attempt, or of the present one; without any of the run alone. Blocking."""
    pods = RunPod.objects.filter(run=run)
    if attempt is not None:
        pod = pods.filter(attempt=attempt).first()
    else:
        pod = pods.order_by("-attempt").first()
        if pod is not None and run.state in (State.QUEUED, State.PREPARING):
            pod = None  # the next attempt has none yet
    return of_pod(run, pod)


def of_pod(run: Run, pod: RunPod | None) -> Document:
    """The diagnosis of one attempt, alive or gone. A backend that does not answer is a finding. Blocking."""
    if pod is None:
        return _document(run, None, None, facts_of(run, None))
    is_kept = bool(pod.diagnostics) and pod.ended_at is not None
    seen = Look() if is_kept or pod.removed_at else look(pod)
    facts = facts_of(run, pod, error=seen.error)
    report = seen.report
    if report is None and pod.diagnostics:
        report = reports.from_kept(pod.diagnostics)
    elif report is None:
        report = _from_logs(run, pod, state="gone" if seen.error is None else "unknown")
        if seen.error is None and facts.is_active and facts.made_at is not None:
            lost = causes.pod_lost(causes.why_lost(None, is_there=False))
            report = replace(report, findings=(lost,))
    return _document(run, pod, report, facts)


def _from_logs(run: Run, pod: RunPod, *, state: str) -> PodReport:
    """What the stored logs tell of a pod of which nothing else is left."""
    names = [container for name, container in logs.containers(run.key) if name == pod.name]
    return PodReport(
        name=pod.name,
        backend=pod.backend,
        created_at=pod.created_at,
        containers=tuple(
            ContainerReport(
                name=name,
                state=state,
                image=pod.image if name == AGENT else "",
                logs=tuple(
                    line.text[:KEPT_LINE_CHARACTERS]
                    for line in logs.tail(run.key, pod.name, name, limit=KEPT_LINES)
                ),
            )
            for name in sorted(names)
        ),
    )


def _document(run: Run, pod: RunPod | None, report: PodReport | None, facts: Facts) -> Document:
    found = diagnostics.diagnose(report, facts)
    return {
        "run": run.key,
        "run_state": run.state,
        "attempt": pod.attempt if pod else None,
        "name": pod.name if pod else None,
        "state": _state(pod, report, facts, found) if pod else None,
        "created_at": pod.created_at if pod else None,
        "backend": pod.backend if pod else None,
        "containers": [_container(one) for one in report.containers] if report else [],
        "findings": [_masked(one) for one in found],
    }


def _state(pod: RunPod, report: PodReport | None, facts: Facts, found: list[Finding]) -> str:
    return "gone" if pod.removed_at else diagnostics.pod_state(report, facts, found)


def _container(one: ContainerReport) -> Document:
    return {
        "name": one.name,
        "state": one.state,
        "exit_code": one.exit_code,
        "oom_killed": one.oom_killed,
        "health": one.health,
        "health_said": mask_text(one.health_said),
        "error": mask_text(one.error),
        "started_at": one.started_at,
        "finished_at": one.finished_at,
        "image": one.image,
        "logs": mask_lines(list(one.logs)),
    }


def _masked(one: Finding) -> dict[str, str]:
    return {**one.as_json(), "message": mask_text(one.message)}
