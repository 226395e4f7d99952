"""Web app and gateway: whether they answer, and how late their event loop is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

from django.utils import timezone

from devaipod_web import __version__, home
from devaipod_web.gateway import sidecar
from devaipod_web.health.checks import probe
from devaipod_web.health.contract import Health, Kind, Named, Report, Service
from devaipod_web.parts import GatewayPort as PortPart
from devaipod_web.parts import Part

EVERY_SECONDS = 2.0
#: An event loop that comes to a task this late makes people and pods wait.
LATE_SECONDS = 0.5
LAG_PROBES = 5


async def loop_lag() -> float:
    """How late this loop comes to a task that is due, in seconds: the worst of a few short sleeps."""
    worst = 0.0
    for _ in range(LAG_PROBES):
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        worst = max(worst, time.monotonic() - due)
    return round(worst, 3)


class Web:
    """The web app of this process. Whoever reads this has been answered by it."""

    name = "web"
    title = "Web app and API"
    kind = Kind.LISTENER
    every = EVERY_SECONDS
    restart_does = ""
    no_restart = (
        "It serves this very answer: devaipod down, then devaipod setup, start it anew on its host."
    )

    async def check(self) -> Report:
        """How late its loop is."""
        lag = await loop_lag()
        return _by_lag(lag, "It answers.")

    async def restart(self) -> None:
        """Never called: `restart_does` is empty."""


class Gateway:
    """The pods' door: asked through its own socket, as a sidecar would."""

    name = "gateway"
    title = "Gateway"
    kind = Kind.LISTENER
    every = EVERY_SECONDS
    restart_does = (
        "It stops to listen and listens again at a new socket, which every pod is given. Sidecars dial again and lose nothing; a "
        "model's answer or a push that is under way breaks off and is tried again by the agent."
    )
    no_restart = ""

    def __init__(self, part: Part) -> None:
        self._part = part

    async def check(self) -> Report:
        """Ask for a path that is not served: the answer 404 has gone the whole way."""
        lag = await loop_lag()
        path = home.gateway_socket()
        facts = {"sidecars": str(len(sidecar.connected_pods()))}
        try:
            answer = await probe.get(path, "/", host="gateway")
        except FileNotFoundError:
            return _no_door(f"Its socket {path.name} is gone.", facts)
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", "") or str(error)
            return _no_door(f"Nobody answers at its socket: {words}.", facts)
        if answer.status != 404:
            return _no_door(f"Somebody else answers at its socket (status {answer.status}).", facts)
        found = _by_lag(lag, f"It answers; sidecars connected: {facts['sidecars']}.")
        return Report(
            found.health,
            found.says,
            next_step=found.next_step,
            version=__version__,
            lag_seconds=lag,
            last_beat=timezone.now(),
            facts=facts,
        )

    async def restart(self) -> None:
        """Close and listen anew."""
        await self._part.restart()


class GatewayPort:
    """The pods' door on its TCP port: asked there, without a token."""

    name = "gateway-port"
    title = "Gateway's port"
    kind = Kind.LISTENER
    every = EVERY_SECONDS
    restart_does = (
        "It stops to listen and listens again. Sidecars of clusters dial again and lose nothing; a model's answer or a push that is "
        "under way breaks off and is tried again by the agent."
    )
    no_restart = ""

    def __init__(self, part: PortPart) -> None:
        self._part = part

    async def check(self) -> Report:
        """Ask for a path that is not served: the answer 404 has gone the whole way."""
        part = self._part
        where = f"{part.host}, port {part.port}"
        everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked, not bound
        facts = {"listens at": where}
        try:
            answer = await probe.get_at(everywhere.get(part.host, part.host), part.port, "/")
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", "") or str(error)
            return _no_door(f"Nobody answers at {where}: {words}.", facts)
        if answer.status != 404:
            return _no_door(f"Somebody else answers at {where} (status {answer.status}).", facts)
        return Report(
            Health.OK,
            f"It answers at {where}.",
            version=__version__,
            last_beat=timezone.now(),
            facts=facts,
        )

    async def restart(self) -> None:
        """Close and listen anew."""
        await self._part.restart()


def _by_lag(lag: float, says: str) -> Report:
    late = lag > LATE_SECONDS
    return Report(
        Health.DEGRADED if late else Health.OK,
        f"Its event loop is {lag:.1f} s late: everybody waits." if late else says,
        next_step="Look for what keeps this host's processors or disk busy." if late else "",
        version=__version__,
        lag_seconds=lag,
        last_beat=timezone.now(),
    )


def _no_door(says: str, facts: dict[str, str]) -> Report:
    return Report(Health.DOWN, says, next_step="Restart it.", version=__version__, facts=facts)


def web(parts: Mapping[str, Part]) -> Named:
    """The web app of this process."""
    return _always(Web())


def gateway(parts: Mapping[str, Part]) -> Named:
    """The gateway of this process."""
    return _always(Gateway(parts["gateway"]))


def gateway_port(parts: Mapping[str, Part]) -> Named:
    """The gateway's TCP port of this process."""
    part = parts["gateway-port"]
    assert isinstance(part, PortPart)
    return _always(GatewayPort(part))


def _always(service: Service) -> Named:
    async def named() -> Sequence[Service]:
        return (service,)

    return named
