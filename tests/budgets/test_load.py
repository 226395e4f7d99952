"""Two hundred agents against the last cent: in one process, in four, on SQLite and on PostgreSQL, and with one killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from devaipod_web import db
from devaipod_web.budgets.ledger import Amount, OverBudget
from devaipod_web.budgets.money import PICO, usd
from tests import servers
from tests.budgets.conftest import budget, window_of

ROOT = Path(__file__).resolve().parents[2]
#: A cent, of which a request may take a hundredth.
LIMIT = PICO // 100
WORST = LIMIT // 100


@pytest.mark.django_db(transaction=True)
async def test_two_hundred_at_once_spend_the_last_cent_and_no_more(ledgers, payer, monkeypatch):
    row = await db.write(budget, "0.01")
    ledger = ledgers()
    stop = asyncio.Event()
    running = asyncio.create_task(ledger.run(stop))
    open_now, most, settled, refused = 0, 0, 0, 0

    async def agent(number: int) -> None:
        nonlocal open_now, most, settled, refused
        while True:
            try:
                held = await ledger.reserve(payer, Amount(WORST, 0))
            except OverBudget:
                refused += 1
                return
            open_now += WORST
            most = max(most, settled + open_now)
            await asyncio.sleep(0.001 * (number % 7))
            cost = WORST * (1 + number % 3) // 3
            ledger.settle(held, Amount(cost, 0), None)
            open_now -= WORST
            settled += cost

    await asyncio.wait_for(asyncio.gather(*(agent(number) for number in range(200))), 60)
    stop.set()
    await running
    window = await db.read(window_of, row)
    assert (window.spent, window.leased, refused) == (settled, 0, 200)
    assert most <= LIMIT
    assert LIMIT - WORST < settled <= LIMIT


# --- processes of their own ---------------------------------------------------------------------------------------


@dataclass
class Installation:
    """A home and a database that processes share, with one run and one budget."""

    environment: dict[str, str]
    payer: list[int]

    @property
    def home(self) -> Path:
        """Their DEVAIPOD_HOME."""
        return Path(self.environment["DEVAIPOD_HOME"])

    def run(self, code: str) -> Any:
        """What this Python prints, as JSON."""
        words = [sys.executable, "-c", f"import django; django.setup()\n{code}"]
        done = subprocess.run(
            words, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def start(self, seed: int, **wanted: Any) -> subprocess.Popen[str]:
        """A process that spends."""
        spec = {"payer": self.payer, "tasks": 50, "worst": WORST, "share": 1.0, "seed": seed}
        return subprocess.Popen(
            [sys.executable, "-m", "tests.budgets.worker", json.dumps({**spec, **wanted})],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def go(self, number: int) -> None:
        """Let this number of processes begin, once all are ready."""
        deadline = time.monotonic() + 60
        while len(list(self.home.glob("ready-*"))) < number:
            assert time.monotonic() < deadline, "The processes did not start within 60 s."
            time.sleep(0.01)
        (self.home / "go").touch()

    def totals(self) -> dict[str, Any]:
        """How the window stands, and what the calls' rows sum up to, in pico."""
        found: dict[str, Any] = self.run(TOTALS)
        return found


SET_UP = """
import json
from decimal import Decimal
from django.core.management import call_command
call_command("migrate", verbosity=0)
from devaipod_web.accounts.models import User
from devaipod_web.budgets import services
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run
by = User.objects.create(username="mona")
project = Project.objects.create(slug="p", name="P", upstream_url="https://forge.example/p.git")
run = Run.objects.create(project=project, owner=by, title="t", task="t", agent="opencode", wall_seconds=60)
services.create(by, scope="installation", metric="usd", window="total", limit=Decimal("0.01"))
print(json.dumps([run.pk, project.pk, by.pk]))
"""
TOTALS = """
import json
from devaipod_web.budgets.models import *
from devaipod_web.budgets.money import pico
from devaipod_web.llm.models import LlmCall
window = BudgetWindow.objects.get()
costs = list(LlmCall.objects.values_list("cost", flat=True))
print(json.dumps({"spent": window.spent, "leased": window.leased, "calls": len(costs), "cost": sum(map(pico, costs)),
    "killed": LlmCall.objects.filter(status=0).count(), "processes": BudgetProcess.objects.count()}))
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def installation(request, tmp_path) -> Iterator[Installation]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DEVAIPOD_") and name not in ("DATABASE_URL", "REDIS_URL")
    }
    environment = {
        **kept,
        "DEVAIPOD_HOME": str(tmp_path / "home"),
        "DJANGO_SETTINGS_MODULE": "devaipod_web.settings",
        "DEVAIPOD_RUN_BUDGET_USD": "0",
        "DEVAIPOD_RUN_REQUESTS": "0",
        "DEVAIPOD_LOG_LEVEL": "WARNING",
    }
    if request.param == "sqlite":
        made = Installation(environment, [])
        made.payer = made.run(SET_UP)
        yield made
        return
    with servers.postgresql() as address:
        made = Installation({**environment, "DATABASE_URL": address}, [])
        made.payer = made.run(SET_UP)
        yield made


def ended(process: subprocess.Popen[str]) -> dict[str, int]:
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors[-4000:]
    said: dict[str, int] = json.loads(out.splitlines()[-1])
    return said


@pytest.mark.slow
def test_four_processes_spend_the_last_cent_and_no_more(installation: Installation):
    began = time.monotonic()
    processes = [installation.start(seed) for seed in range(4)]
    installation.go(4)
    said = [ended(process) for process in processes]
    totals = installation.totals()
    print(
        f"{sum(one['calls'] for one in said)} calls in {time.monotonic() - began:.1f} s; "
        f"${usd(totals['spent'])} of ${usd(LIMIT)} spent"
    )
    assert sum(one["settled"] for one in said) == totals["spent"]
    assert totals["cost"] == totals["spent"]
    assert totals["leased"] == totals["processes"] == 0
    assert sum(one["refused"] for one in said) == 200
    assert LIMIT - WORST < totals["spent"] <= LIMIT


@pytest.mark.slow
def test_what_a_killed_process_left_is_settled_by_the_others(installation: Installation):
    # Small requests, so that all are in the middle of it for some seconds.
    small = WORST // 100
    victim = installation.start(0, worst=small, dies_after=200)
    others = [installation.start(seed, worst=small) for seed in range(1, 4)]
    installation.go(4)
    victim.communicate(timeout=180)
    for process in others:
        ended(process)
    totals = installation.totals()
    print(f"killed in the middle: {totals}")
    assert victim.returncode == -signal.SIGKILL
    assert totals["killed"] > 0
    assert totals["cost"] == totals["spent"]
    assert totals["leased"] == totals["processes"] == 0
    assert LIMIT - small < totals["spent"] <= LIMIT
    assert not list((installation.home / "budgets").iterdir())
