"""Agent profiles: the program, how it is started over FIFOs, and the environment that points it at the sidecar."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pods.command import COMMAND, PLACEHOLDER_KEY, PROXY_URL, command_env
from pods.spec import EXIT_AGENT_MISSING, STDIO_DIR

LLM_URL = f"{PROXY_URL}/llm/v1"
#: Exit code of the entry when one of the repository's lifecycle commands failed.
EXIT_LIFECYCLE_FAILED = 43
DEFAULT_MODEL = "default"
#: Written into the agent's home when the once-only lifecycle commands have run in this workspace.
LIFECYCLE_MARK = ".devaipod-lifecycle-done"

#: Lifecycle commands that run once for a workspace, and those that run at every start (containers.dev).
ONCE = ("onCreateCommand", "postCreateCommand")
EVERY_START = ("postStartCommand",)


@dataclass(frozen=True)
class AgentProfile:
    """One kind of agent. `env` takes the model's name and the permission policy (`ask` or `allow`).

    Without `speaks_acp` it is no agent but a program that each run names itself; no project has it as its agent.
    """

    key: str
    title: str
    program: str
    argv: tuple[str, ...]
    env: Callable[[str, str], dict[str, str]]
    speaks_acp: bool = True


def _opencode_env(model: str, policy: str) -> dict[str, str]:
    """OpenCode takes its whole configuration from one variable; nothing in it reaches a network but our proxy."""
    decision = "allow" if policy == "allow" else "ask"
    config = {
        "$schema": "https://opencode.ai/config.json",
        "provider": {
            "devaipod": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "devaipod",
                "options": {"baseURL": LLM_URL, "apiKey": PLACEHOLDER_KEY},
                "models": {model: {"name": model, "tool_call": True}},
            }
        },
        "model": f"devaipod/{model}",
        "small_model": f"devaipod/{model}",
        "enabled_providers": ["devaipod"],
        "autoupdate": False,
        "share": "disabled",
        "lsp": False,
        "permission": {"edit": decision, "bash": decision, "webfetch": "deny", "websearch": "deny"},
    }
    return {
        "OPENCODE_CONFIG_CONTENT": json.dumps(config),
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_MODELS_FETCH": "1",
        "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
        "OPENCODE_DISABLE_SHARE": "1",
        "DO_NOT_TRACK": "1",
    }


PROFILES: dict[str, AgentProfile] = {
    "opencode": AgentProfile(
        key="opencode",
        title="OpenCode",
        program="opencode",
        argv=("opencode", "acp"),
        env=_opencode_env,
    ),
    COMMAND: AgentProfile(
        key=COMMAND,
        title="Command",
        program="",
        argv=(),
        env=lambda model, policy: command_env(model),
        speaks_acp=False,
    ),
}
#: Those that a project may have as its agent.
ACP_PROFILES = {key: profile for key, profile in PROFILES.items() if profile.speaks_acp}


def agent_env(
    profile: AgentProfile,
    *,
    model: str = "",
    policy: str = "ask",
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of the agent's container: the repository's own variables first, ours last. No secret is among them."""
    name = model or DEFAULT_MODEL
    return {
        **(extra or {}),
        "OPENAI_BASE_URL": LLM_URL,
        "OPENAI_API_KEY": PLACEHOLDER_KEY,
        "OPENAI_MODEL": name,
        "LLMPROXY_URL": LLM_URL,
        **profile.env(name, policy),
    }


def entry_argv(
    profile: AgentProfile, lifecycle: Mapping[str, Sequence[tuple[str, ...]]] | None = None
) -> tuple[str, ...]:
    """The agent container's command: `sh` alone, which any image has.

    It checks that the program is there (exit 42 when it isn't), runs the repository's lifecycle commands with their output
    on standard error, so in the container's log (exit 43 when one fails), and becomes the agent with the FIFOs as
    standard input and output. `lifecycle` maps a command's name to the argument lists that it means.
    """
    program = shlex.quote(profile.program)
    lines = [
        f"if ! command -v {program} >/dev/null 2>&1; then",
        f'  echo "devaipod: the program {profile.program} is not in this image" >&2; exit {EXIT_AGENT_MISSING}; fi',
    ]
    lines += lifecycle_lines(lifecycle or {})
    agent = " ".join(shlex.quote(word) for word in profile.argv)
    lines.append(f"exec {agent} <{STDIO_DIR}/in >{STDIO_DIR}/out")
    return ("sh", "-c", "\n".join(lines))


def lifecycle_lines(commands: Mapping[str, Sequence[tuple[str, ...]]]) -> list[str]:
    """The repository's lifecycle commands as lines of shell."""
    lines = []
    once = [step for name in ONCE for step in _steps(name, commands.get(name, ()))]
    if once:
        mark = f'"${{HOME:-/tmp}}/{LIFECYCLE_MARK}"'
        lines += [f"if [ ! -e {mark} ]; then", *once, f": > {mark}; fi"]
    return lines + [step for name in EVERY_START for step in _steps(name, commands.get(name, ()))]


def _steps(name: str, commands: Sequence[tuple[str, ...]]) -> list[str]:
    steps = []
    for command in commands:
        words = " ".join(shlex.quote(word) for word in command)
        steps.append(
            f'echo "devaipod: {name}" >&2; '
            f"{words} </dev/null >&2 || {{ code=$?; "
            f'echo "devaipod: {name} ended with $code" >&2; exit {EXIT_LIFECYCLE_FAILED}; }}'
        )
    return steps
