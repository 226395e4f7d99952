"""Webhooks in a real browser, with a sender and a receiver: a test event is watched as it is delivered; axe finds nothing."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.test import Client
from django.utils import timezone
from playwright.sync_api import Browser, Page, expect

from devaipod_web.webhooks import services
from devaipod_web.webhooks.models import Attempt, Delivery, Webhook
from devaipod_web.webhooks.sender import Sender
from tests.chromium import launched
from tests.pages.conftest import HOSTILE
from tests.pages.test_browser import serving
from tests.webhooks.receiver import Receiver, until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

SCREENSHOTS = Path(__file__).resolve().parents[2] / "var" / "screenshots"
LOOKS = {"light": ("light", 1360), "dark": ("dark", 1360), "phone": ("light", 390)}


@contextmanager
def sending() -> Iterator[None]:
    """A sender in a thread with a loop of its own."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(Sender().run(stop)), name="sender", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def site(chromium, transactional_db, receiver) -> Iterator[str]:
    with serving() as address, sending():
        yield address


@pytest.fixture
def cookie(chromium, settings, manager) -> dict[str, str]:
    client = Client()
    client.force_login(manager)
    name = settings.SESSION_COOKIE_NAME
    return {"name": name, "value": client.cookies[name].value}


@pytest.fixture
def opened(chromium, site, cookie):
    """Open a path as Mona: `opened("/", look="phone")`. Any error in the page's console fails the test."""
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
        context.add_cookies([{**cookie, "url": site}])
        page: Page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(path)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == []


def test_a_manager_makes_a_webhook_and_watches_a_test_event_arrive(
    opened, receiver: Receiver
) -> None:
    page = opened("/webhooks/")
    page.get_by_role("link", name="Make the first webhook").click()
    page.get_by_label("Name").fill("Ops")
    page.get_by_label("Address").fill(receiver.url)
    page.get_by_label("run.waiting").check()
    page.get_by_label("review.opened").check()
    page.get_by_role("button", name="Make the webhook").click()
    secret = page.locator("#secret-text").inner_text()
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    receiver.secrets.append(secret)

    # The first attempt fails, and the page says so by itself; the second is asked for, and arrives.
    receiver.plan = ["500"]
    page.get_by_role("button", name="Send a test event").click()
    page.wait_for_url("**/deliveries/*/")
    expect(page.locator("#attempts")).to_contain_text("answered 500")
    expect(page.locator("#delivery-facts")).to_contain_text("queued")
    page.get_by_role("button", name="Send again").click()
    expect(page.locator("#attempts")).to_contain_text("answered 200")
    expect(page.locator("#delivery-facts")).to_contain_text("delivered")
    assert len(set(receiver.ids)) == 1
    page.get_by_role("link", name="Ops").click()
    expect(page.locator("#webhook-facts")).to_contain_text("enabled")
    expect(page.locator("#deliveries")).to_contain_text("webhook.test")


def test_rotating_disabling_and_removing_by_clicking(opened, manager, receiver: Receiver) -> None:
    row, secret = services.create(manager, name="Ops", url=receiver.url, events=["run.state"])
    page = opened(f"/webhooks/{row.key}/settings/")
    page.get_by_role("button", name="Rotate the secret").click()
    shown = page.locator("#secret-text").inner_text()
    assert shown.startswith("whsec_") and shown != secret
    page.get_by_role("button", name="Disable").click()
    expect(page.locator("#deliveries")).to_contain_text("Nothing is sent.")
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("button", name="Send a test event")).to_be_visible()
    page.get_by_role("link", name="Settings", exact=True).last.click()
    page.get_by_role("button", name="Remove…").click()
    expect(page.get_by_role("dialog")).to_contain_text("Remove Ops?")
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.get_by_role("button", name="Remove…").click()
    page.get_by_role("button", name="Remove the webhook").click()
    page.wait_for_url("**/webhooks/")
    assert not Webhook.objects.exists()


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_seen_and_accessible(
    look: str, opened, manager, project, receiver: Receiver
) -> None:
    """Screenshots go to var/screenshots/; axe-core finds nothing to mend and nothing is wider than the screen."""
    rows = []
    for name in ("Chat of the platform team", "CI", "Orchestrator"):
        row, secret = services.create(
            manager,
            name=name,
            url=receiver.url,
            events=["run.state", "run.waiting", "review.opened"],
            project=project if name == "CI" else None,
        )
        receiver.secrets.append(secret)
        rows.append(row)
    well, off, failing = rows
    services.disable(off, None, reason="The receiver answered 410: it wants no more.")
    for _ in range(3):
        services.test(well, manager)
    until(lambda: Delivery.objects.filter(state="delivered").count() == 3, 20, "deliveries")
    receiver.always = "503"
    lost = services.test(failing, manager)
    until(lambda: Attempt.objects.filter(delivery=lost).exists(), 20, "an attempt")
    Attempt.objects.create(
        delivery=lost, at=timezone.now(), milliseconds=12, status=500, answer=HOSTILE * 4
    )
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    paths = {
        "webhooks": "/webhooks/",
        "webhook-new": "/webhooks/new/",
        "webhook": f"/webhooks/{failing.key}/",
        "webhook-off": f"/webhooks/{off.key}/",
        "webhook-none": f"/webhooks/{well.key}/?state=failed",
        "webhook-settings": f"/webhooks/{well.key}/settings/",
        "delivery": f"/webhooks/{failing.key}/deliveries/{lost.key}/",
    }
    page = opened("/webhooks/", look=look, bypass=True)
    for name, path in paths.items():
        page.goto(path)
        page.screenshot(path=SCREENSHOTS / f"{name}-{look}.png", full_page=True)
        assert violations(page) == [], path
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
    page.goto("/webhooks/new/")
    page.get_by_label("Name").fill("New one")
    page.get_by_label("Address").fill("https://receiver.example/hook")
    page.get_by_label("run.waiting").check()
    page.get_by_role("button", name="Make the webhook").click()
    page.screenshot(path=SCREENSHOTS / f"webhook-made-{look}.png", full_page=True)
    assert violations(page) == []


def violations(page: Page) -> list[tuple[str, str]]:
    """What axe-core finds on the page."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found]
