from __future__ import annotations

import asyncio
import signal

import pytest

from tests.e2e.installation import git
from tests.sidecar.rig import BRANCH, RUN, Rig

pytestmark = pytest.mark.slow


async def test_a_turn_from_the_clone_to_the_push(rig: Rig):
    await rig.start()
    staged = await rig.prompt("hello there\nwrite notes.md kept\ncommit Add notes")
    kinds = [event["kind"] for event in rig.gateway.events]
    for kind in (
        "workspace.ready",
        "agent.initialized",
        "session.started",
        "turn.started",
        "command.applied",
    ):
        assert kind in kinds
    assert [event["source_seq"] for event in rig.gateway.events] == list(range(1, len(kinds) + 1))
    assert rig.gateway.of("message")[0]["text"] == "hello there\n"
    assert rig.gateway.of("tool_call")[0]["content"][0]["newText"] == "kept\n"
    assert rig.gateway.of("turn.ended") == [
        {
            "turn": 1,
            "stop_reason": "end_turn",
            "seconds": rig.gateway.of("turn.ended")[0]["seconds"],
        }
    ]
    assert staged["pushed"] is True
    assert staged["commits"] == 1
    assert staged["snapshot"] is False
    assert rig.pushed("notes.md") == "kept"


async def test_work_that_nobody_committed_is_staged_as_a_snapshot(rig: Rig):
    await rig.start()
    staged = await rig.prompt("write a/b.txt left behind")
    assert staged["snapshot"] is True
    assert rig.pushed("a/b.txt") == "left behind"
    assert "snapshot" in git("log", "-1", "--format=%s", BRANCH, cwd=rig.repository)
    assert git("log", "-1", "--format=%an", BRANCH, cwd=rig.repository) == "devaipod agent"


async def test_a_turn_without_a_change_pushes_nothing(rig: Rig):
    await rig.start()
    staged = await rig.prompt("only words")
    assert staged["pushed"] is False
    assert staged["head"] == rig.base
    assert BRANCH not in git("branch", "--list", "agent/*", cwd=rig.repository)


async def test_the_agent_may_push_by_itself_and_a_second_turn_goes_on(rig: Rig):
    await rig.start()
    await rig.prompt("write one.txt 1\ncommit One\npush")
    staged = await rig.prompt("write two.txt 2\ncommit Two", turn=2)
    assert staged["commits"] == 2
    assert set(rig.pushed().splitlines()) >= {"one.txt", "two.txt"}


async def test_rewritten_work_is_staged_and_the_earlier_head_is_kept(rig: Rig):
    await rig.start()
    first = (await rig.prompt("write one.txt 1\ncommit One"))["head"]
    git("reset", "-q", "--hard", rig.base, cwd=rig.workspace)
    second = (await rig.prompt("write two.txt 2\ncommit Two", turn=2))["head"]
    heads = git(
        "for-each-ref", "--format=%(objectname)", f"refs/heads/agent/{RUN}/", cwd=rig.repository
    )
    assert {first, second} <= set(heads.splitlines())
    assert git("rev-parse", BRANCH, cwd=rig.repository) == second


async def test_a_question_waits_for_its_answer(rig: Rig):
    await rig.start()
    await rig.gateway.command("prompt", turn=1, text="ask rm -rf build")
    question = await rig.gateway.wait("permission.requested")
    assert question["tool_call"]["title"] == "rm -rf build"
    assert [option["kind"] for option in question["options"]] == [
        "allow_once",
        "allow_always",
        "reject_once",
    ]
    await asyncio.sleep(0.3)
    assert not rig.gateway.of("turn.ended")
    await rig.gateway.command(
        "permission", request_id=question["request_id"], outcome="selected", option_id="once"
    )
    await rig.gateway.wait("turn.ended")
    assert rig.gateway.of("permission.resolved")[0]["option_id"] == "once"
    assert "answer: once" in "".join(m["text"] for m in rig.gateway.of("message"))
    second = await rig.gateway.command(
        "permission", request_id=question["request_id"], outcome="selected", option_id="no"
    )
    refused = await rig.gateway.wait("command.refused", command=second["id"])
    assert "no such question any more" in refused["reason"]


async def test_a_cancel_ends_the_turn_and_its_question(rig: Rig):
    await rig.start()
    await rig.gateway.command("prompt", turn=1, text="ask something\nwrite after.txt yes")
    await rig.gateway.wait("permission.requested")
    await rig.gateway.command("cancel")
    ended = await rig.gateway.wait("turn.ended")
    assert ended["stop_reason"] == "cancelled"
    assert rig.gateway.of("permission.resolved")[0]["outcome"] == "cancelled"


async def test_stop_stages_the_work_and_exits_with_zero(rig: Rig):
    await rig.start()
    await rig.gateway.command("prompt", turn=1, text="write half.txt half\nask go on?")
    await rig.gateway.wait("permission.requested")
    stop = await rig.gateway.command("stop", reason="enough")
    assert rig.sidecar is not None
    assert await asyncio.wait_for(rig.sidecar.wait(), 30) == 0
    assert rig.pushed("half.txt") == "half"
    assert {"command": stop["id"]} in rig.gateway.of("command.applied")


async def test_sigterm_stages_the_work_too(rig: Rig):
    await rig.start()
    await rig.gateway.command("prompt", turn=1, text="write half.txt half\nask go on?")
    await rig.gateway.wait("permission.requested")
    assert rig.sidecar is not None
    rig.sidecar.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(rig.sidecar.wait(), 15) == 0
    assert rig.pushed("half.txt") == "half"


async def test_an_agent_that_dies_in_its_turn_leaves_its_work(rig: Rig):
    await rig.start()
    await rig.gateway.command("prompt", turn=1, text="write half.txt half\ndie 7")
    await rig.gateway.wait("agent.exited")
    assert rig.pushed("half.txt") == "half"
    assert not rig.gateway.of("turn.ended")


async def test_a_second_attempt_loads_the_session_and_keeps_the_workspace(rig: Rig):
    await rig.start()
    await rig.prompt("write one.txt 1")
    session = rig.gateway.of("session.started")[0]["session_id"]
    await rig.stop()
    rig.gateway.events.clear()
    # A new attempt has a token of its own, and so an outbox.
    (rig.folder / "token" / "control").write_text("second-token\n")
    (rig.workspace / "loose.txt").write_text("not staged yet\n")
    rig.gateway.config |= {"resume": True, "session_id": session, "attempt": 2}
    await rig.start()
    assert rig.gateway.of("workspace.ready")[0]["resumed"] is True
    assert rig.gateway.of("session.started")[0] == {
        "session_id": session,
        "how": "loaded",
        "context_lost": False,
    }
    rig.gateway.commands.clear()
    rig.gateway.commands.extend([{"number": 0, "id": "x"}] * 1)
    await rig.prompt("write two.txt 2", turn=2)
    assert set(rig.pushed().splitlines()) >= {"one.txt", "two.txt", "loose.txt"}


async def test_a_clone_that_fails_says_so_in_gits_words(rig: Rig):
    rig.gateway.config["base"] = "0" * 40
    await rig.gateway.start()
    await rig.start_sidecar()
    failed = await rig.gateway.wait("workspace.failed")
    assert "clone" in failed["message"]
    assert "0000000" in failed["output"]
    assert rig.sidecar is not None
    assert await asyncio.wait_for(rig.sidecar.wait(), 15) == 3


async def test_an_agent_of_another_protocol_is_named(rig: Rig):
    await rig.gateway.start()
    await rig.start_sidecar()
    await rig.gateway.wait("workspace.ready")
    await rig.start_agent(
        """python3 -c 'import json,sys
m = json.loads(sys.stdin.readline())
print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": {"protocolVersion": 99}}), flush=True)
sys.stdin.read()'"""
    )
    refused = await rig.gateway.wait("agent.refused")
    assert refused["stage"] == "version"
    assert "version 99" in refused["message"]


async def test_the_model_is_reached_through_the_proxy_with_the_runs_token(rig: Rig):
    await rig.start()
    await rig.prompt("call")
    assert '{"bytes":' in "".join(m["text"] for m in rig.gateway.of("message"))
    sent = [r for r in rig.gateway.requests if "/llm/" in r[1]]
    assert sent[0][1] == "/llm/v1/chat/completions"
    assert sent[0][2]["Authorization"] == "Bearer data-token"


async def test_something_else_where_a_fifo_should_be_is_refused(rig: Rig):
    (rig.folder / "stdio" / "out").symlink_to("/etc/passwd")
    await rig.gateway.start()
    await rig.start_sidecar()
    refused = await rig.gateway.wait("agent.refused")
    assert "cannot be opened as a FIFO" in refused["message"]


async def test_a_session_that_cannot_be_taken_up_is_said_to_be_lost(rig: Rig):
    rig.gateway.config |= {"session_id": "earlier"}
    await rig.gateway.start()
    await rig.start_sidecar()
    await rig.gateway.wait("workspace.ready")
    await rig.start_agent(
        """python3 -c 'import json,sys
for line in sys.stdin:
    m = json.loads(line)
    r = {"initialize": {"protocolVersion": 1}, "session/new": {"sessionId": "fresh"}}[m["method"]]
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": r}), flush=True)'"""
    )
    started = await rig.gateway.wait("session.started")
    assert started == {"session_id": "fresh", "how": "new", "context_lost": True}


async def test_history_that_an_agent_replays_at_load_is_not_stored_again(rig: Rig):
    rig.gateway.config |= {"session_id": "earlier"}
    await rig.gateway.start()
    await rig.start_sidecar()
    await rig.gateway.wait("workspace.ready")
    await rig.start_agent(
        """python3 -c 'import json,sys
def say(text):
    u = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text}}
    print(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": {"update": u}}))
for line in sys.stdin:
    m = json.loads(line)
    if m["method"] == "session/load": say("of yesterday")
    r = {"initialize": {"protocolVersion": 1, "agentCapabilities": {"loadSession": True}}}
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], "result": r.get(m["method"], {})}))
    if m["method"] == "session/load": say("of today")
    sys.stdout.flush()'"""
    )
    await rig.gateway.wait("message")
    assert [message["text"] for message in rig.gateway.of("message")] == ["of today"]


CHOOSY = """python3 -c 'import json,sys
heard = []
for line in sys.stdin:
    m = json.loads(line)
    heard.append(m["method"] + " " + str(m["params"].get("methodId") or m["params"].get("modeId") or ""))
    modes = {"currentModeId": "ask", "availableModes": [{"id": "ask"}, {"id": "go"}]}
    r = {"result": {"initialize": {"protocolVersion": 1, "authMethods": [{"id": "key"}, {"id": "login"}]},
         "session/new": {"sessionId": "s", "modes": modes}}.get(m["method"], {})}
    if m["method"] == "REFUSED":
        r = {"error": {"code": -32000, "message": "not like that"}}
    if m["method"] == "session/prompt":
        u = {"sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": ", ".join(heard)}}
        print(json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": {"update": u}}))
    print(json.dumps({"jsonrpc": "2.0", "id": m["id"], **r}), flush=True)'"""


@pytest.mark.parametrize(
    ("config", "refused", "heard", "note"),
    [
        (
            {"auth_method": "key", "session_mode": "go"},
            "",
            "initialize , authenticate key, session/new , session/set_mode go, session/prompt ",
            "",
        ),
        ({}, "", "initialize , session/new , session/prompt ", ""),
        (
            {"auth_method": "other", "session_mode": "ask"},
            "",
            "initialize , session/new , session/prompt ",
            "",
        ),
        (
            {"session_mode": "gone"},
            "",
            "initialize , session/new , session/prompt ",
            "not in its session mode gone: it offers ask, go",
        ),
        (
            {"session_mode": "go"},
            "session/set_mode",
            "initialize , session/new , session/set_mode go, session/prompt ",
            "not in its session mode go: not like that",
        ),
        (
            {"auth_method": "key"},
            "authenticate",
            "initialize , authenticate key, session/new , session/prompt ",
            "did not take the authentication key: not like that",
        ),
    ],
)
async def test_an_agent_is_authenticated_with_and_put_into_the_mode_that_its_profile_names(
    rig: Rig, config, refused, heard, note
):
    rig.gateway.config |= config
    await rig.gateway.start()
    await rig.start_sidecar()
    await rig.gateway.wait("workspace.ready")
    await rig.start_agent(CHOOSY.replace("REFUSED", refused))
    await rig.gateway.wait("session.started")
    await rig.gateway.command("prompt", turn=1, text="hello")
    await rig.gateway.wait("turn.ended")
    assert "".join(m["text"] for m in rig.gateway.of("message")) == heard
    notes = [one["message"] for one in rig.gateway.of("sidecar.note")]
    assert len(notes) == bool(note)
    assert all(note in one for one in notes)


async def test_a_stop_without_any_turn_stages_what_an_earlier_attempt_left(rig: Rig):
    await rig.start()
    (rig.workspace / "left.txt").write_text("left\n")
    await rig.gateway.command("stop", reason="the turn has ended: stage its work")
    staged = await rig.gateway.wait("work.staged")
    assert staged["turn"] == 0
    assert rig.pushed("left.txt") == "left"


async def test_an_agent_that_ignores_a_stop_has_its_turn_closed_and_its_work_staged(rig: Rig):
    await rig.start()
    await rig.gateway.command("prompt", turn=1, text="write half.txt half\nsleep 300")
    await rig.gateway.wait("tool_call")
    await rig.gateway.command("stop", reason="enough")
    assert rig.sidecar is not None
    assert await asyncio.wait_for(rig.sidecar.wait(), 40) == 0
    assert rig.gateway.of("turn.ended")[0]["stop_reason"] == "cancelled"
    assert rig.pushed("half.txt") == "half"
