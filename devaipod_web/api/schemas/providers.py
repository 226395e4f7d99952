"""Schemas of the providers of models."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from ninja import Schema

from devaipod_web.api.schemas.common import Body, doc, optional
from devaipod_web.llm.models import Provider

Kind = Literal["openai", "anthropic", "gemini", "vertex", "demo"]


class ProviderOut(Schema):
    """A provider of models, without its credential."""

    key: str = doc("The provider's public key.", "m4kz7q2xab")
    name: str = doc("Its name.", "Team models")
    kind: Kind = doc("What it is: which wire forms it speaks, and how it takes its key.", "openai")
    base_url: str = doc("The address that requests go to.", "https://models.example/v1")
    has_credential: bool = doc("Whether a key is set. The key itself is never shown.", True)
    created_at: datetime = doc("When it was added, RFC 3339.", "2026-11-01T09:30:00Z")

    @staticmethod
    def resolve_has_credential(obj: Provider) -> bool:
        return bool(obj.credential)


class ProviderIn(Body):
    """A new provider."""

    name: str = doc("Its name; no other provider has it.", "Team models", max_length=80)
    kind: Kind = doc("What it is.", "openai", "openai")
    base_url: str = doc(
        "Its base address. OpenAI-compatible ones usually end in /v1; empty is the maker's own for `anthropic` and `gemini`.",
        "https://models.example/v1",
        "",
        max_length=500,
    )
    credential: str = doc(
        "Its key; of `vertex` the JSON key of a service account. Encrypted at rest, sent to this address alone, never shown.",
        "sk-…",
        "",
        max_length=16000,
    )


class ProviderChanges(Body):
    """What is to change of a provider; fields that are not named stay. A new address needs the key again."""

    name: str | None = optional("A new name.", "Team models", max_length=80)
    kind: Kind | None = optional("Another kind.", "openai")
    base_url: str | None = optional("A new address.", "https://models.example/v1", max_length=500)
    credential: str | None = optional(
        "A new key; empty forgets the one that is set.", "sk-…", max_length=16000
    )


class TestedOut(Schema):
    """What a provider answered to the test."""

    ok: bool = doc("Whether it answered as its kind does, and took the key.", True)
    message: str = doc("What it answered, in a sentence.", "It answers and offers 12 models.")
    next_step: str = doc("What to do, or empty.", "")
    milliseconds: int = doc("How long it took.", 184)
    models: list[str] = doc("The models that it offers.", ["gpt-4o"])


class ResealedOut(Schema):
    """What came of sealing the stored secrets anew."""

    sealed: int = doc("How many were sealed with the first key.", 3)
    unreadable: list[str] = doc("Which no key opens; they stay as they are.", [])
