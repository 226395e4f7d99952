from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pods import causes, diagnostics, reports
from pods.diagnostics import Facts, diagnose
from pods.diagnostics_text import as_text
from pods.errors import (
    BackendError,
    BackendUnavailable,
    ImageMissing,
    PodRefused,
    PullRefused,
    QuotaExceeded,
    StartFailed,
)
from pods.findings import CODES, Finding, Severity, finding, of_backend
from pods.reports import ContainerReport, PodReport, from_kept
from pods.spec import AGENT, SIDECAR, ContainerState, Phase, PodState

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
FACTS = Facts(now=NOW, state="running", program="opencode", memory_bytes=2 * 1024**3)


def container(name: str, state: str = "running", **more) -> ContainerReport:
    return ContainerReport(name=name, state=state, image="img:1", **more)


def ended(code: int, **more) -> ContainerReport:
    more.setdefault("logs", ("", "boom"))
    return container(AGENT, "exited", exit_code=code, finished_at=NOW, **more)


def pod(*containers: ContainerReport, **more) -> PodReport:
    there = {one.name for one in containers}
    rest = [container(name) for name in (AGENT, SIDECAR) if name not in there]
    return PodReport("devaipod-shop-abc-1", "podman", NOW, (*containers, *rest), **more)


def codes(found: list[Finding]) -> list[str]:
    return [one.code for one in found]


@pytest.mark.parametrize(
    ("state", "code", "says", "step"),
    [
        (ended(42), "agent-missing", "`opencode` is not in image img:1 (exit code 42)", "image"),
        (ended(43), "lifecycle-failed", "lifecycle command", "Mend it"),
        (ended(137, oom_killed=True), "out-of-memory", "memory than it may (2.0 GiB", "limit"),
        (ended(137), "out-of-memory", "was killed (exit code 137)", "again"),
        (ended(1), "agent-exited", "exit code 1). Its last words: boom", "log"),
        (ended(0), "agent-exited", "although it did not fail", "log"),
        (ended(139), "agent-exited", "crashed", "log"),
        (
            ended(1, logs=("OSError: [Errno 28] No space left on device",)),
            "disk-full",
            "full",
            "size",
        ),
    ],
)
def test_why_an_agent_ended_is_said_with_what_to_do(state, code, says, step):
    (found,) = diagnose(pod(state), FACTS)
    assert (found.code, found.severity, found.container) == (code, Severity.ERROR, AGENT)
    assert says in found.message
    assert step in found.next_step


def test_nothing_is_wrong_with_a_pod_that_works():
    assert diagnose(pod(), FACTS) == []
    assert diagnostics.pod_state(pod(), FACTS, []) == "running"


def test_what_ends_after_the_run_was_ended_by_us_and_is_no_finding():
    facts = replace(FACTS, is_active=False, over_at=NOW - timedelta(seconds=5), state="succeeded")
    assert diagnose(pod(ended(143)), facts) == []
    earlier = replace(facts, over_at=NOW + timedelta(seconds=5))
    assert codes(diagnose(pod(ended(143)), earlier)) == ["agent-exited"]


def test_a_run_that_no_longer_needs_its_pod_has_no_finding_about_its_end():
    assert diagnose(pod(ended(143)), replace(FACTS, is_active=False)) == []


def test_the_runs_own_word_comes_first_and_is_not_repeated():
    own = finding("agent-exited", "The agent ended (exit code 7).")
    facts = replace(FACTS, own=own, is_active=False, over_at=NOW + timedelta(seconds=1))
    assert diagnose(pod(ended(7)), facts) == [own]


def test_the_runs_own_word_is_about_the_container_that_was_seen_to_end():
    own = finding("out-of-memory", "The agent was killed.", container="")
    facts = replace(FACTS, own=own, is_active=False, over_at=NOW + timedelta(seconds=1))
    (found,) = diagnose(pod(ended(137, oom_killed=True)), facts)
    assert found == replace(own, container=AGENT)


def test_errors_come_before_warnings_and_those_before_what_is_as_it_should_be():
    seen = pod(
        container(AGENT, health="unhealthy", health_said="no"),
        warnings=(
            "Rootless podman cannot bound the disk use of a volume: it is measured.",
            "Rootless podman on cgroups v1 enforces no memory, CPU or process limit on this host.",
            "Something else.",
        ),
    )
    facts = replace(FACTS, questions=("rm -r build",), is_stuck=True, waits_for="the tool")
    assert codes(diagnose(seen, facts)) == [
        "health-check-failing",
        "volume-unbounded",
        "limits-not-enforced",
        "backend-warning",
        "stuck",
        "permission-waiting",
    ]
    assert diagnostics.pod_state(seen, facts, diagnose(seen, facts)) == "degraded"


def test_a_failing_check_says_what_it_printed():
    (found,) = diagnose(pod(container(AGENT, health="unhealthy", health_said="db\n down")), FACTS)
    assert found.message == "The health check of the container `agent` fails: it says “db down”."
    assert found.container == AGENT


def test_a_sidecar_whose_gateway_is_away_is_named_so():
    sick = container(SIDECAR, health="unhealthy", health_said="gateway: Connection refused")
    (found,) = diagnose(pod(sick), FACTS)
    assert found.code == "gateway-unreachable"
    assert "Connection refused" in found.message


def test_a_sidecar_that_has_not_dialled_in_time_is_said_with_its_last_words():
    sidecar = container(SIDECAR, logs=("gateway away: FileNotFoundError",))
    facts = replace(FACTS, state="starting", made_at=NOW - timedelta(seconds=3))
    assert diagnose(pod(sidecar), facts) == []
    late = replace(facts, made_at=NOW - timedelta(seconds=12))
    (found,) = diagnose(pod(sidecar), late)
    assert found.code == "gateway-unreachable"
    assert "12 s" in found.message and "FileNotFoundError" in found.message
    assert diagnose(pod(sidecar), replace(late, connected_at=NOW)) == []


def test_a_lost_pods_sidecar_is_not_named_twice():
    gone = container(SIDECAR, "exited", exit_code=1, finished_at=NOW, logs=("No module",))
    why = causes.why_lost(gone, is_there=True)
    own = causes.pod_lost(why, times=3)
    facts = replace(FACTS, own=own, is_active=False, over_at=NOW + timedelta(seconds=1))
    assert diagnose(pod(gone), facts) == [own]
    assert "3 times" in own.message and "No module" in own.message


def test_a_container_beside_that_ends_is_a_finding():
    extra = container("database", "exited", exit_code=2, finished_at=NOW, logs=("no disk",))
    (found,) = diagnose(pod(extra), FACTS)
    assert (found.code, found.container) == ("container-exited", "database")
    hungry = replace(extra, oom_killed=True)
    assert codes(diagnose(pod(hungry), FACTS)) == ["out-of-memory"]


def test_a_container_that_could_not_be_started_says_why():
    broken = ContainerReport(name=AGENT, state="created", error="no such file or directory")
    (found,) = diagnose(pod(broken), FACTS)
    assert found.code == "start-failed"
    assert "no such file" in found.message


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackendUnavailable("podman does not answer"), "backend-unavailable"),
        (ImageMissing("no such image"), "image-not-found"),
        (PullRefused("denied"), "pull-refused"),
        (PodRefused("runs as root"), "pod-refused"),
        (StartFailed("runc"), "start-failed"),
        (QuotaExceeded("podman: no space left on device"), "disk-full"),
        (QuotaExceeded("too many processes"), "quota-exceeded"),
        (BackendError("podman answered 500"), "backend-refused"),
    ],
)
def test_every_refusal_of_a_backend_is_a_finding(error, code):
    found = of_backend(error)
    assert found.code == code
    assert found.message == error.message
    assert found.next_step


def test_a_backend_that_does_not_answer_is_a_finding_and_the_pods_state_unknown():
    facts = replace(FACTS, backend_error=BackendUnavailable("podman does not answer"))
    assert codes(diagnose(None, facts)) == ["backend-unavailable"]
    assert diagnostics.pod_state(None, facts, []) == "unknown"


@pytest.mark.parametrize(
    ("stage", "code"),
    [
        ("initialize", "acp-refused"),
        ("version", "acp-version-mismatch"),
        ("session", "acp-refused"),
        ("prompt", "acp-refused"),
        ("something new", "acp-refused"),
    ],
)
def test_an_agent_that_says_no_is_a_finding_by_its_stage(stage, code):
    found = causes.agent_refused(stage, "not today", None)
    assert found.code == code
    assert "not today" in found.message


def test_a_prompt_that_failed_with_the_model_has_the_model_as_its_cause():
    cause = finding("provider-refused-key", "The provider X refused its key (401).")
    found = causes.agent_refused("prompt", "Internal error", cause)
    assert (found.code, found.next_step) == (cause.code, cause.next_step)
    assert cause.message in found.message
    assert causes.agent_refused("session", "no", cause).code == "acp-refused"


def test_a_clone_that_had_no_room_is_a_full_disk():
    assert causes.clone_failed("the clone failed", "fatal: bad object", "x").code == (
        "clone-failed"
    )
    full = causes.clone_failed("the clone failed", "error: No space left on device", "x")
    assert full.code == "disk-full"


def test_logs_that_cannot_be_kept_are_a_full_disk_only_when_it_is_full():
    assert causes.not_kept("logs are not kept: No space left on device.").code == "disk-full"
    assert causes.not_kept("logs are not kept: Permission denied.").code == "logs-not-kept"


def test_what_lists_show_of_a_run_in_progress():
    sick = pod(container(AGENT, health="unhealthy"))
    assert diagnostics.degraded(sick, FACTS).code == "health-check-failing"
    assert diagnostics.degraded(pod(ended(1)), FACTS) is None  # the supervisor decides about that
    asks = replace(FACTS, questions=("rm",))
    assert diagnostics.degraded(pod(), asks) is None
    assert diagnostics.degraded(pod(warnings=("cannot bound the disk use",)), FACTS) is None
    stuck = replace(FACTS, is_stuck=True, waits_for="the model's answer")
    assert diagnostics.degraded(pod(), stuck).code == "stuck"
    assert diagnostics.degraded(None, FACTS) is None


def test_a_pod_is_the_same_after_it_was_kept():
    state = PodState(
        name="devaipod-shop-abc-1",
        id="1",
        labels={},
        created_at=NOW,
        containers={
            AGENT: ContainerState(
                AGENT, "2", Phase.EXITED, "img:1", exit_code=42, started_at=NOW, finished_at=NOW
            )
        },
        warnings=("cannot bound the disk use",),
    )
    seen = reports.report(state, backend="podman", lines={AGENT: ["a", "b"]})
    kept = replace(seen, findings=tuple(diagnose(seen, FACTS)))
    again = from_kept(kept.as_json())
    assert again == kept
    # What was found then counts; the end of the pod's containers is not judged anew.
    assert diagnose(again, replace(FACTS, is_active=False)) == list(kept.findings)
    older = {key: value for key, value in kept.as_json().items() if key != "findings"}
    assert codes(diagnose(from_kept(older), FACTS)) == ["agent-missing", "volume-unbounded"]


@pytest.mark.parametrize(
    ("states", "word"),
    [
        (("created", "running"), "starting"),
        (("running", "running"), "running"),
        (("exited", "running"), "running"),
        (("exited", "exited"), "exited"),
        (("gone", "gone"), "gone"),
        ((), "gone"),
    ],
)
def test_the_state_of_a_pod_is_one_word(states, word):
    seen = PodReport("p", "podman", NOW, tuple(container(f"c{n}", s) for n, s in enumerate(states)))
    assert diagnostics.pod_state(seen, FACTS, []) == word
    assert diagnostics.pod_state(None, FACTS, []) == ""


def test_the_text_says_the_same_as_the_document():
    document = {
        "run": "abc",
        "run_state": "failed",
        "attempt": 1,
        "name": "devaipod-shop-abc-1",
        "state": "exited",
        "created_at": NOW,
        "backend": "podman",
        "containers": [ended(42).as_json()],
        "findings": [one.as_json() for one in diagnose(pod(ended(42)), FACTS)],
    }
    text = as_text(document)
    assert "✗ agent-missing [agent]: The agent's program `opencode`" in text
    assert "  → Choose another image" in text
    assert "agent: exited, exit code 42" in text
    assert "Container Logs\n  --- agent (last 2 lines)\n" in text
    assert "boom" in text
    none = {**document, "name": None, "containers": [], "findings": []}
    assert "Pod: there is none" in as_text(none) and "Nothing is wrong." in as_text(none)


def test_every_code_of_the_table_has_a_next_step():
    for code, row in CODES.items():
        assert row.next_step.endswith("."), code
        assert code == code.lower() and " " not in code


texts = st.text(max_size=40)


@given(
    st.lists(
        st.builds(
            ContainerReport,
            name=st.sampled_from([AGENT, SIDECAR, "database"]),
            state=st.sampled_from([*Phase, "gone", "odd"]),
            image=texts,
            exit_code=st.none() | st.integers(0, 255),
            health=st.sampled_from(["", "starting", "healthy", "unhealthy"]),
            health_said=texts,
            oom_killed=st.booleans(),
            error=texts,
            finished_at=st.none() | st.just(NOW),
            logs=st.lists(texts, max_size=5).map(tuple),
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_whatever_a_backend_shows_there_is_an_answer(containers, is_active):
    facts = replace(FACTS, is_active=is_active)
    seen = PodReport("p", "podman", None, tuple(containers))
    found = diagnose(seen, facts)
    assert diagnostics.pod_state(seen, facts, found)
    for one in found:
        assert one.code in CODES and one.message and one.next_step
        assert len(one.message) <= 1000 and "\n" not in one.message
    assert from_kept(seen.as_json()).containers == seen.containers
