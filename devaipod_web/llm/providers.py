"""What can be done to a provider: add, change, remove. Its key goes in and never comes out again."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from devaipod_web.accounts.models import User
from devaipod_web.errors import DevaipodError, InvalidFields
from devaipod_web.forges import guard
from devaipod_web.forges.errors import ForgeError
from devaipod_web.llm import vault, vertex
from devaipod_web.llm.models import Provider, ProviderKind, Route
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit

MAX_NAME = 80
MAX_KEY = 4000
#: A service account's key is a JSON document.
MAX_CREDENTIAL = 16_000
#: Addresses of makers who have one, for everybody.
ADDRESSES = {
    "anthropic": "https://api.anthropic.com",
    "gemini": "https://generativelanguage.googleapis.com",
}


class InvalidProvider(InvalidFields):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-provider"


class ProviderInUse(DevaipodError):
    """Projects or routes use the provider; the message names them."""

    code = "provider-in-use"

    def __init__(self, message: str) -> None:
        super().__init__(
            message, next_step="Choose another provider in those projects and routes first."
        )


def save(
    by: User,
    provider: Provider | None,
    *,
    name: str,
    base_url: str = "",
    kind: str = "",
    credential: str = "",
    forget_credential: bool = False,
) -> Provider:
    """Add a provider (`provider` None) or change one.

    An empty `credential` keeps what is there, an empty `kind` too (OpenAI-compatible for a new one), and an empty address is the
    maker's own where the kind has one. Raises InvalidProvider.
    """
    made = provider is None
    row = provider or Provider(kind=ProviderKind.OPENAI)
    kind = kind or row.kind
    errors: dict[str, str] = {}
    name = " ".join(name.split())
    if not name or len(name) > MAX_NAME:
        errors["name"] = f"A name has 1 to {MAX_NAME} characters."
    if kind not in ProviderKind.values:
        raise InvalidProvider({"kind": f"A kind is one of: {', '.join(ProviderKind.values)}."})
    base_url = _address(kind, base_url, errors)
    credential = credential.strip()
    _check_credential(kind, credential, errors)
    if errors:
        raise InvalidProvider(errors)
    changed = [
        label
        for label, old, new in (
            ("name", row.name, name),
            ("kind", row.kind, kind),
            ("base_url", row.base_url, base_url),
        )
        if old != new
    ]
    moved = {"base_url", "kind"} & set(changed)
    if moved and not made and row.credential and not (credential or forget_credential):
        # Whoever may edit the address could otherwise have the stored key sent to a server of their own.
        raise InvalidProvider(
            {
                "credential": "The address or kind changed: enter its key again, so that the old key is not sent there."
            }
        )
    row.name, row.kind, row.base_url = name, kind, base_url
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
                detail={"kind": row.kind, "base_url": row.base_url, "changed": changed},
            )
    except IntegrityError:
        raise InvalidProvider({"name": f"There is a provider {name} already."}) from None
    return row


def _address(kind: str, base_url: str, errors: dict[str, str]) -> str:
    if kind == ProviderKind.DEMO:
        if base_url.strip():
            errors["base_url"] = "The scripted demo is built in: it has no address."
        return ""
    base_url = base_url.strip() or ADDRESSES.get(kind, "")
    try:
        base_url = guard.check_url(base_url)
    except ForgeError as error:
        errors["base_url"] = error.sentence
        return base_url
    if kind == ProviderKind.VERTEX and "/locations/" not in base_url:
        errors["base_url"] = (
            "Of Vertex AI the address names project and location: "
            "https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/locations/LOCATION"
        )
    return base_url


def _check_credential(kind: str, credential: str, errors: dict[str, str]) -> None:
    if not credential:
        return
    if kind == ProviderKind.DEMO:
        errors["credential"] = "The scripted demo needs no key."
    elif kind == ProviderKind.VERTEX:
        try:
            vertex.credentials_of(credential)
        except vertex.InvalidKey as error:
            errors["credential"] = f"{error}"
    elif not credential.isprintable() or " " in credential or len(credential) > MAX_KEY:
        errors["credential"] = "This is not a key: it has spaces or line breaks, or is too long."
    if len(credential) > MAX_CREDENTIAL:
        errors["credential"] = "This is not a key: it is too long."


def remove(by: User, provider: Provider) -> None:
    """Remove a provider that no project and no route uses. Raises ProviderInUse."""
    names = list(Project.objects.filter(provider=provider).values_list("name", flat=True)[:5])
    if names:
        raise ProviderInUse(
            f"{', '.join(names)} {'uses' if len(names) == 1 else 'use'} this provider: choose another one there first."
        )
    patterns = [route.pattern for route in routes_of(provider)[:5]]
    if patterns:
        raise ProviderInUse(
            f"{'The route' if len(patterns) == 1 else 'The routes'} {', '.join(patterns)} "
            f"{'leads' if len(patterns) == 1 else 'lead'} here: choose another provider there first."
        )
    with transaction.atomic():
        audit.write(by, "provider.removed", target=provider.name)
        provider.delete()


def routes_of(provider: Provider) -> list[Route]:
    """The routes that lead to a provider, or fall back on it."""
    return [
        route
        for route in Route.objects.all()
        if route.provider_id == provider.pk
        or any(fallback["provider"] == provider.key for fallback in route.fallbacks)
    ]
