"""What can be done to a provider: add, change, test, remove. Its key goes in and never comes out again."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from django.db import IntegrityError, transaction

from devaipod_web import __version__
from devaipod_web.accounts.models import User
from devaipod_web.forges import guard
from devaipod_web.forges.errors import ForgeError
from devaipod_web.forges.guard import Target
from devaipod_web.llm import vault
from devaipod_web.llm.models import Provider, ProviderKind
from devaipod_web.llm.upstream import masked
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit

MAX_NAME = 80
MAX_CREDENTIAL = 4000
TEST_SECONDS = 10.0
MAX_ANSWER_BYTES = 2 * 1024**2
MAX_MODELS = 500


class InvalidProvider(Exception):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-provider"
    status = 400
    next_step = "Change what is named and send it again."

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(" ".join(errors.values()))
        self.message = str(self)
        self.errors = errors


class ProviderInUse(Exception):
    """Projects use the provider; the message names them."""

    code = "provider-in-use"
    status = 409
    next_step = "Choose another provider in those projects first."

    @property
    def message(self) -> str:
        """The sentence."""
        return str(self)


@dataclass(frozen=True)
class Tested:
    """What a provider answered to a question for its models."""

    ok: bool
    message: str
    next_step: str = ""
    milliseconds: int = 0
    models: list[str] = field(default_factory=list)


def save(
    by: User,
    provider: Provider | None,
    *,
    name: str,
    base_url: str,
    credential: str = "",
    forget_credential: bool = False,
) -> Provider:
    """Add a provider (`provider` None) or change one. An empty `credential` keeps what is there. Raises InvalidProvider."""
    errors: dict[str, str] = {}
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME:
        errors["name"] = f"A name has 1 to {MAX_NAME} characters."
    try:
        base_url = guard.check_url(base_url)
    except ForgeError as error:
        errors["base_url"] = f"{error.message} {error.next_step}".strip()
    credential = credential.strip()
    if len(credential) > MAX_CREDENTIAL or not credential.isprintable() or " " in credential:
        errors["credential"] = "This is not a key: it has spaces or line breaks, or is too long."
    if errors:
        raise InvalidProvider(errors)
    made = provider is None
    row = provider or Provider(kind=ProviderKind.OPENAI)
    changed = [
        label
        for label, old, new in (("name", row.name, name), ("base_url", row.base_url, base_url))
        if old != new
    ]
    if "base_url" in changed and not made and row.credential and not credential:
        # Whoever may edit the address could otherwise have the stored key sent to a server of their own.
        raise InvalidProvider(
            {
                "credential": "The address changed: enter its key again, so that the old key is not sent there."
            }
        )
    row.name, row.base_url = name, base_url
    if credential:
        row.credential = vault.seal(credential.encode())
        changed.append("credential")
    elif forget_credential:
        row.credential = b""
        changed.append("credential")
    try:
        with transaction.atomic():
            row.save()
            audit.write(
                by,
                "provider.added" if made else "provider.changed",
                target=row.name,
                target_url=f"/providers/{row.key}/",
                detail={"base_url": row.base_url, "changed": changed},
            )
    except IntegrityError:
        raise InvalidProvider({"name": f"There is a provider {name} already."}) from None
    return row


def remove(by: User, provider: Provider) -> None:
    """Remove a provider that no project uses. Raises ProviderInUse."""
    names = list(Project.objects.filter(provider=provider).values_list("name", flat=True)[:5])
    if names:
        raise ProviderInUse(
            f"{', '.join(names)} {'uses' if len(names) == 1 else 'use'} this provider: choose another one there first."
        )
    with transaction.atomic():
        audit.write(by, "provider.removed", target=provider.name)
        provider.delete()


def test(provider: Provider) -> Tested:
    """Ask the provider for its models, with its key, as a run would. Blocking, at most some ten seconds."""
    if provider.kind == ProviderKind.DEMO:
        return Tested(ok=True, message="The scripted demo is built in and always answers.")
    began = time.monotonic()
    key = ""
    try:
        if provider.credential:
            key = vault.unseal(bytes(provider.credential)).decode()
        target = guard.open_url(provider.base_url)
        status, body = _get(target, f"{target.url.rstrip('/')}/models", key)
    except vault.CannotUnseal as error:
        return Tested(ok=False, message=str(error))
    except ForgeError as error:
        return Tested(ok=False, message=error.message, next_step=error.next_step)
    except (OSError, http.client.HTTPException) as error:
        words = masked(str(error), key)[:200] or type(error).__name__
        return Tested(
            ok=False,
            message=f"The provider does not answer: {words}.",
            next_step="Check the address and that this host may reach it.",
        )
    return _judge(status, body, key, int((time.monotonic() - began) * 1000))


def _judge(status: int, body: bytes, key: str, milliseconds: int) -> Tested:
    if status in (401, 403):
        return Tested(
            ok=False,
            message=f"The provider refuses the key ({status}).",
            next_step="Enter a valid key.",
            milliseconds=milliseconds,
        )
    if 300 <= status < 400:
        return Tested(
            ok=False,
            message=f"The provider sends elsewhere ({status}), and redirects are not followed.",
            next_step="Enter the address that it redirects to.",
            milliseconds=milliseconds,
        )
    if status != 200:
        words = masked(" ".join(body[:300].decode(errors="replace").split()), key)
        return Tested(
            ok=False,
            message=f"The provider answers {status}: {words}",
            next_step="The base address usually ends in /v1.",
            milliseconds=milliseconds,
        )
    try:
        rows = json.loads(body)["data"]
        models = sorted(str(row["id"])[:200] for row in rows[:MAX_MODELS])
    except (ValueError, KeyError, TypeError, RecursionError):
        return Tested(
            ok=False,
            message="Something answers there, and not as an OpenAI-compatible provider does.",
            next_step="The base address usually ends in /v1.",
            milliseconds=milliseconds,
        )
    count = f"{len(models)} model{'' if len(models) == 1 else 's'}"
    return Tested(
        ok=True, message=f"It answers and offers {count}.", milliseconds=milliseconds, models=models
    )


def _get(target: Target, url: str, key: str) -> tuple[int, bytes]:
    """One GET to exactly the address that the guard has checked; no proxy, no redirect."""
    parts = urlsplit(url)
    raw = socket.create_connection((target.addresses[0], target.port), timeout=TEST_SECONDS)
    connection = http.client.HTTPConnection(target.host, target.port, timeout=TEST_SECONDS)
    try:
        connection.sock = (
            ssl.create_default_context().wrap_socket(raw, server_hostname=target.host)
            if target.scheme == "https"
            else raw
        )
        headers = {"Accept": "application/json", "User-Agent": f"devaipod/{__version__}"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        connection.request("GET", parts.path or "/", headers=headers)
        response = connection.getresponse()
        return response.status, response.read(MAX_ANSWER_BYTES)
    finally:
        connection.close()
        raw.close()
