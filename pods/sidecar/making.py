"""The run's workspace, made once: by the sidecar itself, or by its beginning in an init container (`pods.sidecar.prepare`)."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pods.sidecar import fifo
from pods.sidecar.gitrun import GitFailed
from pods.sidecar.outbox import Outbox
from pods.sidecar.protocol import EventKind, RunConfig
from pods.sidecar.state import State
from pods.sidecar.workspace import Workspace
from pods.spec import STDIO_DIR, TOKEN_DIR

OUTPUT_CHARACTERS = 4000
GONE = (
    "The workspace of the earlier attempt went with its pod: this one begins with the work that was staged, "
    "in a new session."
)


def folder(variable: str, default: str) -> Path:
    """A folder of the container: the one that the variable names, else where the pod's document mounts it."""
    return Path(os.environ.get(variable, default))


def workspace_of(config: RunConfig, *, own: Path, port: int) -> Workspace:
    """The run's workspace; the proxy at `port` brings git to the gateway."""
    tokens = folder("DEVAIPOD_TOKEN_DIR", TOKEN_DIR)
    return Workspace(
        config,
        folder=folder("DEVAIPOD_WORKSPACE", config["workspace"]),
        own=own,
        remote=f"http://127.0.0.1:{port}{config['remote']}",
        secrets=(tokens / "control", tokens / "data"),
    )


async def make(workspace: Workspace, *, state: State, outbox: Outbox, attempt: str) -> bool:
    """Have FIFOs and workspace, and say so; what this attempt has said already is not said again. False when there is none."""
    if state.prepared == attempt:
        return True
    config, started = workspace.config, time.monotonic()
    used = config["resume"] or state.cloned
    # Volumes that go with a pod take the workspace along; an agent can remove its `.git`, but not what the sidecar knows.
    is_gone = used and not state.cloned and not (workspace.folder / ".git").exists()
    head = config["base"]
    try:
        fifo.make(folder("DEVAIPOD_STDIO_DIR", STDIO_DIR))
        if is_gone or not used:
            head = await workspace.clone(from_staged=is_gone)
            state.cloned = True
            state.save()
    except (GitFailed, OSError) as error:
        output = getattr(error, "output", "") or str(error)
        await outbox.put(
            EventKind.WORKSPACE_FAILED,
            {
                "message": f"the clone of the repository into the workspace failed ({error})",
                "next_step": "Check that the base branch exists and fits into the project's workspace size.",
                "output": output[-OUTPUT_CHARACTERS:],
            },
        )
        return False
    if is_gone:
        await outbox.put(EventKind.SIDECAR_NOTE, {"level": "warning", "message": GONE})
    await outbox.put(
        EventKind.WORKSPACE_READY,
        {
            "head": head,
            "branch": config["branch"],
            "resumed": used and not is_gone,
            "seconds": round(time.monotonic() - started, 3),
        },
    )
    state.prepared = attempt
    state.save()
    return True
