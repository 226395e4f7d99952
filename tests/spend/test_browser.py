"""Spend in a real browser: the drawing answers the pointer, a manager decides by clicking, axe finds nothing, nothing overflows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.test import Client
from playwright.sync_api import Browser, Page, expect

from devaipod_web.budgets.models import Incident
from devaipod_web.runs.models import Run
from tests.chromium import launched
from tests.pages.test_browser import serving
from tests.spend.world import World, fill

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SCREENSHOTS = Path(__file__).resolve().parents[2] / "var" / "screenshots"
LOOKS = {"light": ("light", 1360), "dark": ("dark", 1360), "phone": ("light", 390)}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def world(chromium, transactional_db, person, manager) -> World:
    return fill(person, manager)


@pytest.fixture
def site(world) -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def opened(chromium, site, settings, manager):
    """Open a path as Mona: `opened("/spend/", look="phone")`. Any error in the page's console fails the test."""
    client = Client()
    client.force_login(manager)
    name = settings.SESSION_COOKIE_NAME
    cookie = {"name": name, "value": client.cookies[name].value, "url": site}
    contexts, errors = [], []

    def visit(path: str, *, look: str = "light", bypass: bool = False) -> Page:
        theme, width = LOOKS[look]
        context = chromium.new_context(
            base_url=site,
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            bypass_csp=bypass,
        )
        contexts.append(context)
        context.add_cookies([cookie])
        page: Page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(path)
        return page

    yield visit
    for context in contexts:
        context.close()
    # A form that is refused is an error of the network to the console.
    assert [said for said in errors if "status of 400" not in said] == []


def test_the_drawing_is_painted_in_the_colours_of_its_legend_and_says_exact_figures(opened):
    page = opened("/spend/?range=30d")
    bars = page.locator(".chart-bar")
    expect(bars).to_have_count(30)
    titles = bars.locator("title").all_text_contents()
    assert all("$" in title for title in titles)
    assert any("payments-api: $" in title for title in titles)
    # The strict policy lets the fills through: a part of a bar is as large as its figure, and painted.
    first = page.locator(".chart-part").first
    assert first.bounding_box()["height"] > 1
    colour = page.evaluate("getComputedStyle(document.querySelector('pattern#series-1 rect')).fill")
    assert colour == "rgb(79, 70, 229)"
    page.get_by_text("The figures as a table").click()
    expect(page.locator(".chart-notes tbody tr")).to_have_count(30)


def test_range_and_stack_are_chosen_from_menus_and_stand_in_the_address(opened):
    page = opened("/spend/")
    page.locator(".page-actions summary", has_text="By project").click()
    page.get_by_role("link", name="By model").click()
    page.wait_for_url("**by=model**")
    expect(page.locator(".legend")).to_contain_text("gpt-5-codex")
    menu = page.locator(".page-actions details", has_text="This month").first
    menu.locator("summary").click()
    page.keyboard.press("Escape")
    expect(menu).not_to_have_attribute("open", "")
    menu.locator("summary").click()
    page.get_by_role("link", name="Last 7 days").click()
    page.wait_for_url("**range=7d**")
    expect(page.locator(".chart-bar")).to_have_count(7)
    expect(page.locator(".legend")).to_contain_text("gpt-5-codex")


def test_a_manager_extends_a_budget_from_now(opened):
    page = opened("/")
    line = page.locator(".needs li", has_text="hard limit")
    expect(line).to_have_count(1)
    line.locator("summary", has_text="Extend once").click()
    field = line.get_by_label(re.compile("Added to this window"))
    expect(field).to_have_value("2.50")
    field.fill("1.25")
    # What is typed outlives the page's own renewal.
    page.evaluate("document.body.dispatchEvent(new CustomEvent('wakes'))")
    page.wait_for_timeout(500)
    expect(field).to_have_value("1.25")
    line.get_by_role("button", name="Extend once").click()
    expect(page.locator("#toasts")).to_contain_text("extended, this once")
    assert Incident.objects.filter(state="open").count() == 0
    expect(page.locator("#rail-nav")).not_to_contain_text("runs without budget")


def test_a_budget_is_set_by_clicking_and_asks_for_its_scope_alone(opened):
    page = opened("/spend/budgets/new/")
    picker = page.get_by_label("Project", exact=True)
    expect(picker).to_be_hidden()
    page.get_by_label("One project").check()
    expect(picker).to_be_visible()
    expect(page.get_by_label("Person", exact=True)).to_be_hidden()
    picker.select_option("search")
    page.get_by_label("Limit", exact=True).fill("lots")
    page.get_by_role("button", name="Set the budget").click()
    expect(page.locator(".field-error")).to_contain_text("It must be a number.")
    expect(picker).to_have_value("search")
    page.get_by_label("Limit", exact=True).fill("90")
    page.get_by_role("button", name="Set the budget").click()
    page.wait_for_url(re.compile(r"/spend/budgets/[a-z2-7]{10}/$"))
    expect(page.locator("h1")).to_have_text("search, a month")
    page.get_by_role("button", name="Remove…").click()
    expect(page.get_by_role("dialog")).to_contain_text("Remove the budget “search, a month”?")
    page.get_by_role("button", name="Remove the budget").click()
    page.wait_for_url("**/spend/budgets/")


@pytest.mark.parametrize("look", LOOKS)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_screen(opened, look, world):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    waiting = Incident.objects.get(state="open")
    done = Incident.objects.filter(state="resolved").first()
    run = Run.objects.filter(state="paused").get()
    pages = {
        "spend": "/spend/",
        "spend-people": "/spend/?by=person&range=90d",
        "spend-day": "/spend/?from={0}&to={0}&by=model".format(run.started_at.date()),
        "budgets": "/spend/budgets/",
        "budget": f"/spend/budgets/{world.budgets['payments'].key}/",
        "budget-new": "/spend/budgets/new/?scope=token",
        "incidents": "/spend/incidents/?state=all",
        "incident": f"/spend/incidents/{waiting.key}/",
        "incident-done": f"/spend/incidents/{done.key}/",
        "spend-now": "/",
        "spend-project": "/projects/payments-api/",
        "spend-launch": "/runs/new/?project=payments-api",
        "spend-run": f"/runs/{run.key}/",
    }
    problems = []
    page = opened("/help/", look=look, bypass=True)
    for name, path in pages.items():
        page.goto(path)
        if name == "spend":
            page.get_by_text("The figures as a table").click()
            found = axe(page)
            problems += [f"{name} (table): {text}" for text in found]
            page.get_by_text("The figures as a table").click()
        page.wait_for_timeout(100)
        page.screenshot(path=str(SCREENSHOTS / f"{name}-{look}.png"), full_page=True)
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wider > 0:
            problems.append(f"{name}: wider by {wider} px")
        problems += [f"{name}: {text}" for text in axe(page)]
    page.goto("/spend/")
    for summary in page.locator(".page-actions summary").all():
        summary.click()
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if wider > 0:
            problems.append(f"menu: wider by {wider} px")
        problems += [f"menu: {text}" for text in axe(page)]
    page.screenshot(path=str(SCREENSHOTS / f"spend-menu-{look}.png"))
    assert problems == []


def axe(page: Page) -> list[str]:
    """What axe-core finds on the page."""
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:150]} ({len(v['nodes'])})" for v in found]
