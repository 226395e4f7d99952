"""OpenCode: a program without other parts, which takes its whole configuration from one variable."""

from __future__ import annotations

import json

from pods.agents.profile import (
    ANTHROPIC_MESSAGES,
    GEMINI_FORM,
    LLM_ROOT,
    LLM_URL,
    OPENAI_CHAT,
    OPENAI_RESPONSES,
    AgentProfile,
    Choice,
)
from pods.command import PLACEHOLDER_KEY

#: The AI SDK's packages that are built into the program, and the base address that each adds its paths to.
PACKAGES = {
    OPENAI_CHAT: ("@ai-sdk/openai-compatible", LLM_URL),
    OPENAI_RESPONSES: ("@ai-sdk/openai", LLM_URL),
    ANTHROPIC_MESSAGES: ("@ai-sdk/anthropic", LLM_URL),
    GEMINI_FORM: ("@ai-sdk/google", f"{LLM_ROOT}/v1beta"),
}


def _env(choice: Choice) -> dict[str, str]:
    decision = "allow" if choice.allows else "ask"
    package, base = PACKAGES[choice.form or OPENAI_CHAT]
    config = {
        "$schema": "https://opencode.ai/config.json",
        "provider": {
            "devaipod": {
                "npm": package,
                "name": "devaipod",
                "options": {"baseURL": base, "apiKey": PLACEHOLDER_KEY},
                "models": {choice.model: {"name": choice.model, "tool_call": True}},
            }
        },
        "model": f"devaipod/{choice.model}",
        "small_model": f"devaipod/{choice.model}",
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


PROFILE = AgentProfile(
    key="opencode",
    title="OpenCode",
    program="opencode",
    argv=("opencode", "acp"),
    env=_env,
    forms=(OPENAI_CHAT, ANTHROPIC_MESSAGES, GEMINI_FORM),
    image="agent",
)
