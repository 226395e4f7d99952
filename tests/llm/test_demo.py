"""The scripted demo, played against tools of several agents' shapes by an executor that really runs them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from devaipod_web import db
from devaipod_web.llm import demo, demo_write
from devaipod_web.llm.models import LlmCall

LABEL = "scripted demo, no AI"


def tool(name: str, required: list[str], **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TEXT = {"type": "string"}
OPENCODE = [
    tool(
        "bash",
        ["command", "description"],
        command=TEXT,
        description=TEXT,
        timeout={"type": "number"},
    ),
    tool("read", ["filePath"], filePath=TEXT, offset={"type": "number"}),
    tool("write", ["content", "filePath"], content=TEXT, filePath=TEXT),
    tool(
        "edit",
        ["filePath", "oldString", "newString"],
        filePath=TEXT,
        oldString=TEXT,
        newString=TEXT,
    ),
    tool(
        "todowrite",
        ["todos"],
        todos={
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"content": TEXT, "status": TEXT, "priority": TEXT},
                "required": ["content", "status", "priority"],
            },
        },
    ),
]
GEMINI = [
    tool("run_shell_command", ["command"], command=TEXT, description=TEXT),
    tool("read_file", ["absolute_path"], absolute_path=TEXT),
    tool("write_file", ["file_path", "content"], file_path=TEXT, content=TEXT),
    tool(
        "replace",
        ["file_path", "old_string", "new_string"],
        file_path=TEXT,
        old_string=TEXT,
        new_string=TEXT,
    ),
]
CODEX = [tool("shell", ["command"], command={"type": "array", "items": TEXT}, workdir=TEXT)]
AGENTS = {"opencode": OPENCODE, "gemini": GEMINI, "codex": CODEX}


class Agent:
    """The least agent: it sends the conversation, runs what is called, and sends the results."""

    def __init__(self, tools: list[dict[str, Any]], workspace: Path) -> None:
        self.tools = tools
        self.workspace = workspace
        told = f"You are an agent.\n<env>\n  Working directory: {workspace}\n</env>"
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": told}]
        self.refuse: set[str] = set()
        self.called: list[str] = []

    def prompt(self, text: str) -> str:
        self.messages.append({"role": "user", "content": text})
        for _ in range(30):
            request = {"model": "x", "messages": self.messages, "tools": self.tools}
            answer = demo_write.whole("openai-chat", demo.reply(json.loads(json.dumps(request))))
            message = answer["choices"][0]["message"]
            self.messages.append(message)
            if not message.get("tool_calls"):
                return str(message["content"])
            for call in message["tool_calls"]:
                arguments = json.loads(call["function"]["arguments"])
                self._check(call["function"]["name"], arguments)
                result = self._run(call["function"]["name"], arguments)
                self.messages.append(
                    {"role": "tool", "tool_call_id": call["id"], "content": result}
                )
        raise AssertionError("the demo does not end")

    def _check(self, name: str, arguments: dict[str, Any]) -> None:
        function = next(t["function"] for t in self.tools if t["function"]["name"] == name)
        assert set(function["parameters"]["required"]) <= set(arguments)
        assert set(arguments) <= set(function["parameters"]["properties"])

    def _run(self, name: str, arguments: dict[str, Any]) -> str:
        self.called.append(name)
        if name in self.refuse:
            return "The user rejected permission to use this specific tool call."
        if name in ("bash", "run_shell_command", "shell"):
            command = arguments["command"]
            argv = command if isinstance(command, list) else ["sh", "-c", command]
            done = subprocess.run(
                argv, cwd=self.workspace, capture_output=True, text=True, timeout=20, check=False
            )
            return done.stdout + done.stderr
        if name == "todowrite":
            return json.dumps(arguments["todos"])
        path = Path(
            arguments.get("filePath") or arguments.get("file_path") or arguments["absolute_path"]
        )
        assert path.is_absolute()
        if name in ("read", "read_file"):
            lines = path.read_text().splitlines()
            return "\n".join(f"{n:05d}| {line}" for n, line in enumerate(lines, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in ("write", "write_file"):
            path.write_text(arguments["content"])
            return "written"
        old = arguments.get("oldString") or arguments["old_string"]
        new = arguments.get("newString") or arguments["new_string"]
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))
        return "edited"


@pytest.fixture
def workspace(tmp_path):
    def git(*words: str, cwd: Path) -> None:
        subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True)

    origin = tmp_path / "origin.git"
    git("init", "-q", "--bare", "-b", "main", str(origin), cwd=tmp_path)
    folder = tmp_path / "payments"
    git("clone", "-q", str(origin), str(folder), cwd=tmp_path)
    git("config", "user.name", "agent", cwd=folder)
    git("config", "user.email", "agent@example.org", cwd=folder)
    (folder / "README.md").write_text("# Payments\n\nTakes payments.\n")
    git("add", ".", cwd=folder)
    git("commit", "-q", "-m", "Begin", cwd=folder)
    git("checkout", "-q", "-b", "agent/k/work", cwd=folder)
    return folder


def pushed(workspace: Path) -> list[str]:
    origin = workspace.parent / "origin.git"
    done = subprocess.run(
        ["git", "log", "--format=%s", "agent/k/work"], cwd=origin, capture_output=True, text=True
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("agent", AGENTS)
def test_it_looks_edits_commits_and_pushes_with_each_agents_tools(agent, workspace):
    player = Agent(AGENTS[agent], workspace)
    closing = player.prompt("Retry webhooks with back-off.")
    assert LABEL in closing
    assert "Committed and pushed" in closing
    assert pushed(workspace) == ["Retry webhooks with back-off", "Begin"]
    note = workspace / "notes" / "retry-webhooks-back-off.md"
    assert "> Retry webhooks with back-off." in note.read_text()
    if agent != "codex":
        assert "retry-webhooks-back-off.md" in (workspace / "README.md").read_text()


@pytest.mark.parametrize("agent", AGENTS)
def test_a_follow_up_makes_one_more_commit_even_with_the_same_words(agent, workspace):
    player = Agent(AGENTS[agent], workspace)
    player.prompt("Retry webhooks.")
    player.prompt("Retry webhooks.")
    assert len(pushed(workspace)) == 3


def test_a_second_run_on_the_promoted_result_does_not_fail(workspace):
    Agent(OPENCODE, workspace).prompt("Retry webhooks.")
    closing = Agent(OPENCODE, workspace).prompt("Retry webhooks.")
    assert "Committed and pushed" in closing
    assert (workspace / "notes" / "retry-webhooks-2.md").is_file()


def test_a_repository_without_anything_in_it_is_no_trouble(workspace):
    subprocess.run(["git", "rm", "-q", "README.md"], cwd=workspace, check=True)
    subprocess.run(["git", "commit", "-q", "-m", "Empty"], cwd=workspace, check=True)
    assert "Committed and pushed" in Agent(OPENCODE, workspace).prompt("Begin a README")


@pytest.mark.parametrize(
    "task",
    [
        "'; rm -rf / #",
        "$(touch x) `touch y`",
        "# \n\n",
        "ÄÖÜ 你好 \u202e",
        "-n --amend",
        "x" * 5000,
    ],
)
def test_no_words_of_a_task_reach_the_shell_as_more_than_words(workspace, task):
    assert "Committed and pushed" in Agent(OPENCODE, workspace).prompt(task)
    assert not (workspace / "x").exists()
    assert not (workspace / "y").exists()
    assert len(pushed(workspace)) == 2


def test_a_refused_edit_is_accepted_politely(workspace):
    player = Agent(OPENCODE, workspace)
    player.refuse = {"write"}
    closing = player.prompt("Retry webhooks.")
    assert "Refused, and left out" in closing
    assert "Nothing was changed" in closing
    assert pushed(workspace) == []


def test_a_refused_shell_ends_without_a_push(workspace):
    player = Agent(OPENCODE, workspace)
    player.refuse = {"bash"}
    assert "refused" in player.prompt("Retry webhooks.")
    assert pushed(workspace) == []


def test_a_task_about_refusals_is_no_refusal(workspace):
    closing = Agent(OPENCODE, workspace).prompt(
        "The user rejected cards; permission denied by policy"
    )
    assert "Committed and pushed" in closing


def test_a_push_that_git_rejects_is_said(workspace):
    player = Agent(OPENCODE, workspace)
    player.prompt("Retry webhooks.")
    subprocess.run(["git", "reset", "-q", "--hard", "HEAD~1"], cwd=workspace, check=True)
    assert "the push was refused" in player.prompt("Another one.")


def test_directives_steer_it(workspace):
    player = Agent(OPENCODE, workspace)
    closing = player.prompt(
        "Try it\ndemo: output 3\ndemo: run echo marked > marked.txt\ndemo: no-commit"
    )
    assert "uncommitted" in closing
    assert "line 3 of the demo" in json.dumps(player.messages)
    assert (workspace / "marked.txt").read_text() == "marked\n"
    assert pushed(workspace) == []
    assert "demo:" not in (workspace / "notes" / "try.md").read_text()


def test_a_prompt_in_quotes_steers_it_too(workspace):
    player = Agent(OPENCODE, workspace)
    player.prompt('"Try it\ndemo: no-push\ndemo: output 3"')
    assert "line 3 of the demo" in json.dumps(player.messages)
    assert pushed(workspace) == []


def test_it_changes_nothing_when_asked_to(workspace):
    assert "changed nothing" in Agent(OPENCODE, workspace).prompt("Look\ndemo: no-edit")
    status = subprocess.run(
        ["git", "status", "--short"], cwd=workspace, capture_output=True, text=True
    )
    assert status.stdout == ""


def test_a_title_is_short_and_from_the_task():
    request = {
        "messages": [
            {"role": "system", "content": "You are a title generator."},
            {"role": "user", "content": "Generate a title for this conversation:\n"},
            {
                "role": "user",
                "content": "Retry webhooks with back-off, and say so in the log please.",
            },
        ]
    }
    title = demo.reply(request).step.text
    assert title.startswith("Retry webhooks")
    assert len(title) <= 60


@pytest.mark.parametrize(
    "request_body",
    [
        {"messages": []},
        {"messages": [None, 3]},
        {
            "messages": [{"role": "user"}],
            "tools": [None, {"type": "function"}, {"function": {"name": 3}}],
        },
        {
            "messages": [{"role": "user", "content": [{"type": "text"}]}],
            "tools": [tool("bash", ["x"])],
        },
        {"messages": [{"role": "assistant", "tool_calls": [None]}], "tools": OPENCODE},
    ],
)
def test_requests_of_any_shape_get_some_answer(request_body):
    assert demo.reply(request_body).step.text


@pytest.mark.django_db(transaction=True)
async def test_through_the_gateway_it_streams_and_is_metered_as_free(gateway, pod):
    body = {
        "model": "x",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Retry webhooks."}],
        "tools": OPENCODE,
    }
    async with gateway.http.post(
        "/llm/v1/chat/completions", json=body, headers=pod.bearer
    ) as answer:
        assert answer.status == 200
        lines = [line async for line in answer.content if line.startswith(b"data: {")]
    chunks = [json.loads(line[6:]) for line in lines]
    text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"])
    assert LABEL in text
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    arguments = "".join(
        call["function"].get("arguments", "")
        for c in chunks
        if c["choices"]
        for call in c["choices"][0]["delta"].get("tool_calls", [])
    )
    assert json.loads(arguments)["todos"]
    while not (calls := await db.read(lambda: list(LlmCall.objects.all()))):
        pass
    assert calls[0].cost == 0
    assert calls[0].provider_kind == "demo"


@pytest.mark.django_db(transaction=True)
async def test_the_task_can_make_the_provider_fail(gateway, pod):
    body = {"messages": [{"role": "user", "content": "x\ndemo: fail 503"}], "tools": OPENCODE}
    async with gateway.http.post(
        "/llm/v1/chat/completions", json=body, headers=pod.bearer
    ) as answer:
        assert answer.status == 503
        assert "as the task asked" in (await answer.json())["error"]["message"]
