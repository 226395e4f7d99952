"""Pages of targets, and what other pages say of them."""

from __future__ import annotations

import pytest
from django.utils import timezone

from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import State
from devaipod_web.targets import services
from devaipod_web.targets.models import Target
from devaipod_web.targets.services import Found
from tests.pages.conftest import HOSTILE, begun
from tests.targets.conftest import GATEWAY, kubeconfig

pytestmark = pytest.mark.django_db(transaction=True)

#: Nobody listens there.
AWAY = "https://127.0.0.1:1"


@pytest.fixture
def cluster(manager):
    return services.save(
        manager,
        None,
        name="cluster-a",
        kubeconfig_text=kubeconfig(server=AWAY),
        gateway_address=GATEWAY,
        max_runs=2,
    )


def test_the_list_shows_health_version_room_and_policies(page, manager, cluster):
    services.note_found(cluster.pk, Found(version="v1.31.2", capacity=7))
    services.note_policies(cluster.pk, False)
    text = page(manager, "targets")
    assert "podman" in text
    assert "v1.31.2" in text
    assert "0 of 2" in text
    assert "not enforced" in text
    services.note_found(cluster.pk, Found(error=HOSTILE))
    assert "<script>alert" not in page(manager, "targets")


def test_only_managers_see_and_change_targets(page, operator, reviewer, cluster):
    for person in (operator, reviewer):
        page(person, "targets", status=403)
        page(person, "target", cluster.key, status=403)


def test_a_cluster_is_added_and_its_kubeconfig_shown_never(page, post, manager):
    answer = post(
        manager,
        "target_new",
        name="b",
        namespace="agents",
        kubeconfig_text=kubeconfig(),
        gateway_mode="direct",
        gateway_address=GATEWAY,
        enabled="on",
    )
    assert "b is added" in answer.content.decode()
    row = Target.objects.get(name="b")
    text = page(manager, "target", row.key)
    assert "very-secret" not in text
    assert "shown never" in text
    assert "https://10.0.0.9:6443" in text


def test_what_is_wrong_is_said_at_its_field_and_nothing_that_was_typed_is_lost(post, manager):
    answer = post(
        manager,
        "target_new",
        name="b",
        kubeconfig_text=kubeconfig(user={"exec": {"command": "sh"}}),
        gateway_address="http://here",
    )
    text = answer.content.decode()
    assert answer.status_code == 400
    assert "execute a program" in text
    assert "http://ADDRESS:PORT" in text
    assert 'value="b"' in text
    assert not Target.objects.filter(name="b").exists()


def test_a_test_asks_the_target_and_its_answer_is_noted(post, manager, cluster):
    answer = post(manager, "target_test", cluster.key, htmx=True)
    assert 'data-tone="red"' in answer.content.decode()
    cluster.refresh_from_db()
    assert cluster.health == "down"
    assert cluster.error
    whole = post(manager, "target_test", cluster.key).content.decode()
    assert "Settings" in whole


def test_podman_has_its_room_and_its_switch_alone(page, post, manager):
    podman = Target.objects.get(name="podman")
    text = page(manager, "target", podman.key)
    assert "Kubeconfig" not in text
    assert "Remove" not in text
    post(manager, "target", podman.key, max_runs="3")
    podman.refresh_from_db()
    assert (podman.max_runs, podman.enabled) == (3, False)


def test_a_target_is_removed_once_nobody_needs_it(page, post, manager, cluster, project):
    project.targets = [cluster.key]
    project.save()
    assert "Named by" in page(manager, "target", cluster.key)
    post(manager, "target", cluster.key, action="remove")
    assert Target.objects.filter(pk=cluster.pk).exists()
    project.targets = []
    project.save()
    answer = post(manager, "target", cluster.key, action="remove")
    assert "is removed" in answer.content.decode()
    assert not Target.objects.filter(pk=cluster.pk).exists()


# --- projects -----------------------------------------------------------------------------------------------------


def test_a_project_names_its_targets_and_what_its_pods_need(page, post, manager, cluster, project):
    answer = post(
        manager,
        "project_settings",
        project.slug,
        "targets",
        targets="cluster-a\npodman",
        workspace="pvc",
        storage_class="fast",
        node_selector="disk=ssd",
        tolerations="agents=only:NoSchedule\nspot",
        runtime_class="gvisor",
        image_pull_secrets="registry",
    )
    assert "Saved" in answer.content.decode()
    project.refresh_from_db()
    podman = Target.objects.get(name="podman")
    assert project.targets == [cluster.key, podman.key]
    text = page(manager, "project_settings", project.slug, "targets")
    assert "cluster-a\npodman" in text
    bad = post(
        manager,
        "project_settings",
        project.slug,
        "targets",
        targets="nowhere",
        workspace="emptydir",
        tolerations="a=b:Sometimes",
    ).content.decode()
    assert "There is no target" in bad
    assert "an effect is one of" in bad


# --- runs ---------------------------------------------------------------------------------------------------------


def on(run: Run, target: Target) -> None:
    Run.objects.filter(pk=run.pk).update(target=target)
    RunPod.objects.filter(run=run).update(target=target)


def test_a_run_shows_where_it_is(page, operator, run, cluster):
    begun(run)
    on(run, cluster)
    assert "on <bdi>cluster-a</bdi>" in page(operator, "run", run.key)
    assert "on <bdi>cluster-a</bdi>" in page(operator, "now")


def test_a_waiting_run_shows_its_place_at_each_target(page, operator, manager, project, cluster):
    podman = Target.objects.get(name="podman")
    project.targets = [cluster.key, podman.key]
    project.save()
    launch(project, operator, task="first")
    second = launch(project, operator, task="second")
    text = page(operator, "run", second.key)
    assert "place 2 at cluster-a (0 of 2 taken), place 2 at podman" in text
    services.note_found(cluster.pk, Found(error="no route to host."))
    for where in ("now", "runs"):
        assert "lace 2 at cluster-a (no route to host), place 2 at podman" in page(operator, where)


def test_the_access_tab_says_what_holds_the_pod_to_its_network(page, operator, run, cluster):
    begun(run)
    assert "The pod has no network of its own." in page(operator, "run_access", run.key)
    on(run, cluster)
    assert "It is not known whether network policies are enforced" in page(
        operator, "run_access", run.key
    )
    services.note_policies(cluster.pk, False)
    text = page(operator, "run_access", run.key)
    assert "Network policies are not enforced here." in text
    assert "No network" not in text
    services.note_policies(cluster.pk, True)
    assert "hold the pod to the gateway" in page(operator, "run_access", run.key)


def test_the_launch_form_offers_targets_and_says_what_they_mean(
    page, post, operator, project, cluster
):
    services.note_policies(cluster.pk, False)
    assert "cluster-a" in page(operator, "run_new")
    query = f"?project={project.slug}&target=cluster-a"
    text = page(operator, "run_reach", query=query)
    assert "cluster-a does not enforce network policies" in text
    post(operator, "run_new", project=project.slug, task="x", target="cluster-a")
    assert Run.objects.get().asked_target == cluster


def test_with_podman_alone_nobody_is_asked_where(page, operator, project):
    text = page(operator, "run_new")
    assert 'name="target"' not in text
    assert "podman" in text


def test_a_run_that_was_refused_for_want_of_room_says_so_in_the_queue(page, operator, run, cluster):
    transition(run.pk, State.PREPARING, reason="", target_id=cluster.pk)
    services.note_full(cluster.pk, "exceeded quota: pods=10", timezone.now())
    transition(run.pk, State.QUEUED, reason="cluster-a had no room: exceeded quota: pods=10")
    assert "had no room" in page(operator, "run", run.key)
