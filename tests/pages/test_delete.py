"""Deleting an ended run from its page."""

from __future__ import annotations

import pytest
from django.utils import timezone

from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import State

pytestmark = pytest.mark.django_db


@pytest.fixture
def ended(working):
    """The run has ended and nothing of it is left on the backend."""
    transition(working.run.pk, State.STOPPED, reason="Stopped.")
    RunPod.objects.filter(run=working.run).update(removed_at=timezone.now())
    Run.objects.filter(pk=working.run.pk).update(volumes_pruned_at=timezone.now())
    return working


def test_a_run_at_work_offers_no_deletion_and_refuses_it_with_the_next_step(
    page, post, operator, working
):
    assert 'data-dialog="delete-run"' not in page(operator, "run", working.run.key)
    answer = post(operator, "run_delete", working.run.key)
    assert "has not ended" in answer.content.decode()
    assert Run.objects.filter(pk=working.run.pk).exists()


def test_an_ended_run_is_deleted_and_the_list_says_so(page, post, operator, ended):
    assert 'data-dialog="delete-run"' in page(operator, "run", ended.run.key)
    answer = post(operator, "run_delete", ended.run.key)
    assert "is deleted" in answer.content.decode()
    assert not Run.objects.filter(pk=ended.run.pk).exists()


def test_a_viewer_deletes_nothing(post, viewer, ended):
    assert post(viewer, "run_delete", ended.run.key).status_code == 403
    assert Run.objects.filter(pk=ended.run.pk).exists()
