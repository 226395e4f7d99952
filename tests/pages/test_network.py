"""What the run's page says of the network that its pod may reach."""

from __future__ import annotations

import pytest

from devaipod_web.runs import shown
from devaipod_web.runs.models import Run
from devaipod_web.targets.models import Target

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("enforced", "words"),
    [(True, "the gateway alone"), (False, "policies not enforced"), (None, "policies not known")],
)
def test_the_page_claims_no_more_of_a_cluster_than_is_known(working, enforced, words):
    cluster = Target.objects.create(
        name="lab", kind="kubernetes", namespace="agents", policies_enforced=enforced
    )
    Run.objects.filter(pk=working.run.pk).update(target=cluster)
    run = shown.find(working.run.key)
    assert run is not None
    assert words in shown.aside(run, [])


def test_a_pod_of_podman_has_no_network(working):
    run = shown.find(working.run.key)
    assert run is not None
    assert "<dt>Network</dt><dd>none</dd>" in shown.aside(run, [])
