"""podman's API service: whether it answers, and starting the one that we started anew."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

from django.conf import settings

from devaipod_web import home
from devaipod_web.health.checks import probe
from devaipod_web.health.contract import Health, Kind, Named, Report, Service
from devaipod_web.host import podman_service
from devaipod_web.parts import Part
from pods.podman_client import VERSION_HEADER

EVERY_SECONDS = 2.0


class Podman:
    """The service at `home.podman_socket()`."""

    name = "podman"
    title = "podman's API service"
    kind = Kind.BACKEND
    every = EVERY_SECONDS

    def __init__(self) -> None:
        foreign = os.environ.get("DEVAIPOD_PODMAN_SOCKET")
        self.restart_does = (
            ""
            if foreign
            else "The service is ended and started anew. Pods and agents go on; what followed them looks again and misses nothing."
        )
        self.no_restart = (
            f"It is not ours (DEVAIPOD_PODMAN_SOCKET names {foreign}): restart it where it was started."
            if foreign
            else ""
        )

    async def check(self) -> Report:
        """Ping it: the answer names its version, as `PodmanClient.version` says."""
        if not settings.PODMAN:
            return Report(Health.OK, "It is not used here (DEVAIPOD_PODMAN).")
        try:
            answer = await probe.get(home.podman_socket(), "/_ping", host="d")
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", "") or str(error) or type(error).__name__
            return self._down(f"It does not answer at {home.podman_socket()}: {words}.")
        version = answer.headers.get(VERSION_HEADER.lower(), "")
        if answer.status != 200 or not version:
            return self._down(f"It answers {answer.status} instead of its version.")
        return Report(Health.OK, "It answers.", version=f"podman {version}")

    def _down(self, says: str) -> Report:
        step = "Restart it." if self.restart_does else self.no_restart
        return Report(Health.DOWN, f"{says} Runs wait for it.", next_step=step)

    async def restart(self) -> None:
        """End it and start it. Raises ServiceFailed with its last lines."""
        await asyncio.to_thread(_again)


def _again() -> None:
    podman_service.stop()
    podman_service.ensure()


def service(parts: Mapping[str, Part]) -> Named:
    """podman, which the supervisor's process speaks to."""
    podman = Podman()

    async def named() -> Sequence[Service]:
        return (podman,)

    return named
