"""A real Chromium beside a real installation."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.chromium import launched
from tests.e2e.installation import Installation, installed


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium. Not there: the test fails, it is not skipped."""
    with launched() as browser:
        yield browser


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    """An installation of this module's own."""
    folder = Path(tempfile.mkdtemp(prefix="devaipod-e2e-"))
    with installed(folder / "home", DEVAIPOD_KEEP_WARM_SECONDS="30") as made:
        yield made
    shutil.rmtree(folder, ignore_errors=True)


def sign_in(place: Installation, page: Page) -> None:
    """Open the one-time link that the terminal prints, and spend it by its button."""
    link = re.search(r"https?://\S+/sign-in/\S+", place.devaipod("sign-in-link"))
    assert link is not None
    page.goto(link.group(0))
    page.get_by_role("button", name=re.compile("Sign in as")).click()
    page.wait_for_url(f"{place.url}/")
