from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from devaipod_web.reviews import audit
from devaipod_web.reviews.models import AuditEntry

pytestmark = pytest.mark.django_db


def fill(person=None, count=5):
    return [
        audit.write(person, "thing.done", target=f"t{n}", detail={"n": n, "s": "é\x00\u202e"})
        for n in range(count)
    ]


def test_a_log_that_nobody_touched_is_sound(operator):
    entries = fill(operator)
    result = audit.verify()
    assert (result.entries, result.broken) == (5, None)
    assert result.last_digest == entries[-1].digest


def test_an_empty_log_is_sound():
    assert audit.verify() == audit.Verified(entries=0, last_digest=audit.GENESIS, broken=None)


@pytest.mark.parametrize(
    "changes",
    [{"action": "x"}, {"detail": {"n": 9}}, {"actor_name": "eve"}, {"target": ""}, {"key": "k"}],
)
def test_a_changed_entry_is_found(changes):
    entries = fill()
    AuditEntry.objects.filter(pk=entries[2].pk).update(**changes)
    assert audit.verify().broken.pk == entries[2].pk


def test_a_removed_entry_is_found_at_the_next(operator):
    entries = fill(operator)
    AuditEntry.objects.filter(pk=entries[1].pk).delete()
    assert audit.verify().broken.pk == entries[2].pk


def test_an_entry_put_in_between_is_found():
    fill()
    last = AuditEntry.objects.first()
    AuditEntry.objects.create(
        at=last.at, actor_name="eve", action="x", digest=audit.digest(audit.GENESIS, last)
    )
    assert audit.verify().broken.actor_name == "eve"


def test_the_chain_outlives_the_person(operator):
    fill(operator)
    operator.delete()
    assert audit.verify().broken is None
    assert AuditEntry.objects.first().actor_name == "alice"


def test_an_entry_goes_with_the_transaction_that_it_is_about():
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        fill(count=1)
        raise ZeroDivisionError
    assert not AuditEntry.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_writers_at_once_make_one_chain():
    def go() -> None:
        fill(count=10)
        connection.close()

    threads = [threading.Thread(target=go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = audit.verify()
    assert (result.entries, result.broken) == (40, None)
