from __future__ import annotations

import threading

import pytest
from django.db import connection

from devaipod_web.runs.errors import BadRequest
from devaipod_web.runs.models import Run, RunCommand
from devaipod_web.runs.services.launch import launch, title_of
from devaipod_web.targets.queries import queue_places

pytestmark = pytest.mark.django_db(transaction=True)


def test_it_queues_the_run_with_its_first_turn_and_prompt(project, ada):
    run = launch(project, ada, task="# Mend the till\n\nIt adds wrongly.")
    assert run.state == "queued"
    assert run.title == "Mend the till"
    assert run.branch == f"agent/{run.key}/work"
    assert run.turns.get().prompt.startswith("# Mend")
    command = RunCommand.objects.get(run=run)
    assert (command.kind, command.payload["turn"], command.pod) == ("prompt", 1, None)
    assert list(run.events.values_list("kind", flat=True)) == ["run.state", "prompt"]


def test_the_same_idempotency_key_of_the_same_owner_gives_the_same_run(project, ada, bob):
    first = launch(project, ada, task="one", idempotency_key="k")
    assert launch(project, ada, task="two", idempotency_key="k") == first
    assert launch(project, bob, task="one", idempotency_key="k") != first


def test_two_requests_at_once_with_one_key_make_one_run(project, ada):
    found: list[str] = []

    def ask() -> None:
        found.append(launch(project, ada, task="one", idempotency_key="k").key)
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1
    assert Run.objects.count() == 1


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        ({"task": "  \n "}, "empty"),
        ({"task": "x" * 200_001}, "longer"),
        ({"task": "x", "wall_seconds": 1}, "wall time"),
        ({"task": "x", "permission_policy": "maybe"}, "policy"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(project, ada, asked, word):
    with pytest.raises(BadRequest) as told:
        launch(project, ada, **asked)
    assert word in told.value.message
    assert not Run.objects.exists()


def test_an_archived_project_takes_no_run(project, ada):
    project.archived_at = project.created_at
    with pytest.raises(BadRequest, match="archived"):
        launch(project, ada, task="x")


def test_places_in_the_queue_are_counted_from_one(project, ada):
    runs = [launch(project, ada, task=str(n)) for n in range(3)]
    assert [queue_places(run)[0].place for run in runs] == [1, 2, 3]


def test_a_title_is_cut_at_a_word():
    title = title_of("word " * 60)
    assert len(title) <= 100
    assert title.endswith("word…")


def test_text_that_no_database_stores_is_cleaned(project, ada):
    run = launch(project, ada, task="a\x00b\ud800c")
    assert run.task == "a\ufffdb?c"
