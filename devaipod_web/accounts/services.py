"""What can be done about people: roles, sign-in links, adding and deactivating.

Each change and its audit entry are one transaction.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.contrib.auth.models import Group
from django.db import transaction
from django.db.models import Count, Max, Q, QuerySet
from django.utils import timezone

from devaipod_web.accounts.errors import BadName, LastManager, LinkSpent
from devaipod_web.accounts.models import ApiToken, SignInLink, User
from devaipod_web.accounts.permissions import ORDER, Role, role_of, stored_role
from devaipod_web.reviews import audit

LINK_LIFETIME = timedelta(minutes=10)
USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
FIRST_USERNAME = "admin"


def ensure_groups() -> None:
    """Make the four roles' groups when they are not there. Safe to repeat."""
    for role in ORDER:
        Group.objects.get_or_create(name=role)


def first_user(*, username: str = FIRST_USERNAME) -> User:
    """The first manager: the oldest active one, else a new person of this name without a password."""
    found = _managers().order_by("pk").first()
    if found is not None:
        return found
    with transaction.atomic():
        ensure_groups()
        user, made = User.objects.get_or_create(username=username)
        if made:
            user.set_unusable_password()
        user.is_active = True
        user.save()
        user.groups.set(Group.objects.filter(name=Role.MANAGER))
        audit.write(None, "person.added", target=username, detail={"role": Role.MANAGER})
    return user


def sign_in_link(user: User, *, by: User | None = None) -> str:
    """The path of a page that signs this person in, once, within ten minutes. Only its hash is kept; never log it."""
    secret = secrets.token_urlsafe(32)
    now = timezone.now()
    with transaction.atomic():
        SignInLink.objects.filter(expires_at__lt=now - timedelta(days=1)).delete()
        SignInLink.objects.create(digest=_digest(secret), user=user, expires_at=now + LINK_LIFETIME)
        audit.write(by, "sign_in_link.made", target=user.username)
    return f"/sign-in/{secret}/"


def link_owner(secret: str) -> User | None:
    """Whom a link would sign in, or None when it no longer counts. Spends nothing."""
    link = (
        SignInLink.objects.select_related("user")
        .filter(digest=_digest(secret), spent_at=None, expires_at__gt=timezone.now())
        .first()
    )
    return link.user if link is not None and link.user.is_active else None


def spend_link(secret: str) -> User:
    """Spend a link and return its person. Compare-and-set: of two at once, one gets LinkSpent."""
    now = timezone.now()
    with transaction.atomic():
        user = link_owner(secret)
        spent = (
            SignInLink.objects.filter(
                digest=_digest(secret), spent_at=None, expires_at__gt=now
            ).update(spent_at=now)
            if user is not None
            else 0
        )
        if user is None or not spent:
            raise LinkSpent(
                "This sign-in link has been used, or is older than ten minutes.",
                next_step="Run `devaipod sign-in-link` on the host, or ask a manager for a new one.",
            )
        signed_in(user, how="link")
    return user


def signed_in(user: User, *, how: str) -> None:
    """Write into the audit log that a person signed in."""
    audit.write(user, "person.signed_in", target=user.username, detail={"by": how})


@dataclass(frozen=True)
class Somebody:
    """A person as the list shows them."""

    user: User
    role: Role | None
    tokens: int
    last_token_use: datetime | None


def everybody() -> list[Somebody]:
    """All people, the active ones first, by name."""
    live = Q(tokens__revoked_at=None)
    rows = (
        User.objects.prefetch_related("groups")
        .annotate(
            token_count=Count("tokens", filter=live, distinct=True),
            token_used=Max("tokens__last_used_at", filter=live),
        )
        .order_by("-is_active", "username")
    )
    return [
        Somebody(
            user=row,
            role=stored_role(row),
            tokens=row.token_count,
            last_token_use=row.token_used,
        )
        for row in rows
    ]


def add_person(by: User, username: str, *, role: Role, full_name: str = "") -> User:
    """Add a person without a password; they sign in by a link first. Raises BadName."""
    username = username.strip().lower()
    if not USERNAME.fullmatch(username):
        raise BadName(
            f"{username[:60]!r} cannot be a name for signing in.",
            next_step="Use 1 to 40 lower-case letters, digits, dots, dashes and underscores, beginning with a letter or digit.",
        )
    if User.objects.filter(username=username).exists():
        raise BadName(f"There is a person {username} already.", next_step="Choose another name.")
    first, _, last = full_name.strip().partition(" ")
    with transaction.atomic():
        ensure_groups()
        user = User(username=username, first_name=first[:150], last_name=last[:150])
        user.set_unusable_password()
        user.save()
        user.groups.set(Group.objects.filter(name=role))
        audit.write(by, "person.added", target=username, detail={"role": role})
    return user


def change_role(by: User, user: User, *, role: Role) -> None:
    """Give a person exactly this role. Raises LastManager."""
    before = role_of(user)
    if before is role:
        return
    with transaction.atomic():
        if before is Role.MANAGER:
            _another_manager(user)
        ensure_groups()
        user.groups.set(Group.objects.filter(name=role))
        if user.is_superuser:
            user.is_superuser = False
            user.save(update_fields=["is_superuser"])
        audit.write(
            by,
            "person.role_changed",
            target=user.username,
            detail={"from": before or "", "to": role},
        )


def deactivate(by: User, user: User) -> None:
    """Close a person's door: sessions, tokens and links stop counting at once. What they did stays. Raises LastManager."""
    now = timezone.now()
    with transaction.atomic():
        if not User.objects.filter(pk=user.pk, is_active=True).exists():
            return
        if role_of(user) is Role.MANAGER:
            _another_manager(user)
        User.objects.filter(pk=user.pk).update(is_active=False)
        ApiToken.objects.filter(user=user, revoked_at=None).update(revoked_at=now)
        SignInLink.objects.filter(user=user, spent_at=None).update(spent_at=now)
        audit.write(by, "person.deactivated", target=user.username)
    user.is_active = False


def reactivate(by: User, user: User) -> None:
    """Open a person's door again. Old tokens and links stay dead."""
    with transaction.atomic():
        if User.objects.filter(pk=user.pk, is_active=False).update(is_active=True):
            audit.write(by, "person.reactivated", target=user.username)
    user.is_active = True


def change_password(user: User, password: str) -> None:
    """Set a person's own password (validated by the form). Their other sessions end."""
    with transaction.atomic():
        user.set_password(password)
        user.save(update_fields=["password"])
        audit.write(user, "person.password_changed", target=user.username)


def _managers() -> QuerySet[User]:
    return User.objects.filter(is_active=True, groups__name=Role.MANAGER)


def _another_manager(user: User) -> None:
    if _managers().exclude(pk=user.pk).exists():
        return
    raise LastManager(
        f"{user} is the only manager.", next_step="Make somebody else a manager first."
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
