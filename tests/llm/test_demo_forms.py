"""The scripted demo, played in every wire form, whole and streamed, by an agent that really runs its tools."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devaipod_web.llm import demo, demo_read, demo_write
from devaipod_web.llm.demo_read import READERS
from tests.llm.languages import events
from tests.llm.test_demo import LABEL, OPENCODE, Agent, tool

TEXT = {"type": "string"}
CLAUDE = [
    tool("Bash", ["command"], command=TEXT, description=TEXT, timeout={"type": "number"}),
    tool("Read", ["file_path"], file_path=TEXT),
    tool("Write", ["file_path", "content"], file_path=TEXT, content=TEXT),
    tool("Edit", ["file_path", "old_string", "new_string"], file_path=TEXT, old_string=TEXT, new_string=TEXT),
]  # fmt: skip
CODEX = [
    tool("exec_command", ["cmd"], cmd=TEXT, workdir=TEXT),
    {"type": "custom", "function": tool("apply_patch", ["input"], input=TEXT)["function"]},
]
REMINDER = "<system-reminder>Do not tell.</system-reminder>"


class ResponsesAgent(Agent):
    form = "openai-responses"
    custom = False

    def begin(self, system: str) -> None:
        self.state: dict[str, Any] = {"instructions": system, "input": [], "tools": []}
        for each in self.tools:
            if each["type"] == "custom":
                grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /.*/"}
                name = each["function"]["name"]
                self.state["tools"].append({"type": "custom", "name": name, "format": grammar})
            else:
                self.state["tools"].append({"type": "function", **each["function"]})

    def say(self, text: str) -> None:
        content = [{"type": "input_text", "text": text}]
        self.state["input"].append({"type": "message", "role": "user", "content": content})

    def take(self, answer: dict[str, Any]) -> tuple[str, str, str, dict[str, Any]]:
        self.state["input"] += answer["output"]
        text, name, key = "", "", ""
        arguments: dict[str, Any] = {}
        for item in answer["output"]:
            if item["type"] == "message":
                text = item["content"][0]["text"]
            else:
                name, key = item["name"], item["call_id"]
                custom = item["type"] == "custom_tool_call"
                self.custom = custom
                arguments = {"input": item["input"]} if custom else json.loads(item["arguments"])
        return text, name, key, arguments

    def result(self, key: str, name: str, text: str) -> None:
        kind = "custom_tool_call_output" if self.custom else "function_call_output"
        item = {"type": kind, "call_id": key, "output": text}
        self.state["input"].append(item)

    def gathered(self, stream: list[dict[str, Any]]) -> Any:
        assert [e["sequence_number"] for e in stream] == list(range(len(stream)))
        deltas = "".join(e["delta"] for e in stream if e["type"].endswith("arguments.delta"))
        last = stream[-1]
        assert last["type"] == "response.completed"
        calls = [i for i in last["response"]["output"] if i["type"] == "function_call"]
        assert [deltas] == [c["arguments"] for c in calls] or not deltas
        return last["response"]


class MessagesAgent(ResponsesAgent):
    form = "anthropic-messages"

    def begin(self, system: str) -> None:
        self.state = {"system": [{"type": "text", "text": system}], "messages": [], "tools": []}
        for each in self.tools:
            function = each["function"]
            schema = function["parameters"]
            self.state["tools"].append({"name": function["name"], "input_schema": schema})

    def say(self, text: str) -> None:
        content = [{"type": "text", "text": REMINDER}, {"type": "text", "text": text}]
        self.state["messages"].append({"role": "user", "content": content})

    def take(self, answer: dict[str, Any]) -> tuple[str, str, str, dict[str, Any]]:
        self.state["messages"].append({"role": "assistant", "content": answer["content"]})
        text, name, key, arguments = "", "", "", {}
        for block in answer["content"]:
            if block["type"] == "text":
                text = block["text"]
            else:
                name, key, arguments = block["name"], block["id"], block["input"]
        assert answer["stop_reason"] == ("tool_use" if name else "end_turn")
        return text, name, key, arguments

    def result(self, key: str, name: str, text: str) -> None:
        block = {"type": "tool_result", "tool_use_id": key, "content": text}
        content = [block, {"type": "text", "text": REMINDER}]
        self.state["messages"].append({"role": "user", "content": content})

    def gathered(self, stream: list[dict[str, Any]]) -> Any:
        assert stream[-1]["type"] == "message_stop"
        message = stream[0]["message"]
        pieces: dict[int, list[str]] = {}
        for event in stream:
            if event["type"] == "content_block_start":
                assert event["index"] == len(message["content"])
                message["content"].append(event["content_block"])
            elif event["type"] == "content_block_delta":
                delta = event["delta"]
                words = delta.get("text") or delta.get("partial_json") or ""
                pieces.setdefault(event["index"], []).append(words)
            elif event["type"] == "message_delta":
                message |= event["delta"]
        for index, words in pieces.items():
            block = message["content"][index]
            if block["type"] == "text":
                block["text"] = "".join(words)
            else:
                block["input"] = json.loads("".join(words))
        return message


class GeminiAgent(ResponsesAgent):
    form = "gemini"

    def begin(self, system: str) -> None:
        declared = []
        for each in self.tools:
            function = json.loads(json.dumps(each["function"]).replace('"string"', '"STRING"'))
            declared.append(function)
        self.state = {
            "systemInstruction": {"parts": [{"text": system}]},
            "contents": [],
            "tools": [{"functionDeclarations": declared}],
        }

    def say(self, text: str) -> None:
        self.state["contents"].append({"role": "user", "parts": [{"text": text}]})

    def take(self, answer: dict[str, Any]) -> tuple[str, str, str, dict[str, Any]]:
        content = answer["candidates"][0]["content"]
        self.state["contents"].append(content)
        text, name, arguments = "", "", {}
        for part in content["parts"]:
            if "functionCall" in part:
                name, arguments = part["functionCall"]["name"], part["functionCall"]["args"]
            else:
                text += part["text"]
        return text, name, "", arguments

    def result(self, key: str, name: str, text: str) -> None:
        response = {"name": name, "response": {"output": text}}
        part = {"functionResponse": response}
        self.state["contents"].append({"role": "user", "parts": [part]})

    def gathered(self, stream: list[dict[str, Any]]) -> Any:
        parts = [part for e in stream for part in e["candidates"][0]["content"]["parts"]]
        assert stream[-1]["candidates"][0]["finishReason"] == "STOP"
        content = {"role": "model", "parts": parts}
        return {"candidates": [{"content": content}]}


AGENTS: dict[str, tuple[type[ResponsesAgent], list[dict[str, Any]]]] = {
    "responses": (ResponsesAgent, CODEX),
    "messages": (MessagesAgent, CLAUDE),
    "gemini": (GeminiAgent, OPENCODE),
}


def play(agent: ResponsesAgent, task: str, *, streamed: bool) -> str:
    agent.begin(f"You are an agent.\n<env>\n  Working directory: {agent.workspace}\n</env>")
    agent.say(task)
    for _ in range(30):
        said = demo.reply(demo_read.conversation(agent.form, json.loads(json.dumps(agent.state))))
        answer = (
            asyncio.run(_stream(agent, said)) if streamed else demo_write.whole(agent.form, said)
        )
        text, name, key, arguments = agent.take(answer)
        if not name:
            return text
        agent._check(name, arguments)
        if name == "apply_patch":
            agent.result(key, name, patched(agent.workspace, arguments["input"]))
            continue
        run = {"exec_command": "bash"}.get(name, name).lower()
        given = {"command": arguments.get("cmd"), **arguments} if "cmd" in arguments else arguments
        agent.result(key, name, agent._run(run, given))
    raise AssertionError("the demo does not end")


def patched(workspace: Path, text: str) -> str:
    """Apply a patch in Codex's form: one added file, or one line of a file for others."""
    lines = text.splitlines()
    assert (lines[0], lines[-1]) == ("*** Begin Patch", "*** End Patch")
    action, _, name = lines[1].removeprefix("*** ").partition(": ")
    body = lines[2:-1]
    path = workspace / name
    new = "\n".join(line[1:] for line in body if line.startswith("+"))
    if action == "Add File":
        assert all(line.startswith("+") for line in body)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(new + "\n")
    else:
        assert (action, body[0]) == ("Update File", "@@")
        (old,) = [line[1:] for line in body if line.startswith("-")]
        assert path.read_text().splitlines().count(old) == 1
        path.write_text(path.read_text().replace(old, new))
    return "Success. Updated the following files."


async def _stream(agent: ResponsesAgent, said: demo.Reply) -> Any:
    body = b"".join([piece async for piece in demo_write.stream(agent.form, said)])
    return agent.gathered([json.loads(event) for event in events(body)])


@pytest.fixture
def workspace(tmp_path):
    origin, work = tmp_path / "origin.git", tmp_path / "work"
    git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", "init", "-q", "--bare", str(origin)], check=True)
    subprocess.run(["git", "clone", "-q", str(origin), str(work)], check=True, capture_output=True)
    (work / "README.md").write_text("# Payments\n\nTakes money.\n")
    for key, value in (("user.name", "A"), ("user.email", "a@example.org")):
        subprocess.run(["git", "-C", str(work), "config", key, value], check=True)
    subprocess.run([*git, "-C", str(work), "add", "."], check=True)
    subprocess.run([*git, "-C", str(work), "commit", "-qm", "Begin"], check=True)
    subprocess.run(["git", "-C", str(work), "push", "-q", "origin", "HEAD"], check=True)
    return work


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", sorted(AGENTS))
def test_it_is_played_to_its_end_in_each_form(name, streamed, workspace, monkeypatch):
    monkeypatch.setattr(demo_write, "PAUSE_SECONDS", 0)
    kind, tools = AGENTS[name]
    agent = kind(tools, workspace)
    text = play(agent, "Retry webhooks with back-off.", streamed=streamed)
    assert LABEL in text
    log = subprocess.run(
        ["git", "-C", str(workspace), "log", "--oneline", "origin/HEAD"],
        capture_output=True, text=True, check=False,
    ).stdout or subprocess.run(
        ["git", "-C", str(workspace), "log", "--oneline", "@{push}"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Retry webhooks" in log
    assert "retry-webhooks-back-off.md" in (workspace / "README.md").read_text()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "role",
                    "content",
                    "parts",
                    "text",
                    "input",
                    "messages",
                    "contents",
                    "tools",
                ]
                + ["functionDeclarations", "functionCall", "functionResponse", "system", "name"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.sampled_from(sorted(READERS)), VALUES)
def test_requests_of_any_shape_get_some_answer(form, value):
    request = (
        value if isinstance(value, dict) else {"messages": value, "input": value, "contents": value}
    )
    try:
        said = demo.reply(demo_read.conversation(form, request))
    except demo.DemoFails:
        return
    assert demo_write.whole(form, said)
