"""Whether the installation takes new runs. Imports nothing of other rooms: launching asks it."""

from __future__ import annotations

from datetime import datetime

from devaipod_web.accounts.models import User
from devaipod_web.health.models import Drain

#: The one row's key.
ONE = 1


def since() -> datetime | None:
    """Since when no new run is taken; None while runs are taken."""
    return Drain.objects.filter(pk=ONE).values_list("at", flat=True).first()


def begin(by: User) -> bool:
    """Take no new runs from here on. False when it was so already. The caller writes the audit entry."""
    _, made = Drain.objects.get_or_create(pk=ONE, defaults={"by": by})
    return made


def end() -> bool:
    """Take runs again. False when it was so already."""
    gone, _ = Drain.objects.filter(pk=ONE).delete()
    return bool(gone)
