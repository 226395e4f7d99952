"""Claude Code through its ACP adapter, which carries the program.

The adapter reads the settings of the repository (`.claude/`, hooks among them): they run in the pod, as anything of the
agent's does, and the pod is the boundary.
"""

from __future__ import annotations

import json

from pods.agents.profile import ANTHROPIC_MESSAGES, LLM_ROOT, AgentProfile, Choice
from pods.command import PLACEHOLDER_KEY


def _env(choice: Choice) -> dict[str, str]:
    return {
        # Its client adds /v1/messages.
        "ANTHROPIC_BASE_URL": LLM_ROOT,
        "ANTHROPIC_AUTH_TOKEN": PLACEHOLDER_KEY,
        "ANTHROPIC_MODEL": choice.model,
        "ANTHROPIC_CUSTOM_MODEL_OPTION": choice.model,
        # Titles, summaries and helpers ask for models by rank; a run has one.
        "ANTHROPIC_SMALL_FAST_MODEL": choice.model,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": choice.model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": choice.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": choice.model,
        "CLAUDE_CODE_SUBAGENT_MODEL": choice.model,
        "CLAUDE_CONFIG_DIR": f"{choice.home}/.claude",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1",
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
        "DISABLE_BUG_COMMAND": "1",
        "DISABLE_INSTALLATION_CHECKS": "1",
        # It refuses to go without asking as uid 0 unless it is told that it is in a sandbox, and it is.
        "IS_SANDBOX": "1",
    }


def _files(choice: Choice) -> dict[str, str]:
    settings = {
        "permissions": {
            "deny": ["WebSearch", "WebFetch"],
            "defaultMode": "bypassPermissions" if choice.allows else "default",
        },
        "skipWebFetchPreflight": True,
        "includeCoAuthoredBy": False,
    }
    return {
        ".claude/settings.json": json.dumps(settings, indent=2),
        ".claude/.claude.json": json.dumps({"hasCompletedOnboarding": True}),
    }


PROFILE = AgentProfile(
    key="claude",
    title="Claude Code",
    program="claude-agent-acp",
    argv=("claude-agent-acp",),
    env=_env,
    files=_files,
    forms=(ANTHROPIC_MESSAGES,),
    modes={"ask": "default", "allow": "bypassPermissions"},
    image="agents/claude",
)
