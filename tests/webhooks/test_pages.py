"""The pages of webhooks, as a manager uses them and as nobody else may."""

from __future__ import annotations

import json
import re

import pytest
from django.urls import reverse
from django.utils import timezone

from devaipod_web.reviews.models import AuditEntry
from devaipod_web.webhooks import queue, services
from devaipod_web.webhooks.models import Delivery, Webhook
from tests.pages.conftest import HOSTILE

pytestmark = pytest.mark.django_db

URL = "https://receiver.example/hook"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{43}=")


@pytest.fixture
def webhook(manager):
    return services.create(manager, name="Ops", url=URL, events=["run.state"])[0]


@pytest.fixture
def mona(client, manager):
    client.force_login(manager)
    return client


def failed(delivery: Delivery, **fields) -> None:
    """An attempt that did not succeed, as the sender writes it."""
    (job,) = queue.claim("here:1:1", now=timezone.now(), room=1, busy={})
    assert job.key == delivery.key
    queue.settle(job, queue.Outcome(timezone.now(), 12, **fields))


def test_a_webhook_is_made_and_its_secret_shown_this_once(mona, project):
    answer = mona.post(
        reverse("webhook_new"),
        {
            "name": "Ops",
            "url": URL,
            "events": ["run.state", "review.opened"],
            "project": "payments",
        },
    )
    page = answer.content.decode()
    row = Webhook.objects.get()
    assert (row.name, row.url, row.project) == ("Ops", URL, project)
    assert row.events == ["run.state", "review.opened"]
    (secret,) = SECRET.findall(page)
    assert "no-store" in answer.headers["Cache-Control"]
    assert secret.encode() not in bytes(row.secret)
    for name in ("webhook", "webhook_settings"):
        assert not SECRET.search(mona.get(reverse(name, args=[row.key])).content.decode())
    assert secret not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": "", "url": URL, "events": "run.state"}, "This field is required"),
        ({"name": "A", "url": "ftp://x.example", "events": "run.state"}, "cannot be reached by"),
        ({"name": "A", "url": URL}, "Choose at least one kind of event"),
        ({"name": "A", "url": URL, "events": "webhook.test"}, "Select a valid choice"),
        ({"name": "A", "url": URL, "events": "run.state", "project": "x"}, "Select a valid choice"),
    ],
)
def test_what_cannot_be_is_said_at_its_field_and_nothing_is_lost(mona, given, says):
    answer = mona.post(reverse("webhook_new"), given)
    assert answer.status_code == 400
    page = answer.content.decode()
    assert says in page
    assert f'value="{given["url"]}"' in page
    assert not Webhook.objects.exists()


def test_the_list_says_how_each_does(mona, webhook, manager):
    page = mona.get(reverse("webhooks")).content.decode()
    assert "enabled" in page and "failing" not in page
    failed(services.test(webhook, manager), status=500)
    assert "failing" in mona.get(reverse("webhooks")).content.decode()
    services.disable(webhook, manager)
    assert "disabled" in mona.get(reverse("webhooks")).content.decode()


def test_the_empty_list_says_what_will_be_here(mona):
    page = mona.get(reverse("webhooks")).content.decode()
    assert "No webhooks yet" in page
    assert reverse("webhook_new") in page


def test_settings_are_changed_and_the_audit_log_says_which(mona, webhook, project):
    mona.post(
        reverse("webhook_settings", args=[webhook.key]),
        {"name": "Ops", "url": URL + "2", "events": ["run.waiting"], "project": "payments"},
    )
    webhook.refresh_from_db()
    assert (webhook.url, webhook.events) == (URL + "2", ["run.waiting"])
    entry = AuditEntry.objects.get(action="webhook.changed")
    assert entry.detail["changed"] == ["url", "events", "project"]


def test_a_wrong_change_keeps_what_is_stored(mona, webhook):
    answer = mona.post(
        reverse("webhook_settings", args=[webhook.key]),
        {"name": "Other", "url": "http://user:pw@x.example/", "events": ["run.state"]},
    )
    assert answer.status_code == 400
    assert "credentials" in answer.content.decode()
    webhook.refresh_from_db()
    assert (webhook.name, webhook.url) == ("Ops", URL)


def test_rotating_shows_the_new_secret_once_and_says_until_when_both_sign(mona, webhook):
    before = bytes(webhook.secret)
    page = mona.post(reverse("webhook_rotate", args=[webhook.key])).content.decode()
    assert SECRET.search(page)
    assert "signs beside it until" in page
    webhook.refresh_from_db()
    assert bytes(webhook.previous_secret) == before != bytes(webhook.secret)
    assert AuditEntry.objects.filter(action="webhook.rotated").exists()


def test_disabling_and_enabling_are_said_and_written_down(mona, webhook):
    switch = reverse("webhook_switch", args=[webhook.key])
    page = mona.post(switch, {"to": "off"}, follow=True).content.decode()
    assert "Nothing is sent." in page
    assert "Disabled by Mona." in page
    page = mona.post(switch, {"to": "on"}, follow=True).content.decode()
    assert "is enabled" in page
    actions = list(AuditEntry.objects.order_by("id").values_list("action", flat=True))
    assert actions[-2:] == ["webhook.disabled", "webhook.enabled"]


def test_a_test_event_leads_to_its_delivery(mona, webhook):
    answer = mona.post(reverse("webhook_test", args=[webhook.key]), follow=True)
    page = answer.content.decode()
    row = Delivery.objects.get()
    assert answer.redirect_chain[-1][0] == reverse("delivery", args=[webhook.key, row.key])
    assert "webhook.test" in page and "Not tried yet" in page
    assert AuditEntry.objects.filter(action="webhook.tested").exists()


def test_a_disabled_webhook_has_no_button_that_does_nothing(mona, webhook, manager):
    row = services.test(webhook, manager)
    services.disable(webhook, manager)
    assert (
        "Send a test event" not in mona.get(reverse("webhook", args=[webhook.key])).content.decode()
    )
    page = mona.get(reverse("delivery", args=[webhook.key, row.key])).content.decode()
    assert "Send again" not in page and "is disabled" in page
    for name, args in (
        ("webhook_test", [webhook.key]),
        ("delivery_redeliver", [webhook.key, row.key]),
    ):
        page = mona.post(reverse(name, args=args), follow=True).content.decode()
        assert "Enable it first" in page


def test_deliveries_show_attempts_answers_and_the_payload_as_text(mona, webhook, manager):
    row = services.test(webhook, manager)
    failed(row, status=500, answer=HOSTILE)
    page = mona.get(reverse("webhook", args=[webhook.key])).content.decode()
    assert "answered <strong>500</strong>" in page
    assert "The receiver takes nothing." in page
    page = mona.get(reverse("delivery", args=[webhook.key, row.key])).content.decode()
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page and "\x1b" not in page
    assert webhook.key in page and "&quot;webhook.test&quot;" in page
    assert "next attempt" in page


def test_sending_again_queues_the_same_delivery(mona, webhook, manager):
    row = services.test(webhook, manager)
    (job,) = queue.claim("here:1:1", now=timezone.now(), room=1, busy={})
    queue.settle(job, queue.Outcome(timezone.now(), 3, status=200))
    payload = row.payload
    page = mona.post(
        reverse("delivery_redeliver", args=[webhook.key, row.key]), follow=True
    ).content.decode()
    assert "It is sent again" in page
    row.refresh_from_db()
    assert (row.state, row.attempts_made, row.payload) == ("queued", 0, payload)
    (again,) = queue.claim("here:1:1", now=timezone.now(), room=1, busy={})
    assert again.key == job.key


def test_deliveries_are_filtered_by_state_and_paged(mona, webhook, manager):
    Delivery.objects.bulk_create(
        Delivery(webhook=webhook, kind="run.state", payload="{}", state="delivered")
        for _ in range(60)
    )
    services.test(webhook, manager)
    address = reverse("webhook", args=[webhook.key])
    page = mona.get(address).content.decode()
    assert "Page 1 of 2" in page
    page = mona.get(address + "?state=queued").content.decode()
    assert "webhook.test" in page and "Page 1" not in page
    assert "No delivery is failed" in mona.get(address + "?state=failed").content.decode()


def test_a_page_of_deliveries_takes_few_queries(
    mona, webhook, manager, django_assert_max_num_queries
):
    for _ in range(20):
        services.test(webhook, manager)
    with django_assert_max_num_queries(15):
        mona.get(reverse("webhook", args=[webhook.key]))


def test_removing_takes_its_deliveries_along_and_is_written_down(mona, webhook, manager):
    services.test(webhook, manager)
    page = mona.post(reverse("webhook_remove", args=[webhook.key]), follow=True).content.decode()
    assert "Ops is removed" in page
    assert not Webhook.objects.exists() and not Delivery.objects.exists()
    assert AuditEntry.objects.get(action="webhook.removed").target == "Ops"


def test_a_delivery_of_another_webhook_is_not_found_below_this_one(mona, webhook, manager):
    other, _ = services.create(manager, name="B", url=URL, events=["run.state"])
    row = services.test(other, manager)
    assert mona.get(reverse("delivery", args=[webhook.key, row.key])).status_code == 404


def test_operators_reviewers_and_strangers_are_let_nowhere(
    client, webhook, manager, operator, reviewer, stranger
):
    row = services.test(webhook, manager)
    before = Delivery.objects.values().get()
    for person in (operator, reviewer, stranger):
        client.force_login(person)
        for name in ("webhooks", "webhook_new"):
            assert client.get(reverse(name)).status_code == 403, (person, name)
        assert client.get(reverse("webhook", args=[webhook.key])).status_code == 403
        for name in ("webhook_rotate", "webhook_switch", "webhook_test", "webhook_remove"):
            assert client.post(reverse(name, args=[webhook.key])).status_code == 403, name
        place = [webhook.key, row.key]
        assert client.get(reverse("delivery", args=place)).status_code == 403
        assert client.post(reverse("delivery_redeliver", args=place)).status_code == 403
        assert reverse("webhooks") not in client.get("/").content.decode()
    assert Delivery.objects.values().get() == before
    assert Webhook.objects.get().enabled


def test_the_rail_and_the_palette_lead_a_manager_here(mona):
    page = mona.get("/").content.decode()
    assert page.count(f'href="{reverse("webhooks")}"') >= 1
    assert reverse("webhook_new") in page


def test_old_deliveries_are_pruned_in_batches(webhook, manager, settings):
    for _ in range(3):
        services.test(webhook, manager)
    old = timezone.now() - settings.KEEP_DELIVERIES
    Delivery.objects.exclude(pk=Delivery.objects.latest("pk").pk).update(created_at=old)
    assert services.prune(timezone.now()) == 2
    assert services.prune(timezone.now()) == 0
    assert Delivery.objects.count() == 1


def test_the_payload_is_stored_as_it_is_sent(webhook, manager):
    row = services.test(webhook, manager)
    assert json.loads(row.payload)["data"]["by"] == "mona"
    assert row.payload == json.dumps(json.loads(row.payload), separators=(",", ":"))
