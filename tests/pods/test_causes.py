from __future__ import annotations

import pytest

from pods.causes import agent_ended, command_ended
from pods.command import EXIT_NO_WORKDIR
from pods.reports import ContainerReport

GIB = 1024**3


@pytest.mark.parametrize(
    ("code", "oom", "finding", "said"),
    [
        (3, False, "agent-exited", "The command ended with exit code 3. Its last words: no / such / thing"),
        (130, False, "agent-exited", "exit code 130 by SIGINT."),
        (137, False, "agent-exited", "exit code 137 by SIGKILL."),
        (137, True, "out-of-memory", "used more memory than it may (2.0 GiB; exit code 137)"),
        (255, False, "agent-exited", "exit code 255."),
        (None, False, "agent-exited", "its exit code is not known"),
    ],
)  # fmt: skip
def test_why_a_command_ended(code, oom, finding, said):
    seen = ContainerReport(
        "agent",
        "exited",
        exit_code=code,
        oom_killed=oom,
        logs=("more", "no", "such", "thing"),
    )
    found = command_ended(code, seen, memory_bytes=2 * GIB)
    assert found.code == finding
    assert said in found.message
    assert found.next_step


def test_a_command_of_which_nothing_is_left_is_said_to_have_ended():
    assert "not known" in command_ended(None, None, memory_bytes=GIB).message


def test_a_folder_that_is_not_there_is_named_as_the_cause():
    seen = ContainerReport("agent", "exited", exit_code=EXIT_NO_WORKDIR, logs=("no folder x",))
    found = agent_ended(seen, program="make", memory_bytes=GIB)
    assert "folder to begin in" in found.message
    assert "no folder x" in found.message
