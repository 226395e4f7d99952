"""Password sign-in is closed for a while after too many failures, by name and address and by address alone.

The two bounds together keep one guesser slow and the table small. A name is never closed for everybody: else a
stranger could lock a person out.
"""

from __future__ import annotations

import hashlib
from datetime import timedelta

from django.db.models import Count, Q
from django.utils import timezone

from devaipod_web.accounts.errors import TooManyAttempts
from devaipod_web.accounts.models import FailedSignIn

WINDOW = timedelta(minutes=15)
#: Failures in the window after which a name is closed to an address, and an address as a whole.
PER_NAME = 8
PER_ADDRESS = 40


def _digest(name: str) -> str:
    # People type passwords into the name's field: nothing readable is kept.
    return hashlib.sha256(name.strip().casefold().encode()).hexdigest()


def check(name: str, address: str) -> None:
    """Raise TooManyAttempts when this address may not try this name now."""
    since = timezone.now() - WINDOW
    failed = FailedSignIn.objects.filter(address=address, at__gt=since).aggregate(
        name=Count("pk", filter=Q(name_digest=_digest(name))), address=Count("pk")
    )
    if failed["name"] < PER_NAME and failed["address"] < PER_ADDRESS:
        return
    minutes = int(WINDOW.total_seconds() // 60)
    raise TooManyAttempts(
        "Too many sign-ins failed from this address.",
        next_step=f"Wait {minutes} minutes, or ask a manager for a sign-in link.",
    )


def failed(name: str, address: str) -> None:
    """Count a failure, and forget those that no longer count."""
    now = timezone.now()
    FailedSignIn.objects.filter(at__lt=now - WINDOW).delete()
    FailedSignIn.objects.create(name_digest=_digest(name), address=address, at=now)


def succeeded(name: str, address: str) -> None:
    """Forget the failures of this name from this address."""
    FailedSignIn.objects.filter(name_digest=_digest(name), address=address).delete()
