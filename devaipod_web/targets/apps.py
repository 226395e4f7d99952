"""The room as Django knows it: after each migration the targets that are there by themselves are there."""

from __future__ import annotations

import contextlib
from typing import Any

from django.apps import AppConfig
from django.db import DatabaseError, transaction
from django.db.models.signals import post_migrate


class TargetsConfig(AppConfig):
    """`devaipod_web.targets`."""

    name = "devaipod_web.targets"

    def ready(self) -> None:
        """Have the settings' targets made at setup, which always migrates."""
        post_migrate.connect(_after_migrate, sender=self)


def _after_migrate(sender: AppConfig, **_: Any) -> None:
    from devaipod_web.targets.services import ensure_own

    # A migration to an earlier state may have taken the table away.
    with contextlib.suppress(DatabaseError), transaction.atomic():
        ensure_own()
