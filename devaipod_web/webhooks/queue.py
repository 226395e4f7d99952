"""The queue of deliveries: which are due, who sends them, and what came of it. Called through the database's door.

A delivery is sent by whoever holds its lease, taken by compare-and-set, so that of two senders one does. A sender that was
killed is taken over from at once when it was of this host, else when its lease has run out; the same `webhook-id` is then sent
again, and that is all that "at least once" costs a receiver.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, Min, Q, QuerySet
from django.utils import timezone

from devaipod_web.runs import wake
from devaipod_web.runs.supervisor.lease import is_dead
from devaipod_web.webhooks import schedule, services
from devaipod_web.webhooks.models import Attempt, Delivery, DeliveryState, Webhook

#: Longer than an attempt can take, time-out and all.
LEASE = timedelta(seconds=60)
#: Attempts at one webhook at a time; one that fails gets a single one, so that its time-outs hold up little.
AT_ONCE = 4
AT_ONCE_FAILING = 1
#: How many rows are looked at for a place: those that another sender holds are among them.
LOOK = 50
GONE = 410
TOO_MANY = 429


@dataclass(frozen=True)
class Job:
    """A delivery that this process has the lease of, with all that the attempt needs."""

    delivery_id: int
    webhook_id: int
    key: str
    url: str
    body: str
    sealed: tuple[bytes, ...]
    owner: str


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt. `status` is None without an answer; `retry_after` is what the receiver asked for."""

    at: datetime
    milliseconds: int
    status: int | None = None
    answer: str = ""
    error: str = ""
    retry_after: timedelta | None = None

    @property
    def ok(self) -> bool:
        """Whether the receiver took it: any 2xx."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class Backlog:
    """How many deliveries are due now, and for how long the oldest that nobody is at work on has been."""

    due: int
    lag_seconds: float


def backlog(now: datetime) -> Backlog:
    """What is due and not sent. A receiver that asked for quiet does not count."""
    rows = _due(now).filter(_speakable("webhook__", now))
    count = rows.count()
    idle = rows.filter(lease_owner="").order_by("next_attempt_at") if count else rows.none()
    oldest = idle.values_list("next_attempt_at", flat=True).first()
    return Backlog(count, max(0.0, (now - oldest).total_seconds()) if oldest else 0.0)


def claim(owner: str, *, now: datetime, room: int, busy: Mapping[int, int]) -> list[Job]:
    """Take the leases of at most `room` due deliveries: the webhook first that has waited longest, a few of each.

    `busy` says how many attempts at a webhook (by its id) are under way in this process.
    """
    waits = Q(deliveries__state=DeliveryState.QUEUED, deliveries__next_attempt_at__lte=now)
    due = (
        Webhook.objects.filter(_speakable("", now))
        .annotate(oldest=Min("deliveries__next_attempt_at", filter=waits))
        .exclude(oldest=None)
        .order_by("oldest")
    )
    jobs: list[Job] = []
    for webhook in due:
        most = AT_ONCE_FAILING if webhook.failing_since else AT_ONCE
        places = min(most - busy.get(webhook.pk, 0), room - len(jobs))
        if places > 0:
            jobs += _take(webhook, owner, now=now, places=places)
    return jobs


def settle(job: Job, outcome: Outcome) -> None:
    """Write the attempt and what follows from it: delivered, tried again later, or given up.

    410 disables the webhook, and so does a receiver that took nothing for `schedule.DISABLE_AFTER`. A delivery that was removed
    meanwhile, or that another sender took over, is left as it is.
    """
    delivery = Delivery.objects.select_related("webhook").filter(pk=job.delivery_id).first()
    if delivery is None:
        return
    Attempt.objects.create(
        delivery=delivery,
        at=outcome.at,
        status=outcome.status,
        milliseconds=outcome.milliseconds,
        error=outcome.error[:500],
        answer=outcome.answer[:500],
    )
    now = timezone.now()
    wake.wake(wake.WEBHOOKS)
    if not outcome.ok:
        _failed(delivery, job, outcome, now)
        return
    # Whoever holds the lease now: it has arrived.
    Delivery.objects.filter(pk=delivery.pk).update(
        state=DeliveryState.DELIVERED,
        attempts_made=F("attempts_made") + 1,
        next_attempt_at=None,
        ended_at=now,
        **_FREE,
    )
    Webhook.objects.filter(pk=job.webhook_id).update(
        failing_since=None, quiet_until=None, last_delivered_at=now
    )


def release(job: Job) -> None:
    """Give the lease of a delivery back, when its attempt was broken off: it is due again at once."""
    Delivery.objects.filter(pk=job.delivery_id, lease_owner=job.owner).update(**_FREE)


_FREE: dict[str, Any] = {"lease_owner": "", "lease_until": None}


def _due(now: datetime) -> QuerySet[Delivery]:
    return Delivery.objects.filter(state=DeliveryState.QUEUED, next_attempt_at__lte=now)


def _speakable(prefix: str, now: datetime) -> Q:
    """Webhooks that may be sent something now."""
    quiet = Q(**{f"{prefix}quiet_until": None}) | Q(**{f"{prefix}quiet_until__lte": now})
    return Q(**{f"{prefix}enabled": True}) & quiet


def _take(webhook: Webhook, owner: str, *, now: datetime, places: int) -> list[Job]:
    """Take up to `places` leases of a webhook's due deliveries, each by compare-and-set."""
    jobs: list[Job] = []
    rows = _due(now).filter(webhook=webhook).order_by("next_attempt_at", "pk")[:LOOK]
    for row in rows:
        if len(jobs) == places:
            break
        if not _is_free(row, now):
            continue
        taken = (
            _due(now)
            .filter(pk=row.pk, lease_owner=row.lease_owner, lease_until=row.lease_until)
            .update(lease_owner=owner, lease_until=now + LEASE)
        )
        if taken:
            jobs.append(_job(webhook, row, owner, now))
    return jobs


def _is_free(row: Delivery, now: datetime) -> bool:
    ran_out = row.lease_until is None or row.lease_until < now
    return not row.lease_owner or ran_out or is_dead(row.lease_owner)


def _job(webhook: Webhook, row: Delivery, owner: str, now: datetime) -> Job:
    sealed = [bytes(webhook.secret)]
    if webhook.previous_secret and webhook.previous_until and webhook.previous_until > now:
        sealed.append(bytes(webhook.previous_secret))
    return Job(row.pk, webhook.pk, row.key, webhook.url, row.payload, tuple(sealed), owner)


def _failed(delivery: Delivery, job: Job, outcome: Outcome, now: datetime) -> None:
    webhook = delivery.webhook
    made = delivery.attempts_made + 1
    delay = None if outcome.status == GONE else schedule.delay(made)
    mine = Delivery.objects.filter(
        pk=delivery.pk, state=DeliveryState.QUEUED, lease_owner=job.owner
    )
    if delay is None:
        mine.update(
            state=DeliveryState.FAILED,
            attempts_made=made,
            next_attempt_at=None,
            ended_at=now,
            **_FREE,
        )
    else:
        wait = max(delay, outcome.retry_after or delay)
        mine.update(attempts_made=made, next_attempt_at=now + wait, **_FREE)
    since = webhook.failing_since or outcome.at
    quiet = outcome.retry_after or (schedule.QUIET if outcome.status == TOO_MANY else None)
    Webhook.objects.filter(pk=webhook.pk).update(
        failing_since=since, quiet_until=now + quiet if quiet else None
    )
    if outcome.status == GONE:
        services.disable(webhook, None, reason="The receiver answered 410: it wants no more.")
    elif now - since >= schedule.DISABLE_AFTER:
        days = schedule.DISABLE_AFTER.days
        services.disable(
            webhook,
            None,
            reason=f"The receiver has taken nothing for {days} days; it failed last with: {told(outcome)}",
        )


def told(outcome: Outcome) -> str:
    """An outcome in a sentence."""
    return f"It answered {outcome.status}." if outcome.status is not None else outcome.error
