from __future__ import annotations

import json

import pytest

from devaipod_web.runs.models import Run
from devaipod_web.runs.states import State
from devaipod_web.runs.supervisor import records
from pods.findings import finding

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]


def test_debug_ends_with_3_when_something_is_an_error_and_says_what(alice, run):
    Run.objects.filter(pk=run.pk).update(state=State.STARTING)
    records.fail(run.pk, finding("clone-failed", "The clone failed: \x1b[31mred\u202e."))
    done = alice("debug", run.key)
    assert done.returncode == 3, done.stderr
    assert "✗ clone-failed [sidecar]: The clone failed: " in done.stdout
    assert "→ Look at the sidecar's log" in done.stdout
    # An agent's words are shown to the terminal, never obeyed by it.
    assert "\x1b" not in done.stdout and "\u202e" not in done.stdout
    done = alice("debug", run.key, "--json")
    assert done.returncode == 3
    document = json.loads(done.stdout)
    assert (document["run"], document["name"]) == (run.key, None)
    assert [one["code"] for one in document["findings"]] == ["clone-failed"]


def test_debug_ends_with_0_when_nothing_is_wrong_and_with_4_when_there_is_no_such_thing(alice, run):
    done = alice("debug", run.key)
    assert done.returncode == 0, done.stderr
    assert "The run waits for a place." in done.stdout
    assert alice("debug", "nosuchrun7").returncode == 4
    gone = alice("debug", "devaipod-nobody-1")
    assert gone.returncode == 4
    assert "There is no pod 'devaipod-nobody-1'" in gone.stderr
