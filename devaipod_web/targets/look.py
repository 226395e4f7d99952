"""Look at a target: does it answer, which version is it, how many pods does it take, and does it hold a pod to its network."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from devaipod_web.runs import backends
from devaipod_web.targets.models import Target
from devaipod_web.targets.services import Found, note_found, note_policies
from pods.backend import ContainerBackend
from pods.errors import BackendError

log = structlog.get_logger("devaipod.targets")

#: A target that has not answered by then does not.
LOOK_SECONDS = 10.0
#: Trying whether a cluster enforces its policies makes two pods there.
POLICIES_SECONDS = 90.0


async def look(backend_of: Callable[[], ContainerBackend], *, policies: bool = False) -> Found:
    """What the target says of itself; with `policies` they are tried too. Raises nothing that a sentence could tell."""
    try:
        backend = backend_of()
        async with asyncio.timeout(LOOK_SECONDS):
            version = await backend.health()
            capacity = await backend.capacity()
            warning, next_step = backend.warning()
    except TimeoutError:
        return Found(error=f"It did not answer within {LOOK_SECONDS:.0f} seconds.")
    except BackendError as error:
        return Found(error=error.message, next_step=error.next_step)
    except Exception as error:
        log.exception("target.look_failed")
        return Found(error=f"It can't be looked at: {type(error).__name__}: {error}"[:500])
    found = Found(version=version, capacity=capacity, warning=warning, next_step=next_step)
    return replace(found, policies_enforced=await enforced(backend)) if policies else found


async def enforced(backend: ContainerBackend) -> bool | None:
    """Whether the target holds a pod to its network; None when that is not known. Raises nothing."""
    try:
        async with asyncio.timeout(POLICIES_SECONDS):
            return await backend.enforces_policies()
    except (TimeoutError, BackendError) as error:
        log.info("target.policies_not_tried", reason=str(error)[:300])
    except Exception:
        log.exception("target.policies_not_tried")
    return None


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
        found = self.found
        room = f" It takes {found.capacity} pods at once." if found.capacity is not None else ""
        return f"It answers: {found.version}.{room}"


async def here(target: Target) -> Found:
    """The same with this loop's backend."""
    return await look(lambda: backends.of_target(target))


def ask(target: Target) -> Tested:
    """Ask a target how it is now, and note it. Blocking: a second, on a cluster some ten for the try of its policies."""
    began = time.monotonic()
    # The backend is made inside, for the loop that it is used in.
    found = backends.run(look(lambda: backends.of_target(target), policies=True))
    note_found(target.pk, found)
    note_policies(target.pk, found.policies_enforced)
    return Tested(found, int((time.monotonic() - began) * 1000))
