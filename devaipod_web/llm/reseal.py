"""Seal every stored secret anew with the first of the encryption keys, so that an old key can go."""

from __future__ import annotations

from dataclasses import dataclass

from django.apps import apps
from django.db import transaction

from devaipod_web.accounts.models import User
from devaipod_web.llm import vault
from devaipod_web.reviews import audit

#: Columns that hold what `vault.seal` made, by model. What the API remembers of an answer for a day (`api.once`) is not worth keeping.
SEALED = (
    ("llm.Provider", "credential"),
    ("targets.Target", "kubeconfig"),
    ("webhooks.Webhook", "secret"),
    ("webhooks.Webhook", "previous_secret"),
)


@dataclass(frozen=True)
class Resealed:
    """How many secrets were sealed anew, and which could not be read with any of the keys."""

    sealed: int
    unreadable: tuple[str, ...]


def reseal(by: User) -> Resealed:
    """Seal all secrets anew, in one transaction. What no key opens stays as it is and is named."""
    sealed, unreadable = 0, []
    with transaction.atomic():
        for label, column in SEALED:
            model = apps.get_model(label)
            for row in model._default_manager.select_for_update().order_by("pk"):
                value = getattr(row, column)
                if not value:
                    continue
                try:
                    setattr(row, column, vault.reseal(bytes(value)))
                except vault.CannotUnseal:
                    unreadable.append(f"{model._meta.verbose_name} {row}")
                    continue
                row.save(update_fields=[column])
                sealed += 1
        audit.write(
            by, "secrets.resealed", detail={"sealed": sealed, "unreadable": len(unreadable)}
        )
    return Resealed(sealed, tuple(unreadable))
