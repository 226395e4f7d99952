from __future__ import annotations

from types import SimpleNamespace

from devaipod_web.runs.supervisor.health import HealthChecks
from pods.errors import BackendUnavailable
from pods.spec import AGENT, SIDECAR, ContainerState, Phase, PodState


class Backend:
    """The part of a backend that checks, at the edge of the loop under test; the real one has its conformance suite."""

    name = "edge"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.hangs: set[str] = set()
        self.away = False

    async def check_health(self, pod: str, container: str) -> bool:
        self.asked.append((pod, container))
        if self.away:
            raise BackendUnavailable("podman is away")
        return container not in self.hangs


def pod(name: str, *, health: str = "healthy", identity: str = "1") -> PodState:
    containers = {
        AGENT: ContainerState(AGENT, f"a{identity}", Phase.RUNNING, "img", health=health),
        SIDECAR: ContainerState(SIDECAR, f"s{identity}", Phase.RUNNING, "img"),
    }
    return PodState(name, name, {}, None, containers)


def checks(*pods: PodState, unavailable: str = "") -> tuple[Backend, HealthChecks]:
    backend = Backend()
    picture = SimpleNamespace(pods={one.name: one for one in pods}, known=not unavailable)
    return backend, HealthChecks(backend, picture)  # type: ignore[arg-type]


async def test_every_running_container_with_a_check_is_checked_and_no_other():
    backend, loop = checks(pod("one"), pod("two", health=""))
    await loop.round()
    assert backend.asked == [("one", AGENT)]


async def test_a_check_that_hung_is_not_run_again_until_its_container_is_another():
    backend, loop = checks(pod("one"))
    backend.hangs = {AGENT}
    await loop.round()
    await loop.round()
    assert len(backend.asked) == 1
    loop.picture.pods = {"one": pod("one", identity="2")}
    await loop.round()
    assert len(backend.asked) == 2


async def test_a_backend_that_is_away_is_asked_again():
    backend, loop = checks(pod("one"))
    backend.away = True
    await loop.round()
    backend.away = False
    await loop.round()
    assert len(backend.asked) == 2


async def test_nothing_is_checked_while_the_picture_is_not_known():
    backend, loop = checks(pod("one"), unavailable="podman is away")
    await loop.round()
    assert backend.asked == []
