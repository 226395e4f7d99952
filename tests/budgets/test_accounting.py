"""Any interleaving of reserving, settling, flushing, dying and recovering, of several processes and budgets.

What is driven is the real core, the real journal and the real database functions, without the ledger's waiting and beat. The model beside
it is a list of what was reserved and what was settled. A longer look by hand:

    ACCOUNTING_EXAMPLES=200 .venv/bin/pytest tests/budgets/test_accounting.py -k long
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import pytest
from django.db import transaction
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from devaipod_web.budgets import journal, leases, recover
from devaipod_web.budgets.accounts import Binding, Book, parts
from devaipod_web.budgets.ledger import Amount, CallRow, Payer
from devaipod_web.budgets.models import (
    Budget,
    BudgetLease,
    BudgetProcess,
    BudgetWindow,
    Metric,
    Scope,
    Window,
)
from devaipod_web.home import new_key
from devaipod_web.llm.models import LlmCall
from devaipod_web.runs.models import Run
from tests.budgets.conftest import NOON

pytestmark = pytest.mark.django_db(transaction=True)

DAY = 86400
PROCESSES = 3
PROCESS = st.integers(0, PROCESSES - 1)
STEPS = ("reserve", "settle", "flush", "kill", "recover", "time")
OUTCOMES = ("written", "written", "failed", "answer lost")
AMOUNTS = st.builds(Amount, st.integers(1, 60), st.integers(0, 40), st.integers(1, 2))


@dataclass(eq=False)
class Charge:
    """A reservation, and what it was settled at."""

    number: int
    payer: Payer
    binding: Binding
    worst: Amount
    line: bytes
    windows: tuple[tuple[int, int], ...]
    process: Process
    actual: Amount | None = None


@dataclass(eq=False)
class Process:
    """A gateway process without its event loop: book, journal, batch under way."""

    book: Book
    journal: journal.Journal
    process_id: int
    beat: int = 0
    last: int = 0
    batch: leases.Batch | None = None
    rows: list = field(default_factory=list)
    open: list[Charge] = field(default_factory=list)
    alive: bool = True


class Accounting(RuleBasedStateMachine):
    """See the module."""

    charges = Bundle("charges")
    run: Run
    other: Run

    @initialize(
        usd=st.sampled_from([150, 500, 3000]),
        day=st.sampled_from([100, 400, 3000]),
        requests=st.sampled_from([6, 20, 100]),
        own=st.sampled_from([100, 300, 3000]),
    )
    def budgets(self, usd: int, day: int, requests: int, own: int) -> None:
        # An example that failed leaves its rows behind.
        BudgetProcess.objects.all().delete()
        Budget.objects.all().delete()
        LlmCall.objects.all().delete()
        self.root = Path(tempfile.mkdtemp(prefix="devaipod-accounting-"))
        self.now = NOON
        self.all: list[Charge] = []
        self.forced: dict[int, int] = {}
        project = self.run.project
        for fields in (
            {
                "scope": Scope.INSTALLATION,
                "metric": Metric.USD,
                "window": Window.TOTAL,
                "limit": usd,
            },
            {
                "scope": Scope.PROJECT,
                "project": project,
                "metric": Metric.TOKENS,
                "window": Window.DAY,
                "limit": day,
            },
            {
                "scope": Scope.PERSON,
                "person": self.run.owner,
                "metric": Metric.REQUESTS,
                "window": Window.MONTH,
                "limit": requests,
            },
            {
                "scope": Scope.RUN,
                "run": self.run,
                "metric": Metric.USD,
                "window": Window.TOTAL,
                "limit": own,
            },
        ):
            Budget.objects.create(**fields)
        # By the clock of this test, not the wall's: a budget that is newer than a window's start looks for what was spent before it.
        Budget.objects.update(created_at=datetime.fromtimestamp(NOON, UTC))
        self.processes = [self.start() for _ in range(PROCESSES)]

    def start(self) -> Process:
        made = journal.Journal(self.root, new_key())
        return Process(Book(), made, leases.register(made.folder.name, "test"))

    def payer(self, which: bool) -> Payer:
        run = self.run if which else self.other
        return Payer(run.pk, run.project_id, run.owner_id)

    @rule(target=charges, asked=st.lists(st.tuples(PROCESS, st.booleans(), AMOUNTS), min_size=1))
    def reserve(self, asked: list[tuple[int, bool, Amount]]):
        made = [self.reserve_one(*one) for one in asked]
        return multiple(*(charge for charge in made if charge is not None))

    @rule(asked=st.lists(st.tuples(PROCESS, st.booleans(), AMOUNTS, st.integers(0, 4)), min_size=1))
    def whole_requests(self, asked: list[tuple[int, bool, Amount, int]]) -> None:
        for index, which, worst, share in asked:
            charge = self.reserve_one(index, which, worst)
            if charge is not None:
                self.settle_share(charge, share)

    def reserve_one(self, index: int, which: bool, worst: Amount) -> Charge | None:
        process, payer, need = self.processes[index], self.payer(which), parts(worst)
        book = process.book
        binding = book.find(payer, self.now)
        if binding is None:
            with transaction.atomic():
                views = leases.bind(payer, datetime.fromtimestamp(self.now, UTC))
            binding = book.bind(payer, views, self.now)
        if not book.take(binding, need, self.now):
            asks = book.asks(binding, need)
            assert asks
            with transaction.atomic():
                taken = leases.take(process.process_id, asks)
            for view in taken.views:
                book.see(view, self.now)
            for window_id, block in taken.granted.items():
                book.granted(window_id, block)
            if not book.take(binding, need, self.now):
                assert not taken.granted
                return None
        process.last += 1
        line = journal.reservation_line(process.last, self.now, payer, worst, binding.names)
        process.journal.append(line)
        windows = tuple((a.view.metric, a.view.window_id) for a in binding.accounts)
        charge = Charge(process.last, payer, binding, worst, line, windows, process)
        process.open.append(charge)
        self.all.append(charge)
        return charge

    @rule(charge=consumes(charges), share=st.integers(0, 4), lies=st.integers(0, 20))
    def settle(self, charge: Charge, share: int, lies: int) -> None:
        # One provider in twenty says more than was reserved.
        if charge in charge.process.open and charge.process.alive:
            self.settle_share(charge, share, 30 if lies == 20 else 0)

    def settle_share(self, charge: Charge, share: int, extra: int = 0) -> None:
        worst = charge.worst
        self.settle_at(
            charge,
            Amount(worst.pico_usd * share // 4 + extra, worst.tokens * share // 4, worst.requests),
        )

    def settle_at(self, charge: Charge, actual: Amount) -> None:
        process = charge.process
        row: CallRow = {
            "run_id": charge.payer.run_id,
            "provider_kind": "t",
            "model": "m",
            "at": datetime.fromtimestamp(self.now, UTC).isoformat(),
            "status": 200,
            "milliseconds": actual.requests,
            "tokens_out": actual.tokens,
            "first_byte_milliseconds": actual.pico_usd,
            "cost": "0",
        }
        charge.actual = actual
        process.open.remove(charge)
        process.journal.append(journal.settlement_line(charge.number, actual, row))
        process.book.settle(charge.binding, parts(charge.worst), parts(actual))
        process.rows.append(row)
        for metric, window_id in charge.windows:
            over = parts(actual)[metric] - parts(charge.worst)[metric]
            if over > 0:
                self.forced[window_id] = self.forced.get(window_id, 0) + over

    @rule(
        index=PROCESS,
        outcome=st.sampled_from(OUTCOMES),
        rotate=st.booleans(),
        everything=st.booleans(),
    )
    def flush(self, index: int, outcome: str, rotate: bool, everything: bool) -> None:
        process = self.processes[index]
        if process.batch is None:
            if rotate:
                process.journal.rotate([charge.line for charge in process.open])
            changes = process.book.snapshot(self.now, everything=everything)
            rows, process.rows = process.rows, []
            process.beat += 1
            process.batch = leases.Batch(
                process.beat, process.journal.number, process.journal.size, changes, rows
            )
        batch = process.batch
        if outcome == "failed":
            return
        with transaction.atomic():
            flushed = leases.flush(
                process.process_id, batch, watch=list(process.book.accounts), run_ids=[self.run.pk]
            )
        if outcome == "answer lost":
            return
        process.batch = None
        process.book.written(batch.changes, flushed.views, self.now)
        process.journal.forget_before(batch.journal)
        self.check_leases(process)

    @rule(index=PROCESS, torn=st.booleans())
    def kill(self, index: int, torn: bool) -> None:
        process = self.processes[index]
        process.alive = False
        if torn:
            process.journal.append(b"S 1 99999 999")
        process.journal.close()
        self.processes[index] = self.start()

    @rule()
    def recover(self) -> None:
        for found in recover.candidates(self.root, "", now=datetime.now(UTC)):
            folder = self.root / found.key
            try:
                lock = journal.Lock(folder)
            except journal.JournalTaken:
                assert any(p.process_id == found.process_id for p in self.processes)
                continue
            with transaction.atomic():
                assert recover.settle(found.process_id, folder)
            lock.remove()
        for charge in self.all:
            if not charge.process.alive and charge.actual is None:
                charge.actual = charge.worst

    @precondition(lambda self: self.now < NOON + 3 * DAY)
    @rule(seconds=st.sampled_from([5, 60, 43200]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(random=st.randoms(use_true_random=False))
    def storm(self, random: Random) -> None:
        """Forty steps at once: rare meetings need more of them than are drawn one by one."""
        for _ in range(40):
            index = random.randrange(PROCESSES)
            step = random.choices(STEPS, [8, 6, 4, 1, 1, 1])[0]
            if step == "reserve":
                worst = Amount(random.randint(1, 40), random.randint(0, 20), random.randint(1, 2))
                self.reserve_one(index, random.random() < 0.5, worst)
            elif step == "settle" and self.processes[index].open:
                charge = random.choice(self.processes[index].open)
                self.settle_share(charge, random.randint(0, 4), random.choice((0, 0, 0, 30)))
            elif step == "flush":
                outcome = random.choice(OUTCOMES)
                self.flush(index, outcome, random.random() < 0.3, random.random() < 0.3)
            elif step == "kill":
                self.kill(index, random.random() < 0.5)
            elif step == "recover":
                self.recover()
            elif step == "time" and self.now < NOON + 3 * DAY:
                self.now += random.choice((5, 60, 43200))
            self.no_limit_is_passed()

    def check_leases(self, process: Process) -> None:
        held = dict(
            BudgetLease.objects.filter(process_id=process.process_id).values_list(
                "window_id", "amount"
            )
        )
        for window_id, account in process.book.accounts.items():
            assert held.get(window_id, 0) == account.held + account.settled

    @invariant()
    def no_limit_is_passed(self) -> None:
        if not hasattr(self, "all"):
            return
        used: dict[int, int] = {}
        for charge in self.all:
            for metric, window_id in charge.windows:
                used[window_id] = (
                    used.get(window_id, 0) + parts(charge.actual or charge.worst)[metric]
                )
        for window in BudgetWindow.objects.all():
            forced = self.forced.get(window.pk, 0)
            assert used.get(window.pk, 0) <= window.limit + forced
            assert window.spent + window.leased <= window.limit + forced
            assert window.spent <= used.get(window.pk, 0)
            leased = BudgetLease.objects.filter(window=window).values_list("amount", flat=True)
            assert sum(leased) == window.leased

    def teardown(self) -> None:
        if not hasattr(self, "all"):
            return
        for index, process in enumerate(self.processes):
            for charge in list(process.open):
                self.settle_at(charge, charge.worst)
            for _ in range(2):
                self.flush(index, "written", False, True)
            assert process.process_id
            with transaction.atomic():
                leases.unregister(process.process_id)
            process.journal.remove()
        self.recover()
        expected: dict[int, int] = {}
        for charge in self.all:
            assert charge.actual is not None
            for metric, window_id in charge.windows:
                expected[window_id] = expected.get(window_id, 0) + parts(charge.actual)[metric]
        for window in BudgetWindow.objects.all():
            assert (window.spent, window.leased) == (expected.get(window.pk, 0), 0)
        assert LlmCall.objects.count() == len(self.all)
        assert not BudgetProcess.objects.exists() and not list(self.root.iterdir())
        shutil.rmtree(self.root)


def machine(run: Run, other: Run) -> type[Accounting]:
    return type("Machine", (Accounting,), {"run": run, "other": other})


def drive(run: Run, *, examples: int, steps: int) -> None:
    other = Run.objects.create(
        project=run.project, owner=run.owner, title="o", task="o", agent="opencode", wall_seconds=60
    )
    run_state_machine_as_test(
        machine(run, other),
        settings=settings(
            deadline=None,
            suppress_health_check=list(HealthCheck),
            max_examples=examples,
            stateful_step_count=steps,
        ),
    )


def test_no_interleaving_passes_a_limit_or_counts_anything_twice(run):
    drive(run, examples=25, steps=12)


@pytest.mark.slow
def test_no_interleaving_does_so_however_long_one_looks(run):
    drive(run, examples=int(os.environ.get("ACCOUNTING_EXAMPLES", "15")), steps=30)
