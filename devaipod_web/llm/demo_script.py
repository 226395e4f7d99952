"""What the scripted demo does: a fixed story, played from the request alone. There is no AI in it.

The script is a generator that yields steps and is sent their results. It is played anew for each request: the results
that stand in the request's messages are sent in, and the first step without a result is the reply. So the demo keeps
no state, and whatever happens to the control plane in between changes nothing.

The story of one turn: say so, plan (where the agent has a plan tool), look at the repository, read the README, write
a note about the task and link it from the README, commit, push, summary. A refused step is accepted and the rest goes
on without it.

Lines `demo: …` in the task steer it, for tests and for showing what a page looks like:

    demo: sleep N        run `sleep N` (seconds) in the agent's shell
    demo: output N       print N lines
    demo: log N          print N lines into the agent container's log
    demo: run COMMAND    run COMMAND in the agent's shell
    demo: write PATH     write the note there instead of under notes/
    demo: loop [N]       make the same call N times, or for ever, as an agent does that has lost its way
    demo: say TEXT       say TEXT
    demo: no-edit        change nothing
    demo: no-commit      leave the change uncommitted (the sidecar stages it)
    demo: no-push        commit, but leave the push to the sidecar
    demo: fail [STATUS]  the provider answers with this status (500)
    demo: hang           the provider never answers
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from devaipod_web.llm import demo_tools
from devaipod_web.llm.demo_tools import Tool

LABEL = "scripted demo, no AI"
DIRECTIVE = re.compile(r"^[ \t]*demo:[ \t]*([a-z-]+)[ \t]*(.*?)[ \t]*$", re.MULTILINE)
#: How agents tell the model that a person (or their policy) said no.
_NO = r"(?:reject|refus|den(?:y|ie)|declin|cancel)\w*"
_WHO = r"(?:user|person|operator|policy|permission)"
REFUSED = re.compile(
    rf"{_WHO}\b[^.\n]{{0,40}}\b{_NO}|\b{_NO}[^.\n]{{0,30}}\b{_WHO}|\btool (?:use|call)[^.\n]{{0,20}}\b{_NO}",
    re.IGNORECASE,
)
#: git's own words after a commit: its subject may say anything.
COMMITTED = re.compile(r"^\[[^\]\n]+ [0-9a-f]{7,64}\]", re.MULTILINE)
NUMBERED = re.compile(r"^\s*\d+\s*(?:[|:→]|\t) ?(.*)$")
README = re.compile(r"^readme(\.(md|markdown|txt|rst))?$", re.IGNORECASE)
WORDS_TO_SKIP = frozenset(
    (
        "a",
        "an",
        "and",
        "the",
        "to",
        "of",
        "in",
        "on",
        "for",
        "with",
        "please",
        "it",
        "is",
        "be",
        "by",
        "at",
        "as",
    )
)
MAX_SLUG_WORDS = 5
MAX_REFUSED_CHARACTERS = 600


@dataclass(frozen=True)
class Step:
    """One reply of the model: words and, where `tool` is set, a call."""

    text: str
    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came back from a call."""

    text: str

    @property
    def refused(self) -> bool:
        """Whether a person or a policy said no. Long results are output, not an answer of that kind."""
        short = len(self.text) <= MAX_REFUSED_CHARACTERS
        return short and not COMMITTED.search(self.text) and bool(REFUSED.search(self.text))


Story = Generator[Step, Result, str]


@dataclass(frozen=True)
class Task:
    """The words of a turn's prompt, and the directives among them."""

    words: str
    directives: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, prompt: str) -> Task:
        """Take the directives out of a prompt."""
        found = tuple((m.group(1), _unquoted(m.group(2))) for m in DIRECTIVE.finditer(prompt))
        return cls(DIRECTIVE.sub("", prompt).strip(), found)

    def has(self, name: str) -> bool:
        """Whether the directive stands in the prompt."""
        return any(name == found for found, _ in self.directives)

    def value(self, name: str) -> str:
        """The rest of the directive's line, or an empty string."""
        return next((value for found, value in self.directives if found == name), "")

    @property
    def title(self) -> str:
        """The first line, for a title or a commit's subject, at most 60 characters."""
        line = next(
            (line.strip("#*->`\"' \t") for line in self.words.splitlines() if line.strip()), ""
        )
        line = line.rstrip(".") or "Scripted demo"
        return line if len(line) <= 60 else line[:59].rsplit(" ", 1)[0] + "…"

    @property
    def slug(self) -> str:
        """A file name's stem from the title's words."""
        words = [w for w in re.findall(r"[a-z0-9]+", self.title.lower()) if w not in WORDS_TO_SKIP]
        return "-".join(words[:MAX_SLUG_WORDS])[:40].strip("-") or "demo"


def _unquoted(value: str) -> str:
    """Without the closing quote of a prompt that the agent put into quotes (OpenCode's `run` does)."""
    return value[:-1] if value.endswith('"') and value.count('"') % 2 else value


@dataclass
class _Scene:
    """What the story has learned of the repository."""

    folder: str = ""
    files: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


def story(task: Task, tools: Sequence[Tool], *, turn: int, folder: str = "") -> Story:
    """The steps of one turn; returns the closing words. `turn` counts the prompts of the conversation from 1."""
    scene = _Scene(folder=folder)
    said = task.value("say")
    intro = (
        f"This is the {LABEL}: a fixed script plays the agent's model. "
        f"I will look at the repository, note the task “{task.title}” in a file, commit it and push it."
        if turn == 1
        else f"The {LABEL} goes on: one more change for “{task.title}”, with a commit and a push."
    )
    intro = f"{intro} {said}" if said else intro
    plan = ["Look at the repository", "Write the change", "Commit it", "Push it for review"]
    planned = demo_tools.todo_call(tools, plan, 0)
    if planned:
        yield Step(intro, *planned)
        intro = "First a look at what is here."
    if not tools:
        return f"{intro} The agent offers no tools, so there is nothing more that I can do."
    yield from _look(scene, tools, intro)
    yield from _directives(task, tools)
    if task.has("no-edit"):
        return f"I changed nothing, as asked. ({LABEL})"
    changed, refusals = yield from _edit(scene, task, tools)
    if not changed:
        return _closing(task, [], refusals, "Nothing was changed.")
    if task.has("no-commit"):
        return _closing(task, changed, refusals, "I left the change uncommitted, as asked.")
    outcome = yield from _publish(task, tools, changed)
    if planned and outcome.startswith("Committed and pushed"):
        done = demo_tools.todo_call(tools, plan, len(plan))
        assert done is not None
        yield Step("All steps are done.", *done)
    return _closing(task, changed, refusals, outcome)


def _look(scene: _Scene, tools: Sequence[Tool], intro: str) -> Generator[Step, Result, None]:
    command = "pwd && git log --oneline -n 5 && echo --- && git ls-files | head -n 200"
    call = demo_tools.shell_call(tools, command, "Look at the repository", reads=True)
    if call is None:
        return
    result = yield Step(intro, *call)
    # Agents of Gemini CLI's family write "Output: " before what a command printed.
    lines = [line.rstrip().removeprefix("Output: ") for line in result.text.splitlines()]
    start = next((i for i, line in enumerate(lines) if re.fullmatch(r"/[^\0<>]*", line)), None)
    if start is None or "---" not in lines:
        return
    split = lines.index("---")
    scene.folder = lines[start].rstrip("/")
    scene.log = lines[start + 1 : split]
    scene.files = [line for line in lines[split + 1 :] if line and not line.startswith("<")]


def _directives(task: Task, tools: Sequence[Tool]) -> Generator[Step, Result, None]:
    for name, value in task.directives:
        if name == "loop":
            yield from _loop(value, tools)
        command = _command(name, value)
        if command is None:
            continue
        call = demo_tools.shell_call(tools, command, f"demo: {name}")
        if call:
            yield Step(f"The task asks the demo for `{f'{name} {value}'.strip()}`.", *call)


def _loop(value: str, tools: Sequence[Tool]) -> Generator[Step, Result, None]:
    call = demo_tools.shell_call(tools, "git status --short --branch", "demo: loop")
    rounds = itertools.repeat(None, int(value)) if value.isdigit() else itertools.repeat(None)
    for _ in rounds if call else ():
        assert call is not None
        yield Step("Let me look once more.", *call)


def _command(name: str, value: str) -> str | None:
    number = int(value) if value.isdigit() else 1
    match name:
        case "sleep":
            return f"sleep {number}"
        case "output":
            return f"seq -f 'line %g of the demo' 1 {number}"
        case "log":
            return f"seq -f 'log line %g of the demo' 1 {number} > /proc/1/fd/2"
        case "run":
            return value or None
    return None


def _edit(
    scene: _Scene, task: Task, tools: Sequence[Tool]
) -> Generator[Step, Result, tuple[list[str], list[str]]]:
    """Write the note and link it from the README. Returns the changed paths and what was refused."""
    changed: list[str] = []
    refusals: list[str] = []
    note = task.value("write") or _free_name(scene.files, f"notes/{task.slug}")
    content = _note(task, scene)
    why = f"Write {note}"
    call = demo_tools.write_call(tools, scene.path(note), content, why)
    if call is None:
        call = demo_tools.add_file_call(tools, note, content, why)
    if call is None:
        call = demo_tools.shell_call(tools, _write_command(note, content), why)
    if call:
        result = yield Step(f"I write the note `{note}`.", *call)
        (refusals if result.refused else changed).append(note)
    readme = next((name for name in scene.files if README.match(name)), None)
    if readme and changed:
        linked = yield from _link(scene, task, tools, readme, note)
        if linked:
            (changed if linked == "changed" else refusals).append(readme)
    return changed, refusals


def _link(
    scene: _Scene, task: Task, tools: Sequence[Tool], readme: str, note: str
) -> Generator[Step, Result, str]:
    """Link the note below the README's first heading. Returns changed, refused, or nothing when there is no place for it."""
    call = demo_tools.read_call(tools, scene.path(readme), f"Read {readme}")
    if call is None and demo_tools.choose(tools, demo_tools.PATCH_NAMES):
        # Codex reads with its shell.
        cat = f"cat {shlex.quote(readme)}"
        call = demo_tools.shell_call(tools, cat, f"Read {readme}", reads=True)
    if call is None:
        return ""
    result = yield Step(f"Then `{readme}`, to link the note there.", *call)
    lines = [
        m.group(1) if (m := NUMBERED.match(line)) else line for line in result.text.splitlines()
    ]
    heading = next((line for line in lines if re.match(r"^# \S", line)), None)
    if heading is None or sum(heading in line for line in lines) != 1:
        return ""
    new = f"{heading}\n\n> [{_plain(task.title)}]({note}), noted by devaipod's {LABEL}."
    edit = demo_tools.edit_call(
        tools, scene.path(readme), heading, new, f"Link the note in {readme}"
    )
    if edit is None:
        edit = demo_tools.update_file_call(
            tools, readme, heading, new, f"Link the note in {readme}"
        )
    if edit is None:
        return ""
    result = yield Step(f"I link the note below the heading of `{readme}`.", *edit)
    return "refused" if result.refused else "changed"


def _publish(
    task: Task, tools: Sequence[Tool], changed: Sequence[str]
) -> Generator[Step, Result, str]:
    """Commit and push with the shell. Returns a sentence that says how far it came."""
    paths = " ".join(shlex.quote(path) for path in changed)
    subject = shlex.quote(f"{task.title}"[:1].upper() + task.title[1:])
    body = shlex.quote(f"Made by devaipod's {LABEL}.")
    commit = f"git add -- {paths} && git commit -m {subject} -m {body}"
    call = demo_tools.shell_call(tools, commit, "Commit the change")
    if call is None:
        return "The agent offers no shell, so the change is left to be staged."
    result = yield Step("Now the commit.", *call)
    if result.refused:
        return "The commit was refused, so I leave the change as it is."
    if task.has("no-push"):
        return "Committed; the push is left to the sidecar, as asked."
    call = demo_tools.shell_call(tools, "git push origin HEAD", "Push the branch for review")
    assert call is not None
    result = yield Step("And the push, so that it can be reviewed.", *call)
    if result.refused or "[rejected]" in result.text:
        return "Committed; the push was refused."
    return "Committed and pushed: the change waits for review."


def _closing(task: Task, changed: Sequence[str], refusals: Sequence[str], outcome: str) -> str:
    parts = []
    if changed:
        parts.append("I changed " + ", ".join(f"`{path}`" for path in changed) + ".")
    if refusals:
        parts.append("Refused, and left out: " + ", ".join(f"`{path}`" for path in refusals) + ".")
    parts.append(outcome)
    parts.append(
        f"This was the {LABEL}: choose a provider in the project's settings for real work."
    )
    return " ".join(parts)


def _note(task: Task, scene: _Scene) -> str:
    lines = [f"# {_plain(task.title)}", "", "The task, in the words of the person who asked:", ""]
    lines += [f"> {line}".rstrip() for line in (task.words or task.title).splitlines()[:40]]
    if scene.files:
        lines += ["", f"The repository had {len(scene.files)} files when this was written"]
        lines[-1] += f"; its last commit was `{_plain(scene.log[0])}`." if scene.log else "."
    lines += ["", f"Written by devaipod's {LABEL}.", ""]
    return "\n".join(lines)


def _write_command(path: str, content: str) -> str:
    folder = shlex.quote(path.rpartition("/")[0] or ".")
    return f"mkdir -p {folder} && printf %s {shlex.quote(content)} > {shlex.quote(path)}"


def _free_name(files: Sequence[str], stem: str) -> str:
    taken = set(files)
    number = 1
    while (name := f"{stem}{'' if number == 1 else f'-{number}'}.md") in taken:
        number += 1
    return name


def _plain(text: str) -> str:
    return re.sub(r"[\[\]`<>|]", "", text)
