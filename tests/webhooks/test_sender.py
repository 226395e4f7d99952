"""Deliveries over real sockets: signed, retried, once, bounded, and only where the guard lets them."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from django.utils import timezone

from devaipod_web import db
from devaipod_web.webhooks import post, queue, schedule, services
from devaipod_web.webhooks.errors import WebhookDisabled
from devaipod_web.webhooks.models import Attempt, Delivery, DeliveryState, Webhook
from devaipod_web.webhooks.status import sender as service
from tests.webhooks.conftest import bring_forward, sending, wait
from tests.webhooks.receiver import receiving

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


@pytest.fixture(autouse=True)
async def door_closed(transactional_db):
    """The door's threads let go of the test's database."""
    yield
    await db.close_connections()


def delivered(key: str = ""):
    rows = Delivery.objects.filter(state=DeliveryState.DELIVERED)
    return (rows.filter(key=key) if key else rows).first()


def tried(number: int):
    """A condition: some delivery has had this many attempts."""
    return lambda: Delivery.objects.filter(attempts_made=number).first()


def attempts(delivery: Delivery) -> list[Attempt]:
    return list(Attempt.objects.filter(delivery=delivery))


async def test_an_event_arrives_signed_as_the_standard_says(webhook, manager, receiver):
    async with sending():
        delivery = await db.write(services.test, webhook, manager)
        await wait(lambda: delivered(delivery.key), "the delivery")
    (got,) = receiver.got
    assert got.id == delivery.key
    assert got.payload["type"] == "webhook.test"
    assert got.payload["data"]["webhook"] == webhook.key
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-signature"].startswith("v1,")
    assert receiver.refused == []
    (made,) = await db.read(attempts, delivery)
    assert (made.status, made.answer, made.error) == (200, "answer 200", "")


async def test_it_arrives_at_once_and_the_lag_is_told(webhook, manager, receiver):
    async with sending():
        await wait(lambda: service.running and service.last_beat, "the sender")
        begun = time.monotonic()
        await db.write(services.test, webhook, manager)
        await wait(lambda: receiver.got, "the request")
        assert receiver.got[0].at - begun < 1.5
        await wait(lambda: service.in_flight == 0 and service.due == 0, "an empty queue")
        assert service.lag_seconds == 0


async def test_a_delivery_that_fails_is_tried_again_on_the_schedule_and_given_up_at_its_end(
    webhook, manager, receiver
):
    receiver.always = "500"
    async with sending():
        delivery = await db.write(services.test, webhook, manager)
        for number in range(1, schedule.ATTEMPTS + 1):
            row = await wait(tried(number), f"attempt {number}")
            if number < schedule.ATTEMPTS:
                least = schedule.DELAYS[number - 1]
                waits = row.next_attempt_at - timezone.now()
                assert least - timedelta(seconds=20) < waits <= least * 1.1
                await db.write(bring_forward)
    assert row.state == DeliveryState.FAILED
    assert row.next_attempt_at is None
    assert set(receiver.ids) == {delivery.key}
    assert len({got.body for got in receiver.got}) == 1
    made = await db.read(attempts, delivery)
    assert [one.status for one in made] == [500] * schedule.ATTEMPTS


async def test_it_arrives_when_the_receiver_is_well_again(webhook, manager, receiver):
    receiver.plan = ["500", "close", "redirect", "404"]
    async with sending():
        delivery = await db.write(services.test, webhook, manager)
        for number in range(1, 5):
            await wait(tried(number), f"attempt {number}")
            hook = await db.read(Webhook.objects.get, pk=webhook.pk)
            assert hook.failing_since is not None
            await db.write(bring_forward)
        await wait(lambda: delivered(delivery.key), "the delivery")
    assert receiver.ids == [delivery.key] * 5
    assert all(got.path == "/hook" for got in receiver.got)
    made = await db.read(attempts, delivery)
    assert [one.status for one in made] == [500, None, 302, 404, 200]
    assert "closed the connection" in made[1].error
    assert "not followed" in made[2].error
    hook = await db.read(Webhook.objects.get, pk=webhook.pk)
    assert hook.failing_since is None and hook.last_delivered_at is not None


async def test_a_receiver_that_hangs_times_out_and_holds_up_nobody_else(
    webhook, manager, receiver, monkeypatch
):
    monkeypatch.setattr(post, "TIMEOUT_SECONDS", 3.0)
    with receiving() as slow:
        slow.always = "hang"
        other, secret = await db.write(
            services.create, manager, name="Slow", url=slow.url, events=["run.state"]
        )
        slow.secrets.append(secret)
        async with sending():
            stuck = [await db.write(services.test, other, manager) for _ in range(20)]
            await wait(lambda: slow.got, "the slow one to be asked")
            begun = time.monotonic()
            quick = [await db.write(services.test, webhook, manager) for _ in range(5)]
            await wait(lambda: len(receiver.got) == 5, "the quick ones")
            assert time.monotonic() - begun < 2.5
            # Looked at before any has timed out: the sender is done with a request a moment before the receiver sees it close.
            assert slow.most_open == queue.AT_ONCE
            failed = await wait(
                lambda: Attempt.objects.filter(delivery__webhook=other).first(), "the time-out"
            )
            assert failed.status is None
            assert failed.error == "No answer came within 3 seconds."
            assert 2500 < failed.milliseconds < 10_000
            slow.release.set()
        assert {one.key for one in quick} == set(receiver.ids)
        assert set(slow.ids) <= {one.key for one in stuck}


async def test_410_disables_the_webhook_and_says_so(webhook, manager, receiver):
    receiver.always = "410"
    async with sending():
        delivery = await db.write(services.test, webhook, manager)
        hook = await wait(lambda: Webhook.objects.filter(enabled=False).first(), "it to be off")
        assert "410" in hook.disabled_reason
        row = await db.read(Delivery.objects.get, pk=delivery.pk)
        assert row.state == DeliveryState.FAILED
        assert row.attempts_made == 1
        with pytest.raises(WebhookDisabled):
            await db.write(services.test, hook, manager)
    from devaipod_web.reviews.models import AuditEntry

    entry = await db.read(AuditEntry.objects.get, action="webhook.disabled")
    assert entry.actor_name == "system"
    assert "410" in entry.detail["reason"]


async def test_one_that_failed_for_days_is_disabled_and_what_waits_is_sent_when_it_is_enabled(
    webhook, manager, receiver
):
    receiver.always = "503"
    async with sending():
        delivery = await db.write(services.test, webhook, manager)
        await wait(lambda: Webhook.objects.exclude(failing_since=None), "a failure")
        assert (await db.read(Webhook.objects.get)).enabled
        days_ago = timezone.now() - schedule.DISABLE_AFTER
        await db.write(lambda: Webhook.objects.update(failing_since=days_ago))
        await db.write(bring_forward)
        hook = await wait(lambda: Webhook.objects.filter(enabled=False).first(), "it to be off")
        assert "nothing for 3 days" in hook.disabled_reason
        assert "503" in hook.disabled_reason
        await db.write(bring_forward)
        await asyncio.sleep(2.5)
        assert len(receiver.got) == 2
        receiver.always = "200"
        await db.write(services.enable, hook, manager)
        await wait(lambda: delivered(delivery.key), "the delivery")


@pytest.mark.parametrize(("answer", "seconds"), [("retry-after 7200", 7200), ("429", 60)])
async def test_a_receiver_that_asks_for_quiet_is_left_alone(
    webhook, manager, receiver, answer, seconds
):
    receiver.plan = [answer]
    async with sending():
        await db.write(services.test, webhook, manager)
        await wait(lambda: Delivery.objects.filter(attempts_made=1), "the first attempt")
        hook = await db.read(Webhook.objects.get)
        assert abs((hook.quiet_until - timezone.now()).total_seconds() - seconds) < 20
        await db.write(services.test, hook, manager)
        await asyncio.sleep(2.5)
        assert len(receiver.got) == 1
        await db.write(lambda: Webhook.objects.update(quiet_until=timezone.now()))
        await db.write(bring_forward)
        await wait(lambda: len(receiver.got) == 3, "both")


def test_retry_after_is_read_as_seconds_or_date_and_bounded():
    now = timezone.now()
    assert post.retry_after("30", now=now) == timedelta(seconds=30)
    assert post.retry_after("999999999999", now=now) == schedule.MAX_RETRY_AFTER
    assert post.retry_after("Fri, 31 Dec 2100 23:59:59 GMT", now=now) == schedule.MAX_RETRY_AFTER
    for nothing in ("", "0", "soon", "-5", "Fri, 31 Dec 1999 23:59:59 GMT", "٣٠"):
        assert post.retry_after(nothing, now=now) is None, nothing


@pytest.mark.parametrize("what", ["flood", "trickle"])
async def test_an_answer_is_read_no_further_than_its_beginning(webhook, manager, receiver, what):
    receiver.always = what
    async with sending():
        delivery = await db.write(services.test, webhook, manager)
        await wait(lambda: delivered(delivery.key), "the delivery")
    (made,) = await db.read(attempts, delivery)
    assert made.status == 200
    assert 0 < len(made.answer) <= post.MAX_ANSWER_CHARACTERS
    assert made.milliseconds < 10_000


async def test_two_senders_at_once_send_each_delivery_once(webhook, manager, receiver):
    keys = {(await db.write(services.test, webhook, manager)).key for _ in range(40)}
    async with sending("one", "two", "three"):
        await wait(
            lambda: Delivery.objects.filter(state=DeliveryState.DELIVERED).count() == 40, "all"
        )
    assert sorted(receiver.ids) == sorted(keys)
    assert await db.read(Attempt.objects.count) == 40


def test_a_lease_is_taken_once_and_again_only_when_it_ran_out(webhook, manager):
    services.test(webhook, manager)
    now = timezone.now()
    (job,) = queue.claim("here:1:1", now=now, room=10, busy={})
    assert queue.claim("there:1:1", now=now, room=10, busy={}) == []
    later = now + queue.LEASE + timedelta(seconds=1)
    (again,) = queue.claim("there:1:1", now=later, room=10, busy={})
    assert again.key == job.key
    # The first one comes back late: what it failed at is written, and decides nothing.
    queue.settle(job, queue.Outcome(now, 5, status=500))
    row = Delivery.objects.get()
    assert (row.lease_owner, row.attempts_made) == ("there:1:1", 0)
    assert Attempt.objects.count() == 1
    queue.settle(again, queue.Outcome(now, 5, status=204))
    assert Delivery.objects.get().state == DeliveryState.DELIVERED


def test_the_lease_of_a_process_that_is_dead_is_taken_at_once(webhook, manager):
    from devaipod_web.runs.supervisor.lease import host_id

    services.test(webhook, manager)
    now = timezone.now()
    queue.claim(f"{host_id()}:4194303:1", now=now, room=10, busy={})
    assert len(queue.claim("here:1:1", now=now, room=10, busy={})) == 1


def test_places_are_bounded_for_each_webhook_and_fewer_when_it_fails(webhook, manager):
    for _ in range(10):
        services.test(webhook, manager)
    now = timezone.now()
    assert len(queue.claim("a:1:1", now=now, room=64, busy={webhook.pk: 1})) == queue.AT_ONCE - 1
    Webhook.objects.update(failing_since=now)
    assert len(queue.claim("b:1:1", now=now, room=64, busy={})) == queue.AT_ONCE_FAILING
    assert queue.claim("c:1:1", now=now, room=64, busy={webhook.pk: 1}) == []


def test_whoever_waited_longest_comes_first_and_nobody_takes_all_places(webhook, manager):
    late, _ = services.create(
        manager, name="Late", url="https://late.example/", events=["run.state"]
    )
    now = timezone.now()
    for _ in range(10):
        services.test(webhook, manager)
        services.test(late, manager)
    Delivery.objects.filter(webhook=late).update(next_attempt_at=now - timedelta(minutes=1))
    jobs = queue.claim("a:1:1", now=timezone.now(), room=6, busy={})
    assert [job.webhook_id for job in jobs] == [late.pk] * 4 + [webhook.pk] * 2


async def test_both_secrets_sign_for_a_while_after_a_rotation(webhook, manager, receiver):
    old = receiver.secrets[0]
    new = await db.write(services.rotate, webhook, manager)
    receiver.secrets = [old, new]
    async with sending():
        await db.write(services.test, webhook, manager)
        await wait(lambda: len(receiver.got) == 1, "the first")
        assert receiver.got[0].secrets == (old, new)
        await db.write(lambda: Webhook.objects.update(previous_until=timezone.now()))
        await db.write(services.test, webhook, manager)
        await wait(lambda: len(receiver.got) == 2, "the second")
        assert receiver.got[1].secrets == (new,)


async def test_a_sender_that_ends_lets_attempts_end_or_gives_them_back(
    webhook, manager, receiver, monkeypatch
):
    from devaipod_web.webhooks import sender

    monkeypatch.setattr(sender, "GRACE_SECONDS", 0.3)
    receiver.always = "hang"
    async with sending():
        delivery = await db.write(services.test, webhook, manager)
        await wait(lambda: receiver.got, "the request")
    row = await db.read(Delivery.objects.get, pk=delivery.pk)
    assert (row.state, row.lease_owner) == (DeliveryState.QUEUED, "")
    receiver.always = "200"
    async with sending():
        await wait(lambda: delivered(delivery.key), "the delivery")
    assert receiver.ids == [delivery.key, delivery.key]
