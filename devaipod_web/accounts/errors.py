"""What a person is told when something about people or tokens could not be done.

AccountError
├── LinkSpent          the sign-in link was used, is too old, or never was
├── TooManyAttempts    sign-in is closed for a while
├── LastManager        nobody would be left who may manage people
├── BadName            a name that is taken or cannot be one
├── BadLifetime        a token would count for too long
└── BeyondOwnReach     a token would be allowed more than whoever makes it
"""

from __future__ import annotations

from devaipod_web.errors import DevaipodError


class AccountError(DevaipodError):
    """Something about people or tokens could not be done. `message` is a sentence, `next_step` another."""

    code = "account-error"
    status = 409


class LinkSpent(AccountError):
    """The sign-in link was used before, is too old, or never was: make another one."""

    code = "link-spent"
    status = 410


class TooManyAttempts(AccountError):
    """Sign-in is closed for a while for this name from this address, or for this address."""

    code = "too-many-attempts"
    status = 429


class LastManager(AccountError):
    """The change would leave nobody who may manage people: make somebody else a manager first."""

    code = "last-manager"


class BadName(AccountError):
    """A name that is taken, empty or too long."""

    code = "bad-name"
    status = 400


class BadLifetime(AccountError):
    """A token would count for longer than the installation or the maker's role allows."""

    code = "bad-lifetime"
    status = 400


class BeyondOwnReach(AccountError):
    """A token would be allowed more than whoever makes it: a higher role, or another project."""

    code = "beyond-own-reach"
    status = 403
