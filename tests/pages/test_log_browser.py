"""A huge and hostile log in a real Chromium: it is text, it stays within bounds, and it can be scrolled to its first line."""

# ruff: noqa: F811
from __future__ import annotations

import os
import random
import time

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.urls import reverse
from playwright.sync_api import Page, expect

from devaipod_web.runs import log_writer, logs_hub
from pods.spec import LogLine
from tests.pages.test_browser import chromium, opened, site, working  # noqa: F401

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]

LINES = 200_000
MAX_ROWS = 5_001
HOSTILE = [
    "</script><img src=x onerror=\"document.title='owned'\">",
    "<svg/onload=alert(1)>&lt;b&gt;",
    "{% load x %}{{ settings.SECRET_KEY }}",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x1b[1;1H cleared",
    "\u202egnp.exe\u2066 \u200bhidden",
]


def put(working, lines: list[bytes], *, partial: bool = False) -> list:
    writer = log_writer.Writer(working.run.key, working.pod.name, "agent")
    stored = writer.append(
        [
            LogLine("stdout", working.run.created_at, line, str(n), partial=partial)
            for n, line in enumerate(lines)
        ]
    )
    writer.close()
    return stored


@pytest.fixture
def huge(working):
    """200,000 lines, one line of 5 MB, a thousand of binary, and markup; the hostile ones are the first and the last."""
    noise = random.Random(7)
    put(working, [line.encode() for line in HOSTILE])
    for n in range(0, LINES, 20_000):
        put(working, [f"line {m} of the flood".encode() for m in range(n, n + 20_000)])
    put(working, [b"long " + b"z" * 8_000] * 640, partial=True)
    put(working, [b"end of the long one"])
    put(working, [noise.randbytes(4_000).replace(b"\n", b"") for _ in range(1_000)])
    put(working, [line.encode() for line in HOSTILE])
    return working


def size(page: Page) -> tuple[float, ...]:
    """Rows, elements of the log, and megabytes of the page's JavaScript heap after a collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    heap = session.send("Runtime.getHeapUsage")["usedSize"] / 1e6
    return (
        page.locator("[data-log] > *").count(),
        page.evaluate("document.querySelectorAll('[data-log] *').length"),
        heap,
    )


def is_quick(page: Page) -> None:
    """The page answers: a frame comes within a second."""
    took = page.evaluate(
        "new Promise(done => { const t = performance.now(); requestAnimationFrame(() => done(performance.now() - t)); })"
    )
    assert took < 1_000


def first(page: Page) -> int:
    return int(page.locator("[data-log] [data-n]").first.get_attribute("data-n"))


def test_a_huge_hostile_log_is_text_within_bounds_from_its_end_to_its_beginning(opened, huge):
    began = time.monotonic()
    page = opened(reverse("run_logs", args=[huge.run.key]))
    title = page.title()
    log = page.locator("[data-log]")
    expect(log.locator(".log-line").last).to_contain_text("gnp.exe")
    assert time.monotonic() - began < 20
    assert page.locator("[data-log] :is(img, svg, script)").count() == 0
    expect(log).to_contain_text("</script><img src=x onerror=")
    expect(log).to_contain_text("red  cleared")
    expect(log).to_contain_text("U+202E")
    peak = size(page)
    # Up, a page at a time, until the first line of all; nothing but lines is fetched meanwhile.
    log.evaluate("log => { log.scrollTop = 0; }")
    before, quiet = first(page), 0
    while quiet < 40 and before > 195_000:
        log.evaluate("log => { log.scrollTop = Math.max(log.scrollTop, 1); log.scrollTop = 0; }")
        page.wait_for_timeout(50)
        quiet = quiet + 1 if first(page) == before else 0
        before = first(page)
        now = size(page)
        peak = (max(peak[0], now[0]), max(peak[1], now[1]), max(peak[2], now[2]))
        is_quick(page)
    assert before <= 195_000
    for _ in range(30):
        log.evaluate("log => { log.scrollTop = Math.max(log.scrollTop, 1); log.scrollTop = 0; }")
        page.wait_for_timeout(60)
    now = size(page)
    rows, elements = max(peak[0], now[0]), max(peak[1], now[1])
    heap = max(peak[2], now[2])
    assert rows <= MAX_ROWS, peak
    assert elements < 80_000, peak
    assert heap < 60, peak
    log.press("Home")
    expect(log.locator(".log-line").first).to_contain_text("</script><img")
    assert first(page) == 1
    # And down again: the next lines come, and the end is a key away.
    for _ in range(3):
        log.evaluate("log => { log.scrollTop = log.scrollHeight; }")
        page.wait_for_timeout(300)
    expect(log).to_contain_text("line 1200 of the flood")
    numbers = page.locator("[data-log] [data-n]").evaluate_all(
        "rows => rows.map(row => Number(row.dataset.n))"
    )
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    log.press("End")
    expect(log.locator(".log-line").last).to_contain_text("gnp.exe")
    assert page.title() == title
    is_quick(page)


def test_a_long_line_is_cut_and_shown_whole_when_asked(opened, working):
    put(working, [b"short", b"begin " + b"<i>" * 10_000 + b" the very end", b"after"])
    page = opened(reverse("run_logs", args=[working.run.key]))
    row = page.locator(".log-line[data-n='2']")
    assert len(row.inner_text()) < 1_200
    row.get_by_role("button", name="Show all 30019 characters").click()
    expect(row).to_contain_text("the very end")
    assert row.locator("i").count() == 0
    assert row.get_by_role("button").count() == 0
    # A live one has the same.
    put(working, [b"x" * 3_000])
    expect(page.get_by_role("button", name="Show all 3000 characters")).to_be_visible()


@pytest.mark.parametrize(("theme", "width"), [("light", 1360), ("dark", 1360), ("light", 390)])
def test_a_hostile_log_looks_right_and_axe_finds_nothing(opened, huge, theme, width):
    page = opened(reverse("run_logs", args=[huge.run.key]), theme=theme, width=width, bypass=True)
    expect(page.locator(".log-line").last).to_contain_text("gnp.exe")
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if where := os.environ.get("DEVAIPOD_TEST_PICTURES"):
        page.screenshot(path=f"{where}/log-{theme}-{width}.png")


def test_a_live_flood_keeps_a_reader_further_up_in_place_and_offers_the_latest(
    opened,
    working,
    site,
):
    put(working, [f"line {n}".encode() for n in range(2_000)])
    page = opened(reverse("run_logs", args=[working.run.key]))
    log = page.locator("[data-log]")
    expect(log.locator(".log-line").last).to_contain_text("line 1999")
    log.evaluate("log => { log.scrollTop = 800; }")
    page.wait_for_timeout(500)
    shown = log.evaluate(
        "log => document.elementFromPoint(log.getBoundingClientRect().x + 200, log.getBoundingClientRect().y + 60).textContent"
    )
    for n in range(2_000, 14_000, 2_000):
        put(working, [f"line {m}".encode() for m in range(n, n + 2_000)])
        page.wait_for_timeout(700)
    jump = page.get_by_role("button", name="Jump to latest")
    expect(jump).to_be_visible(timeout=20_000)
    page.wait_for_timeout(3_000)
    assert (
        log.evaluate(
            "log => document.elementFromPoint(log.getBoundingClientRect().x + 200, log.getBoundingClientRect().y + 60).textContent"
        )
        == shown
    )
    assert page.locator("[data-log] > *").count() <= MAX_ROWS
    jump.click()
    expect(log.locator(".log-line").last).to_contain_text("line 13999", timeout=20_000)
    put(working, [b"one more"])
    expect(log.locator(".log-line").last).to_contain_text("one more", timeout=20_000)
    numbers = page.locator("[data-log] [data-n]").evaluate_all(
        "rows => rows.map(row => Number(row.dataset.n))"
    )
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_the_whole_log_is_saved_as_a_file_of_plain_text(opened, huge, tmp_path):
    page = opened(reverse("run_logs", args=[huge.run.key]))
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    path = tmp_path / "log"
    started.value.save_as(path)
    assert started.value.suggested_filename == f"{huge.pod.name}-agent.log"
    text = path.read_text()
    lines = text.split("\n")
    assert lines[: len(HOSTILE)] == [line.replace("\r", "") for line in HOSTILE]
    assert f"line {LINES - 1} of the flood" in text
    assert ("long " + "z" * 8_000) * 640 + "end of the long one" in lines
    assert logs_hub.SHOWN_CHARACTERS < 8_000
