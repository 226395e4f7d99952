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
import os
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
from django.db import Error as DatabaseError

from devaipod_web import db, home
from devaipod_web.budgets import incidents, leases, recover
from devaipod_web.budgets.accounts import Account, Binding, Book, parts
from devaipod_web.budgets.amounts import NOTHING, Amount, CallRow, LostCall, Payer
from devaipod_web.budgets.errors import LedgerUnavailable, OverBudget, SettledTwice
from devaipod_web.budgets.journal import (
    ROTATE_BYTES,
    Journal,
    JournalTaken,
    reservation_line,
    settlement_line,
)
from devaipod_web.budgets.sweep import shielded, sweep

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

log = structlog.get_logger("devaipod.budgets")

#: How often totals and rows are written, limits looked at, and leases returned.
BEAT_SECONDS = 1.0
#: Rows that are written before the beat.
BATCH_ROWS = 2000
#: Runs whose budgets' versions are remembered.
MAX_VERSIONS = 4096
#: How long a request waits for room that others hold.
PATIENCE_SECONDS = 60.0
#: How often the journals of killed processes are looked for, and incidents closed whose window has ended.
SWEEP_SECONDS = 10.0
#: Without a sign of the database for so long, leases are not spent from any more: another process may charge them soon.
FENCE_SECONDS = recover.LOST_AFTER.total_seconds() / 2


@dataclass(eq=False, slots=True)
class Reservation:
    """Room that is held for one request. `worst` is what it was reserved for; `overrun` is set when it was settled above that."""

    id: int
    payer: Payer
    worst: Amount
    overrun: bool
    _need: tuple[int, int, int]
    _binding: Binding
    _line: bytes
    _journal: Journal
    _settled: bool = False


@dataclass(frozen=True, slots=True)
class _Looked:
    """What came of asking for leases: the account that lacks, if any, and whether waiting for others is of no use."""

    lacks: Account | None = None
    hopeless: bool = False


class Ledger:
    """The accounts of one gateway process. Belongs to one event loop; no method may be called from another thread."""

    def __init__(self, root: Path | None = None, *, clock: Callable[[], float] = time.time) -> None:
        """`root` is the folder of all journals, DEVAIPOD_HOME/budgets unless given; `clock` gives seconds since 1970."""
        self._root = root or home.budgets_dir()
        self._clock = clock
        self._book = Book()
        self._journal: Journal | None = None
        self._process_id = 0
        self._fence = 0.0
        self._open: dict[int, Reservation] = {}
        self._last_id = 0
        self._rows: list[CallRow] = []
        self._unwritten: list[bytes] = []
        self._batch: leases.Batch | None = None
        self._beat = 0
        self._version: leases.Version = {}
        self._swept = 0.0
        # Whoever changes leases in the database and then in memory holds it over both.
        self._door = asyncio.Lock()
        self._change = asyncio.Event()
        self._waiting = 0
        self._due = asyncio.Event()

    # --- requests -------------------------------------------------------------------------------------------------

    async def reserve(self, payer: Payer, worst: Amount) -> Reservation:
        """Hold room for `worst` in every budget that binds the payer, all or none, and return the reservation.

        No database while the leases that this process holds suffice (a few microseconds); else a lease is taken. When room is
        missing only because other requests hold it, waits for them up to `PATIENCE_SECONDS`. Raises OverBudget when a budget has no
        room (its incident is open then), LedgerUnavailable when neither database nor journal can be written.
        """
        need = parts(worst)
        deadline = 0.0
        while True:
            # Nothing is awaited between this and the return: a caller that is cancelled leaves no reservation behind.
            found = self._reserve(payer, worst, need)
            if found is not None:
                return found
            deadline = deadline or time.monotonic() + PATIENCE_SECONDS
            change = self._change
            looked = self._look(payer, need)
            if looked is None or looked.hopeless:
                # Nobody is refused by what was seen a moment ago: somebody may just have given room.
                looked = await shielded(self._lease(payer, need, anew=looked is not None))
            if looked.lacks is None:
                continue
            left = deadline - time.monotonic()
            if looked.hopeless or left <= 0:
                raise await self._refusal(payer, looked.lacks, need)
            await self._wait(change, min(left, BEAT_SECONDS))

    def settle(self, reservation: Reservation, actual: Amount, call: CallRow | None) -> None:
        """Count what a request did cost, give back the rest, and keep its row for the next batch; in memory and journal.

        `call` None writes no row. An `actual` above the reservation is counted in full and logged as `budgets.overrun`. Raises
        SettledTwice (and changes nothing) when the reservation was settled before, ValueError when an amount is negative.
        """
        cost = parts(actual)
        if reservation._settled:
            raise SettledTwice(f"Reservation {reservation.id} was settled before.")
        reservation._settled = True
        if reservation._journal.closed:
            return  # left open at the end: whoever settles the journal charges it in full, and stores a row
        if call is not None:
            self._rows.append(call)
        if reservation._journal is not self._journal:
            return  # taken for dead, and charged in full; the row is still owed
        del self._open[reservation.id]
        self._write_down(settlement_line(reservation.id, actual, call))
        reservation.overrun = self._book.settle(reservation._binding, reservation._need, cost)
        if reservation.overrun:
            log.warning(
                "budgets.overrun",
                run_id=reservation.payer.run_id,
                reserved=reservation._need,
                actual=cost,
            )
        if reservation.overrun or len(self._rows) >= BATCH_ROWS:
            self._due.set()
        if self._waiting:
            self._wake()

    def _reserve(
        self, payer: Payer, worst: Amount, need: tuple[int, int, int]
    ) -> Reservation | None:
        """Reserve from the leases that are held; None when they do not suffice. Raises LedgerUnavailable."""
        now = self._clock()
        binding = self._book.find(payer, now)
        if binding is None or self._journal is None or time.monotonic() > self._fence:
            return None
        if not self._book.take(binding, need, now):
            return None
        number = self._last_id = self._last_id + 1
        line = reservation_line(number, now, payer, worst, binding.names)
        try:
            self._journal.append(line)
        except OSError as error:
            self._book.release(binding, need)
            raise _unavailable("The budgets' journal cannot be written", error) from error
        found = Reservation(number, payer, worst, False, need, binding, line, self._journal)
        self._open[number] = found
        return found

    def _write_down(self, line: bytes) -> None:
        """Write a settlement down; while the disk is full, keep it in memory and write no batch (see `_make_batch`)."""
        assert self._journal is not None
        if self._unwritten:
            self._unwritten.append(line)
            return
        try:
            self._journal.append(line)
        except OSError as error:
            log.error("budgets.journal_not_written", error=str(error))
            self._unwritten.append(line)

    async def _wait(self, change: asyncio.Event, seconds: float) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(seconds):
                await change.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    def _wake(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    async def _refusal(
        self, payer: Payer, account: Account, need: tuple[int, int, int]
    ) -> OverBudget | LedgerUnavailable:
        """Open the incident, and return what is to be raised."""
        view = account.view
        try:
            # First what was spent: the incident says how the window stands.
            await shielded(self._flush())
            incident, window, is_new = await db.write(
                incidents.open_hard, view.window_id, payer.run_id, need[view.metric]
            )
        except DatabaseError as error:
            return _unavailable("The budgets' database does not answer", error)
        budget = window.budget
        log.warning("budgets.refused", budget=budget.key, incident=incident.key, is_new=is_new)
        return OverBudget(
            incident.message,
            next_step=incidents.DECIDE,
            budget=budget.key,
            incident=incident.key,
            scope=budget.scope,
            metric=budget.metric,
            window=budget.window,
            until=window.end,
        )

    # --- leases ---------------------------------------------------------------------------------------------------

    def _look(self, payer: Payer, need: tuple[int, int, int]) -> _Looked | None:
        """Whether the database was asked a moment ago and had no room; None when it should be asked."""
        now = self._clock()
        binding = self._book.find(payer, now)
        if binding is None or time.monotonic() > self._fence:
            return None
        if not self._book.in_vain(self._book.asks(binding, need), now):
            return None
        return self._looked(binding, need)

    def _looked(self, binding: Binding, need: tuple[int, int, int]) -> _Looked:
        hopeless = self._book.hopeless(binding, need)
        return _Looked(hopeless or self._book.tightest(binding, need), hopeless is not None)

    async def _lease(
        self, payer: Payer, need: tuple[int, int, int], *, anew: bool = False
    ) -> _Looked:
        """Get what `need` lacks from the database, unless another request has got enough meanwhile.

        With `anew` it is asked although it had no room a moment ago.
        """
        async with self._door:
            try:
                return await self._lease_inside(payer, need, anew)
            except leases.Reaped:
                self._begin_again()
                return _Looked()
            except DatabaseError as error:
                raise _unavailable("The budgets' database does not answer", error) from error

    async def _lease_inside(self, payer: Payer, need: tuple[int, int, int], anew: bool) -> _Looked:
        await self._begin()
        now = self._clock()
        binding = self._book.find(payer, now)
        if binding is None:
            at = datetime.fromtimestamp(now, UTC)
            binding = self._book.bind(payer, await db.write(leases.bind, payer, at), now)
        asks = self._book.asks(binding, need)
        in_time = time.monotonic() < self._fence
        if in_time and (not asks or (not anew and self._book.in_vain(asks, now))):
            return self._looked(binding, need) if asks else _Looked()
        taken = await db.write(leases.take, self._process_id, asks)
        self._fence = time.monotonic() + FENCE_SECONDS
        for view in taken.views:
            self._book.see(view, self._clock())
        if len(taken.views) < len(asks):
            self._book.bindings.clear()  # a budget went with its run or project
            return _Looked()
        for window_id, block in taken.granted.items():
            self._book.granted(window_id, block)
        return _Looked() if taken.granted or not asks else self._looked(binding, need)

    async def _begin(self) -> None:
        """Make this process's journal and row, unless they are there."""
        if self._journal is not None:
            return
        journal = self._new_journal()
        owner = f"{socket.gethostname()[:24]}:{os.getpid()}"
        try:
            self._process_id = await db.write(leases.register, journal.folder.name, owner)
        except BaseException:
            journal.remove()
            raise
        self._journal, self._beat, self._batch = journal, 0, None
        self._fence = time.monotonic() + FENCE_SECONDS

    def _new_journal(self) -> Journal:
        for _ in range(5):
            try:
                return Journal(self._root, home.new_key())
            except (JournalTaken, FileNotFoundError):
                continue  # somebody took the folder for an orphan in the moment before it was locked
            except OSError as error:
                raise _unavailable("The budgets' journal cannot be made", error) from error
        raise _unavailable("The budgets' journal cannot be made", None)

    def _begin_again(self) -> None:
        """Forget all leases: another process charged them in full. What is open is charged already, rows are still owed."""
        log.error("budgets.reaped", open=len(self._open))
        if self._batch is not None:
            self._rows[:0] = self._batch.rows
        if self._journal is not None:
            self._journal.remove()
        self._journal, self._batch, self._book = None, None, Book()
        self._open.clear()
        self._unwritten.clear()

    # --- the beat -------------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event) -> None:
        """Write batches of rows and totals to the database on a beat, renew and return leases, settle what killed processes left.

        Returns after `stop` is set, with everything settled written and all leases returned, but those of open reservations.
        """
        stopping = asyncio.create_task(stop.wait(), name="budgets-stop")
        try:
            while not stop.is_set():
                await self.beat()
                due = asyncio.create_task(self._due.wait(), name="budgets-due")
                await asyncio.wait(
                    {stopping, due}, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                due.cancel()
        finally:
            stopping.cancel()
        await self._end()

    async def beat(self) -> bool:
        """One beat of `run`: a batch, and now and then a sweep. False when the database or the disk failed; it is tried again."""
        self._due.clear()
        try:
            await shielded(self._flush())
            # Sooner when somebody waits: perhaps for what a killed process held.
            if time.monotonic() - self._swept > (BEAT_SECONDS if self._waiting else SWEEP_SECONDS):
                mine = self._journal.folder.name if self._journal is not None else ""
                await sweep(self._root, mine)
                self._swept = time.monotonic()
        except (DatabaseError, OSError, LedgerUnavailable) as error:
            log.error("budgets.not_written", error=str(error), rows=len(self._rows))
            return False
        except Exception:
            # Whatever it is: leases hold the limits, and the journal what is not written yet.
            log.exception("budgets.not_written", rows=len(self._rows))
            return False
        finally:
            self._wake()
        return True

    async def _flush(self, *, everything: bool = False) -> None:
        async with self._door:
            if self._journal is None:
                if not self._rows:
                    return
                await self._begin()
            if self._batch is None:
                self._batch = self._make_batch(everything)
            batch = self._batch
            runs = {payer.run_id for payer in self._book.bindings}
            try:
                flushed = await db.write(
                    leases.flush,
                    self._process_id,
                    batch,
                    watch=list(self._book.accounts),
                    run_ids=runs,
                )
            except leases.Reaped:
                self._begin_again()
                return
            self._batch = None
            self._fence = time.monotonic() + FENCE_SECONDS
            self._book.written(batch.changes, flushed.views, self._clock())
            assert self._journal is not None
            self._journal.forget_before(batch.journal)
            self._forget_changed(runs, flushed.version)

    def _forget_changed(self, run_ids: Iterable[int], version: leases.Version) -> None:
        """Look up anew whom a budget that was made, removed or switched may bind: everybody, or the run whose own it is.

        What was seen of a run stays known while it asks nothing: else every run that asks seldom would be looked up at each request.
        """
        everybody = version[None] != self._version.get(None)
        changed = {run_id for run_id in run_ids if version.get(run_id) != self._version.get(run_id)}
        if len(self._version) > MAX_VERSIONS:
            self._version.clear()
        self._version.update(version)
        for payer in list(self._book.bindings):
            if everybody or payer.run_id in changed:
                del self._book.bindings[payer]

    def _make_batch(self, everything: bool) -> leases.Batch:
        """Take what was settled out of the accounts. Raises OSError while the journal lacks a settlement.

        Such a settlement may not be counted: after a kill its reservation would be found open and be charged again.
        """
        assert self._journal is not None
        while self._unwritten:
            self._journal.append(self._unwritten[0])
            self._unwritten.pop(0)
        if self._journal.size > ROTATE_BYTES:
            self._journal.rotate(reservation._line for reservation in self._open.values())
        changes = self._book.snapshot(self._clock(), everything=everything)
        rows, self._rows = self._rows, []
        self._beat += 1
        return leases.Batch(self._beat, self._journal.number, self._journal.size, changes, rows)

    async def _end(self) -> None:
        """Write the rest and return what is held. Open reservations stay in the journal, for whoever starts next."""
        try:
            while self._rows or self._batch is not None or self._book.owes:
                await shielded(self._flush(everything=True))
            if self._journal is not None and not self._open:
                await db.write(leases.unregister, self._process_id)
                self._journal.remove()
                self._journal = None
        except (DatabaseError, OSError, LedgerUnavailable) as error:
            log.error("budgets.not_written", error=str(error), rows=len(self._rows))
        if self._journal is not None:
            log.warning("budgets.left_open", open=len(self._open))
            self.abandon()
        self._book = Book()
        self._open.clear()

    def abandon(self) -> None:
        """Let go of the journal without writing anything, as a kill would; whoever sweeps next settles it."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None


def _unavailable(what: str, error: Exception | None) -> LedgerUnavailable:
    log.error("budgets.unavailable", what=what, error=str(error or ""))
    return LedgerUnavailable(
        f"{what}; no request may go out uncounted.",
        next_step="The agent may try again; a manager looks at the server's log and the disk.",
    )


_current: Ledger | None = None
_loop: asyncio.AbstractEventLoop | None = None


def current() -> Ledger:
    """The ledger of this process and its event loop; made on the first call.

    Before `run` is started, `reserve` works and nothing is written.
    """
    global _current, _loop
    loop = asyncio.get_running_loop()
    if _current is None or _loop is not loop:
        if _current is not None:
            _current.abandon()
        _current, _loop = Ledger(), loop
    return _current
