from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from devaipod_web.accounts import services, throttle, tokens
from devaipod_web.accounts.errors import BadName, LastManager, LinkSpent, TooManyAttempts
from devaipod_web.accounts.models import ApiToken, FailedSignIn, SignInLink, User
from devaipod_web.accounts.permissions import Role, role_of
from devaipod_web.reviews.models import AuditEntry

pytestmark = pytest.mark.django_db(transaction=True)


def secret_of(path: str) -> str:
    return path.split("/")[2]


def test_the_first_user_is_a_manager_without_a_password_and_stays_the_same():
    user = services.first_user()
    assert role_of(user) is Role.MANAGER
    assert not user.has_usable_password()
    assert services.first_user() == user


def test_a_link_signs_in_once(operator):
    secret = secret_of(services.sign_in_link(operator))
    assert services.link_owner(secret) == operator
    assert services.spend_link(secret) == operator
    with pytest.raises(LinkSpent, match="has been used"):
        services.spend_link(secret)


def test_a_link_dies_after_ten_minutes(operator):
    secret = secret_of(services.sign_in_link(operator))
    SignInLink.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert services.link_owner(secret) is None
    with pytest.raises(LinkSpent):
        services.spend_link(secret)


def test_a_link_is_kept_as_a_hash_and_lives_ten_minutes(operator):
    secret = secret_of(services.sign_in_link(operator))
    row = SignInLink.objects.get()
    assert secret not in str(row.__dict__)
    assert timedelta(minutes=9) < row.expires_at - timezone.now() <= timedelta(minutes=10)
    assert secret not in str(list(AuditEntry.objects.values()))


def test_of_two_who_spend_a_link_at_once_one_is_signed_in(operator):
    secret = secret_of(services.sign_in_link(operator))
    results: list[str] = []
    start = threading.Barrier(4)

    def spend() -> None:
        start.wait()
        try:
            services.spend_link(secret)
            results.append("in")
        except LinkSpent:
            results.append("spent")
        finally:
            connection.close()

    threads = [threading.Thread(target=spend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["in", "spent", "spent", "spent"]


def test_a_deactivated_person_loses_tokens_and_links(manager, operator):
    _, token = tokens.create(operator, "ci")
    secret = secret_of(services.sign_in_link(operator))
    services.deactivate(manager, operator)
    assert tokens.find(token) is None
    assert services.link_owner(secret) is None
    services.reactivate(manager, operator)
    assert tokens.find(token) is None


def test_the_last_manager_can_be_neither_demoted_nor_deactivated(manager):
    with pytest.raises(LastManager, match="only manager"):
        services.change_role(manager, manager, role=Role.VIEWER)
    with pytest.raises(LastManager):
        services.deactivate(manager, manager)
    assert role_of(User.objects.get(pk=manager.pk)) is Role.MANAGER


def test_a_role_is_changed_to_exactly_one_and_written_down(manager, operator):
    services.change_role(manager, operator, role=Role.REVIEWER)
    assert [group.name for group in operator.groups.all()] == ["reviewer"]
    entry = AuditEntry.objects.get(action="person.role_changed")
    assert (entry.actor, entry.detail) == (manager, {"from": "operator", "to": "reviewer"})


@pytest.mark.parametrize("name", ["", "Bob Smith", "-x", "a/b", "ü", "x" * 41, "bob\u202e"])
def test_a_name_that_cannot_be_one_is_refused(manager, name):
    with pytest.raises(BadName):
        services.add_person(manager, name, role=Role.VIEWER)


def test_a_name_is_taken_once(manager, operator):
    with pytest.raises(BadName, match="already"):
        services.add_person(manager, "ALICE", role=Role.VIEWER)


def test_a_token_finds_its_person_until_it_is_revoked_or_ends(operator):
    row, text = tokens.create(operator, "ci")
    assert text.startswith("dvp_")
    assert tokens.find(text) == operator
    assert text not in str(ApiToken.objects.values())
    tokens.revoke(row, operator)
    assert tokens.find(text) is None
    _, late = tokens.create(operator, "old", expires_at=timezone.now() - timedelta(seconds=1))
    assert tokens.find(late) is None
    assert tokens.find("dvp_" + "x" * 43) is None
    assert tokens.find("") is None


def test_the_use_of_a_token_is_noted_at_most_once_a_minute(operator, django_assert_num_queries):
    _, text = tokens.create(operator, "ci")
    tokens.find(text)
    assert ApiToken.objects.get().last_used_at is not None
    with django_assert_num_queries(1):
        tokens.find(text)


def test_guessing_a_password_is_closed_for_that_name_and_address_alone():
    for _ in range(throttle.PER_NAME):
        throttle.check("alice", "192.0.2.1")
        throttle.failed("alice", "192.0.2.1")
    with pytest.raises(TooManyAttempts, match="Too many"):
        throttle.check("Alice ", "192.0.2.1")
    throttle.check("alice", "192.0.2.2")
    throttle.check("bob", "192.0.2.1")


def test_guessing_many_names_closes_the_address():
    for number in range(throttle.PER_ADDRESS):
        throttle.failed(f"name-{number}", "192.0.2.1")
    with pytest.raises(TooManyAttempts):
        throttle.check("somebody", "192.0.2.1")


def test_the_throttle_opens_again_and_forgets():
    for _ in range(throttle.PER_NAME):
        throttle.failed("alice", "192.0.2.1")
    FailedSignIn.objects.update(at=timezone.now() - throttle.WINDOW - timedelta(seconds=1))
    throttle.check("alice", "192.0.2.1")
    throttle.failed("bob", "192.0.2.9")
    assert FailedSignIn.objects.count() == 1


def test_every_change_of_people_is_in_the_audit_log(manager):
    user = services.add_person(manager, "dora", role=Role.VIEWER, full_name="Dora Maar")
    services.change_role(manager, user, role=Role.OPERATOR)
    token, _ = tokens.create(user, "ci")
    tokens.revoke(token, manager)
    services.change_password(user, "a long enough password")
    services.deactivate(manager, user)
    services.reactivate(manager, user)
    assert list(AuditEntry.objects.order_by("id").values_list("action", flat=True)) == [
        "person.added",
        "person.role_changed",
        "token.created",
        "token.revoked",
        "person.password_changed",
        "person.deactivated",
        "person.reactivated",
    ]
