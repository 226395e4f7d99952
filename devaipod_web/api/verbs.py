"""The operations that the two-domain design names for orchestrators, each as one operation of the API and one verb of the command.

The one place: `docs/orchestrators.md` shows this table, and a test compares both, the API and the command with it.
"""

from __future__ import annotations

from typing import NamedTuple


class Verb(NamedTuple):
    """`name` is the design's, `operation` an operation id of the API, `cli` the words after `devaipod`."""

    name: str
    operation: str
    cli: str


VERBS = (
    Verb("Setup", "setup", "setup"),
    Verb("Status", "status", "status"),
    Verb("Teardown", "teardown", "teardown"),
    Verb("ListServices", "services_list", "services"),
    Verb("RestartService", "service_restart", "restart"),
    Verb("RunAgent", "run_create", "run"),
    Verb("CreateAgentPod", "pod_create", "pod create"),
    Verb("ListAgentPods", "pods_list", "pod ls"),
    Verb("AttachAgentPod", "pod_exec", "attach"),
    Verb("StreamAgentLogs", "pod_logs", "logs"),
    Verb("StopAgentPod", "pod_stop", "pod stop"),
    Verb("DestroyAgentPod", "pod_destroy", "pod rm"),
    Verb("ListPendingReviews", "reviews_list", "review list"),
    Verb("ReviewDiff", "review_diff", "diff"),
    Verb("Promote", "review_promote", "promote"),
)
