from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from devaipod_web.runs.states import State
from devaipod_web.runs.supervisor.watch import Facts, What, decide
from pods.spec import ContainerState, Phase, PodState

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
AT_WORK = Facts(
    state=State.RUNNING,
    now=NOW,
    deadline_at=NOW + timedelta(hours=1),
    keep_warm_until=None,
    last_event_at=NOW,
    is_stuck=False,
    session_at=NOW - timedelta(minutes=5),
    stop_asked=False,
    turn_started=True,
    turn_ended_at=None,
    turn_staged=False,
    prompts_wait=False,
)


def pod(sidecar=Phase.RUNNING, agent=Phase.RUNNING, ago=60.0):
    def container(name, phase):
        finished = NOW - timedelta(seconds=ago) if phase is Phase.EXITED else None
        return ContainerState(name, name, phase, "image", exit_code=1, finished_at=finished)

    return PodState(
        "p",
        "id",
        {},
        NOW,
        {"sidecar": container("sidecar", sidecar), "agent": container("agent", agent)},
    )


ENDED = replace(AT_WORK, turn_ended_at=NOW - timedelta(seconds=30))
COMMAND = replace(AT_WORK, is_command=True)
COMMAND_ENDED = replace(ENDED, is_command=True, turn_staged=True)


@pytest.mark.parametrize(
    ("facts", "seen", "what"),
    [
        (AT_WORK, pod(), What.NOTHING),
        (replace(AT_WORK, deadline_at=NOW), pod(), What.TIME_OUT),
        (replace(AT_WORK, state=State.WAITING, deadline_at=NOW), pod(), What.TIME_OUT),
        (AT_WORK, None, What.LOST),
        (AT_WORK, pod(sidecar=Phase.EXITED), What.LOST),
        (AT_WORK, pod(sidecar=Phase.CREATED), What.LOST),
        (AT_WORK, pod(agent=Phase.EXITED), What.AGENT_ENDED),
        (AT_WORK, pod(agent=Phase.EXITED, ago=1), What.NOTHING),
        (ENDED, pod(agent=Phase.EXITED), What.NOTHING),
        (replace(ENDED, prompts_wait=True), pod(agent=Phase.EXITED), What.AGENT_ENDED),
        # Its end is known to its sidecar, which may have been waiting for us for hours.
        (COMMAND, pod(agent=Phase.EXITED, ago=7200), What.NOTHING),
        (
            replace(COMMAND, last_event_at=NOW - timedelta(hours=2)),
            pod(agent=Phase.EXITED, ago=7200),
            What.STUCK,
        ),
        (replace(COMMAND, last_event_at=NOW - timedelta(hours=2)), pod(), What.NOTHING),
        (COMMAND, pod(agent=Phase.EXITED, sidecar=Phase.EXITED), What.LOST),
        (replace(COMMAND, turn_started=False), pod(agent=Phase.EXITED), What.AGENT_ENDED),
        (replace(COMMAND, deadline_at=NOW), pod(), What.TIME_OUT),
        (replace(COMMAND_ENDED, turn_staged=False), pod(agent=Phase.EXITED), What.NOTHING),
        (COMMAND_ENDED, pod(agent=Phase.EXITED), What.COMMAND_ENDED),
        (COMMAND_ENDED, pod(sidecar=Phase.EXITED, agent=Phase.EXITED), What.COMMAND_ENDED),
        (COMMAND_ENDED, None, What.COMMAND_ENDED),
        (replace(AT_WORK, last_event_at=NOW - timedelta(minutes=6)), pod(), What.STUCK),
        (
            replace(AT_WORK, last_event_at=NOW - timedelta(minutes=6), is_stuck=True),
            pod(),
            What.NOTHING,
        ),
        (
            replace(AT_WORK, state=State.WAITING, last_event_at=NOW - timedelta(minutes=6)),
            pod(),
            What.NOTHING,
        ),
        (
            replace(AT_WORK, state=State.WAITING, keep_warm_until=NOW),
            pod(),
            What.END_CANCELLED,
        ),
        (
            replace(AT_WORK, state=State.WAITING, keep_warm_until=NOW + timedelta(minutes=5)),
            pod(sidecar=Phase.EXITED),
            What.END_CANCELLED,
        ),
        (ENDED, pod(), What.NOTHING),
        (replace(ENDED, turn_ended_at=NOW - timedelta(minutes=6)), pod(), What.NOT_STAGED),
        (
            replace(
                ENDED,
                turn_ended_at=NOW - timedelta(minutes=6),
                session_at=NOW - timedelta(seconds=25),
            ),
            pod(),
            What.STAGE,
        ),
        (replace(ENDED, stop_asked=True), pod(sidecar=Phase.EXITED), What.NOT_STAGED),
    ],
)
def test_what_is_done_about_a_run_at_work(facts, seen, what):
    assert decide(facts, seen) is what
