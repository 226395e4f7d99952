"""A run on the cluster with the real OpenCode, clicked in Chromium: project, launch, watch, unblock, review, promote."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.deploy.access import AGENTS, INFRA
from tests.deploy.kubectl import kubectl
from tests.deploy.place import DEPLOYMENT, REPOSITORIES, Place
from tests.deploy.restricted import violations
from tests.e2e.test_browser import AGENT_MS, allow_until_done
from tests.harness import wait_for_state

pytestmark = [
    pytest.mark.kube,
    pytest.mark.browser,
    pytest.mark.slow,
]

UPSTREAM = f"{REPOSITORIES}/courier.git"
PRODUCTION = f"{REPOSITORIES}/production.git"
#: Makes the upstream with one commit, and production as its copy, inside of the control plane.
MAKE = f"""set -eu
cd {REPOSITORIES}; rm -rf courier.git production.git work
export GIT_AUTHOR_NAME=Ada GIT_AUTHOR_EMAIL=ada@example.org GIT_COMMITTER_NAME=Ada GIT_COMMITTER_EMAIL=ada@example.org
git init -q -b main work
printf '# courier\\n\\nDelivers.\\n' > work/README.md
git -C work add -A; git -C work commit -qm First
git clone -q --bare work courier.git; git clone -q --bare work production.git; rm -rf work
"""


@pytest.fixture
def page(chromium: Browser, place: Place) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1360, "height": 900}, base_url=place.url)
    context.set_default_timeout(20_000)
    opened = context.new_page()
    troubles: list[str] = []
    opened.on("pageerror", lambda error: troubles.append(str(error)))
    opened.goto(place.sign_in_link())
    opened.get_by_role("button", name=re.compile("Sign in as")).click()
    opened.wait_for_url(f"{place.url}/")
    yield opened
    context.close()
    assert troubles == []


def pods_of(run: str) -> list[dict[str, Any]]:
    """The run's pods in the agents' namespace."""
    found = kubectl("get", "pods", "-n", AGENTS, "-l", f"io.devaipod.run={run}", "-o", "json")
    items: list[dict[str, Any]] = json.loads(found)["items"]
    return items


def test_from_a_new_project_to_the_promoted_branch_on_the_cluster(page: Page, place: Place):
    place.exec("sh", "-c", MAKE)

    # A project
    page.goto("/projects/new/")
    page.get_by_label("Name", exact=True).fill("courier")
    page.get_by_label(re.compile("^Repository")).first.fill(UPSTREAM)
    page.get_by_label(re.compile("^Production remote")).first.fill(PRODUCTION)
    page.get_by_role("button", name="Make the project").click()
    page.wait_for_url("**/projects/courier/")

    # Launch
    page.goto("/runs/new/?project=courier")
    page.get_by_label(re.compile("^Task")).fill(
        "Write down how a failed delivery is tried again.\ndemo: log 30"
    )
    expect(page.locator("#reach")).to_contain_text("scripted demo, no AI")
    page.get_by_role("button", name=re.compile("Launch")).click()
    page.wait_for_url(re.compile(r"/runs/[a-z2-7]{10}/$"))
    key = page.url.rstrip("/").rsplit("/", 1)[-1]

    # Its pod is on the cluster, keeps the rules, and holds no token of an account
    try:
        expect(page.locator("[data-item=permission]").first).to_be_visible(timeout=AGENT_MS)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{place.story()}") from None
    (pod,) = pods_of(key)
    assert {one["name"] for one in pod["spec"]["containers"]} == {"agent", "sidecar"}
    assert violations(pod["spec"]) == []
    assert pod["spec"]["automountServiceAccountToken"] is False
    mounts = [m["mountPath"] for c in pod["spec"]["containers"] for m in c["volumeMounts"]]
    assert not [path for path in mounts if "serviceaccount" in path]

    # Watch, and unblock
    assert allow_until_done(page) >= 2
    expect(page.locator("#run-header .badge").first).to_contain_text("succeeded")
    expect(page.locator("[data-item=tool]").filter(has_text="git push")).to_be_visible()

    # Logs of the agent's container, from the cluster
    page.get_by_role("navigation", name="Run").get_by_role("link", name="Logs").click()
    page.locator("nav[aria-label=Containers] a").filter(has_text="agent").first.click()
    expect(page.locator("[data-log] .log-line").nth(29)).to_be_visible(timeout=20_000)

    # Review
    page.goto(f"/runs/{key}/")
    page.get_by_role("link", name="Open review").first.click()
    page.wait_for_url(re.compile(r"/reviews/[a-z2-7]{10}/"))
    expect(page.locator(".file-list")).to_contain_text("README.md")

    # Promote
    page.get_by_role("link", name=re.compile("Promote to")).or_(
        page.get_by_role("button", name=re.compile("Promote to"))
    ).first.click()
    page.get_by_role("button", name=re.compile(r"^Promote [0-9a-f]{7}")).click()
    expect(page.get_by_text("promoted").first).to_be_visible(timeout=30_000)
    refs = place.exec(
        *("git", "-C", PRODUCTION, "for-each-ref", "refs/heads/devaipod/"),
        "--format=%(objectname) %(refname:short)",
    )
    commit, name = refs.split()
    assert key in name
    assert commit == place.api("GET", f"/runs/{key}")["head_commit"]
    changed = place.exec("git", "-C", PRODUCTION, "diff", "--name-only", "main", name)
    assert "README.md" in changed.splitlines()


def test_the_sample_run_of_the_documentation_goes_through(place: Place):
    said = place.devaipod("demo")
    assert re.search(r"Review [a-z2-7]{10} is open", said), said


def test_a_run_goes_on_while_the_control_plane_is_made_anew(place: Place):
    """As an upgrade does it: the old pod ends before the new one starts, and sidecars dial the Service until it answers."""
    task = "Say why.\ndemo: sleep 40"
    body = {"project": "sample", "task": task, "permission_policy": "allow"}
    key = place.api("POST", "/runs", body)["key"]
    wait_for_state(place.handle(key), "running", timeout=120)
    (before,) = pods_of(key)
    kubectl("rollout", "restart", DEPLOYMENT, "-n", INFRA)
    place.wait_until_ready()
    place.forward()
    wait_for_state(place.handle(key), "succeeded", timeout=180)
    (after,) = pods_of(key)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    events = place.api("GET", f"/runs/{key}/events")
    assert [one["seq"] for one in events] == list(range(1, len(events) + 1))
