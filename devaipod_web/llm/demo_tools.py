"""Choose among the tools that a request offers, by name and by JSON schema.

The scripted demo is played by agents of several makers, whose tools are called and shaped differently. A tool counts
for a purpose when its name says so and its schema has the arguments that the purpose needs; the names of the
arguments are read from the schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHELL_NAMES = (
    "bash",
    "shell",
    "run_shell_command",
    "execute_command",
    "local_shell",
    "terminal",
    "developer__shell",
    "shell_command",
    "exec_command",
    "exec",
)
READ_NAMES = ("read", "read_file", "view", "cat", "open_file", "developer__read")
WRITE_NAMES = ("write", "write_file", "create_file", "create", "developer__write")
EDIT_NAMES = ("edit", "replace", "str_replace", "edit_file", "developer__edit")
PATCH_NAMES = ("apply_patch",)
TODO_NAMES = ("todowrite", "todo_write", "update_plan", "write_todos", "todo")

COMMAND_ARGUMENTS = ("command", "cmd", "script", "commands")
SANDBOX_ARGUMENT, ESCALATED = "sandbox_permissions", "require_escalated"
#: What Codex tells its model when nobody would be asked.
NEVER_ASKS = re.compile(r"approval policy is currently never", re.IGNORECASE)
PATH_ARGUMENTS = ("filePath", "file_path", "path", "absolute_path", "filename", "file")
CONTENT_ARGUMENTS = ("content", "contents", "text", "file_text", "file_content")
OLD_ARGUMENTS = ("oldString", "old_string", "old_str", "old_text", "before")
NEW_ARGUMENTS = ("newString", "new_string", "new_str", "new_text", "after")
PATCH_ARGUMENTS = ("input", "patch")
LIST_ARGUMENTS = ("todos", "plan", "items", "entries")


@dataclass(frozen=True)
class Tool:
    """One offered tool: its name and the properties of its arguments.

    A `freeform` tool takes a text instead; it is the one argument `input` here.
    """

    name: str
    properties: dict[str, Any]
    required: tuple[str, ...]
    freeform: bool = False

    @property
    def escalates(self) -> bool:
        """Whether a call may ask a person to run it outside of the sandbox that the agent (Codex) puts its commands into."""
        return {SANDBOX_ARGUMENT, "justification"} <= set(self.properties)

    def argument(self, names: Sequence[str]) -> str | None:
        """The first of these names that the tool has as an argument."""
        return next((name for name in names if name in self.properties), None)

    def call(self, given: dict[str, Any], *, why: str) -> dict[str, Any]:
        """Arguments for a call: what is given, and for each other required one a value that its schema allows."""
        arguments = dict(given)
        for name in self.required:
            if name not in arguments:
                arguments[name] = _fill(self.properties.get(name), why)
        return arguments


def offered(request: dict[str, Any]) -> list[Tool]:
    """The tools of a request in OpenAI's chat form; what is malformed is passed over."""
    tools = []
    never_asks = any(
        NEVER_ASKS.search(json.dumps(message.get("content")))
        for message in objects(request.get("messages"))
        if message.get("role") in ("system", "developer")
    )
    for entry in objects(request.get("tools")):
        function = entry.get("function")
        custom = entry.get("custom")
        if isinstance(custom, dict) and isinstance(custom.get("name"), str):
            tools.append(Tool(custom["name"], {"input": {"type": "string"}}, ("input",), True))
            continue
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            continue
        schema = function.get("parameters")
        schema = schema if isinstance(schema, dict) else {}
        properties = schema.get("properties")
        required = schema.get("required")
        if never_asks and isinstance(properties, dict):
            properties = {k: v for k, v in properties.items() if k != SANDBOX_ARGUMENT}
        tools.append(
            Tool(
                function["name"],
                properties if isinstance(properties, dict) else {},
                tuple(n for n in required if isinstance(n, str))
                if isinstance(required, list)
                else (),
            )
        )
    return tools


def objects(value: object) -> list[dict[str, Any]]:
    """The objects of a list; nothing of anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def choose(tools: Sequence[Tool], names: Sequence[str], *needed: Sequence[str]) -> Tool | None:
    """The offered tool whose name comes first in `names` and that has one argument of each `needed` group."""
    by_name = {tool.name.lower(): tool for tool in reversed(tools)}
    for name in names:
        tool = by_name.get(name)
        if tool and all(tool.argument(group) for group in needed):
            return tool
    return None


def shell_call(
    tools: Sequence[Tool], command: str, why: str, *, reads: bool = False
) -> tuple[str, dict[str, Any]] | None:
    """A call of the offered shell, or None when there is none. What does more than read asks to leave a sandbox of the agent's own."""
    tool = choose(tools, SHELL_NAMES, COMMAND_ARGUMENTS)
    if tool is None:
        return None
    name = tool.argument(COMMAND_ARGUMENTS)
    assert name is not None
    listed = _type(tool.properties[name]) == "array"
    given: dict[str, Any] = {name: ["sh", "-c", command] if listed else command}
    if tool.escalates and not reads:
        given |= {SANDBOX_ARGUMENT: ESCALATED, "justification": f"{why}?"}
    return tool.name, tool.call(given, why=why)


def read_call(tools: Sequence[Tool], path: str, why: str) -> tuple[str, dict[str, Any]] | None:
    """A call of the offered tool that reads a file, or None."""
    tool = choose(tools, READ_NAMES, PATH_ARGUMENTS)
    if tool is None:
        return None
    return tool.name, tool.call({_name(tool, PATH_ARGUMENTS): path}, why=why)


def write_call(
    tools: Sequence[Tool], path: str, content: str, why: str
) -> tuple[str, dict[str, Any]] | None:
    """A call of the offered tool that writes a whole file, or None."""
    tool = choose(tools, WRITE_NAMES, PATH_ARGUMENTS, CONTENT_ARGUMENTS)
    if tool is None:
        return None
    given = {_name(tool, PATH_ARGUMENTS): path, _name(tool, CONTENT_ARGUMENTS): content}
    return tool.name, tool.call(given, why=why)


def edit_call(
    tools: Sequence[Tool], path: str, old: str, new: str, why: str
) -> tuple[str, dict[str, Any]] | None:
    """A call of the offered tool that replaces a piece of a file, or None."""
    tool = choose(tools, EDIT_NAMES, PATH_ARGUMENTS, OLD_ARGUMENTS, NEW_ARGUMENTS)
    if tool is None:
        return None
    given = {
        _name(tool, PATH_ARGUMENTS): path,
        _name(tool, OLD_ARGUMENTS): old,
        _name(tool, NEW_ARGUMENTS): new,
    }
    return tool.name, tool.call(given, why=why)


def add_file_call(
    tools: Sequence[Tool], path: str, content: str, why: str
) -> tuple[str, dict[str, Any]] | None:
    """A call of the offered patch tool (Codex's) that adds a file, or None."""
    lines = [f"*** Add File: {path}", *(f"+{line}" for line in content.splitlines())]
    return _patch_call(tools, lines, why)


def update_file_call(
    tools: Sequence[Tool], path: str, old: str, new: str, why: str
) -> tuple[str, dict[str, Any]] | None:
    """A call of the offered patch tool that replaces a line of a file, or None."""
    lines = [f"*** Update File: {path}", "@@", f"-{old}"]
    return _patch_call(tools, [*lines, *(f"+{line}" for line in new.splitlines())], why)


def _patch_call(
    tools: Sequence[Tool], lines: Sequence[str], why: str
) -> tuple[str, dict[str, Any]] | None:
    tool = choose(tools, PATCH_NAMES, PATCH_ARGUMENTS)
    if tool is None:
        return None
    text = "\n".join(["*** Begin Patch", *lines, "*** End Patch"]) + "\n"
    return tool.name, tool.call({_name(tool, PATCH_ARGUMENTS): text}, why=why)


def todo_call(
    tools: Sequence[Tool], steps: Sequence[str], done: int
) -> tuple[str, dict[str, Any]] | None:
    """A call of the offered plan tool: the first `done` steps completed, the next one in progress. None without such a tool."""
    tool = choose(tools, TODO_NAMES, LIST_ARGUMENTS)
    if tool is None:
        return None
    name = _name(tool, LIST_ARGUMENTS)
    schema = tool.properties[name]
    item = schema.get("items") if isinstance(schema, dict) else None
    properties = item.get("properties") if isinstance(item, dict) else None
    required = item.get("required") if isinstance(item, dict) else None
    if not isinstance(properties, dict):
        return None
    shape = Tool("entry", properties, tuple(required) if isinstance(required, list) else ())
    text = shape.argument(("content", "step", "description", "title", "text"))
    if text is None:
        return None
    entries = []
    for index, step in enumerate(steps):
        status = "completed" if index < done else "in_progress" if index == done else "pending"
        given: dict[str, Any] = {text: step}
        if "status" in properties:
            given["status"] = status
        if "id" in properties:
            given["id"] = str(index + 1)
        if "priority" in properties:
            given["priority"] = "medium"
        entries.append(shape.call(given, why=step))
    return tool.name, tool.call({name: entries}, why="Plan the work")


def _name(tool: Tool, names: Sequence[str]) -> str:
    name = tool.argument(names)
    assert name is not None
    return name


def _type(schema: object) -> str:
    kind = schema.get("type") if isinstance(schema, dict) else None
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), None)
    return kind if isinstance(kind, str) else "string"


def _fill(schema: object, why: str) -> Any:
    """A value that the schema of a required argument allows; `why` where a text is wanted."""
    values = schema.get("enum") if isinstance(schema, dict) else None
    if isinstance(values, list) and values:
        return values[0]
    minimum = schema.get("minimum", 0) if isinstance(schema, dict) else 0
    return {
        "integer": minimum,
        "number": minimum,
        "boolean": False,
        "array": [],
        "object": {},
    }.get(_type(schema), why)
