"""Clusters among the services: what the supervisor last wrote of each, as a line with its health."""

from __future__ import annotations

import pytest

from devaipod_web import db
from devaipod_web.accounts.models import User
from devaipod_web.health.checks import clusters
from devaipod_web.runs import backends
from devaipod_web.targets import queries, services
from devaipod_web.targets.models import Target
from devaipod_web.targets.services import Found
from tests.targets.conftest import GATEWAY, kubeconfig

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cluster(transactional_db):
    ada = User.objects.create_superuser("ada")
    return services.save(
        ada,
        None,
        name="cluster-a",
        kubeconfig_text=kubeconfig(server="https://127.0.0.1:1"),
        gateway_address=GATEWAY,
        max_runs=4,
    )


@pytest.fixture(autouse=True)
async def nothing_stays_open():
    yield
    await backends.close()


async def only():
    (service,) = await clusters.each({})()
    return service


async def test_every_cluster_is_a_service_and_podman_has_its_own(cluster):
    service = await only()
    assert service.name == f"target-{cluster.key}"
    assert "cluster-a" in service.title


async def test_its_health_is_what_was_last_found(cluster):
    service = await only()
    assert (await service.check()).health == "unknown"
    await db.write(services.note_found, cluster.pk, Found(version="v1.31.2"))
    found = await service.check()
    assert (found.health, found.version) == ("ok", "v1.31.2")
    assert found.facts == {"runs": "0 of 4", "network policies": "not known"}
    await db.write(services.note_found, cluster.pk, Found(error="no route", next_step="Look."))
    found = await service.check()
    assert (found.health, found.says, found.next_step) == ("down", "no route", "Look.")


async def test_policies_that_count_for_nothing_and_a_lack_of_room_are_said(cluster):
    service = await only()
    await db.write(services.note_found, cluster.pk, Found(version="v1"))
    await db.write(services.note_full, cluster.pk, "exceeded quota")
    found = await service.check()
    assert found.health == "degraded"
    assert "it had no room: exceeded quota" in found.says
    await db.write(services.note_policies, cluster.pk, False)
    found = await service.check()
    assert found.health == "degraded"
    assert "does not enforce network policies" in found.says
    await db.write(Target.objects.filter(pk=cluster.pk).update, enabled=False)
    assert "switched off" in (await service.check()).says


async def test_what_is_amiss_though_it_answers_is_said_and_it_takes_runs_all_the_same(cluster):
    service = await only()
    found = Found(version="v1", warning="A node follows no more logs.", next_step="Raise it.")
    await db.write(services.note_found, cluster.pk, found)
    seen = await service.check()
    assert (seen.health, seen.next_step) == ("degraded", "Raise it.")
    assert seen.says == "It answers. A node follows no more logs."
    assert (await db.read(queries.rooms))[cluster.pk].is_open
    await db.write(services.note_found, cluster.pk, Found(version="v1"))
    assert (await service.check()).health == "ok"


async def test_asking_again_asks_the_cluster_itself(cluster):
    service = await only()
    await db.write(services.note_found, cluster.pk, Found(version="v1"))
    await service.restart()
    assert (await service.check()).health == "down"


async def test_a_cluster_that_is_removed_is_no_service(cluster):
    named = clusters.each({})
    assert len(await named()) == 1
    await db.write(cluster.delete)
    assert await named() == []
