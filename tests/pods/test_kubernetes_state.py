"""What a cluster says of a pod, in the shapes that API servers really send (1.20 to 1.31), and what it is to us."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest

from pods import causes, diagnostics, reports
from pods.errors import (
    BackendUnavailable,
    ImageMissing,
    PodNotFound,
    PodRefused,
    PullRefused,
    QuotaExceeded,
    StartFailed,
)
from pods.findings import CODES
from pods.kubernetes_client import Conflict, Expired, NotReady, to_error
from pods.kubernetes_cluster import read_kubeconfig
from pods.kubernetes_documents import ANNOTATION_STOPPED, pod_document
from pods.kubernetes_start import refusal
from pods.kubernetes_state import pod_state
from pods.spec import AGENT, SIDECAR, Phase
from tests.pods.test_kubernetes_documents import POD

NOW = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC)
RUNNING = {"running": {"startedAt": "2026-11-28T11:59:00Z"}}
INITIALIZING = {"waiting": {"reason": "PodInitializing"}}


def ended(code: int, reason: str = "Error", **more: Any) -> dict[str, Any]:
    """A container that ended."""
    times = {"startedAt": "2026-11-28T11:59:00Z", "finishedAt": "2026-11-28T11:59:30Z"}
    return {"terminated": {"exitCode": code, "reason": reason, **times, **more}}


def pod(
    agent: Any = INITIALIZING,
    sidecar: Any = INITIALIZING,
    *,
    home: Any = None,
    prepare: Any = None,
    ready: bool = False,
    annotations: dict[str, str] | None = None,
    **status: Any,
) -> dict[str, Any]:
    """A pod of ours as an API server tells it."""
    document = deepcopy(pod_document(POD))
    document["metadata"] |= {"uid": "u-1", "annotations": annotations or {}}
    document["spec"]["nodeName"] = "node1"

    def one(name: str, state: Any) -> dict[str, Any]:
        return {"name": name, "state": state, "ready": ready, "containerID": f"containerd://{name}"}

    document["status"] = {
        "phase": "Running",
        "podIP": "10.1.0.7",
        "initContainerStatuses": [
            one("home", home or ended(0, "Completed")),
            one("prepare", prepare or ended(0, "Completed")),
        ],
        "containerStatuses": [one(AGENT, agent), one(SIDECAR, sidecar)],
        **status,
    }
    return document


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    """A container that does not start."""
    return {"waiting": {"reason": reason, "message": message}}


def phases(document: dict[str, Any]) -> tuple[Phase, Phase]:
    """What agent and sidecar are shown to do."""
    state = pod_state(document, now=NOW)
    return state.containers[AGENT].phase, state.containers[SIDECAR].phase


def test_a_pod_at_work() -> None:
    state = pod_state(pod(RUNNING, RUNNING, ready=True), now=NOW)
    assert (state.name, state.id, state.address, state.node) == (
        POD.name,
        "u-1",
        "10.1.0.7",
        "node1",
    )
    assert state.labels == POD.labels
    assert state.troubles == ()
    assert [one.phase for one in state.containers.values()] == [Phase.RUNNING] * 2
    assert state.containers[SIDECAR].health == "healthy"
    assert state.containers[AGENT].health == ""
    assert state.containers[AGENT].started_at == datetime(2026, 11, 28, 11, 59, tzinfo=UTC)


def test_a_pod_of_which_nothing_is_known_yet() -> None:
    document = pod_document(POD)
    assert phases(document) == (Phase.CREATED, Phase.CREATED)


def test_the_sidecar_runs_from_its_beginning_on_and_the_agent_not_before_it_starts() -> None:
    begun = pod(prepare=RUNNING)
    assert phases(begun) == (Phase.CREATED, Phase.RUNNING)
    assert phases(pod(prepare=INITIALIZING, home=RUNNING)) == (Phase.CREATED, Phase.CREATED)
    # Between the good end of the one and the start of the other nothing has ended.
    assert phases(pod()) == (Phase.CREATED, Phase.RUNNING)
    failed = pod_state(pod(prepare=ended(3)), now=NOW).containers[SIDECAR]
    assert (failed.phase, failed.exit_code) == (Phase.EXITED, 3)


def test_a_failing_check_is_told_when_its_time_is_over() -> None:
    state = pod_state(pod(RUNNING, RUNNING), now=NOW, said={SIDECAR: "gateway: refused"})
    assert state.containers[SIDECAR].health == "starting"
    later = datetime(2026, 11, 28, 12, 5, tzinfo=UTC)
    sick = pod_state(pod(RUNNING, RUNNING), now=later, said={SIDECAR: "gateway: refused"})
    assert sick.containers[SIDECAR].health == "unhealthy"
    assert sick.containers[SIDECAR].health_said == "gateway: refused"


def test_an_end_for_memory_is_told() -> None:
    state = pod_state(pod(ended(137, "OOMKilled"), RUNNING), now=NOW)
    assert state.containers[AGENT].oom_killed
    assert state.containers[AGENT].exit_code == 137


def test_what_never_ran_did_not_start() -> None:
    message = 'exec: "/no/such": stat /no/such: no such file or directory'
    state = pod_state(
        pod(ended(128, "StartError", message=message, startedAt="1970-01-01T00:00:00Z"), RUNNING),
        now=NOW,
    )
    agent = state.containers[AGENT]
    assert (agent.phase, agent.started_at, agent.error) == (Phase.CREATED, None, message)
    error = refusal(pod(), state, AGENT, waited=1)
    assert isinstance(error, StartFailed)
    assert "/no/such" in error.message


NO_HOST = (
    'failed to pull and unpack image "registry.example/agent:1": dial tcp: lookup registry.example: '
    "no such host"
)
DENIED = "failed to resolve reference: pull access denied, repository does not exist or may require authorization"
EVICTED_DISK = 'Usage of EmptyDir volume "workspace" exceeds the limit "400Mi". '
EVICTED_MEMORY = "The node was low on resource: memory. Container agent was using 900Mi."
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available: 3 Insufficient memory.",
}

#: name → (document, code of the finding, words of it, the pod's phases)
STORIES: dict[str, tuple[dict[str, Any], str, str, tuple[Phase, Phase]]] = {
    "an image that is not there": (
        pod(home=waiting("ErrImagePull", NO_HOST), prepare=INITIALIZING, phase="Pending"),
        "image-not-found",
        "registry.example/agent:1",
        (Phase.CREATED, Phase.CREATED),
    ),
    "an image that is refused": (
        pod(home=waiting("ErrImagePull", DENIED), prepare=INITIALIZING, phase="Pending"),
        "pull-refused",
        "access denied",
        (Phase.CREATED, Phase.CREATED),
    ),
    "a pull that is tried again": (
        pod(RUNNING, waiting("ImagePullBackOff", 'Back-off pulling image "x"')),
        "image-not-found",
        "ImagePullBackOff",
        (Phase.RUNNING, Phase.CREATED),
    ),
    "a container that crashes again and again": (
        pod(
            {**waiting("CrashLoopBackOff", "back-off 5m0s restarting failed container")},
            RUNNING,
        ),
        "container-exited",
        "again and again",
        (Phase.EXITED, Phase.RUNNING),
    ),
    "no node with room": (
        {**pod_document(POD), "status": {"phase": "Pending", "conditions": [UNSCHEDULABLE]}},
        "quota-exceeded",
        "3 Insufficient memory",
        (Phase.CREATED, Phase.CREATED),
    ),
    "an eviction for its own disk": (
        pod(RUNNING, RUNNING, phase="Failed", reason="Evicted", message=EVICTED_DISK),
        "disk-full",
        "exceeds the limit",
        (Phase.EXITED, Phase.EXITED),
    ),
    "an eviction for the node's memory": (
        pod(RUNNING, RUNNING, phase="Failed", reason="Evicted", message=EVICTED_MEMORY),
        "pod-lost",
        "low on resource: memory",
        (Phase.EXITED, Phase.EXITED),
    ),
    "a node that does not answer": (
        pod(
            RUNNING,
            RUNNING,
            reason="NodeLost",
            message="Node node1 which was running pod x is unresponsive",
        ),
        "pod-lost",
        "unresponsive",
        (Phase.UNKNOWN, Phase.UNKNOWN),
    ),
    "a node that was shut down": (
        pod(ended(137), ended(137), phase="Failed", reason="Terminated", message="node shutdown"),
        "pod-lost",
        "node shutdown",
        (Phase.EXITED, Phase.EXITED),
    ),
    "a node without room after all": (
        pod(phase="Failed", reason="OutOfmemory", message="Node didn't have enough resource"),
        "quota-exceeded",
        "enough resource",
        (Phase.CREATED, Phase.EXITED),
    ),
    "its deadline": (
        pod(
            RUNNING,
            RUNNING,
            phase="Failed",
            reason="DeadlineExceeded",
            message="Pod was active on the node longer than the specified deadline",
        ),
        "timed-out",
        "deadline",
        (Phase.EXITED, Phase.EXITED),
    ),
    "a document that its runtime refuses": (
        pod(waiting("CreateContainerError", "context deadline exceeded"), RUNNING),
        "start-failed",
        "CreateContainerError",
        (Phase.CREATED, Phase.RUNNING),
    ),
}


@pytest.mark.parametrize("story", STORIES)
def test_what_a_cluster_says_is_a_finding_with_a_next_step(story: str) -> None:
    document, code, words, expected = STORIES[story]
    state = pod_state(document, now=NOW)
    assert phases(document) == expected
    assert [one.code for one in state.troubles] == [code]
    seen = reports.report(state, backend="kubernetes")
    found = diagnostics.diagnose(seen, diagnostics.Facts(now=NOW, state="running"))
    first = next(one for one in found if one.code == code)
    assert words in first.message
    assert first.next_step
    assert code in CODES


def test_what_a_new_attempt_would_only_repeat_ends_the_run() -> None:
    def of(story: str) -> str:
        found = causes.ended_by_backend(pod_state(STORIES[story][0], now=NOW).troubles)
        return found.code if found else ""

    assert of("an eviction for its own disk") == "disk-full"
    assert of("its deadline") == "timed-out"
    assert of("an eviction for the node's memory") == of("a node that does not answer") == ""
    lost = pod_state(STORIES["a node that does not answer"][0], now=NOW)
    assert "unresponsive" in causes.why_lost(None, is_there=True, troubles=lost.troubles)


def test_a_deadline_that_we_set_to_end_the_deaf_is_no_finding() -> None:
    document = pod(
        RUNNING,
        ended(0, "Completed"),
        annotations={ANNOTATION_STOPPED: "2026-11-28T11:59:50+00:00"},
        phase="Failed",
        reason="DeadlineExceeded",
    )
    state = pod_state(document, now=NOW)
    assert state.troubles == ()
    assert not state.running
    assert state.containers[AGENT].exit_code == 137
    assert state.containers[SIDECAR].exit_code == 0


@pytest.mark.parametrize(
    ("story", "container", "waited", "kind"),
    [
        ("an image that is not there", SIDECAR, 1, ImageMissing),
        ("an image that is refused", SIDECAR, 1, PullRefused),
        ("a pull that is tried again", SIDECAR, 1, None),
        ("a pull that is tried again", SIDECAR, 60, ImageMissing),
        ("no node with room", SIDECAR, 1, None),
        ("no node with room", SIDECAR, 40, QuotaExceeded),
        ("a node without room after all", SIDECAR, 1, QuotaExceeded),
        ("a document that its runtime refuses", AGENT, 1, StartFailed),
        ("an eviction for its own disk", AGENT, 1, StartFailed),
    ],
)
def test_waiting_ends_as_soon_as_it_is_of_no_use(
    story: str, container: str, waited: float, kind: type | None
) -> None:
    document = STORIES[story][0]
    error = refusal(document, pod_state(document, now=NOW), container, waited=waited)
    assert type(error) is (kind or type(None))


def status(code: int, reason: str, message: str) -> bytes:
    """A refusal as the API server writes it."""
    return json.dumps(
        {"kind": "Status", "code": code, "reason": reason, "message": message}
    ).encode()


@pytest.mark.parametrize(
    ("code", "reason", "message", "kind"),
    [
        (404, "NotFound", 'pods "x" not found', PodNotFound),
        (409, "AlreadyExists", 'pods "x" already exists', Conflict),
        (410, "Expired", "too old resource version: 1 (700)", Expired),
        (400, "BadRequest", "container is waiting to start: PodInitializing", NotReady),
        (
            403,
            "Forbidden",
            'pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1',
            QuotaExceeded,
        ),
        (
            403,
            "Forbidden",
            'pods "x" is forbidden: violates PodSecurity "restricted:latest": unrestricted capabilities',
            PodRefused,
        ),
        (
            403,
            "Forbidden",
            'pods is forbidden: User "u" cannot list resource "pods" in API group ""',
            BackendUnavailable,
        ),
        (401, "Unauthorized", "Unauthorized", BackendUnavailable),
        (422, "Invalid", 'Pod "x" is invalid: spec.x: Required value', PodRefused),
        (429, "TooManyRequests", "slow down", BackendUnavailable),
        (503, "ServiceUnavailable", "etcd is away", BackendUnavailable),
    ],
)
def test_a_refusal_is_an_error_that_says_what_to_do(
    code: int, reason: str, message: str, kind: type
) -> None:
    error = to_error(code, status(code, reason, message))
    assert type(error) is kind
    assert message in error.message
    assert to_error(502, b"<html>bad gateway</html>").code == "backend-unavailable"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not YAML"),
        ("a: 1", "names no cluster"),
        (
            "clusters: [{name: a, cluster: {server: x, certificate-authority: /etc/ca}}]",
            "certificate-authority",
        ),
        (
            "{clusters: [{name: a, cluster: {server: x}}], users: [{name: u, user: {exec: {command: sh}}}]}",
            "exec",
        ),
        (
            "{clusters: [{name: a, cluster: {server: x}}], users: [{name: u, user: {tokenFile: /etc/shadow}}]}",
            "tokenFile",
        ),
    ],
)
def test_a_kubeconfig_may_name_neither_a_program_nor_a_file_of_this_host(
    text: str, words: str
) -> None:
    with pytest.raises(PodRefused, match=words):
        read_kubeconfig(text)
