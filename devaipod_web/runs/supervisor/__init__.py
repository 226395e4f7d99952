"""The supervisor: the database says what should be, the backend says what is, and this closes the gap.

loop.py      admission to the MAX_RUNS places, leases, the beats
driver.py    one task a run: what is next, decided from the database each time
start.py     the steps from `preparing` to an agent with a session
watch.py     a run at work: lost pods, dead agents, deadlines, being stuck
ending.py    the end of a pod: stage, keep diagnostics, remove
pod_spec.py  the pod's specification, a pure function
"""

from __future__ import annotations

import asyncio

from devaipod_web.runs.supervisor.status import service
from pods.backend import ContainerBackend


async def supervise(backend: ContainerBackend, *, stop: asyncio.Event) -> None:
    """Run the supervisor until `stop` is set, then let go of every lease, so that the next one goes on at once."""
    # Here, since pages and API need names and status of this package without the rooms that the loop reaches.
    from devaipod_web.runs.supervisor.loop import Supervisor

    await Supervisor(backend).run(stop)


__all__ = ["service", "supervise"]
