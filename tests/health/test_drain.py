"""Out of work and into it again: no new runs, a banner for everybody, and nothing lost."""

from __future__ import annotations

import pytest

from devaipod_web import home
from devaipod_web.health import drain
from devaipod_web.reviews.models import AuditEntry
from devaipod_web.runs.errors import Draining
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.prompt import prompt
from tests.api.conftest import problem

pytestmark = pytest.mark.django_db


def test_nothing_new_is_launched_and_an_ended_run_is_not_taken_up(project, operator, manager, run):
    Run.objects.filter(pk=run.pk).update(state="failed")
    drain.begin(manager)
    with pytest.raises(Draining) as caught:
        launch(project, operator, task="Something new")
    assert "devaipod setup" in caught.value.next_step
    run.refresh_from_db()
    with pytest.raises(Draining):
        prompt(run, operator, "Go on")
    assert Run.objects.count() == 1
    drain.end()
    assert launch(project, operator, task="Something new").state == "queued"


def test_the_same_idempotency_key_still_finds_its_run(project, operator, manager):
    made = launch(project, operator, task="Once", idempotency_key="k")
    drain.begin(manager)
    assert launch(project, operator, task="Once", idempotency_key="k") == made


def test_everybody_is_told_on_every_page_and_in_the_status(page, call, viewer, operator, manager):
    assert "takes no new runs" not in page(viewer, "now")
    drain.begin(manager)
    assert "takes no new runs" in page(viewer, "now")
    assert "A manager can take it into work again" in page(operator, "runs")
    assert "Check and set up" in page(manager, "projects")
    assert call(viewer).get("/status").json()["draining_since"]


def test_teardown_needs_a_manager_and_the_installations_own_id(call, manager, reviewer):
    problem(
        call(reviewer).post("/teardown", {"confirm": home.installation_id()}), 403, "role-needed"
    )
    problem(call(manager).post("/teardown", {"confirm": "another"}), 400, "wrong-installation")
    problem(call(manager).post("/teardown", {}), 422, "invalid-request")
    assert drain.since() is None
    assert not AuditEntry.objects.filter(action__startswith="installation").exists()
