"""The real sidecar beside a command: it says when the program runs, learns how it ended, stages, and never runs it twice."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess

import pytest

from pods import command
from tests.pods.test_command import contained
from tests.sidecar.rig import Rig

pytestmark = pytest.mark.slow


@pytest.fixture
def commanded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig whose run executes a command."""
    rig.gateway.config["agent"] = "command"
    monkeypatch.setattr(command, "STDIO_DIR", str(rig.folder / "stdio"))
    return rig


async def begin(rig: Rig, script: str, *, interactive: bool = False) -> None:
    """Everything up to the program's start, but for the prompt that starts it."""
    if rig.gateway._runner is None:
        await rig.gateway.start()
    await rig.start_sidecar()
    await rig.gateway.wait("workspace.ready", count=len(rig.gateway.hellos) or 1)
    entry = command.entry_argv(
        ["sh", "-c", script], workdir=str(rig.workspace), interactive=interactive
    )
    rig.agent = await asyncio.create_subprocess_exec(
        *contained(),
        *entry,
        stdout=subprocess.DEVNULL,
        stderr=(rig.folder / "agent.log").open("ab"),
        env={"PATH": os.environ["PATH"]},
    )


async def test_a_command_runs_once_is_staged_and_its_exit_code_is_said(commanded: Rig) -> None:
    await begin(commanded, "echo hello > made.txt; exit 3")
    await commanded.gateway.wait("session.started")
    assert not commanded.gateway.of("turn.started")
    await commanded.gateway.command("prompt", turn=1, text="")
    ended = await commanded.gateway.wait("turn.ended", turn=1)
    assert (ended["stop_reason"], ended["exit_code"]) == ("exited", 3)
    staged = await commanded.gateway.wait("work.staged", turn=1)
    assert staged["pushed"] is True
    assert commanded.pushed("made.txt") == "hello"


async def test_the_sidecar_waits_for_what_becomes_of_the_run_however_long_the_gateway_is_away(
    commanded: Rig,
) -> None:
    await begin(commanded, "sleep 1; echo late > late.txt")
    await commanded.gateway.wait("session.started")
    await commanded.gateway.command("prompt", turn=1, text="")
    await commanded.gateway.wait("turn.started")
    await commanded.gateway.stop()
    await asyncio.sleep(2.5)
    await commanded.gateway.start()
    ended = await commanded.gateway.wait("turn.ended", turn=1)
    assert ended["exit_code"] == 0
    await commanded.gateway.wait("work.staged", turn=1)
    assert commanded.pushed("late.txt") == "late"
    assert commanded.sidecar is not None
    assert commanded.sidecar.returncode is None


async def test_an_attempt_after_the_commands_end_stages_and_does_not_run_it_again(
    commanded: Rig,
) -> None:
    script = "echo once >> runs.txt"
    await begin(commanded, script)
    await commanded.gateway.wait("session.started")
    await commanded.gateway.command("prompt", turn=1, text="")
    await commanded.gateway.wait("work.staged", turn=1)
    assert commanded.sidecar is not None
    commanded.sidecar.send_signal(signal.SIGKILL)
    await commanded.sidecar.wait()
    # What a new attempt finds: its own numbers and token, the same state and workspace.
    (commanded.folder / "token" / "control").write_text("control-token \n")
    commanded.gateway.commands.clear()
    commanded.gateway.events.clear()
    await begin(commanded, script)
    await commanded.gateway.command("prompt", turn=1, text="")
    commanded.gateway.commands[0]["number"] = 2
    ended = await commanded.gateway.wait("turn.ended", turn=1)
    assert ended["exit_code"] == 0
    await commanded.gateway.wait("work.staged", turn=1)
    assert commanded.pushed("runs.txt") == "once"


async def test_a_stop_asks_the_command_to_end_and_stages_what_it_then_leaves(
    commanded: Rig,
) -> None:
    await begin(commanded, "trap 'echo bye > bye.txt; exit 0' TERM; while :; do sleep 0.1; done")
    await commanded.gateway.wait("session.started")
    await commanded.gateway.command("prompt", turn=1, text="")
    await commanded.gateway.wait("turn.started")
    await asyncio.sleep(0.3)
    await commanded.gateway.command("stop", reason="enough")
    assert commanded.sidecar is not None
    assert await asyncio.wait_for(commanded.sidecar.wait(), 30) == 0
    assert commanded.gateway.of("turn.ended")[0]["exit_code"] == 0
    assert commanded.pushed("bye.txt") == "bye"


async def test_a_command_that_will_not_end_is_killed_and_staged(commanded: Rig) -> None:
    await begin(commanded, "trap '' TERM; echo half > half.txt; while :; do sleep 0.1; done")
    await commanded.gateway.wait("session.started")
    await commanded.gateway.command("prompt", turn=1, text="")
    await commanded.gateway.wait("turn.started")
    await asyncio.sleep(0.3)
    await commanded.gateway.command("stop", reason="enough")
    assert commanded.sidecar is not None
    assert await asyncio.wait_for(commanded.sidecar.wait(), 40) == 0
    assert commanded.gateway.of("turn.ended")[0]["exit_code"] == 137
    assert commanded.pushed("half.txt") == "half"


async def test_input_reaches_an_interactive_command_and_a_cancel_interrupts_it(
    commanded: Rig,
) -> None:
    await begin(
        commanded,
        "trap 'exit 130' INT; read line; echo $line > said.txt; while :; do sleep 0.1; done",
        interactive=True,
    )
    await commanded.gateway.wait("session.started")
    early = await commanded.gateway.command("input", text="too early\n")
    await commanded.gateway.wait("command.refused", command=early["id"])
    await commanded.gateway.command("prompt", turn=1, text="")
    await commanded.gateway.wait("turn.started")
    sent = await commanded.gateway.command("input", text="hello there\n")
    await commanded.gateway.wait("command.applied", command=sent["id"])
    said = commanded.workspace / "said.txt"
    while not said.exists() or not said.read_text():  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.05)
    await commanded.gateway.command("cancel")
    ended = await commanded.gateway.wait("turn.ended")
    assert ended["exit_code"] == 130
    await commanded.gateway.wait("work.staged", turn=1)
    assert commanded.pushed("said.txt") == "hello there"


async def test_a_command_that_reads_nothing_holds_up_no_stop(commanded: Rig) -> None:
    await begin(commanded, "sleep 60", interactive=True)
    await commanded.gateway.wait("session.started")
    await commanded.gateway.command("prompt", turn=1, text="")
    await commanded.gateway.wait("turn.started")
    sent = [await commanded.gateway.command("input", text="x" * 30_000) for _ in range(6)]
    await commanded.gateway.wait("command.refused", command=sent[-1]["id"])
    assert "does not read" in commanded.gateway.of("command.refused")[0]["reason"]
    await commanded.gateway.command("stop", reason="enough")
    assert commanded.sidecar is not None
    assert await asyncio.wait_for(commanded.sidecar.wait(), 20) == 0


async def test_a_container_that_dies_without_a_word_is_said_without_an_exit_code(
    commanded: Rig,
) -> None:
    await begin(commanded, "echo part > part.txt; sleep 60")
    await commanded.gateway.wait("session.started")
    await commanded.gateway.command("prompt", turn=1, text="")
    await commanded.gateway.wait("turn.started")
    await asyncio.sleep(0.3)
    assert commanded.agent is not None
    commanded.agent.send_signal(signal.SIGKILL)
    ended = await commanded.gateway.wait("turn.ended")
    assert ended["stop_reason"] == "exited"
    assert "exit_code" not in ended
    await commanded.gateway.wait("work.staged", turn=1)
    assert commanded.pushed("part.txt") == "part"


async def test_a_command_that_fills_the_way_of_signals_holds_up_no_stop(commanded: Rig) -> None:
    # It takes the reader of the words away and fills what the sidecar would write into.
    fill = f"kill -9 $(ps -o pid= --ppid 1 | grep -v $$) 2>/dev/null; timeout 2 sh -c 'yes x > {commanded.folder}/stdio/in'"
    await begin(commanded, f"echo part > part.txt; {fill}; echo full > full.txt; sleep 60")
    await commanded.gateway.wait("session.started")
    await commanded.gateway.command("prompt", turn=1, text="")
    full = commanded.workspace / "full.txt"
    while not full.exists():  # noqa: ASYNC110 - a file tells nobody
        await asyncio.sleep(0.05)
    await commanded.gateway.command("stop", reason="enough")
    assert commanded.sidecar is not None
    assert await asyncio.wait_for(commanded.sidecar.wait(), 40) == 0
    assert commanded.gateway.of("turn.ended")[0]["stop_reason"] == "cancelled"
    assert commanded.pushed("part.txt") == "part"
