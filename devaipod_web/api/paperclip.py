"""What Paperclip's http adapter adds to every body that it sends, and what becomes of it here.

The adapter posts its `payloadTemplate` with `agentId`, `runId` and `context` merged in, and takes any 2xx for accepted. So a
`payloadTemplate` that is one of our bodies launches a run without a program between.
"""

from __future__ import annotations

import json
from typing import Any

from devaipod_web.api.schemas.common import Body, doc

AGENT, RUN, TASK = "paperclip.agent", "paperclip.run", "paperclip.task"
MAX_ID = 200
MAX_CONTEXT_CHARACTERS = 16 * 1024


class PaperclipIn(Body):
    """Fields of Paperclip's http adapter; empty from everybody else. They become labels, and its run's id an idempotency key."""

    agentId: str = doc("Paperclip's agent.", "", "", max_length=4000)
    runId: str = doc("Paperclip's run.", "", "", max_length=4000)
    context: dict[str, Any] = doc("What Paperclip says of it.", {}, {})

    @property
    def labels_of_paperclip(self) -> dict[str, str]:
        """The labels that say which agent, run and task of Paperclip's this is for."""
        found = {AGENT: self.agentId, RUN: self.runId, TASK: self.task_id}
        return {name: value[:MAX_ID] for name, value in found.items() if value}

    @property
    def task_id(self) -> str:
        """Paperclip's task, which it also calls an issue."""
        return str(self.context.get("taskId") or self.context.get("issueId") or "")

    @property
    def idempotency_key_of_paperclip(self) -> str | None:
        """A key that makes one run of one of Paperclip's, however often it is sent."""
        return f"paperclip:{self.runId}"[:100] if self.runId else None

    @property
    def words_of_paperclip(self) -> str:
        """The context as a paragraph for an agent's task."""
        if not self.context:
            return ""
        text = json.dumps(self.context, indent=2, ensure_ascii=False)[:MAX_CONTEXT_CHARACTERS]
        return f"\n\nPaperclip says of this:\n\n```json\n{text}\n```"

    @property
    def env_of_paperclip(self) -> dict[str, str]:
        """Variables for a command, named as Paperclip's process adapter names them."""
        found = {
            "PAPERCLIP_AGENT_ID": self.agentId,
            "PAPERCLIP_RUN_ID": self.runId,
            "PAPERCLIP_TASK_ID": self.task_id,
        }
        return {name: value[:MAX_ID] for name, value in found.items() if value}
