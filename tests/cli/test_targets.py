"""`devaipod target` as a person runs it."""

from __future__ import annotations

import json

import pytest

from devaipod_web.targets.models import Target
from tests.cli.conftest import devaipod
from tests.targets.conftest import GATEWAY, kubeconfig

pytestmark = [pytest.mark.django_db(transaction=True)]


@pytest.fixture
def mona(environment, manager):
    env = environment(manager)
    return lambda *words, stdin="": devaipod(*words, env=env, stdin=stdin)


def test_a_cluster_is_added_from_a_pipe_listed_tested_and_removed(mona, alice):
    text = kubeconfig(server="https://127.0.0.1:1")
    added = mona(
        "target",
        "add",
        "b",
        "--kubeconfig",
        "-",
        "--gateway",
        GATEWAY,
        "--max-runs",
        "3",
        stdin=text,
    )
    # It is added, and nobody answers there.
    assert added.returncode == 1
    assert "b is added" in added.stderr
    row = Target.objects.get(name="b")
    assert (row.namespace, row.max_runs, row.gateway_address) == ("agents", 3, GATEWAY)
    listed = alice("target", "list")
    assert "podman" in listed.stdout
    assert "0 of 3" in listed.stdout
    assert "not known" in listed.stdout
    found = json.loads(alice("target", "list", "--json").stdout)
    assert [one["name"] for one in found] == ["podman", "b"]
    assert mona("target", "test", "b").returncode == 1
    assert mona("target", "rm", "b", "--yes").returncode == 0
    assert not Target.objects.filter(name="b").exists()


def test_a_run_is_launched_at_a_target_and_shows_where_it_waits(alice, manager, project):
    Target.objects.create(
        name="b", kind="kubernetes", namespace="a", enabled=False, gateway_address=GATEWAY
    )
    made = alice("run", project.slug, "x", "--target", "b", "--detach")
    assert made.returncode == 0, made.stderr
    shown = alice("show", made.stdout.strip())
    assert "1 at b (it is switched off)" in shown.stdout
    wrong = alice("run", project.slug, "x", "--target", "nowhere", "--detach")
    assert wrong.returncode == 1
    assert "There is no target 'nowhere'" in wrong.stderr
