"""Look at a target: does it answer, which version is it, how many pods does it take, and does it hold a pod to its network."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog

from devaipod_web.targets.services import Found
from pods.backend import ContainerBackend
from pods.errors import BackendError

log = structlog.get_logger("devaipod.targets")

#: A target that has not answered by then does not.
LOOK_SECONDS = 10.0


async def look(backend: ContainerBackend) -> Found:
    """What the target says of itself. Raises nothing that a sentence could tell."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            version = await backend.health()
            capacity = await backend.capacity()
            enforced = await backend.enforces_policies()
    except TimeoutError:
        return Found(error=f"It did not answer within {LOOK_SECONDS:.0f} seconds.")
    except BackendError as error:
        return Found(error=error.message, next_step=error.next_step)
    except Exception as error:
        log.exception("target.look_failed")
        return Found(error=f"It can't be looked at: {type(error).__name__}: {error}"[:500])
    return Found(version=version, capacity=capacity, policies_enforced=enforced)


@dataclass(frozen=True)
class Tested:
    """What came of a test that a person asked for."""

    found: Found
    milliseconds: int

    @property
    def ok(self) -> bool:
        """Whether it answered."""
        return self.found.ok

    @property
    def message(self) -> str:
        """The same in a sentence."""
        if not self.ok:
            return self.found.error
        room = f"takes {self.found.capacity} pods" if self.found.capacity is not None else ""
        return ", ".join(part for part in (f"It answers: {self.found.version}", room) if part) + "."


async def tested(backend: ContainerBackend) -> Tested:
    """Look, and time it."""
    began = time.monotonic()
    found = await look(backend)
    return Tested(found, int((time.monotonic() - began) * 1000))
