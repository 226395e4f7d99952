"""Events that an earlier attempt wrote and could not deliver: what they tell of the work goes on in this attempt's outbox."""

from __future__ import annotations

import json
import shutil

from pods.sidecar.outbox import Outbox
from pods.sidecar.protocol import EventKind

#: What was said and done. What concerned that attempt itself (its agent, its session, its end) ended with it.
CARRIED = frozenset(
    {
        *(EventKind.MESSAGE, EventKind.THOUGHT, EventKind.TOOL_CALL, EventKind.TOOL_CALL_UPDATE),
        *(EventKind.PLAN, EventKind.ACP_OTHER, EventKind.AGENT_JUNK, EventKind.LIFECYCLE),
        *(EventKind.COMMAND_APPLIED, EventKind.COMMAND_REFUSED, EventKind.SIDECAR_NOTE),
    }
)


async def carry_over(outbox: Outbox) -> int:
    """Store again what earlier attempts' outboxes still hold and remove them; returns how many events that were.

    An event that had arrived and whose acknowledgement was lost with the attempt may so be stored twice; one that had not
    arrived is not lost. An acknowledgement trims the segment only when it is full, so `acked` files keep this small.
    """
    count = 0
    for folder in sorted(outbox.folder.parent.iterdir()):
        if folder == outbox.folder or not folder.is_dir():
            continue
        try:
            acked = int((folder / "acked").read_text())
        except (OSError, ValueError):
            acked = 0
        for path in sorted(folder.glob("*.ndjson")):
            for line in path.read_bytes().splitlines():
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if event["source_seq"] > acked and event["kind"] in CARRIED:
                    await outbox.put(event["kind"], event["payload"], raw=event.get("raw"))
                    count += 1
        shutil.rmtree(folder, ignore_errors=True)
    return count
