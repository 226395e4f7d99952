"""The pages in a real browser: they move by themselves, keys work, nothing is inline, and axe finds nothing."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.urls import reverse
from playwright.sync_api import Browser, Page, expect

from devaipod_web import db
from devaipod_web.asgi import application
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import PermissionRequest, PermissionState
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.supervisor import records
from pods.findings import finding
from tests.chromium import launched
from tests.pages.conftest import begun

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@contextmanager
def serving() -> Iterator[str]:
    """The whole web app with its sockets on a real port, in a thread with a loop of its own."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(128)
    config = uvicorn.Config(
        application, lifespan="off", log_config=None, timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]

    async def run() -> None:
        await server.serve(sockets=[sock])
        await db.close_connections()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="pages", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        sock.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def working(chromium, person):
    user = person("mona", "manager")
    project = Project.objects.create(
        slug="payments", name="Payments", upstream_url="https://x.example/y.git"
    )
    return begun(launch(project, user, task="Mend the till"))


@pytest.fixture
def site(working) -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture
def opened(chromium, site, settings, working):
    """Open a path as Mona: `opened("/", theme="dark", width=390)`. Any error in the page's console fails the test."""
    session = SessionStore()
    session[SESSION_KEY] = str(working.run.owner.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = working.run.owner.get_session_auth_hash()
    session.save()
    contexts, errors = [], []

    def visit(path: str, *, theme: str = "light", width: int = 1360, bypass: bool = False) -> Page:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, bypass_csp=bypass
        )
        contexts.append(context)
        context.add_cookies(
            [{"name": settings.SESSION_COOKIE_NAME, "value": session.session_key, "url": site}]
        )
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(site + path)
        return cast(Page, page)

    yield visit
    for context in contexts:
        context.close()
    assert errors == []


def test_a_transcript_moves_by_itself_and_keys_answer(opened, working):
    page = opened(reverse("run", args=[working.run.key]))
    working.says("message", message_id="m", text="It **lives**")
    expect(page.locator("#transcript strong", has_text="lives")).to_be_visible()
    working.asks()
    expect(page.get_by_role("button", name="Allow once")).to_be_visible()
    page.locator("body").press("a")
    expect(page.locator("[data-item=permission]")).to_contain_text("allowed")
    assert PermissionRequest.objects.get().state == PermissionState.ALLOWED
    page.fill("#prompt-text", "And the docs")
    page.locator("#prompt-text").press("Control+Enter")
    expect(page.locator("[data-item=prompt]").last).to_contain_text("And the docs")
    expect(page.locator("#prompt-text")).to_have_value("")


def test_now_keeps_up_and_answers_in_place(opened, working):
    page = opened("/")
    working.asks()
    expect(page.locator(".needs")).to_contain_text("alembic upgrade head")
    page.get_by_role("button", name="Refuse").click()
    expect(page.locator("#now-parts")).to_contain_text("Nothing waits for anybody")
    assert PermissionRequest.objects.get().state == PermissionState.REFUSED


def test_stopping_asks_once_naming_the_run(opened, working):
    page = opened(reverse("run", args=[working.run.key]))
    page.get_by_role("button", name="Stop…").click()
    expect(page.get_by_role("dialog")).to_contain_text("Stop “Mend the till”?")
    page.get_by_role("button", name="Stop this run").click()
    expect(page.locator("#run-header")).to_contain_text("stopped")


def test_the_palette_reaches_pages_and_finds_runs(opened, working):
    page = opened("/help/")
    page.keyboard.press("Control+k")
    page.keyboard.type("mend the")
    expect(page.get_by_role("option", name="Mend the till")).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/runs/{working.run.key}/")


def test_a_diagnosis_is_copied_and_keeps_up(opened, working):
    page = opened(reverse("run_diagnostics", args=[working.run.key]))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy as text").click()
    expect(page.locator(".toast")).to_contain_text("The text is copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert f"Run {working.run.key} (running)" in copied
    records.fail(working.run.pk, finding("acp-refused", "The agent opened no session: no."))
    expect(page.locator("#diagnostics")).to_contain_text("The agent opened no session: no.")


def test_the_theme_switches_without_a_new_page(opened):
    page = opened("/")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_command_has_its_fields_when_it_is_chosen_and_what_was_typed_stays(opened, working):
    page = opened("/runs/new/")
    field = page.get_by_label("Command", exact=True).and_(page.locator("textarea"))
    expect(field).to_have_count(0)
    page.locator("input[name=agent][value=command]").check()
    expect(field).to_be_visible()
    field.fill("sh -c 'echo hello'")
    page.get_by_label("Image", exact=True).fill("registry.example/x:1")
    page.get_by_label("Image", exact=True).blur()
    expect(page.locator("#reach")).to_contain_text("registry.example/x:1")
    page.locator("input[name=agent][value=opencode]").check()
    expect(field).to_have_count(0)
    page.locator("input[name=agent][value=command]").check()
    expect(field).to_have_value("sh -c 'echo hello'")
    page.get_by_role("button", name="Launch").click()
    page.wait_for_url(re.compile(r"/runs/[a-z2-7]{10}/$"))
    expect(page.locator("#transcript")).to_contain_text("sh -c 'echo hello'")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_and_nothing_overflows(opened, working, theme):
    working.says("thought", message_id="t", text="Hm.")
    working.says(
        "tool_call", tool_call_id="c", title="ls", kind="execute", status="failed", output="x"
    )
    working.says("sidecar.note", level="error", message="Something is wrong.")
    working.says("plan", entries=[{"content": "Look", "status": "in_progress"}])
    working.asks()
    run = f"/runs/{working.run.key}/"
    page = opened(run, theme=theme, bypass=True)
    for path in (
        run,
        "/",
        "/runs/",
        f"{run}logs/",
        f"{run}changes/",
        f"{run}access/",
        f"{run}diagnostics/",
        "/runs/new/",
        "/runs/new/?agent=command",
        "/help/",
        "/search/?q=till",
    ):
        page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + path)
        found = Axe().run(page).response["violations"]
        assert [(v["id"], v["nodes"][0]["html"]) for v in found] == [], path
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        page.set_viewport_size({"width": 1360, "height": 900})
