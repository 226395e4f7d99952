"""What a person is told when something about the installation as a whole could not be done.

HealthError
├── NoSuchService      no service of that name
├── NoRestart          it has nothing that could be restarted from here; the message says what to do instead
├── NotRestarted       it was tried and went wrong, or nobody did it in time
└── WrongInstallation  teardown was asked for with the id of another installation
"""

from __future__ import annotations

from devaipod_web.errors import DevaipodError


class HealthError(DevaipodError):
    """`message` is a sentence, `next_step` another; both are shown."""

    code = "health-error"
    status = 409


class NoSuchService(HealthError):
    """No service has this name now."""

    code = "no-such-service"
    status = 404


class NoRestart(HealthError):
    """The service can't be restarted from here."""

    code = "no-restart"


class NotRestarted(HealthError):
    """The restart was tried and failed, or its process did not get to it."""

    code = "not-restarted"
    status = 503


class WrongInstallation(HealthError):
    """The id that confirms is another's."""

    code = "wrong-installation"
    status = 400
