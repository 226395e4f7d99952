"""What a person is told when something about a run could not be done.

RunError
├── IllegalTransition    no row of TRANSITIONS leads there
├── AlreadyAnswered      somebody else answered the permission request first
├── NotNow               the run is in a state in which this cannot be done
├── Taken                another run that has not ended has what was to be unique
├── NotYours             it is another person's, and the role is not enough for that
├── BackendSilent        what runs the containers does not answer
├── Draining             the installation takes no new runs
└── BadRequest           what was asked for contradicts itself
"""

from __future__ import annotations

from devaipod_web.errors import DevaipodError


class RunError(DevaipodError):
    """Something about a run could not be done. `message` is a sentence, `next_step` another; both are shown."""

    code = "run-error"
    status = 409


class IllegalTransition(RunError):
    """No row of TRANSITIONS leads there: a programming error, or a request that came too late."""

    code = "illegal-transition"


class AlreadyAnswered(RunError):
    """The permission request has been answered; the message says by whom and how."""

    code = "already-answered"


class NotNow(RunError):
    """The run is in a state in which this cannot be done."""

    code = "not-now"


class Taken(RunError):
    """Another run that has not ended has the label that was to be unique."""

    code = "already-exists"


class Draining(RunError):
    """The installation was taken out of work (`devaipod teardown`) and takes no new runs."""

    code = "draining"
    status = 503

    def __init__(self) -> None:
        super().__init__(
            "This installation takes no new runs: it was taken out of work.",
            next_step="A manager takes it into work again: `devaipod setup`, or on the page Services.",
        )


class BadRequest(RunError):
    """What was asked for contradicts itself or exceeds a limit."""

    code = "bad-request"
    status = 400


class NotYours(RunError):
    """The run is another person's, and the caller's role is not enough for that."""

    code = "not-yours"
    status = 403


class BackendSilent(RunError):
    """What runs the containers does not answer, or refused: the message says why."""

    code = "backend-unavailable"
    status = 503
