"""A team that has worked for some months: projects, people, runs with their calls, reviews, budgets and incidents.

The same numbers each time (a seeded generator), so that screenshots and tests can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from django.db import transaction
from django.utils import timezone

from devaipod_web.accounts.models import User
from devaipod_web.budgets import incidents, leases
from devaipod_web.budgets import services as budgets
from devaipod_web.budgets.models import Budget, BudgetWindow, Metric, Scope, Window, units
from devaipod_web.home import new_key
from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.projects.models import Project
from devaipod_web.reviews.models import Promotion, Review
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import State

#: (name, part of the work)
PROJECTS = (
    ("payments-api", 46),
    ("search", 26),
    ("mobile", 20),
    ("website", 5),
    ("data-lake", 4),
    ("docs", 3),
    ("infra", 2),
    ("legacy-erp", 1),
)
#: (model, agent, US dollars a million tokens in and out)
MODELS = (
    ("claude-opus-4.1", "claude-code", 15, 75),
    ("claude-sonnet-4.5", "opencode", 3, 15),
    ("gpt-5-codex", "codex", 2, 10),
    ("gemini-2.5-pro", "gemini", 1, 10),
)
TASKS = (
    "Rebuild the synonym index nightly",
    "Split the ledger module",
    "Upgrade to SDK 35",
    "Retry webhooks with back-off",
    "Explain the flaky checkout test",
    "Add an index to orders by customer",
)


@dataclass
class World:
    """What was made."""

    projects: list[Project] = field(default_factory=list)
    people: list[User] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    budgets: dict[str, Budget] = field(default_factory=dict)


def fill(
    person: Callable[..., User],
    manager: User,
    *,
    days: int = 60,
    runs_a_day: int = 12,
    calls_a_run: int = 6,
    now: datetime | None = None,
) -> World:
    """Fill an empty installation. Weekends are quiet."""
    now = now or timezone.now()
    chance = Random(7)
    world = World()
    provider = Provider.objects.create(name="Acme", base_url="https://models.example/v1")
    for name, _ in PROJECTS:
        world.projects.append(
            Project.objects.create(
                slug=name, name=name, upstream_url=f"https://forge.example/acme/{name}.git"
            )
        )
    world.people = [person(name, "operator") for name in ("ada", "grace", "linus")]
    rows: list[LlmCall] = []
    for back in range(days, -1, -1):
        day = now - timedelta(days=back)
        busy = 0.15 if day.weekday() >= 5 else 1.0
        for _ in range(max(1, round(runs_a_day * busy * chance.uniform(0.7, 1.3)))):
            at = day.replace(hour=0, minute=0) + timedelta(minutes=chance.randrange(1, 1300))
            if at > now - timedelta(minutes=20):
                at = now - timedelta(minutes=chance.randrange(20, 90))
            world.runs.append(_run(world, provider, chance, at, calls_a_run, rows))
    LlmCall.objects.bulk_create(rows, batch_size=500)
    _budgets(world, manager, now)
    return world


def _run(
    world: World,
    provider: Provider,
    chance: Random,
    at: datetime,
    calls: int,
    rows: list[LlmCall],
) -> Run:
    (place,) = chance.choices(range(len(PROJECTS)), [share for _, share in PROJECTS])
    model, agent, per_in, per_out = chance.choice(MODELS)
    seconds = chance.randrange(120, 4400)
    run = Run.objects.create(
        project=world.projects[place],
        owner=chance.choice(world.people),
        title=chance.choice(TASKS),
        task="As the title says.",
        agent=agent,
        model=model,
        provider=provider,
        wall_seconds=7200,
        state=State.SUCCEEDED,
        started_at=at,
        ended_at=at + timedelta(seconds=seconds),
    )
    sums: dict[str, Any] = {"tokens_in": 0, "tokens_cached": 0, "tokens_out": 0, "cost": Decimal(0)}
    for number in range(max(1, round(calls * chance.uniform(0.5, 1.6)))):
        sent, got = chance.randrange(5_000, 160_000), chance.randrange(200, 4_000)
        cost = (Decimal(sent) * per_in + Decimal(got) * per_out) / 10**6 / 4
        sums["tokens_in"] += sent
        sums["tokens_out"] += got
        sums["cost"] += cost
        unpriced = chance.random() < 0.004
        rows.append(
            LlmCall(
                key=new_key(),
                run=run,
                provider=provider,
                provider_kind="openai",
                form="openai_chat",
                model=model,
                at=at + timedelta(seconds=seconds * number / calls / 2),
                status=200,
                milliseconds=chance.randrange(900, 9000),
                tokens_in=sent,
                tokens_out=got,
                unpriced=unpriced,
                estimated=chance.random() < 0.006,
                cost=cost,
            )
        )
    Run.objects.filter(pk=run.pk).update(created_at=at, **sums)
    _review(run, chance, at + timedelta(seconds=seconds))
    return run


def _review(run: Run, chance: Random, at: datetime) -> None:
    (state,) = chance.choices(("promoted", "rejected", "open", ""), (55, 9, 6, 30))
    if not state:
        return
    if state == "open" and at < timezone.now() - timedelta(days=2):
        state = "promoted"
    review = Review.objects.create(
        run=run,
        state=state,
        base="a" * 40,
        head="b" * 40,
        diff_digest="c" * 64,
        commits=1,
        files=2,
        additions=40,
        deletions=9,
        updated_at=at,
        closed_at=None if state == "open" else at,
    )
    if state == "promoted":
        made = Promotion.objects.create(
            review=review,
            head="b" * 40,
            diff_digest="c" * 64,
            target_url=run.project.upstream_url,
            target_branch=f"devaipod/{run.key}",
            state="done",
            ended_at=at,
        )
        Promotion.objects.filter(pk=made.pk).update(started_at=at)


def _budgets(world: World, manager: User, now: datetime) -> None:
    def made(name: str, **given: Any) -> Budget:
        world.budgets[name] = budgets.create(manager, **given)
        return world.budgets[name]

    made("all", scope="installation", metric="usd", window="month", limit="600")
    payments = world.projects[0]
    made("payments", scope="project", subject=payments, metric="usd", window="month", limit="220")
    made("each", scope="installation", metric="usd", window="each_run", limit="5.00")
    ada = world.people[0]
    made("ada", scope="person", subject=ada, metric="tokens", window="day", limit=60_000_000)
    dearest = Run.objects.order_by("-cost")[:8]
    for run in dearest[1:]:
        refused(run, "5.00")
    run = dearest[0]
    Run.objects.filter(pk=run.pk).update(
        state=State.PAUSED, ended_at=None, reason="Its budget is used up."
    )
    refused(run, "5.00")
    # Only the last one waits; the others were looked at.
    run.incidents.model.objects.exclude(run=run).update(
        state="resolved", how="extended", resolved_by=manager, resolved_at=now
    )


def refused(run: Run, limit: str) -> None:
    """Let a run come to a limit of its own."""
    own = Budget.objects.create(
        scope=Scope.RUN,
        run=run,
        metric=Metric.USD,
        window=Window.TOTAL,
        limit=units(Metric.USD, Decimal(limit)),
    )
    window = leases.window_of(own, timezone.now())
    BudgetWindow.objects.filter(pk=window.pk).update(spent=own.limit)
    with transaction.atomic():
        incidents.open_hard(window.pk, run.pk, 10**10)
