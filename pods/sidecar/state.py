"""What the sidecar must still know after it was killed: one small JSON file, replaced whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class State:
    """Facts that outlive the process: the workspace is cloned, the ACP session, which commands were done.

    `prepared` names the attempt whose workspace was made and told of. `ended` is of a run that executes a command: {exit_code} once
    that has ended, so that no later attempt executes it again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cloned = False
        self.prepared = ""
        self.session_id = ""
        self.done: set[int] = set()
        self.ended: dict[str, Any] = {}
        try:
            kept: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        self.cloned = bool(kept.get("cloned"))
        self.prepared = str(kept.get("prepared", ""))
        self.session_id = str(kept.get("session_id", ""))
        self.done = {int(number) for number in kept.get("done", [])}
        self.ended = dict(kept.get("ended", {}))

    def save(self) -> None:
        """Replace the file; a crash leaves the old one or the new one."""
        draft = self.path.with_suffix(".draft")
        text = json.dumps(
            {
                "cloned": self.cloned,
                "prepared": self.prepared,
                "session_id": self.session_id,
                "done": sorted(self.done),
                "ended": self.ended,
            }
        )
        with draft.open("w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(self.path)

    def did(self, number: int) -> None:
        """Remember that a command was done."""
        self.done.add(number)
        self.save()

    @property
    def last_command(self) -> int:
        """The highest number of a command that was done."""
        return max(self.done, default=0)
