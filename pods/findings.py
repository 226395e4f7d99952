"""What can be wrong with a run and its pod: a finding, and the one table of their codes.

A code is stable: programs, pages, tests and `docs/run/diagnostics.md` name it. Its sentences are made in `pods/causes.py` and
`pods/diagnostics.py`, or are those of the error that says it best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from pods.errors import BackendError, ImageMissing, QuotaExceeded
from pods.spec import AGENT, SIDECAR

MAX_MESSAGE = 1000
MAX_NEXT_STEP = 500


class Severity(StrEnum):
    """How bad a finding is. `error`: the run fails or can't go on; `warning`: worth a look; `info`: as it should be."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


@dataclass(frozen=True)
class Code:
    """A row of the table. `next_step` counts where a finding names none of its own; `container` is whose fault it is, as a rule."""

    severity: Severity
    next_step: str
    container: str = ""


_LOOK = "Look at the agent's log, then prompt the run again: workspace and session are kept."
_SETTINGS = "Choose another image or another agent in the project's settings."
_PROVIDER = "Look at the provider's status page, then prompt the run again."

CODES: Mapping[str, Code] = {
    # before there is a pod
    "queued": Code(Severity.INFO, "It starts by itself as soon as another run has ended."),
    "upstream-failed": Code(
        Severity.ERROR, "Check the upstream's address and branch in the project's settings."
    ),
    "image-not-found": Code(Severity.ERROR, "Name an image that exists in the project's settings."),
    "pull-refused": Code(
        Severity.ERROR, "Check the image's name and the project's credential for its registry."
    ),
    "step-timed-out": Code(
        Severity.ERROR,
        "Look at the server's log and at `devaipod doctor`, then prompt the run again.",
    ),
    "control-plane-fault": Code(
        Severity.ERROR,
        "This is a fault of the control plane: its log has the details. Prompt the run again when it is mended.",
    ),
    # what the backend says
    "backend-unavailable": Code(
        Severity.ERROR, "Look at `devaipod doctor`: it says whether podman's service runs."
    ),
    "pod-refused": Code(Severity.ERROR, "Correct what it names in devcontainer.json or settings."),
    "start-failed": Code(Severity.ERROR, "`devaipod doctor` says what this host lacks."),
    "quota-exceeded": Code(Severity.ERROR, "Free what the host lacks, then prompt the run again."),
    "backend-refused": Code(Severity.ERROR, "`devaipod doctor` checks this host."),
    # starting
    "gateway-unreachable": Code(
        Severity.ERROR,
        "Look at the sidecar's log; is the gateway's socket there? `devaipod doctor` says.",
        SIDECAR,
    ),
    "clone-failed": Code(
        Severity.ERROR, "Look at the sidecar's log, then prompt the run again.", SIDECAR
    ),
    "agent-missing": Code(Severity.ERROR, _SETTINGS, AGENT),
    "lifecycle-failed": Code(
        Severity.ERROR,
        "Look at the agent's log: it names the command. Mend it on the base branch and launch a new run.",
        AGENT,
    ),
    "agent-silent": Code(
        Severity.ERROR,
        "Look at the agent's log: it may wait for something that it can't reach.",
        AGENT,
    ),
    "acp-refused": Code(
        Severity.ERROR,
        "Look at the agent's log: it says why. Then prompt the run again.",
        AGENT,
    ),
    "acp-version-mismatch": Code(
        Severity.ERROR,
        "Choose an image whose agent speaks version 1 of the Agent Client Protocol.",
        AGENT,
    ),
    # at work
    "agent-exited": Code(Severity.ERROR, _LOOK, AGENT),
    "sidecar-exited": Code(
        Severity.ERROR, "A new attempt is started by itself; look at the sidecar's log.", SIDECAR
    ),
    "container-exited": Code(Severity.ERROR, "Look at the container's log."),
    "out-of-memory": Code(
        Severity.ERROR,
        "Raise the memory limit in the project's settings, or give the agent a smaller task.",
    ),
    "health-check-failing": Code(
        Severity.ERROR, "Look at the container's log: its own check says that it is not well."
    ),
    "disk-full": Code(
        Severity.ERROR,
        "Raise the workspace's size in the project's settings, or give the agent a smaller task.",
    ),
    "logs-not-kept": Code(
        Severity.ERROR, "Look at DEVAIPOD_HOME on this host; the run itself goes on."
    ),
    "pod-lost": Code(
        Severity.ERROR,
        "Look at what was kept of the pods, and at `devaipod doctor`; then prompt the run again.",
    ),
    "timed-out": Code(
        Severity.ERROR,
        "Raise the wall time, give the agent a smaller task, or prompt the run again: workspace and session are kept.",
    ),
    "turn-cut-short": Code(
        Severity.ERROR, "Its work is staged. Prompt the run again to go on.", AGENT
    ),
    "work-not-staged": Code(
        Severity.ERROR,
        "Nothing is lost: the workspace is kept. Prompt the run again and it is staged anew.",
        SIDECAR,
    ),
    "run-failed": Code(
        Severity.ERROR, "Look at the transcript and the logs, then prompt the run again."
    ),
    "stuck": Code(
        Severity.WARNING, "Look at the transcript and the logs; cancel the turn if it does not end."
    ),
    "loop": Code(
        Severity.ERROR,
        "Look at the transcript, then resume the run with words that lead it out of the loop, or stop it.",
        AGENT,
    ),
    "permission-waiting": Code(Severity.INFO, "Answer it on the run's page."),
    # the model
    "provider-refused-key": Code(
        Severity.ERROR, "A manager enters a valid key on the Providers page."
    ),
    "provider-not-set-up": Code(
        Severity.ERROR, "A manager sets the provider and the model up on the Providers page."
    ),
    "provider-at-limit": Code(Severity.ERROR, "Wait, or raise the limit with the provider."),
    "provider-refused": Code(
        Severity.ERROR, "Check the model's name and the length of the conversation."
    ),
    "provider-failed": Code(Severity.ERROR, _PROVIDER),
    "budget-used-up": Code(
        Severity.ERROR, "Add credit or raise the budget, then prompt the run again."
    ),
    # what the host cannot hold
    "volume-unbounded": Code(
        Severity.WARNING, "Run podman as root if volumes must have a hard bound."
    ),
    "limits-not-enforced": Code(
        Severity.WARNING, "Use a host with cgroups v2, or run podman as root."
    ),
    "backend-warning": Code(Severity.WARNING, "`devaipod doctor` checks this host."),
}
#: Warnings that a run in progress shows in lists beside its errors.
SHOWN_WARNINGS = frozenset({"stuck"})


@dataclass(frozen=True)
class Finding:
    """Something to know about a run: a code of `CODES`, a sentence that names the cause and one that names the next step.

    `container` is the container that it is about, or empty.
    """

    code: str
    severity: Severity
    message: str
    next_step: str
    container: str = ""

    @property
    def is_shown(self) -> bool:
        """Whether lists show it on a run in progress."""
        return self.severity is Severity.ERROR or self.code in SHOWN_WARNINGS

    def lowered(self) -> Finding:
        """The same as a warning, where the run went well in spite of it."""
        return replace(self, severity=max(self.severity, Severity.WARNING, key=ORDER.index))

    def as_json(self) -> dict[str, str]:
        """For API, page and what is kept."""
        return asdict(self)


def finding(
    code: str, message: str, *, next_step: str = "", container: str | None = None
) -> Finding:
    """A finding with what the table says where nothing else is given. Raises KeyError for a code that is not in it."""
    row = CODES[code]
    return Finding(
        code,
        row.severity,
        " ".join(message.split())[:MAX_MESSAGE],
        (next_step or row.next_step)[:MAX_NEXT_STEP],
        row.container if container is None else container,
    )


def from_json(kept: Mapping[str, Any]) -> Finding | None:
    """A finding out of what was kept; None when its code is no longer one."""
    code = str(kept.get("code", ""))
    if code not in CODES:
        return None
    return replace(
        finding(
            code,
            str(kept.get("message", "")),
            next_step=str(kept.get("next_step", "")),
            container=str(kept.get("container", "")),
        ),
        severity=Severity(kept.get("severity", CODES[code].severity)),
    )


def of_backend(error: BackendError) -> Finding:
    """What a container backend's refusal is as a finding."""
    code = error.code
    if isinstance(error, ImageMissing):
        code = "image-not-found"
    elif isinstance(error, QuotaExceeded) and is_disk_full(error.message):
        code = "disk-full"
    elif code not in CODES:
        code = "backend-refused"
    return finding(code, error.message, next_step=error.next_step)


#: How Linux and its programs say that a disk, a quota or a volume has no room (ENOSPC, EDQUOT).
_FULL = ("no space left", "disk quota exceeded", "there is no room on this host")


def is_disk_full(text: str) -> bool:
    """Whether a text says that something has no room left on a disk."""
    low = text.lower()
    return any(words in low for words in _FULL)
