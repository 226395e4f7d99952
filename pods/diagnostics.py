"""From what a pod is, its last lines and what is known beside it to a diagnosis: pure functions, the same for page, API, CLI and supervisor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pods.causes import agent_ended, of_trouble, quoted
from pods.errors import BackendError
from pods.findings import ORDER, Finding, finding, of_backend
from pods.reports import ContainerReport, PodReport
from pods.spec import AGENT, SIDECAR, Phase

UNHEALTHY = "unhealthy"
#: What the sidecar's own check says first when it is the gateway that does not answer (`pods.sidecar.health`).
GATEWAY_AWAY = "gateway:"
#: A sidecar dials within a second of its start; after this long without a word something is in its way.
DIAL_TIME = timedelta(seconds=10)

#: What a backend's warnings about bounds are, by the words that they hold.
_WARNINGS = (
    ("bound the disk use", "volume-unbounded"),
    ("enforces no memory", "limits-not-enforced"),
)


@dataclass(frozen=True)
class Facts:
    """What is known beside the pod itself.

    `is_active`: the run still needs the pod. `over_at`: since when it does not; what ends later was ended by us. `own`: what the run
    itself says about its end. `model_error`: the run's last word from its model was a refusal.
    """

    now: datetime
    state: str = ""
    is_active: bool = True
    over_at: datetime | None = None
    own: Finding | None = None
    program: str = ""
    memory_bytes: int = 0
    made_at: datetime | None = None
    connected_at: datetime | None = None
    is_stuck: bool = False
    waits_for: str = ""
    questions: tuple[str, ...] = ()
    model_error: Finding | None = None
    backend_error: BackendError | None = None
    noted: tuple[Finding, ...] = ()


Rule = Callable[[PodReport, Facts], Iterator[Finding]]


def _troubles(pod: PodReport, facts: Facts) -> Iterator[Finding]:
    for one in pod.troubles:
        if facts.is_active or one.code != "pod-lost":
            yield of_trouble(one)


def _exits(pod: PodReport, facts: Facts) -> Iterator[Finding]:
    for one in pod.containers:
        if one.state != Phase.EXITED or _was_ended_by_us(one, facts):
            continue
        if one.name == AGENT:
            yield agent_ended(one, program=facts.program, memory_bytes=facts.memory_bytes)
        elif one.oom_killed:
            yield finding(
                "out-of-memory",
                f"The container `{one.name}` was killed because it used more memory than it may (exit code {one.exit_code}).",
                container=one.name,
            )
        else:
            code = "sidecar-exited" if one.name == SIDECAR else "container-exited"
            yield finding(
                code,
                f"The container `{one.name}` ended with exit code {one.exit_code}.{quoted(one.logs)}",
                container=one.name,
            )


def _was_ended_by_us(one: ContainerReport, facts: Facts) -> bool:
    if facts.over_at is None:
        return not facts.is_active
    return one.finished_at is None or one.finished_at >= facts.over_at


def _starts(pod: PodReport, facts: Facts) -> Iterator[Finding]:
    for one in pod.containers:
        if one.error and one.state != Phase.RUNNING and one.started_at is None:
            yield finding(
                "start-failed",
                f"The container `{one.name}` did not start: {one.error}",
                container=one.name,
            )


def _gateway(pod: PodReport, facts: Facts) -> Iterator[Finding]:
    if not facts.is_active or facts.made_at is None or facts.connected_at is not None:
        return
    waited = facts.now - facts.made_at
    if waited < DIAL_TIME:
        return
    sidecar = pod.container(SIDECAR)
    if sidecar is not None and sidecar.state == Phase.RUNNING:
        yield finding(
            "gateway-unreachable",
            f"The sidecar has not reached the gateway {waited.total_seconds():.0f} s after its start.{quoted(sidecar.logs)}",
        )


def _health(pod: PodReport, facts: Facts) -> Iterator[Finding]:
    for one in pod.containers:
        if one.health != UNHEALTHY or one.state != Phase.RUNNING or not facts.is_active:
            continue
        said = " ".join(one.health_said.split())[:300]
        if one.name == SIDECAR and said.startswith(GATEWAY_AWAY):
            yield finding(
                "gateway-unreachable",
                f"The sidecar does not reach the gateway: {said.removeprefix(GATEWAY_AWAY).strip()}",
            )
            continue
        words = f": it says “{said}”." if said else " and says nothing."
        yield finding(
            "health-check-failing",
            f"The health check of the container `{one.name}` fails{words}",
            container=one.name,
        )


def _warnings(pod: PodReport, facts: Facts) -> Iterator[Finding]:
    for text in pod.warnings:
        code = next((code for words, code in _WARNINGS if words in text), "backend-warning")
        yield finding(code, text)


RULES: tuple[Rule, ...] = (_troubles, _starts, _exits, _gateway, _health, _warnings)
#: Rules whose findings a run in progress shows in lists. What a container's exit means is decided by the supervisor.
LIVE_RULES: tuple[Rule, ...] = (_troubles, _gateway, _health)
#: A finding that says it already → those that would only repeat it.
COVERS: Mapping[str, frozenset[str]] = {
    "pod-lost": frozenset({"sidecar-exited"}),
    # What a cluster ended as a whole, or never started, says nothing else by its containers.
    "image-not-found": frozenset({"start-failed"}),
    "pull-refused": frozenset({"start-failed"}),
    "timed-out": frozenset({"sidecar-exited", "agent-exited"}),
}


def diagnose(pod: PodReport | None, facts: Facts) -> list[Finding]:
    """What is to be known about a run and its pod, the worst first; of equals the run's own word, then in the order of the rules."""
    found = [facts.own] if facts.own is not None else []
    if pod is not None and pod.findings is not None:
        found += pod.findings
    elif pod is not None:
        found += [one for rule in RULES for one in rule(pod, facts)]
    found += _beside(facts)
    return sorted(_once(found, facts.own), key=lambda one: ORDER.index(one.severity))


def _once(found: Sequence[Finding], own: Finding | None) -> Iterator[Finding]:
    """Each finding once, and none that another one says already."""
    covered = {code for one in found for code in COVERS.get(one.code, ())}
    said: set[tuple[str, str]] = set()
    for one in found:
        if one.code in covered or (one.code, one.container) in said:
            continue
        said.add((one.code, one.container))
        if own is None or one.code != own.code:
            yield one
        elif one is own:
            # A run's row knows no container: what was derived does.
            named = (other.container for other in found if other.code == own.code)
            yield replace(own, container=next((name for name in named if name), ""))


def degraded(pod: PodReport | None, facts: Facts) -> Finding | None:
    """The finding that a run in progress shows in lists, or None while it is well."""
    found = [one for rule in LIVE_RULES for one in rule(pod, facts)] if pod is not None else []
    found += facts.noted
    found += [one for one in _beside(facts) if one not in facts.noted]
    return next(
        (one for one in sorted(found, key=lambda f: ORDER.index(f.severity)) if one.is_shown), None
    )


def _beside(facts: Facts) -> Iterator[Finding]:
    """Findings that need no pod."""
    if facts.backend_error is not None:
        yield of_backend(facts.backend_error)
    if facts.model_error is not None:
        yield facts.model_error
    yield from facts.noted
    if facts.is_stuck:
        yield finding("stuck", f"No progress for a while: the run waits for {facts.waits_for}.")
    for title in facts.questions:
        yield finding("permission-waiting", f"The agent asks for a permission: {title}")
    if facts.state == "queued":
        yield finding("queued", "The run waits for a place.")


def pod_state(pod: PodReport | None, facts: Facts, found: Sequence[Finding]) -> str:
    """One word for a pod: `unknown`, `gone`, `exited`, `degraded`, `starting` or `running`. Empty when there never was one."""
    if pod is None:
        return "unknown" if facts.backend_error is not None else ""
    states = {one.state for one in pod.containers}
    if facts.backend_error is not None:
        return "unknown"
    if "gone" in states or not states:
        return "gone"
    if Phase.RUNNING not in states:
        return "exited" if Phase.EXITED in states else "starting"
    if any(one.severity == "error" for one in found):
        return "degraded"
    return "starting" if Phase.CREATED in states else "running"
