"""The states of a run and the one table of moves between them."""

from __future__ import annotations

from django.db import models


class State(models.TextChoices):
    """Where a run is. The words are the same in the database, the API, the CLI and on the pages."""

    QUEUED = "queued"
    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    TIMED_OUT = "timed_out", "timed out"


class Cause(models.TextChoices):
    """Why a run is paused, where programs must tell it apart; the sentence for people is the reason."""

    BUDGET = "budget"  # a hard limit was met
    LOOP = "loop"  # it repeats itself
    PERSON = "person"


ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.STOPPED, State.TIMED_OUT})
#: States in which a run holds one of the MAX_RUNS places; a paused one while it has a pod.
ACTIVE = frozenset({State.PREPARING, State.STARTING, State.RUNNING, State.WAITING, State.PAUSED})
#: States in which an agent is at work or stands still in the middle of it.
WORKING = frozenset({State.RUNNING, State.WAITING, State.PAUSED})

_STOPS = {State.STOPPED, State.FAILED, State.TIMED_OUT}

#: From each state, the states that a run may move to. `preparing` from an active state is a new attempt
#: after a pod was lost; `queued` from an ended one is a follow-up prompt, from `paused` a resumption whose pod is gone, from `preparing`
#: and `starting` a run whose target had no room after all.
#: `succeeded` from `paused` is for commands, which run on.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.PREPARING, *_STOPS}),
    State.PREPARING: frozenset({State.STARTING, State.QUEUED, *_STOPS}),
    State.STARTING: frozenset({State.RUNNING, State.PREPARING, State.QUEUED, *_STOPS}),
    State.RUNNING: frozenset(
        {State.WAITING, State.PAUSED, State.SUCCEEDED, State.PREPARING, *_STOPS}
    ),
    State.WAITING: frozenset(
        {State.RUNNING, State.PAUSED, State.SUCCEEDED, State.PREPARING, *_STOPS}
    ),
    State.PAUSED: frozenset({State.RUNNING, State.QUEUED, State.SUCCEEDED, *_STOPS}),
    State.SUCCEEDED: frozenset({State.QUEUED, State.RUNNING}),
    State.FAILED: frozenset({State.QUEUED}),
    State.STOPPED: frozenset({State.QUEUED}),
    State.TIMED_OUT: frozenset({State.QUEUED}),
}
