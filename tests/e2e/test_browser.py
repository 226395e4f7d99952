"""The whole way, by clicking: project, launch, watch, unblock, review, promote; then the branch is read in production."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.e2e.conftest import sign_in
from tests.e2e.installation import ROOT, Installation, git, make_upstream

pytestmark = [pytest.mark.podman, pytest.mark.browser, pytest.mark.slow]

AGENT_MS = 120_000
PAGES = {
    "now": "/",
    "runs": "/runs/",
    "launch": "/runs/new/?project=courier",
    "reviews": "/reviews/",
    "projects": "/projects/",
    "spend": "/spend/",
    "budgets": "/spend/budgets/",
    "budget-new": "/spend/budgets/new/",
    "incidents": "/spend/incidents/",
    "services": "/services/",
    "project": "/projects/courier/",
    "project-settings": "/projects/courier/settings/",
    "project-targets": "/projects/courier/settings/targets/",
    "project-new": "/projects/new/",
    "providers": "/providers/",
    "provider-new": "/providers/new/",
    "targets": "/targets/",
    "target-new": "/targets/new/",
    "people": "/people/",
    "tokens": "/tokens/",
    "account": "/account/",
    "audit": "/audit/",
    "help": "/help/",
    "missing": "/runs/aaaaaaaaaa/",
}
LOOKS: dict[str, Any] = {
    "light": {"viewport": {"width": 1360, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1360, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


@pytest.fixture(scope="module")
def page(chromium: Browser, place: Installation):
    context = chromium.new_context(viewport={"width": 1360, "height": 900}, base_url=place.url)
    context.set_default_timeout(20_000)
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.troubles = troubles  # type: ignore[attr-defined]
    sign_in(place, opened)
    yield opened
    context.close()


def allow_until_done(page: Page) -> int:
    """Answer every question that comes up with "allow", by clicking, until the run has ended; returns how many there were."""
    done = page.locator("#run-header .badge").filter(has_text=re.compile("succeeded|failed"))
    question = page.locator("[data-item=permission] button[data-key=a]")
    for answered in range(40):
        expect(question.first.or_(done).first).to_be_visible(timeout=AGENT_MS)
        if done.is_visible():
            return answered
        before = question.count()
        question.first.click()
        expect(question).not_to_have_count(before, timeout=20_000)
    raise AssertionError("the agent asked more than forty times")


def test_from_a_new_project_to_the_promoted_branch_by_clicking(page: Page, place: Installation):
    upstream = make_upstream(
        place.home.parent / "courier", {"README.md": "# courier\n\nDelivers.\n"}
    )
    production = place.home.parent / "production.git"
    git("clone", "-q", "--bare", str(upstream), str(production), cwd=place.home.parent)

    # A project
    page.get_by_role("link", name="Projects").first.click()
    page.get_by_role("link", name=re.compile("New project")).first.click()
    page.get_by_label("Name", exact=True).fill("courier")
    page.get_by_label(re.compile("^Repository")).first.fill(str(upstream))
    page.get_by_label(re.compile("^Production remote")).first.fill(str(production))
    page.get_by_role("button", name="Make the project").click()
    page.wait_for_url("**/projects/courier/")

    # Launch
    page.goto("/runs/new/?project=courier")
    page.get_by_label(re.compile("^Task")).fill(
        "Write down how a failed delivery is tried again.\ndemo: log 30"
    )
    expect(page.locator("#reach")).to_contain_text("scripted demo, no AI")
    expect(page.locator("#reach")).to_contain_text("none")
    page.get_by_role("button", name=re.compile("Launch")).click()
    page.wait_for_url(re.compile(r"/runs/[a-z2-7]{10}/$"))
    key = page.url.rstrip("/").rsplit("/", 1)[-1]

    # Watch, and unblock: the project's policy is to ask
    expect(page.locator("[data-item=starting]")).to_be_visible()
    expect(page.locator("[data-item=permission]").first).to_be_visible(timeout=AGENT_MS)
    expect(page.locator("#run-header")).to_contain_text("waiting")
    assert allow_until_done(page) >= 2
    expect(page.locator("#run-header .badge").first).to_contain_text("succeeded")
    expect(page.locator("[data-item=message]").last).to_contain_text("scripted demo, no AI")
    expect(page.locator("[data-item=tool]").filter(has_text="git push")).to_be_visible()
    ids = page.locator("li.item").evaluate_all("items => items.map(item => item.id)")
    assert len(ids) == len(set(ids))

    # What was live is what a new page shows
    texts = page.locator("li.item[data-item=tool] .tool-name").all_inner_texts()
    page.reload()
    assert page.locator("li.item[data-item=tool] .tool-name").all_inner_texts() == texts

    # Logs
    page.get_by_role("navigation", name="Run").get_by_role("link", name="Logs").click()
    page.locator("nav[aria-label=Containers] a").filter(has_text="agent").first.click()
    expect(page.locator("[data-log] .log-line").nth(29)).to_be_visible(timeout=20_000)

    # A follow-up goes to the same session
    page.goto(f"/runs/{key}/")
    page.get_by_label("Write to the agent").fill("Say also how long it takes.")
    page.get_by_role("button", name=re.compile("^Send")).click()
    expect(page.locator("[data-item=prompt]").filter(has_text="how long it takes")).to_be_visible()
    expect(page.locator("#run-header .badge").first).not_to_contain_text(
        "succeeded", timeout=30_000
    )
    allow_until_done(page)

    # Review
    page.get_by_role("link", name="Open review").first.click()
    page.wait_for_url(re.compile(r"/reviews/[a-z2-7]{10}/"))
    expect(page.locator(".file-list")).to_contain_text("README.md")
    expect(page.locator(".diff-table [data-kind=add]").first).to_be_visible()

    # Promote
    page.get_by_role("link", name=re.compile("Promote to")).or_(
        page.get_by_role("button", name=re.compile("Promote to"))
    ).first.click()
    page.get_by_role("button", name=re.compile(r"^Promote [0-9a-f]{7}")).click()
    expect(page.get_by_text("promoted").first).to_be_visible(timeout=30_000)

    run = place.run(key)
    branches = git(
        "for-each-ref",
        "--format=%(objectname) %(refname:short)",
        "refs/heads/devaipod/",
        cwd=production,
    )
    commit, name = branches.split()
    assert key in name
    assert commit == run["head_commit"]
    changed = git("diff", "--name-only", "main", name, cwd=production).splitlines()
    assert "README.md" in changed
    page.goto("/audit/")
    expect(page.locator("main")).to_contain_text("promot")
    page.get_by_role("button", name=re.compile("Verify")).click()
    expect(page.locator("#audit-verified")).to_contain_text("entries are sound")
    assert page.troubles == []  # type: ignore[attr-defined]


def test_a_reconnect_leaves_no_gap_and_no_double(page: Page, place: Installation):
    key = place.api(
        "POST",
        "/runs",
        {"project": "courier", "task": "Say why.\ndemo: sleep 5", "permission_policy": "allow"},
    )["key"]
    page.goto(f"/runs/{key}/")
    expect(page.locator("[data-item=tool]").first).to_be_visible(timeout=AGENT_MS)
    place.kill9()
    expect(page.get_by_text(re.compile("reconnecting", re.IGNORECASE)).first).to_be_visible(
        timeout=15_000
    )
    place.start()
    expect(page.locator("#run-header")).to_contain_text("succeeded", timeout=AGENT_MS)
    live = page.locator("li.item").evaluate_all("items => items.map(item => item.id)")
    assert len(live) == len(set(live))
    page.reload()
    fresh = page.locator("li.item").evaluate_all("items => items.map(item => item.id)")
    assert live == fresh


def test_a_service_that_breaks_is_seen_by_itself_and_restarted_by_a_click(
    page: Page, place: Installation
):
    page.goto("/services/")
    gateway = page.locator("#service-gateway")
    expect(gateway).to_contain_text("ok", timeout=20_000)
    place.python("from devaipod_web import home; home.gateway_socket().unlink()")
    expect(gateway).to_contain_text("down", timeout=20_000)
    expect(gateway).to_contain_text("is gone")
    expect(page.locator("#rail-nav")).to_contain_text("not well", timeout=20_000)
    # The count in the rail is beyond a phone's edge, and must not widen the page.
    before = page.viewport_size
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.set_viewport_size(before)
    gateway.get_by_role("button", name="Restart Gateway").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Sidecars dial again")
    dialog.get_by_role("button", name="Restart").click()
    expect(page.locator("#toasts")).to_contain_text(
        "Gateway was restarted. It is ok", timeout=30_000
    )
    expect(page.locator("#service-gateway")).to_contain_text("Last error")
    # What has nothing to restart has no button.
    expect(page.locator("#service-web").get_by_role("button")).to_have_count(0)
    page.get_by_role("button", name="Check and set up").click()
    expect(page.locator("main")).to_contain_text("Everything is set up", timeout=30_000)


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_seen_and_accessible(
    look: str, page: Page, chromium: Browser, place: Installation
):
    """Screenshots go to var/screenshots/; axe-core finds nothing to mend (WCAG 2.2 AA) and nothing is wider than the screen."""
    folder = ROOT / "var" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    run = place.api("GET", "/runs")["results"][-1]["key"]
    review = place.api("GET", "/reviews")["results"][-1]["key"]
    addresses = {
        **PAGES,
        "run": f"/runs/{run}/",
        "run-changes": f"/runs/{run}/changes/",
        "run-logs": f"/runs/{run}/logs/",
        "run-access": f"/runs/{run}/access/",
        "review": f"/reviews/{review}/",
        "review-commits": f"/reviews/{review}/commits/",
        "target": f"/targets/{place.api('GET', '/targets')[0]['key']}/",
    }
    context = chromium.new_context(
        base_url=place.url,
        storage_state=page.context.storage_state(),
        bypass_csp=True,
        **LOOKS[look],
    )
    tab = context.new_page()
    problems = []
    for name, address in addresses.items():
        tab.goto(address)
        tab.wait_for_timeout(150)
        tab.screenshot(path=str(folder / f"{name}-{look}.png"))
        wider = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        if wider > 0:
            problems.append(f"{name}: wider than the screen by {wider} px")
        problems += [f"{name}: {text}" for text in violations(tab)]
    context.close()
    assert problems == []


def violations(tab: Page) -> list[str]:
    """What axe-core finds on the page."""
    options = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    found = Axe().run(tab, options=options).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html'][:150]} ({len(v['nodes'])})" for v in found]


def test_the_screenshots_are_there():
    names = {path.name for path in Path(ROOT / "var" / "screenshots").glob("*.png")}
    assert {f"run-{look}.png" for look in LOOKS} <= names
