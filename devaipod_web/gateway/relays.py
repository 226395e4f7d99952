"""Keeps the relay of every target whose pods reach the gateway through one (gateway mode `relay`), and writes down how each is.

This process dials; nothing of it needs an address that a cluster could reach. Where the relay is (`Target.relay_address`) is what new
pods are given, and while it is not connected its target takes no new run.
"""

from __future__ import annotations

import asyncio
import hmac

import structlog
import uvicorn
from django.conf import settings
from django.db import DatabaseError

from devaipod_web import db, home
from devaipod_web.gateway.http import Receive, Scope, Send
from devaipod_web.gateway.origin import SCOPE_KEY, Application, Origin
from devaipod_web.gateway.relayed import Door
from devaipod_web.llm import vault
from devaipod_web.runs import wake
from devaipod_web.targets import queries
from devaipod_web.targets.models import GatewayMode, Target, TargetKind
from devaipod_web.targets.services import kubeconfig_of, note_relay
from pods.kubernetes_client import KubeClient
from pods.kubernetes_cluster import Cluster
from pods.kubernetes_relay import Relay, RelayState

log = structlog.get_logger("devaipod.gateway.relays")

#: How often the rows are looked at for targets that came, went or are reached in another way, in seconds.
LOOK_SECONDS = 2.0
#: What runs at the server's end has this long.
DRAIN_SECONDS = 4.0
#: Taking a relay away must not hold up the server's end or a look at the rows.
REMOVE_SECONDS = 20.0
#: `wake`'s name for changes that the page Services shows.
SERVICES = "services"


class FromRelay:
    """The gateway's application as a target's relay brings requests: each with the address that the relay saw, and the target.

    Two clusters may have pods of the same address.
    """

    def __init__(self, inner: Application, target_id: int) -> None:
        self._inner = inner
        self._target_id = target_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its origin."""
        if scope["type"] in ("http", "websocket"):
            client = scope.get("client") or ("", 0)
            scope[SCOPE_KEY] = Origin(address=str(client[0]), target_id=self._target_id)
        await self._inner(scope, receive, send)


class Kept:
    """One target's relay and the task that keeps it."""

    def __init__(
        self, target: Target, made_from: tuple[str, ...], application: Application
    ) -> None:
        from devaipod_web.parts import gateway_options

        self.target = target
        self.made_from = made_from
        config = uvicorn.Config(
            FromRelay(application, target.pk), lifespan="off", **gateway_options()
        )
        self.door = Door(config)
        self._client = KubeClient(
            Cluster(
                name=target.name,
                installation=home.installation_id(),
                namespace=target.namespace,
                kubeconfig=kubeconfig_of(target),
                context=target.context,
            )
        )
        self.relay = Relay(
            self._client,
            image=settings.SIDECAR_IMAGE,
            token=token_of(target),
            accept=self.door.serve,
            gateway=target.gateway_address,
            changed=self._changed,
        )
        self._task = asyncio.create_task(self.relay.run(), name=f"relay {target.name}")

    async def _changed(self, state: RelayState) -> None:
        log.info(
            "relay.state",
            target=self.target.name,
            connected=state.connected,
            says=state.says,
            address=state.address,
        )
        try:
            await db.write(note_relay, self.target.pk, state)
        except DatabaseError:
            log.warning("relay.not_written", target=self.target.name, exc_info=True)
        wake.wake_now(SERVICES)

    async def stop(self, *, drain: float = 0, remove: bool = False) -> None:
        """End the forward, and take the relay away when its target needs it no more."""
        await self.door.drain(drain)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        try:
            if remove:
                async with asyncio.timeout(REMOVE_SECONDS):
                    await self.relay.remove()
        except Exception as error:
            log.warning("relay.not_removed", target=self.target.name, error=str(error)[:300])
        await self._client.close()


class Relays:
    """All of them. One a process that serves the gateway."""

    def __init__(self) -> None:
        self.kept: dict[int, Kept] = {}
        #: Targets whose relay can't be kept, and why: their kubeconfig can't be read.
        self.broken: dict[int, str] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Keep them until told to end."""
        await db.write(_forget_states)
        try:
            while not stop.is_set():
                try:
                    await self._look()
                except DatabaseError:
                    log.warning("relays.not_looked", exc_info=True)
                await _pause(stop, LOOK_SECONDS)
        finally:
            gone = list(self.kept.values())
            self.kept.clear()
            await asyncio.gather(*(one.stop(drain=DRAIN_SECONDS) for one in gone))
            await db.write(_forget_states)

    async def _look(self) -> None:
        rows = {row.pk: row for row in await db.read(_relayed)}
        for pk in list(self.kept):
            if pk not in rows:
                await self.kept.pop(pk).stop(remove=True)
        self.broken = {pk: why for pk, why in self.broken.items() if pk in rows}
        for row in rows.values():
            await self._keep(row)

    async def _keep(self, row: Target) -> None:
        made_from = _made_from(row)
        kept = self.kept.get(row.pk)
        if kept is not None and kept.made_from == made_from:
            kept.target = row
            state = kept.relay.state
            if state.connected and not row.relay_connected:
                # Another process lost its own, or ended.
                await db.write(note_relay, row.pk, state)
            return
        if kept is not None:
            # Where it was, nothing of this target is kept any more, unless only the way there has changed.
            moved = (kept.target.server, kept.target.namespace) != (row.server, row.namespace)
            await self.kept.pop(row.pk).stop(remove=moved)
        from devaipod_web.gateway.app import application

        try:
            self.kept[row.pk] = Kept(row, made_from, application)
            self.broken.pop(row.pk, None)
        except vault.CannotUnseal as error:
            if row.pk not in self.broken:
                says = f"The kubeconfig of {row.name} cannot be read: {error}"
                step = f"Enter the kubeconfig of {row.name} again on its page."
                await db.write(note_relay, row.pk, RelayState(says=says, next_step=step))
                self.broken[row.pk] = says


def token_of(target: Target) -> str:
    """What proves this installation to the target's relay; it is made of the installation's secret, so that nothing need be stored."""
    said = f"devaipod relay {home.installation_id()} {target.key}".encode()
    return hmac.new(settings.SECRET_KEY.encode(), said, "sha256").hexdigest()


def _made_from(row: Target) -> tuple[str, ...]:
    secret = bytes(row.kubeconfig).hex()
    return (row.namespace, row.context, row.gateway_address, secret, vault.fingerprint())


def _relayed() -> list[Target]:
    rows = queries.targets().filter(kind=TargetKind.KUBERNETES, gateway_mode=GatewayMode.RELAY)
    return list(rows)


def _forget_states() -> None:
    """What another process wrote that kept them: none is connected now."""
    Target.objects.filter(relay_connected=True).update(
        relay_connected=False,
        relay_says="The gateway that keeps the forward is starting or has ended.",
        relay_next_step="",
    )


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass
