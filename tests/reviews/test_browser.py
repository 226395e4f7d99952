"""A review in a real browser: keys, the dialog, promotion by clicking."""

from __future__ import annotations

import pytest
from django.conf import settings as django_settings
from django.test import Client
from playwright.sync_api import expect

from devaipod_web.reviews.services.promote import default_branch
from devaipod_web.reviews.services.refresh import refresh
from tests.chromium import launched

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def change(world):
    world.prepare()
    world.work({"Jenkinsfile": "x\n", "src/app.py": "print(1)\n", "zz.md": "# N\n"})
    world.push()
    return refresh(world.run.key)


@pytest.fixture
def cookie(reviewer):
    client = Client()
    client.force_login(reviewer)
    return client.cookies[django_settings.SESSION_COOKIE_NAME].value


@pytest.fixture
def tab(live_server, cookie, change):
    with launched() as browser:
        context = browser.new_context(base_url=live_server.url)
        context.add_cookies(
            [
                {
                    "name": django_settings.SESSION_COOKIE_NAME,
                    "value": cookie,
                    "url": live_server.url,
                }
            ]
        )
        page = context.new_page()
        page.troubles = []  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.troubles.append(str(error)))  # type: ignore[attr-defined, call-overload]
        yield page


def test_a_reviewer_reads_by_keys_and_promotes_by_clicking(tab, change, world):
    branch = default_branch(world.run)
    tab.goto(f"/reviews/{change.key}/")
    expect(tab.get_by_role("region", name="Lines of Jenkinsfile")).to_be_visible()
    tab.keyboard.press("j")
    expect(tab.get_by_role("region", name="Lines of src/app.py")).to_be_visible()
    assert "file=src%2Fapp.py" in tab.url
    tab.keyboard.press("j")
    expect(tab.get_by_role("region", name="Lines of zz.md")).to_be_visible()
    tab.keyboard.press("k")
    expect(tab.get_by_role("region", name="Lines of src/app.py")).to_be_visible()
    tab.reload()
    expect(tab.get_by_role("region", name="Lines of src/app.py")).to_be_visible()

    tab.get_by_role("link", name="Promote to").click()
    form = tab.get_by_role("dialog")
    expect(form.get_by_text(change.head)).to_be_visible()
    submit = form.get_by_role("button", name=f"Promote {change.head[:7]}")
    submit.click()
    assert world.promoted() == {}, "the browser itself asks for the tick first"
    form.get_by_label("Runs on build machines").check()
    submit.click()
    expect(tab.get_by_text(f"as {branch}").first).to_be_visible()
    assert world.promoted() == {branch: change.head}
    assert tab.troubles == []
