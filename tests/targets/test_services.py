"""Adding, changing and removing targets, and what is noted of them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from devaipod_web.llm import reseal, vault
from devaipod_web.reviews.models import AuditEntry
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.supervisor import records
from devaipod_web.targets import queries, services
from devaipod_web.targets.errors import InvalidTarget, TargetInUse
from devaipod_web.targets.models import Target
from devaipod_web.targets.services import Found
from tests.targets.conftest import GATEWAY, kubeconfig

pytestmark = pytest.mark.django_db


LAX: dict[str, Any] = {"insecure-skip-tls-verify": True}


def refused(ada, **fields) -> dict[str, str]:
    given = {"name": "c", "kubeconfig_text": kubeconfig(), "gateway_address": GATEWAY, **fields}
    with pytest.raises(InvalidTarget) as caught:
        services.save(ada, None, **given)
    return caught.value.errors


def test_this_hosts_podman_is_always_there(db):
    assert [row.name for row in queries.targets()] == ["podman"]
    services.ensure_own()
    assert Target.objects.count() == 1


def test_podman_is_none_where_the_settings_switch_it_off(podman, settings):
    settings.PODMAN = False
    assert list(queries.targets()) == []
    assert queries.find("podman") is None


def test_the_cluster_that_the_server_runs_in_is_made_at_setup(db, settings):
    settings.OWN_NAMESPACE = "devaipod-agents"
    services.ensure_own()
    settings.OWN_NAMESPACE = "elsewhere"
    services.ensure_own()
    (row,) = Target.objects.filter(kind="kubernetes")
    assert (row.name, row.namespace, bytes(row.kubeconfig)) == ("cluster", "elsewhere", b"")


def test_a_kubeconfig_is_sealed_and_only_its_context_is_kept(ada, cluster):
    stored = bytes(Target.objects.get(pk=cluster.pk).kubeconfig)
    assert b"very-secret" not in stored
    text = services.kubeconfig_of(cluster)
    assert "very-secret-one" in text
    assert "very-secret-two" not in text
    assert (cluster.context, cluster.namespace) == ("one", "agents")
    assert cluster.server == "https://10.0.0.9:6443"
    entry = AuditEntry.objects.get(action="target.added")
    assert "secret" not in json.dumps(entry.detail)


def test_another_context_and_namespace_may_be_named(ada):
    row = services.save(
        ada, None, name="b", kubeconfig_text=kubeconfig(), context="two", namespace="mine"
    )
    assert (row.context, row.namespace, row.server) == ("two", "mine", "https://10.0.0.10:6443")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not YAML"),
        ("a: &x [1]\nb: *x", "aliases"),
        ("just words", "no contexts"),
        (kubeconfig(user={"exec": {"command": "/bin/sh"}}), "execute a program"),
        (kubeconfig(user={"auth-provider": {"name": "gcp"}}), "execute a program"),
        (kubeconfig(user={"tokenFile": "/etc/shadow"}), "points to a file"),
        (kubeconfig(user={"client-key": "/root/key.pem"}), "points to a file"),
        (kubeconfig(**{"certificate-authority": "/etc/ca.pem"}), "points to a file"),
        (kubeconfig(**LAX), "certificate"),
        (kubeconfig(user={"token": "REDACTED"}), "--raw"),
        (kubeconfig(server="http://10.0.0.9:8080"), "https://"),
        (kubeconfig(server="https://user:word@10.0.0.9"), "password"),
        (kubeconfig(server="file:///etc/passwd"), "https://"),
    ],
)
def test_a_kubeconfig_that_reaches_into_this_host_or_trusts_anybody_is_refused(ada, text, says):
    assert says in refused(ada, kubeconfig_text=text)["kubeconfig"]


def test_on_this_host_itself_a_server_needs_no_certificate_of_a_known_authority(ada):
    for host in ("127.0.0.1", "localhost", "[::1]"):
        text = kubeconfig(server=f"https://{host}:6443", **LAX)
        services.save(ada, None, name="here", kubeconfig_text=text).delete()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Cluster"),
        ("name", "podman"),
        ("name", "x" * 41),
        ("namespace", "No Such"),
        ("gateway_mode", "tunnel"),
        ("gateway_address", "10.0.0.7:8001"),
        ("gateway_address", "http://10.0.0.7"),
        ("gateway_address", "http://10.0.0.7:99999"),
        ("gateway_address", "http://10.0.0.7:8001/path"),
        ("gateway_address", "http://me@10.0.0.7:8001"),
        ("max_runs", 0),
    ],
)
def test_each_field_that_cannot_be_has_its_sentence(ada, field, value):
    assert set(refused(ada, **{field: value})) == {field}


def test_a_cluster_without_kubeconfig_is_the_one_that_the_server_runs_in(ada, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert "kubeconfig" in refused(ada, kubeconfig_text="", namespace="a")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    row = services.save(ada, None, name="own", namespace="a", gateway_address=GATEWAY)
    assert services.kubeconfig_of(row) == ""


def test_a_change_keeps_the_kubeconfig_and_forgets_what_was_found(ada, cluster):
    services.note_found(cluster.pk, Found(version="v1.31.2", capacity=9))
    cluster.refresh_from_db()
    services.save(ada, cluster, name="cluster-a", gateway_address=GATEWAY, max_runs=3)
    cluster.refresh_from_db()
    assert (cluster.version, cluster.max_runs, cluster.namespace) == ("v1.31.2", 3, "agents")
    services.save(ada, cluster, name="cluster-a", namespace="other", gateway_address=GATEWAY)
    cluster.refresh_from_db()
    assert (cluster.health, cluster.version, cluster.capacity) == ("unknown", "", None)
    assert "very-secret-one" in services.kubeconfig_of(cluster)


def test_of_podman_only_its_room_can_be_changed(ada, podman):
    services.save(ada, podman, name="other", namespace="x", enabled=False, max_runs=1)
    podman.refresh_from_db()
    assert (podman.name, podman.namespace, podman.enabled, podman.max_runs) == (
        "podman",
        "",
        False,
        1,
    )


def test_two_targets_have_two_names(ada, cluster):
    with pytest.raises(InvalidTarget, match="already"):
        services.save(ada, None, name="cluster-a", kubeconfig_text=kubeconfig())


def test_a_new_encryption_key_seals_kubeconfigs_too(ada, cluster, monkeypatch):
    from devaipod_web import home

    old = home.secret_file("encryption.key").decode()
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", f"another,{old}")
    assert reseal.reseal(ada).sealed == 1
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "another")
    cluster.refresh_from_db()
    assert "very-secret-one" in services.kubeconfig_of(cluster)
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "lost")
    with pytest.raises(vault.CannotUnseal):
        services.kubeconfig_of(cluster)


# --- removing -----------------------------------------------------------------------------------------------------


def test_a_target_that_a_project_names_or_where_a_run_is_stays(ada, cluster, podman, project):
    project.targets = [cluster.key]
    project.save()
    with pytest.raises(TargetInUse, match="Shop names"):
        services.remove(ada, cluster)
    project.targets = []
    project.save()
    run = launch(project, ada, task="x")
    Run.objects.filter(pk=run.pk).update(target=cluster, state="running")
    with pytest.raises(TargetInUse, match="Runs are there"):
        services.remove(ada, cluster)
    Run.objects.filter(pk=run.pk).update(state="succeeded")
    services.remove(ada, cluster)
    run.refresh_from_db()
    assert run.target is None
    # What it left there is out of reach: nobody waits for its volumes, and a follow-up may go elsewhere.
    assert run.volumes_pruned_at is not None
    with pytest.raises(TargetInUse, match="always"):
        services.remove(ada, podman)


def test_a_pod_that_is_not_gone_yet_keeps_its_target(ada, cluster, project):
    run = launch(project, ada, task="x")
    Run.objects.filter(pk=run.pk).update(state="failed", target=cluster)
    RunPod.objects.create(
        run=run,
        attempt=1,
        name="p",
        backend="kubernetes",
        image="i",
        target=cluster,
        control_digest="c",
        data_digest="d",
    )
    with pytest.raises(TargetInUse):
        services.remove(ada, cluster)


# --- what was found -----------------------------------------------------------------------------------------------


def test_a_target_that_answers_no_more_keeps_what_was_known_of_it(cluster):
    services.note_found(cluster.pk, Found(version="v1", capacity=9))
    services.note_policies(cluster.pk, False)
    services.note_found(cluster.pk, Found(error="no route", next_step="Look."))
    services.note_policies(cluster.pk, None)
    cluster.refresh_from_db()
    assert (cluster.health, cluster.error, cluster.next_step) == ("down", "no route", "Look.")
    assert (cluster.version, cluster.capacity, cluster.policies_enforced) == ("v1", 9, False)
    assert queries.why_closed(cluster, timezone.now()) == "no route"


def test_a_target_without_room_is_passed_over_for_longer_each_time_until_it_takes_a_pod(cluster):
    now = timezone.now()
    pauses = []
    for _ in range(8):
        services.note_full(cluster.pk, "exceeded quota", now)
        cluster.refresh_from_db()
        assert cluster.full_until is not None
        assert queries.why_closed(cluster, now)
        pauses.append(cluster.full_until - now)
        now = cluster.full_until + timedelta(seconds=1)
        assert queries.why_closed(cluster, now) == ""
    assert pauses[:3] == [services.FULL_PAUSE, 2 * services.FULL_PAUSE, 4 * services.FULL_PAUSE]
    assert pauses[-1] == services.FULL_PAUSE_MOST
    services.note_room(cluster.pk)
    services.note_full(cluster.pk, "exceeded quota", now)
    cluster.refresh_from_db()
    assert cluster.full_until == now + services.FULL_PAUSE


def test_where_pods_are_is_written_down_once(ada, project, cluster):
    run = launch(project, ada, task="x")
    pod = RunPod.objects.create(
        run=run,
        attempt=1,
        name="p",
        backend="kubernetes",
        image="i",
        control_digest="c",
        data_digest="d",
    )
    records.set_addresses({"p": "10.1.2.3", "another's": "10.1.2.4"})
    pod.refresh_from_db()
    assert pod.address == "10.1.2.3"
