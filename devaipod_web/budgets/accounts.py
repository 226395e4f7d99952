"""What a process holds and owes, in memory: plain arithmetic without clock, file or database.

One `Account` a window that the process has to do with. Always, and nothing else changes them:

    held     = what the process may spend: its lease less what it settled. Negative only after an overrun.
    reserved = the part of it that open reservations hold; `free` is the rest.
    settled  = what was settled and is in no batch yet.

    the lease's amount in the database = held + settled + what the batch under way charges and gives back
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from devaipod_web.budgets.amounts import Amount, Payer

#: Metrics in the order of an amount's parts; accounts and journals name a metric by its place here.
METRICS = ("usd", "tokens", "requests")
#: A process keeps, and is granted beyond what it needs now, at most this fraction of what is left of a window.
SHARE = 8
#: How many requests like the first a process asks room for; it doubles from there.
FIRST_BLOCK = 4
#: A lease that nothing was reserved from for so long goes back, in seconds.
IDLE_SECONDS = 30.0
#: How old the sight of a window without room may be before it is looked at again, in seconds.
LOOK_SECONDS = 0.2
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class View:
    """A window as the database says it is. `until` is in seconds since 1970."""

    window_id: int
    budget_id: int
    metric: int
    until: float
    cap: int
    spent: int
    leased: int


@dataclass(eq=False, slots=True)
class Account:
    """What this process holds of one window, and how the window stood when it was last seen."""

    view: View
    held: int = 0
    reserved: int = 0
    settled: int = 0
    block: int = 0
    used_at: float = 0.0
    seen_at: float = 0.0
    last_run: int = 0

    @property
    def free(self) -> int:
        """What can be reserved without asking the database."""
        return self.held - self.reserved

    @property
    def room(self) -> int:
        """What nobody had leased when the window was last seen."""
        return self.view.cap - self.view.spent - self.view.leased

    @property
    def at_rest(self) -> bool:
        """Whether nothing is left that would have to be written."""
        return not (self.held or self.reserved or self.settled)


@dataclass(frozen=True, eq=False, slots=True)
class Binding:
    """The accounts that one payer's requests count against, as long as none of their windows has ended."""

    payer: Payer
    accounts: tuple[Account, ...]
    until: float
    #: `metric:window` of each, as the journal names them.
    names: str


@dataclass(frozen=True, slots=True)
class Ask:
    """What a process needs more of a window (`lack`), and what it would like to have at once (`wish`)."""

    window_id: int
    lack: int
    wish: int


@dataclass(frozen=True, slots=True)
class Change:
    """What a batch does to one window and this process's lease on it.

    `charge` was spent, `back` is given back, `short` must be leased whatever the limit says, since it has been promised or
    spent already. `run_id` is the run that was charged last.
    """

    window_id: int
    charge: int
    back: int
    short: int
    run_id: int


def parts(amount: Amount) -> tuple[int, int, int]:
    """An amount in the order of METRICS. Raises ValueError when a part is negative."""
    found = (amount.pico_usd, amount.tokens, amount.requests)
    if min(found) < 0:
        raise ValueError(f"An amount cannot be negative: {amount}")
    return found


@dataclass(eq=False)
class Book:
    """All accounts of a process, by window, and who is bound by which."""

    accounts: dict[int, Account] = field(default_factory=dict)
    bindings: dict[Payer, Binding] = field(default_factory=dict)

    # --- a request ---

    def find(self, payer: Payer, now: float) -> Binding | None:
        """The payer's binding; None when it is not known, or one of its windows has ended."""
        found = self.bindings.get(payer)
        return found if found is not None and now < found.until else None

    def bind(self, payer: Payer, views: Iterable[View], now: float) -> Binding:
        """Remember which windows bind the payer."""
        ordered = sorted(views, key=lambda view: view.window_id)
        accounts = tuple(self.see(view, now) for view in ordered)
        binding = Binding(
            payer,
            accounts,
            min((account.view.until for account in accounts), default=FOREVER),
            ",".join(f"{a.view.metric}:{a.view.window_id}" for a in accounts),
        )
        self.bindings[payer] = binding
        return binding

    def see(self, view: View, now: float) -> Account:
        """The account of a window, made when it is new, with how the window stands now."""
        account = self.accounts.get(view.window_id)
        if account is None:
            account = self.accounts[view.window_id] = Account(view, used_at=now)
        account.view, account.seen_at = view, now
        return account

    def take(self, binding: Binding, worst: tuple[int, int, int], now: float) -> bool:
        """Reserve `worst` in every account, or in none when one has too little free."""
        for account in binding.accounts:
            if account.held - account.reserved < worst[account.view.metric]:
                return False
        for account in binding.accounts:
            account.reserved += worst[account.view.metric]
            account.used_at = now
        return True

    def release(self, binding: Binding, worst: tuple[int, int, int]) -> None:
        """Undo `take`."""
        for account in binding.accounts:
            account.reserved -= worst[account.view.metric]

    def settle(
        self, binding: Binding, worst: tuple[int, int, int], actual: tuple[int, int, int]
    ) -> bool:
        """Replace a reservation by what it did cost. True when that is more than was reserved, in whatever metric."""
        for account in binding.accounts:
            metric = account.view.metric
            account.reserved -= worst[metric]
            account.held -= actual[metric]
            account.settled += actual[metric]
            account.last_run = binding.payer.run_id
        return any(cost > most for cost, most in zip(actual, worst, strict=True))

    # --- leases ---

    def asks(self, binding: Binding, worst: tuple[int, int, int]) -> list[Ask]:
        """What must be leased before `take` can succeed. Each time twice the last block is wished for."""
        found = []
        for account in binding.accounts:
            lack = worst[account.view.metric] - account.free
            if lack > 0:
                wish = max(2 * account.block, FIRST_BLOCK * worst[account.view.metric])
                found.append(Ask(account.view.window_id, lack, wish))
        return found

    def granted(self, window_id: int, block: int) -> None:
        """A lease was taken or enlarged by `block`."""
        account = self.accounts[window_id]
        account.held += block
        account.block = block

    def in_vain(self, asks: Iterable[Ask], now: float) -> bool:
        """Whether one of these windows was seen without room a moment ago, so that asking can wait."""
        found = [(ask.lack, self.accounts[ask.window_id]) for ask in asks]
        return any(lack > a.room and now - a.seen_at < LOOK_SECONDS for lack, a in found)

    def hopeless(self, binding: Binding, worst: tuple[int, int, int]) -> Account | None:
        """The account in which `worst` has no room even if every open reservation were given back, or None."""
        for account in binding.accounts:
            spent = account.view.spent + account.settled
            if spent + worst[account.view.metric] > account.view.cap:
                return account
        return None

    def tightest(self, binding: Binding, worst: tuple[int, int, int]) -> Account | None:
        """The first account that has too little free for `worst`."""
        for account in binding.accounts:
            if account.free < worst[account.view.metric]:
                return account
        return None

    # --- batches ---

    @property
    def owes(self) -> bool:
        """Whether a batch would have something to charge or to give back."""
        return any(account.settled or account.free for account in self.accounts.values())

    def snapshot(self, now: float, *, everything: bool = False) -> list[Change]:
        """Take what was settled and what is not needed out of the accounts, for one batch.

        The caller writes the batch, however often it must try, and then calls `written`. `everything` gives back all that is free.
        """
        changes = []
        for account in self.accounts.values():
            charge, account.settled = account.settled, 0
            back = max(0, account.free - (0 if everything else self._keep(account, now)))
            account.held -= back
            short = max(0, account.reserved - account.held)
            if charge or back or short:
                window_id = account.view.window_id
                changes.append(Change(window_id, charge, back, short, account.last_run))
        return sorted(changes, key=lambda change: change.window_id)

    def written(self, changes: Iterable[Change], views: Iterable[View], now: float) -> None:
        """A batch was committed, and `views` are all windows after it. Those that are gone, and those at rest, are forgotten."""
        for change in changes:
            self.accounts[change.window_id].held += change.short
        there = {view.window_id for view in views}
        for view in views:
            self.see(view, now)
        gone = {
            window_id
            for window_id, account in self.accounts.items()
            if window_id not in there or (account.at_rest and self._idle(account, now))
        }
        if gone:
            for window_id in gone:
                del self.accounts[window_id]
            for payer, binding in list(self.bindings.items()):
                if any(account.view.window_id in gone for account in binding.accounts):
                    del self.bindings[payer]

    @staticmethod
    def _idle(account: Account, now: float) -> bool:
        return now >= account.view.until or now - account.used_at > IDLE_SECONDS

    def _keep(self, account: Account, now: float) -> int:
        """How much of what is free stays for the next requests: less the less is left of the window."""
        if self._idle(account, now):
            account.block = 0
            return 0
        return min(account.block, max(0, account.room + account.free) // SHARE)
