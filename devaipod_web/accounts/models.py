"""People, their API tokens and one-time sign-in links. Roles are Django's groups."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models

from devaipod_web.fields import KeyField


class User(AbstractUser):
    """A person. What a person may do follows from the roles (groups), see `permissions.py`."""

    key = KeyField()

    #: The token that the person calls by at this moment, which may limit them; None for a session.
    through: ApiToken | None = None

    def __str__(self) -> str:
        return self.get_full_name() or self.get_username()


class ApiToken(models.Model):
    """A bearer token of a person for CLI and orchestrators; only its hash is kept.

    It counts for the lesser of `role` and the person's role at the moment, and with a `project` for that project alone.
    """

    key = KeyField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens"
    )
    name = models.CharField(max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    role = models.CharField(max_length=10, default="manager", help_text="At most this role.")
    project = models.ForeignKey(
        "projects.Project",
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="tokens",
        help_text="Empty: every project.",
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    #: The token's text, known to whoever has just made it and to nobody else.
    token = ""
    #: What the token may do at this moment, set where tokens are listed.
    may = ""

    def __str__(self) -> str:
        return self.name


class SignInLink(models.Model):
    """A link that signs one person in, once, within ten minutes; only its hash is kept."""

    digest = models.CharField(max_length=64, unique=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    spent_at = models.DateTimeField(null=True, blank=True)


class FailedSignIn(models.Model):
    """A password sign-in that failed, kept for the time that the throttle looks back."""

    name_digest = models.CharField(max_length=64)
    address = models.CharField(max_length=64)
    at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["address", "at"], name="failed_sign_in_address")]


class KeptAnswer(models.Model):
    """The answer to a request that was sent with an `Idempotency-Key`, for whoever sends it again; see `api/once.py`."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    key_digest = models.CharField(max_length=64)
    request_digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(default=0)
    body = models.BinaryField(default=b"", help_text="Sealed: an answer may hold a secret.")
    at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["user", "key_digest"], name="answer_once_per_key")
        ]
