from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from devaipod_web.runs.errors import AlreadyAnswered, BadRequest
from devaipod_web.runs.models import PermissionRequest, Run, RunCommand
from devaipod_web.runs.services.permissions import answer, expire_due
from tests.runs.conftest import state_of

pytestmark = pytest.mark.django_db(transaction=True)

OPTIONS = [
    {"id": "always", "name": "Always", "kind": "allow_always"},
    {"id": "once", "name": "Once", "kind": "allow_once"},
    {"id": "no", "name": "No", "kind": "reject_once"},
]


def ask(sidecar, request_id="r1", title="Edit till.py", options=OPTIONS):
    sidecar.says(
        "permission.requested",
        request_id=request_id,
        tool_call={"title": title, "kind": "edit"},
        options=options,
    )
    return PermissionRequest.objects.get(request_id=request_id)


def told(sidecar):
    return [
        command.payload for command in RunCommand.objects.filter(pod=sidecar.pod, kind="permission")
    ]


def test_the_run_waits_and_says_for_what(working):
    ask(working)
    run = Run.objects.get(pk=working.pod.run_id)
    assert run.state == "waiting"
    assert run.waits_for == "a permission: Edit till.py"


def test_an_answer_reaches_the_agent_and_the_run_goes_on(working, ada):
    request = answer(ask(working), ada, option_id="once")
    assert (request.state, request.answered_by) == ("allowed", ada)
    assert told(working) == [{"request_id": "r1", "outcome": "selected", "option_id": "once"}]
    assert state_of(working.pod.run) == "running"


def test_the_run_waits_until_the_last_of_two_is_answered(working, ada):
    first, second = ask(working), ask(working, "r2", "Run the tests")
    answer(first, ada, option_id="no")
    run = Run.objects.get(pk=working.pod.run_id)
    assert (run.state, run.waits_for) == ("waiting", "a permission: Run the tests")
    answer(second, ada, option_id="once")
    assert state_of(run) == "running"


def test_the_second_answer_is_told_who_was_first(working, ada, bob):
    request = ask(working)
    answer(request, ada, option_id="no")
    with pytest.raises(AlreadyAnswered, match="ada was first: this was refused"):
        answer(request, bob, option_id="once")
    assert len(told(working)) == 1


def test_of_many_answers_at_once_one_counts(working, ada):
    request = ask(working)
    outcomes: list[str] = []

    def click(option: str) -> None:
        try:
            answer(PermissionRequest.objects.get(pk=request.pk), ada, option_id=option)
            outcomes.append(option)
        except AlreadyAnswered:
            outcomes.append("late")
        connection.close()

    threads = [threading.Thread(target=click, args=(o,)) for o in ("once", "no") * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("late") == 7
    (counted,) = [o for o in outcomes if o != "late"]
    assert [payload["option_id"] for payload in told(working)] == [counted]


def test_an_answer_that_was_not_offered_is_refused(working, ada):
    with pytest.raises(BadRequest, match="did not offer"):
        answer(ask(working), ada, option_id="everything")


def test_the_policy_allow_answers_at_once_and_the_run_does_not_wait(working):
    Run.objects.filter(pk=working.pod.run_id).update(permission_policy="allow")
    request = ask(working)
    assert (request.state, request.by_policy, request.option_id) == ("allowed", True, "once")
    assert state_of(working.pod.run) == "running"
    assert len(told(working)) == 1


def test_the_policy_allow_leaves_a_question_without_allow_to_a_person(working):
    Run.objects.filter(pk=working.pod.run_id).update(permission_policy="allow")
    assert ask(working, options=[OPTIONS[2]]).state == "open"


def test_what_nobody_answers_expires_as_refused_and_the_agent_is_told(working):
    request = ask(working)
    assert expire_due(timezone.now()) == 0
    assert expire_due(timezone.now() + timedelta(hours=1)) == 1
    request.refresh_from_db()
    assert request.state == "expired"
    assert told(working) == [{"request_id": "r1", "outcome": "selected", "option_id": "no"}]
    assert state_of(working.pod.run) == "running"


def test_without_a_refusing_option_an_expired_question_is_cancelled(working):
    ask(working, options=[OPTIONS[1]])
    expire_due(timezone.now() + timedelta(hours=1))
    assert told(working)[0]["outcome"] == "cancelled"


def test_a_question_that_the_agent_takes_back_is_withdrawn(working, ada):
    request = ask(working)
    working.says("permission.resolved", request_id="r1", outcome="cancelled", option_id="")
    assert state_of(working.pod.run) == "running"
    with pytest.raises(AlreadyAnswered, match="withdrawn"):
        answer(request, ada, option_id="once")


def test_the_same_question_sent_again_is_one_question(working):
    ask(working)
    ask(working)
    assert PermissionRequest.objects.count() == 1


def test_what_it_waits_for_names_the_command_rather_than_the_tool(working):
    working.says(
        "permission.requested",
        request_id="r9",
        tool_call={"title": "bash", "kind": "execute", "rawInput": {"command": "make deploy"}},
        options=OPTIONS,
    )
    run = Run.objects.get(pk=working.pod.run_id)
    assert run.waits_for == "a permission: make deploy"
