"""The forward to each cluster whose pods reach the gateway through a relay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from devaipod_web.gateway.relays import Kept
from devaipod_web.health.contract import Health, Kind, Named, Report, Service
from devaipod_web.parts import Part
from devaipod_web.parts import Relays as RelaysPart
from pods.kubernetes_relay import RelayState

EVERY_SECONDS = 1.0


class Forward:
    """One target's relay and the forward to it."""

    kind = Kind.LISTENER
    every = EVERY_SECONDS
    restart_does = (
        "The forward is closed and opened again. Sidecars dial again and lose nothing; a model's answer or a push that is under way "
        "breaks off and is tried again by the agent."
    )
    no_restart = ""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.name = f"relay-{kept.target.key}"
        self.title = f"Relay of {kept.target.name}"

    async def check(self) -> Report:
        """What its keeper found last."""
        return report(self.kept.relay.state, self.kept.target.name)

    async def restart(self) -> None:
        """Open it anew."""
        self.kept.relay.renew()


def report(state: RelayState, target: str) -> Report:
    """A forward's state as a service's."""
    facts = {"forwards opened": str(state.opened), "connections now": str(state.streams)}
    if state.address:
        facts["relay"] = state.address
    if state.connected:
        return Report(Health.OK, state.says, facts=facts)
    says = f"{state.says} Pods of {target} do not reach the gateway, and no run starts there."
    return Report(Health.DOWN, says, next_step=state.next_step, facts=facts)


def each(parts: Mapping[str, Part]) -> Named:
    """The relays that this process keeps."""
    part = parts[RelaysPart.name]
    assert isinstance(part, RelaysPart)
    known: dict[int, Forward] = {}

    async def named() -> Sequence[Service]:
        kept = part.kept
        for key in set(known) - set(kept):
            del known[key]
        for key, one in kept.items():
            if key not in known or known[key].kept is not one:
                known[key] = Forward(one)
            known[key].title = f"Relay of {one.target.name}"
        return list(known.values())

    return named
