"""Schemas of the providers of models."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ninja import Schema

from devaipod_web.api.schemas.common import Body, doc, optional
from devaipod_web.llm.models import Provider


class ProviderOut(Schema):
    """A provider of models, without its credential."""

    key: str = doc("The provider's public key.", "m4kz7q2xab")
    name: str = doc("Its name.", "Team models")
    kind: Literal["openai", "demo"] = doc("The wire form that it speaks.", "openai")
    base_url: str = doc("The address that requests go to.", "https://models.example/v1")
    has_credential: bool = doc("Whether a key is set. The key itself is never shown.", True)
    created_at: datetime = doc("When it was added, RFC 3339.", "2026-11-01T09:30:00Z")

    @staticmethod
    def resolve_has_credential(obj: Provider) -> bool:
        return bool(obj.credential)


class ProviderIn(Body):
    """A new provider."""

    name: str = doc("Its name; no other provider has it.", "Team models", max_length=80)
    base_url: str = doc(
        "The base address of an OpenAI-compatible provider, usually ending in /v1.",
        "https://models.example/v1",
        max_length=500,
    )
    credential: str = doc(
        "Its key. Encrypted at rest, sent to this address alone, never shown.",
        "sk-…",
        "",
        max_length=4000,
    )


class ProviderChanges(Body):
    """What is to change of a provider; fields that are not named stay. A new address needs the key again."""

    name: str | None = optional("A new name.", "Team models", max_length=80)
    base_url: str | None = optional("A new address.", "https://models.example/v1", max_length=500)
    credential: str | None = optional(
        "A new key; empty forgets the one that is set.", "sk-…", max_length=4000
    )
