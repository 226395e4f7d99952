"""The sites of a supervisor follow the rows. No daemon need answer for that."""

from __future__ import annotations

import asyncio

import pytest

from devaipod_web import db, home
from devaipod_web.accounts.models import User
from devaipod_web.runs import backends
from devaipod_web.runs.supervisor.sites import Sites
from devaipod_web.runs.supervisor.status import service
from devaipod_web.targets import services
from devaipod_web.targets.models import Target
from pods.errors import BackendUnavailable
from tests.targets.conftest import GATEWAY, kubeconfig

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def mona(transactional_db) -> User:
    return User.objects.create_superuser("mona")


@pytest.fixture
async def sites(mona):
    async def once(name, do):
        await do()

    found = Sites(backends.shared(), home.installation_id(), once)
    yield found
    await found.close()
    await backends.close()
    service.backend_errors.clear()
    await db.close_connections()


def add(mona: User) -> Target:
    return services.save(
        mona,
        None,
        name="away",
        kubeconfig_text=kubeconfig(server="https://127.0.0.1:1"),
        gateway_address=GATEWAY,
    )


async def test_each_target_has_a_site_and_runs_from_before_there_were_any_have_podmans(sites, mona):
    row = await db.write(add, mona)
    await sites.refresh()
    podman = sites.of(None)
    assert not podman.is_cluster
    assert sites.of(podman.target.pk) is podman
    assert sites.of(row.pk).is_cluster
    with pytest.raises(BackendUnavailable, match="not one of this installation"):
        sites.of(999_999)


async def test_a_site_stays_while_its_target_is_reached_in_the_same_way(sites, mona):
    row = await db.write(add, mona)
    await sites.refresh()
    first = sites.of(row.pk)
    await db.write(Target.objects.filter(pk=row.pk).update, max_runs=3, enabled=False)
    await sites.refresh()
    assert sites.of(row.pk) is first
    assert first.target.max_runs == 3
    await db.write(Target.objects.filter(pk=row.pk).update, namespace="elsewhere")
    await sites.refresh()
    assert sites.of(row.pk) is not first
    await db.write(Target.objects.filter(pk=row.pk).delete)
    await sites.refresh()
    with pytest.raises(BackendUnavailable):
        sites.of(row.pk)


async def test_a_target_that_does_not_answer_says_so_in_its_row(sites, mona):
    row = await db.write(add, mona)
    await sites.refresh()
    async with asyncio.timeout(30):
        await sites.check()
    found = await db.read(Target.objects.get, pk=row.pk)
    assert found.health == "down"
    assert found.error
    assert found.checked_at is not None


async def test_a_kubeconfig_that_no_key_opens_is_said_and_keeps_no_other_target(
    sites, mona, monkeypatch
):
    row = await db.write(add, mona)
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "another")
    await sites.refresh()
    found = await db.read(Target.objects.get, pk=row.pk)
    assert found.health == "down"
    assert "cannot be read" in found.error
    assert "Enter the kubeconfig" in found.next_step
    assert sites.of(None).target.name == "podman"


async def test_podman_is_no_site_where_it_is_switched_off(sites, settings):
    settings.PODMAN = False
    await sites.refresh()
    with pytest.raises(BackendUnavailable):
        sites.of(None)
