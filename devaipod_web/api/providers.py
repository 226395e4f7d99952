"""Providers of models over the API. A provider's key goes in and never comes out."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router
from ninja.responses import Status

from devaipod_web.api.auth import caller
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.providers import (
    ProviderChanges,
    ProviderIn,
    ProviderOut,
    ResealedOut,
    TestedOut,
)
from devaipod_web.llm import provider_test as tester
from devaipod_web.llm import providers, reseal
from devaipod_web.llm.models import Provider

router = Router(tags=["providers"])


def find(key: str) -> Provider:
    """The provider of this key. Raises Http404."""
    provider = Provider.objects.filter(key=key).first()
    if provider is None:
        raise nothing("provider", key)
    return provider


@operation(router, "GET", "", operation_id="providers_list", response=list[ProviderOut])
def providers_list(request: HttpRequest) -> list[Provider]:
    """List the providers of models, by name."""
    return list(Provider.objects.order_by("name"))


@operation(
    router,
    "POST",
    "",
    operation_id="provider_create",
    response={201: ProviderOut},
    once=True,
)
def provider_create(request: HttpRequest, body: ProviderIn) -> Any:
    """Add a provider.

    Its key is encrypted at rest and shown never.
    """
    return Status(201, providers.save(caller(request), None, **body.model_dump()))


@operation(router, "POST", "/reseal", operation_id="providers_reseal", response=ResealedOut)
def providers_reseal(request: HttpRequest) -> reseal.Resealed:
    """Seal the stored secrets anew.

    With the first of the server's encryption keys, after which the others may go. What no key opens stays and is named.
    """
    return reseal.reseal(caller(request))


@operation(router, "GET", "/{key}", operation_id="provider_get", response=ProviderOut)
def provider_get(request: HttpRequest, key: str) -> Provider:
    """One provider."""
    return find(key)


@operation(router, "PATCH", "/{key}", operation_id="provider_update", response=ProviderOut)
def provider_update(request: HttpRequest, key: str, body: ProviderChanges) -> Provider:
    """Change a provider.

    Fields that are not named stay. With a new address its key must be given again, so that the old one is not sent there.
    """
    provider = find(key)
    return providers.save(
        caller(request),
        provider,
        name=body.name if body.name is not None else provider.name,
        kind=body.kind or "",
        base_url=body.base_url if body.base_url is not None else provider.base_url,
        credential=body.credential or "",
        forget_credential=body.credential == "",
    )


@operation(
    router,
    "DELETE",
    "/{key}",
    operation_id="provider_delete",
    response={204: None},
    problems=(409,),
)
def provider_delete(request: HttpRequest, key: str) -> Any:
    """Remove a provider.

    Refused (409) while a project or a route uses it.
    """
    providers.remove(caller(request), find(key))
    return Status(204, None)


@operation(router, "POST", "/{key}/test", operation_id="provider_test", response=TestedOut)
def provider_test(request: HttpRequest, key: str) -> tester.Tested:
    """Test a provider.

    Asks it for its models, with the stored key, as a run would (Vertex AI: for a count of tokens). It costs nothing and takes at
    most some ten seconds.
    """
    return tester.test(find(key))
