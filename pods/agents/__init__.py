"""Agent profiles: the program, how it is started over FIFOs, and what points it at the sidecar without a key.

Adding an agent is a module beside this one, a line in `PROFILES`, and a folder of `images/agents/` where npm has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pods.agents import claude, codex, gemini, goose, opencode, qwen
from pods.agents.entry import EXIT_LIFECYCLE_FAILED, entry_argv, lifecycle_lines
from pods.agents.profile import DEFAULT_MODEL, LLM_URL, AgentProfile, Choice
from pods.command import COMMAND, PLACEHOLDER_KEY, command_env

PROFILES: dict[str, AgentProfile] = {
    "opencode": opencode.PROFILE,
    "claude": claude.PROFILE,
    "codex": codex.PROFILE,
    "gemini": gemini.PROFILE,
    "qwen": qwen.PROFILE,
    "goose": goose.PROFILE,
    COMMAND: AgentProfile(
        key=COMMAND,
        title="Command",
        program="",
        argv=(),
        env=lambda choice: command_env(choice.model),
        image=opencode.PROFILE.image,
        speaks_acp=False,
    ),
}
#: Those that an image of ours holds beside the default one, each in an image of its own (images/agents/<key>).
PACKAGED = tuple(key for key, profile in PROFILES.items() if profile.image == f"agents/{key}")
#: Those that a project may have as its agent.
ACP_PROFILES = {key: profile for key, profile in PROFILES.items() if profile.speaks_acp}


def choose_form(profile: AgentProfile, spoken: Iterable[str]) -> str | None:
    """The first of the profile's wire forms that is among those spoken; empty when it does not care, None when there is none."""
    if not profile.forms:
        return ""
    known = set(spoken)
    return next((form for form in profile.forms if form in known), None)


def agent_env(
    profile: AgentProfile, choice: Choice, *, extra: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The environment of the agent's container: the repository's own variables first, ours last. No secret is among them."""
    return {
        **(extra or {}),
        "OPENAI_BASE_URL": LLM_URL,
        "OPENAI_API_KEY": PLACEHOLDER_KEY,
        "OPENAI_MODEL": choice.model,
        "LLMPROXY_URL": LLM_URL,
        **profile.env(choice),
    }


__all__ = [
    "ACP_PROFILES",
    "DEFAULT_MODEL",
    "EXIT_LIFECYCLE_FAILED",
    "PACKAGED",
    "PROFILES",
    "AgentProfile",
    "Choice",
    "agent_env",
    "choose_form",
    "entry_argv",
    "lifecycle_lines",
]
