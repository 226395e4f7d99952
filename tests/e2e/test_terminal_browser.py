"""The terminal in a real Chromium, attached to a real pod; and what a hostile program may not do to its viewer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect

from tests.e2e.attached import launched, shop
from tests.e2e.conftest import sign_in
from tests.e2e.installation import Installation
from tests.e2e.test_browser import LOOKS

pytestmark = [pytest.mark.podman, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    with shop(DEVAIPOD_MAX_TERMINALS="10") as made:
        yield made


@pytest.fixture(scope="module")
def run(place: Installation) -> str:
    return launched(place)[0]


@pytest.fixture(scope="module")
def cookies(chromium: Browser, place: Installation) -> list:
    context = chromium.new_context(base_url=place.url)
    sign_in(place, context.new_page())
    found = context.cookies()
    context.close()
    return found


@pytest.fixture
def visit(chromium: Browser, place: Installation, cookies: list) -> Iterator:
    """Open a run's terminal: `visit(run, "dark")`. Any error in the console, above all of the CSP, fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def opened(key: str, look: str = "light", **more) -> Page:
        context = chromium.new_context(base_url=place.url, **LOOKS[look], **more)
        contexts.append(context)
        context.add_cookies(cookies)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.goto(f"/runs/{key}/terminal/")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []


def attach(page: Page) -> None:
    page.get_by_role("button", name="Attach").click()
    expect(page.locator("[data-terminal-said]")).to_have_text("Attached.", timeout=20_000)
    expect(page.locator(".xterm-rows")).to_contain_text("$", timeout=20_000)


def types(page: Page, line: str) -> None:
    page.keyboard.type(line)
    page.keyboard.press("Enter")


def screen(page: Page) -> str:
    text: str = page.locator(".xterm-rows > div").evaluate_all(
        "rows => rows.map(row => row.textContent.trimEnd()).join('\\n')"
    )
    return text


def test_a_shell_answers_in_the_page_and_follows_its_size(visit, run):
    page = visit(run)
    attach(page)
    types(page, "echo he''llo; stty size")
    expect(page.locator(".xterm-rows")).to_contain_text(re.compile(r"hello\s*[0-9]+ [0-9]+"))
    before = re.search(r"^(\d+) (\d+)$", screen(page), re.MULTILINE)
    page.set_viewport_size({"width": 900, "height": 600})
    page.wait_for_timeout(800)
    types(page, "clear; stty size")
    expect(page.locator(".xterm-rows")).to_contain_text(re.compile(r"[0-9]+ [0-9]+"))
    page.wait_for_timeout(300)
    after = re.search(r"^(\d+) (\d+)$", screen(page), re.MULTILINE)
    assert before is not None
    assert after is not None
    assert int(after[1]) < int(before[1])
    assert int(after[2]) < int(before[2])
    # Colours pass the strict policy without an inline style: the cell says its own colour.
    types(page, r"printf '\033[38;2;200;10;10mred''dish\033[0m\n'")
    cell = page.locator(".xterm-rows span", has_text="reddish").last
    expect(cell).to_be_visible()
    assert cell.evaluate("node => getComputedStyle(node).color") != page.locator(
        ".xterm-rows"
    ).evaluate("node => getComputedStyle(node).color")


def test_the_shells_end_is_said_and_attaching_again_offers_a_new_one(visit, run):
    page = visit(run)
    attach(page)
    types(page, "exit 3")
    expect(page.locator("[data-terminal-said]")).to_have_text("The shell has ended with status 3.")
    attach(page)
    types(page, "echo new''one")
    expect(page.locator(".xterm-rows")).to_contain_text("newone")
    page.get_by_role("button", name="Detach").click()
    expect(page.locator("[data-terminal-said]")).to_contain_text("Detached")
    expect(page.get_by_role("button", name="Attach")).to_be_focused()


def test_keys_lead_into_the_terminal_and_out_of_it(visit, run):
    page = visit(run)
    page.get_by_role("button", name="Attach").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-terminal-said]")).to_have_text("Attached.", timeout=20_000)
    expect(page.locator(".xterm-helper-textarea")).to_be_focused()
    page.keyboard.press("Tab")  # belongs to the shell
    expect(page.locator(".xterm-helper-textarea")).to_be_focused()
    for keys in ("Control+Shift+Escape", "Control+Shift+ArrowUp"):
        page.locator(".xterm-helper-textarea").focus()
        page.keyboard.press(keys)
        expect(page.get_by_role("button", name="Detach")).to_be_focused()


@pytest.mark.parametrize("look", list(LOOKS))
def test_the_page_looks_right_and_axe_finds_nothing(visit, run, look, tmp_path):
    page = visit(run, look, bypass_csp=True)
    assert Axe().run(page).response["violations"] == []
    page.get_by_label("Screen-reader mode").check()
    attach(page)
    types(page, "ls -la / --color=always; echo the''end")
    expect(page.locator(".xterm-rows")).to_contain_text("theend")
    found = Axe().run(page).response["violations"]
    assert found == [], [(one["id"], [node["html"] for node in one["nodes"]]) for one in found]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    where = Path(os.environ.get("DEVAIPOD_TEST_PICTURES", tmp_path))
    page.screenshot(path=where / f"terminal-{look}.png")


def test_a_screen_reader_hears_what_is_written(visit, run):
    page = visit(run)
    page.get_by_label("Screen-reader mode").check()
    attach(page)
    types(page, "echo spo''ken")
    expect(page.locator(".xterm-accessibility")).to_contain_text("spoken")


def test_a_hostile_program_reaches_neither_clipboard_nor_title_nor_links_nor_markup(
    visit, run, place
):
    page = visit(run, permissions=["clipboard-read", "clipboard-write"])
    attach(page)
    title = page.title()
    page.evaluate("navigator.clipboard.writeText('mine')")
    page.locator(".xterm-helper-textarea").focus()
    opened: list[str] = []
    page.context.on("page", lambda other: opened.append(other.url))

    def refuse(dialog: Dialog) -> None:
        opened.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", refuse)
    types(page, r"printf '\033]52;c;c3RvbGVu\007'")  # the clipboard
    types(page, r"printf '\033]0;owned\007\033]2;owned\007'")  # the title
    types(page, r"printf '\033[21t\033[8;99;99t\033[3;0;0t'")  # reports and moves the window
    types(page, r"printf '<img src=x onerror=document.title=1></script>\n'")
    types(page, r"clear; printf '\033]8;;https://evil.example/\033\\press''me\033]8;;\033\\\n'")
    link = page.locator(".xterm-rows span", has_text="pressme").last
    expect(link).to_be_visible()
    # xterm.js takes the pointer on a layer of its own.
    box = link.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 8, box["y"] + 8)
    page.wait_for_timeout(400)
    page.mouse.click(box["x"] + 8, box["y"] + 8)
    expect(page.locator("[data-terminal-said]")).to_contain_text(
        "This link is not opened: https://evil.example/"
    )
    types(page, "echo https://evil.example/plain")
    page.wait_for_timeout(300)
    assert page.evaluate("navigator.clipboard.readText()") == "mine"
    assert page.title() == title
    assert opened == []
    assert page.url == f"{place.url}/runs/{run}/terminal/"
    assert page.locator("[data-terminal-screen] img").count() == 0
    assert "owned" not in screen(page)  # no report was typed back into the shell


def test_a_flood_leaves_the_page_alive_and_can_be_interrupted(visit, run):
    page = visit(run)
    attach(page)
    types(page, "yes 'a long line that goes on and on'")
    page.wait_for_timeout(3000)
    began = page.evaluate("performance.now()")
    page.get_by_label("Screen-reader mode").is_visible()
    assert page.evaluate("performance.now()") - began < 3000
    page.keyboard.press("Control+c")
    page.wait_for_timeout(1500)
    types(page, "clear; echo still''alive")
    expect(page.locator(".xterm-rows")).to_contain_text("stillalive", timeout=20_000)
    assert page.locator("*").count() < 3000


def test_an_ended_pod_is_said_and_offers_the_way_on(visit, place):
    key, _ = launched(place)
    page = visit(key)
    attach(page)
    place.api("POST", f"/runs/{key}/stop", {})
    expect(page.locator("[data-terminal]")).to_have_attribute(
        "data-terminal", "ended", timeout=60_000
    )
    expect(page.locator(".terminal-pod")).to_contain_text("nothing to attach to", timeout=60_000)
    expect(page.get_by_role("link", name="Prompt the run")).to_be_visible()
    assert page.get_by_role("button", name="Attach").count() == 0


def test_a_viewer_sees_no_terminal(chromium: Browser, place: Installation, run: str):
    context = chromium.new_context(base_url=place.url)
    page = context.new_page()
    place.python(
        "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'; django.setup()\n"
        "from django.contrib.auth.models import Group\n"
        "from devaipod_web.accounts.models import User\n"
        "user = User.objects.create_user('vera', password='correct horse battery')\n"
        "user.groups.set(Group.objects.filter(name='viewer'))\n"
    )
    page.goto("/sign-in/")
    page.locator("input[name=username]").fill("vera")
    page.locator("input[name=password]").fill("correct horse battery")
    page.get_by_role("button", name="Sign in").click()
    page.goto(f"/runs/{run}/")
    expect(page.get_by_role("navigation", name="Run")).to_be_visible()
    assert page.get_by_role("navigation", name="Run").get_by_text("Terminal").count() == 0
    answer = page.goto(f"/runs/{run}/terminal/")
    assert answer is not None
    assert answer.status == 403
    context.close()
