"""Places given from the rows: orders of projects and runs, bounds, refusals."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web.projects import placement
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.supervisor import records
from devaipod_web.targets import queries, services
from devaipod_web.targets.choice import STARTING_AT_ONCE
from devaipod_web.targets.models import Target
from devaipod_web.targets.services import Found
from pods.findings import finding
from pods.spec import Placement

pytestmark = pytest.mark.django_db


def given(places: int = 9) -> dict[str, str]:
    """Places given now: the run's task → its target's name."""
    admitted = [pk for pk, _ in records.admit("me", places)]
    rows = Run.objects.filter(pk__in=admitted).select_related("target")
    return {run.task: str(run.target) for run in rows}


def made_pod(run: Run) -> RunPod:
    """The run's pod is made where it has its place."""
    run.refresh_from_db()
    Run.objects.filter(pk=run.pk).update(state="starting", attempts=1)
    pod = RunPod.objects.create(
        run=run,
        attempt=1,
        name=f"p-{run.key}",
        backend="x",
        image="i",
        target=run.target,
        control_digest=f"c{run.key}",
        data_digest=f"d{run.key}",
    )
    records.finish_step(run.pk, pod.pk, "pod", text="Made the pod", seconds=1.0)
    return pod


def end(run: Run, pod: RunPod) -> None:
    records.fail(run.pk, finding("run-failed", "no"))
    records.pod_ended(pod.pk)
    records.pod_removed(pod.pk)


def test_a_project_without_targets_goes_to_podman(ada, podman, cluster, project):
    launch(project, ada, task="a")
    assert given() == {"a": "podman"}


def test_without_podman_it_goes_to_the_oldest_cluster(ada, cluster, project, settings):
    settings.PODMAN = False
    launch(project, ada, task="a")
    assert given() == {"a": "cluster-a"}


def test_the_first_target_that_has_room_is_taken(ada, podman, cluster, project):
    services.save(ada, cluster, name="cluster-a", gateway_address="http://1.2.3.4:5", max_runs=1)
    project.targets = [cluster.key, podman.key]
    project.save()
    for task in "abc":
        launch(project, ada, task=task)
    assert given(places=1) == {"a": "cluster-a", "b": "podman"}
    assert given(places=1) == {}
    assert given(places=2) == {"c": "podman"}


def test_many_runs_start_in_turn(ada, cluster, podman, project):
    project.targets = [cluster.key, podman.key]
    project.save()
    runs = [launch(project, ada, task=f"t{n}") for n in range(STARTING_AT_ONCE + 2)]
    assert given() == {f"t{n}": "cluster-a" for n in range(STARTING_AT_ONCE)}
    assert given() == {}
    runs[-1].refresh_from_db()
    assert queries.words(queries.queue_places(runs[-1])) == (
        "place 2 at cluster-a (10 runs are starting there: the next when one is at work), "
        "place 2 at podman"
    )
    # One fails, another is at work.
    records.fail(runs[0].pk, finding("run-failed", "no"))
    assert given() == {f"t{STARTING_AT_ONCE}": "cluster-a"}
    Run.objects.filter(pk=runs[1].pk).update(state="running")
    assert given() == {f"t{STARTING_AT_ONCE + 1}": "cluster-a"}


@pytest.mark.parametrize("why", ["down", "off", "full", "no gateway"])
def test_a_target_that_takes_none_now_is_passed_over(ada, podman, cluster, project, why):
    match why:
        case "down":
            services.note_found(cluster.pk, Found(error="away"))
        case "off":
            Target.objects.filter(pk=cluster.pk).update(enabled=False)
        case "full":
            services.note_full(cluster.pk, "quota")
        case _:
            Target.objects.filter(pk=cluster.pk).update(gateway_address="")
    project.targets = [cluster.key, podman.key]
    project.save()
    launch(project, ada, task="a")
    launch(project, ada, task="b", target="cluster-a")
    assert given() == {"a": "podman"}
    (left,) = queries.waiting()
    room = queries.all_queue_places()[left.run][0].room
    assert room.closed


def test_what_the_cluster_says_that_it_takes_is_a_bound_too(ada, cluster, project):
    services.note_found(cluster.pk, Found(version="v1", capacity=1))
    for task in "ab":
        launch(project, ada, task=task, target="cluster-a")
    assert given() == {"a": "cluster-a"}


def test_a_target_that_a_project_names_and_that_is_gone_is_left_out(ada, podman, project):
    project.targets = ["gone234567"]
    project.save()
    launch(project, ada, task="a")
    assert given() == {"a": "podman"}


def test_a_follow_up_goes_where_its_workspace_is_and_elsewhere_when_nothing_is_kept(
    ada, podman, cluster, project
):
    project.targets = [cluster.key, podman.key]
    project.workspace = "pvc"
    project.save()
    run = launch(project, ada, task="a")
    assert given() == {"a": "cluster-a"}
    end(run, made_pod(run))
    services.note_full(cluster.pk, "quota")
    prompt(run, ada, "again")
    assert given() == {}
    Run.objects.filter(pk=run.pk).update(volumes_pruned_at=timezone.now())
    assert given() == {"a": "podman"}


def test_a_follow_up_of_a_run_whose_workspace_went_with_its_pod_goes_anywhere(
    ada, podman, cluster, project
):
    project.targets = [cluster.key, podman.key]
    project.save()
    run = launch(project, ada, task="a")
    given()
    end(run, made_pod(run))
    services.note_full(cluster.pk, "quota")
    prompt(run, ada, "again")
    assert given() == {"a": "podman"}


# --- no room after all --------------------------------------------------------------------------------------------


def test_a_run_that_was_refused_waits_again_at_its_old_place(ada, cluster, project):
    run = launch(project, ada, task="a", target="cluster-a")
    before = Run.objects.get(pk=run.pk).queued_at
    given()
    launch(project, ada, task="b", target="cluster-a")
    assert records.send_back(run.pk, None, "exceeded quota")
    run.refresh_from_db()
    assert (run.state, run.refusals, run.target) == ("queued", 1, None)
    assert run.queued_at == before
    assert run.wall_left is not None
    assert queries.queue_places(run)[0].place == 1
    assert given() == {}
    Target.objects.filter(pk=cluster.pk).update(full_until=timezone.now() - timedelta(seconds=1))
    assert given() == {"a": "cluster-a", "b": "cluster-a"}


def test_refusals_in_a_row_are_bounded_and_a_pod_that_was_made_ends_the_row(ada, cluster, project):
    run = launch(project, ada, task="a", target="cluster-a")
    for _ in range(records.MAX_REFUSALS - 1):
        Target.objects.filter(pk=cluster.pk).update(full_until=None)
        given()
        assert records.send_back(run.pk, None, "exceeded quota")
    Target.objects.filter(pk=cluster.pk).update(full_until=None)
    given()
    assert not records.send_back(run.pk, None, "exceeded quota")
    records.pod_made(run.pk, cluster.pk)
    run.refresh_from_db()
    cluster.refresh_from_db()
    assert (run.refusals, cluster.full_until) == (0, None)


def test_waiting_helps_on_a_cluster_and_where_there_is_another_target(
    ada, podman, cluster, project
):
    run = launch(project, ada, task="a")
    given()
    # podman alone: a disk that is full is no queue.
    assert not records.may_be_elsewhere(run.pk)
    project.targets = [podman.key, cluster.key]
    project.save()
    assert records.may_be_elsewhere(run.pk)
    Run.objects.filter(pk=run.pk).update(asked_target=podman)
    assert not records.may_be_elsewhere(run.pk)
    Run.objects.filter(pk=run.pk).update(target=cluster, asked_target=cluster)
    assert records.may_be_elsewhere(run.pk)


# --- placement ----------------------------------------------------------------------------------------------------


def test_what_people_write_of_a_place_becomes_kubernetes_own_words(project):
    project.node_selector = placement.node_selector("disk=ssd\nexample.org/zone=a")
    project.tolerations = placement.tolerations("agents=only:NoSchedule\nspot:NoExecute\ngpu")
    project.runtime_class, project.storage_class = "gvisor", "fast"
    project.image_pull_secrets = placement.image_pull_secrets(["registry"])
    project.workspace = placement.workspace("pvc")
    assert placement.of(project) == Placement(
        node_selector={"disk": "ssd", "example.org/zone": "a"},
        tolerations=(
            {"key": "agents", "operator": "Equal", "value": "only", "effect": "NoSchedule"},
            {"key": "spot", "operator": "Exists", "effect": "NoExecute"},
            {"key": "gpu", "operator": "Exists"},
        ),
        runtime_class="gvisor",
        image_pull_secrets=("registry",),
        workspace="pvc",
        storage_class="fast",
    )


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("node_selector", "disk"),
        ("node_selector", "a=1\na=2"),
        ("node_selector", "disk=a b"),
        ("tolerations", "a=b:Sometimes"),
        ("tolerations", ":NoSchedule"),
        ("tolerations", "\n".join(f"k{n}" for n in range(30))),
        ("runtime_class", "Not A Name"),
        ("image_pull_secrets", "a/b"),
        ("workspace", "hostpath"),
        ("storage_class", "-x"),
        ("targets", "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(project, rule, value):
    with pytest.raises(ValueError, match=r"."):
        placement.RULES[rule](value)
