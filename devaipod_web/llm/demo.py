"""The demo provider: the scripted demo of `demo_script`, played from a conversation.

It is a product feature for trying devaipod without a model key, and is labelled "scripted demo, no AI" wherever it
shows. It reads conversations in OpenAI's chat form: `demo_read` makes that of the other wire forms, and `demo_write`
says the reply in the form that was asked.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from devaipod_web.llm import demo_tools
from devaipod_web.llm.demo_script import LABEL, Result, Step, Task, story

MODEL = "scripted-demo"
#: Characters that count as one token, where nothing better is known.
CHARACTERS_PER_TOKEN = 4
#: Text that agents add to a person's message on their own, in a block of these names.
SYNTHETIC = re.compile(
    r"\s*<(system-reminder|environment_context|environment_details|user_instructions|session_context)\b[^>]*>(.*?</\1>\s*|.*)",
    re.DOTALL,
)
WORKING_DIRECTORY = re.compile(
    r"(?:working directory|cwd)[^/\n]{0,20}(/[^\s<>\"'`]*)", re.IGNORECASE
)


class DemoFails(Exception):
    """The task asked the demo to answer like a provider that is down."""

    def __init__(self, status: int) -> None:
        super().__init__(f"demo: fail {status}")
        self.status = status


@dataclass(frozen=True)
class Reply:
    """What the demo says next, with token counts estimated from the characters."""

    step: Step
    tokens_in: int
    tokens_out: int
    hang: bool = False
    #: Whether the called tool takes a text instead of arguments.
    freeform: bool = False


def reply(request: dict[str, Any]) -> Reply:
    """The next reply of the conversation that the request carries. Raises `DemoFails` where the task asks for it."""
    messages = demo_tools.objects(request.get("messages"))
    tools = demo_tools.offered(request)
    start, turn = _turn(messages)
    task = Task.parse(own_words(_text(messages[start]))) if messages else Task("", ())
    if not tools:
        step = _without_tools(messages, task)
        hang = False
    else:
        hang = task.has("hang")
        if task.has("fail"):
            status = task.value("fail")
            raise DemoFails(int(status) if re.fullmatch(r"[45]\d\d", status) else 500)
        step = _play(messages, start, task, tools, turn)
    said = step.text + json.dumps(step.arguments)
    return Reply(
        step,
        tokens_in=len(json.dumps(messages)) // CHARACTERS_PER_TOKEN + 1,
        tokens_out=len(said) // CHARACTERS_PER_TOKEN + 1,
        hang=hang,
        freeform=any(tool.freeform and tool.name == step.tool for tool in tools),
    )


def _play(
    messages: list[dict[str, Any]],
    start: int,
    task: Task,
    tools: list[demo_tools.Tool],
    turn: int,
) -> Step:
    told = story(task, tools, turn=turn, folder=_folder(messages))
    try:
        step = next(told)
        for result in _results(messages[start + 1 :]):
            step = told.send(result)
    except StopIteration as end:
        return Step(str(end.value))
    return step


def _results(messages: list[dict[str, Any]]) -> list[Result]:
    """The results of the calls of this turn, in the order of the calls."""
    texts = {
        str(m.get("tool_call_id")): _text(m)
        for m in messages
        if m.get("role") in ("tool", "function")
    }
    results = []
    for message in messages:
        for call in demo_tools.objects(message.get("tool_calls")):
            results.append(Result(texts.get(str(call.get("id")), "")))
    return results


def _turn(messages: list[dict[str, Any]]) -> tuple[int, int]:
    """Index of the last message that a person wrote, and how many such there are."""
    prompts = [
        index
        for index, message in enumerate(messages)
        if message.get("role") == "user" and own_words(_text(message))
    ]
    return (prompts[-1], len(prompts)) if prompts else (len(messages) - 1, 1)


def _without_tools(messages: list[dict[str, Any]], task: Task) -> Step:
    """Agents ask without tools for a title, or for a summary when a conversation grows long."""
    asked = " ".join(_text(m) for m in messages if m.get("role") in ("system", "developer")).lower()
    asked += " ".join(_text(m) for m in messages if m.get("role") == "user").lower()[:2000]
    if "title" in asked:
        # Agents put their own request before the person's words, or after it: the longest message is the task.
        words = max(
            (_text(m) for m in messages if m.get("role") == "user"), key=len, default=task.words
        )
        return Step(Task.parse(words).title)
    if "summar" in asked or "compact" in asked:
        return Step(f"The conversation so far was played by the {LABEL}. The task: {task.title}.")
    return Step(f"This is the {LABEL}. It can only play its script in an agent that offers tools.")


def _folder(messages: list[dict[str, Any]]) -> str:
    """The working folder that the agent's system prompt names, or nothing."""
    for message in messages:
        own = message.get("role") in ("system", "developer")
        if own and (found := WORKING_DIRECTORY.search(_text(message))):
            return found.group(1).rstrip("/.,")
    return ""


def own_words(text: str) -> str:
    """What a person wrote of a message: without the blocks that agents put before it, and empty where there is nothing else."""
    while found := SYNTHETIC.match(text):
        text = text[found.end() :]
    return text


def _text(message: dict[str, Any]) -> str:
    """The words of a message, whichever of the two shapes its content has."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    )
