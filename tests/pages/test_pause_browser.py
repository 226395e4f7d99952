"""A paused run in a real browser: the page says so by itself, a manager decides on it, and axe finds nothing."""

# ruff: noqa: F811
from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from django.utils import timezone
from playwright.sync_api import expect

from devaipod_web.budgets import incidents, leases, services
from devaipod_web.budgets.models import Budget, BudgetWindow
from devaipod_web.runs.models import Run
from tests.pages.test_browser import chromium, opened, site, working  # noqa: F401 - fixtures

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def meet_limit(working) -> None:
    """The run meets a limit of 5 requests of its own."""
    Budget.objects.filter(run=working.run).delete()
    row = services.create(
        working.run.owner,
        scope="run",
        subject=working.run,
        metric="requests",
        window="total",
        limit=5,
    )
    window = leases.window_of(row, timezone.now())
    BudgetWindow.objects.filter(pk=window.pk).update(spent=5)
    incidents.open_hard(window.pk, working.run.pk, 1)


def test_pause_and_resume_are_seen_by_whoever_looks_on(opened, working):
    looker = opened(reverse("run", args=[working.run.key]))
    page = opened(reverse("run", args=[working.run.key]))
    page.get_by_role("button", name="Pause").click()
    expect(page.locator(".paused")).to_contain_text("Paused by Mona.")
    expect(looker.locator(".paused")).to_contain_text("Paused by Mona.")
    expect(looker.locator("[data-item=state]").last).to_contain_text("Paused by Mona.")
    looker.get_by_role("button", name="Resume").click()
    expect(page.locator(".paused")).to_have_count(0)
    expect(page.locator("[data-item=prompt]").last).to_contain_text("Go on where you stopped.")


def test_a_manager_extends_the_budget_where_the_run_stands(opened, working):
    page = opened(reverse("run", args=[working.run.key]))
    meet_limit(working)
    expect(page.locator(".paused")).to_contain_text("5 requests of 5 requests are spent")
    page.get_by_label("Add once").fill("20")
    page.get_by_role("button", name="Extend once").click()
    expect(page.locator("[data-item=state]").last).to_contain_text("once by 20 requests")
    assert Run.objects.get(pk=working.run.pk).state == "running"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_overflows(opened, working, theme):
    meet_limit(working)
    page = opened(reverse("run", args=[working.run.key]), theme=theme, bypass=True)
    for width in (1360, 390):
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        found = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found] == []
