from __future__ import annotations

import threading

import pytest
from django.db import connection
from django.utils import timezone

from devaipod_web import home
from devaipod_web.accounts.models import User
from devaipod_web.projects.models import Project
from devaipod_web.runs import events
from devaipod_web.runs.models import Run, RunEvent

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def run():
    owner = User.objects.create(username="ada")
    project = Project.objects.create(slug="p", name="P", upstream_url="https://example.org/p.git")
    return Run.objects.create(
        project=project, owner=owner, title="t", task="t", agent="opencode", wall_seconds=60
    )


def new(text: str) -> events.NewEvent:
    return events.NewEvent(kind="message", payload={"text": text}, at=timezone.now())


def test_writers_at_once_leave_no_gap_and_no_double(run):
    def write(name: int) -> None:
        for index in range(20):
            events.append(run.pk, [new(f"{name}-{index}"), new(f"{name}-{index}b")])
        connection.close()

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(RunEvent.objects.values_list("seq", flat=True)) == list(range(1, 161))
    run.refresh_from_db()
    assert run.last_seq == 160


def test_a_large_payload_lies_in_a_file_and_comes_back_whole(run):
    text = "x" * (events.INLINE_BYTES + 1)
    (row,) = events.append(run.pk, [new(text)])
    stored = RunEvent.objects.get(pk=row.pk)
    assert stored.spilled
    assert "text" not in stored.payload
    assert home.event_payload(run.key, row.seq).is_file()
    assert events.after(run.pk, 0)[0].payload["text"] == text


def test_a_payload_whose_file_is_gone_says_that_it_is_missing(run):
    (row,) = events.append(run.pk, [new("y" * (events.INLINE_BYTES + 1))])
    home.event_payload(run.key, row.seq).unlink()
    assert events.after(run.pk, 0)[0].payload["missing"] is True


def test_reading_goes_on_after_a_cursor_and_back_before_one(run):
    events.append(run.pk, [new(str(n)) for n in range(10)])
    assert [row.seq for row in events.after(run.pk, 7)] == [8, 9, 10]
    assert [row.seq for row in events.before(run.pk, 4, limit=2)] == [2, 3]
