"""The gateway's accounts: reserve before a request goes to its provider, settle after.

    reservation = await ledger.current().reserve(payer, worst)      # raises OverBudget, LedgerUnavailable
    try:
        actual, row = await ask_the_provider()
    finally:
        ledger.current().settle(reservation, actual, row)           # exactly once, whatever happened

A reservation that is not settled stays open and holds its room until the process ends; then it is charged in full.
A request that never reached the provider settles at `NOTHING`. One whose cost cannot be known settles at `reservation.worst`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from devaipod_web.budgets.amounts import NOTHING, Amount, CallRow, LostCall, Payer
from devaipod_web.budgets.errors import LedgerUnavailable, OverBudget, SettledTwice

__all__ = [
    "NOTHING",
    "Amount",
    "CallRow",
    "Ledger",
    "LedgerUnavailable",
    "LostCall",
    "OverBudget",
    "Payer",
    "Reservation",
    "SettledTwice",
    "current",
]


@dataclass(eq=False, slots=True)
class Reservation:
    """Room that is held for one request. `worst` is what it was reserved for; `overrun` is set when it was settled above that."""

    id: int
    payer: Payer
    worst: Amount
    overrun: bool = False


class Ledger:
    """The accounts of one gateway process. Belongs to one event loop; no method may be called from another thread."""

    async def reserve(self, payer: Payer, worst: Amount) -> Reservation:
        """Hold room for `worst` in every budget that binds the payer, all or none, and return the reservation.

        No database while the leases that this process holds suffice (a few microseconds); else a lease is taken. When room is
        missing only because other requests hold it, waits for them up to `PATIENCE_SECONDS`. Raises OverBudget when a budget has no
        room (its incident is open then), LedgerUnavailable when neither database nor journal can be written.
        """
        raise NotImplementedError

    def settle(self, reservation: Reservation, actual: Amount, call: CallRow | None) -> None:
        """Count what a request did cost, give back the rest, and keep its row for the next batch; in memory and journal.

        `call` None writes no row. An `actual` above the reservation is counted in full and logged as `budgets.overrun`. Raises
        SettledTwice (and changes nothing) when the reservation was settled before, ValueError when an amount is negative.
        """
        raise NotImplementedError

    async def run(self, stop: asyncio.Event) -> None:
        """Write batches of rows and totals to the database on a beat, renew and return leases, settle what killed processes left.

        Returns after `stop` is set, with everything settled written and all leases returned, but those of open reservations.
        """
        raise NotImplementedError


def current() -> Ledger:
    """The ledger of this process; made on the first call. Before `run` is started, `reserve` works and nothing is written."""
    raise NotImplementedError
