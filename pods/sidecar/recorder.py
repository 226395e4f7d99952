"""What is written of an agent's events, within the run's limits."""

from __future__ import annotations

import json
from typing import Any

from pods.sidecar import translate
from pods.sidecar.outbox import Outbox
from pods.sidecar.protocol import EventKind, RunConfig

#: An event is no larger than this, whatever the frame was: payload and raw are cut.
MAX_KEPT_BYTES = 1024 * 1024
#: Kinds that pass even when the run's limit of events is used up.
ALWAYS = frozenset(
    {
        *(
            EventKind.TURN_STARTED,
            EventKind.TURN_ENDED,
            EventKind.WORK_STAGED,
            EventKind.WORK_FAILED,
        ),
        *(EventKind.AGENT_EXITED, EventKind.AGENT_REFUSED, EventKind.SESSION_STARTED),
        *(EventKind.COMMAND_APPLIED, EventKind.COMMAND_REFUSED, EventKind.DROPPED),
        *(
            EventKind.PERMISSION_REQUESTED,
            EventKind.PERMISSION_RESOLVED,
            EventKind.AGENT_INITIALIZED,
        ),
    }
)


class Recorder:
    """Writes the agent's events to the outbox, within the run's limits."""

    def __init__(self, outbox: Outbox, config: RunConfig) -> None:
        self.outbox = outbox
        self._events_left = config["max_events"]
        self._bytes_left = config["max_event_bytes"]
        self._dropped = 0
        self._dropped_bytes = 0
        self._said = 0

    async def put(
        self, kind: EventKind, payload: dict[str, Any], raw: Any = None, *, size: int | None = None
    ) -> None:
        """Store an event; one beyond the limits is counted, and said once. `size` is its frame's in bytes, where known."""
        payload = translate.bounded(payload, size=size)
        if size is None:
            size = len(json.dumps(payload))
        self._events_left -= 1
        self._bytes_left -= min(size, MAX_KEPT_BYTES)
        if (self._events_left < 0 or self._bytes_left < 0) and kind not in ALWAYS:
            self._dropped += 1
            self._dropped_bytes += size
            if self._dropped == 1:
                await self.say_dropped()
            return
        await self.outbox.put(kind, payload, raw=raw)

    async def say_dropped(self) -> None:
        """Say how much was left out, if that has changed since it was last said."""
        if self._dropped == self._said:
            return
        self._said = self._dropped
        reason = "The run's limit of events is used up; what the agent says is no longer kept."
        await self.outbox.put(
            EventKind.DROPPED,
            {"reason": reason, "count": self._dropped, "bytes": self._dropped_bytes},
        )
