"""Goose: a program by itself, which speaks the form of several providers."""

from __future__ import annotations

from pods.agents.profile import (
    ANTHROPIC_MESSAGES,
    LLM_ROOT,
    OPENAI_CHAT,
    AgentProfile,
    Choice,
)
from pods.command import PLACEHOLDER_KEY, PROXY_URL


def _env(choice: Choice) -> dict[str, str]:
    if choice.form == ANTHROPIC_MESSAGES:
        # Its client adds v1/messages.
        provider = {
            "GOOSE_PROVIDER": "anthropic",
            "ANTHROPIC_HOST": LLM_ROOT,
            "ANTHROPIC_API_KEY": PLACEHOLDER_KEY,
        }
    else:
        provider = {
            "GOOSE_PROVIDER": "openai",
            "OPENAI_HOST": PROXY_URL,
            "OPENAI_BASE_PATH": "llm/v1/chat/completions",
            "OPENAI_API_KEY": PLACEHOLDER_KEY,
        }
    return {
        **provider,
        "GOOSE_MODEL": choice.model,
        "GOOSE_MODE": "auto" if choice.allows else "approve",
        # Without a desktop there is no keyring to ask.
        "GOOSE_DISABLE_KEYRING": "1",
        "GOOSE_DISABLE_SESSION_NAMING": "true",
        "GOOSE_TELEMETRY_ENABLED": "false",
    }


PROFILE = AgentProfile(
    key="goose",
    title="Goose",
    program="goose",
    argv=("goose", "acp", "--with-builtin", "developer"),
    env=_env,
    forms=(OPENAI_CHAT, ANTHROPIC_MESSAGES),
    modes={"ask": "approve", "allow": "auto"},
    image="agents/goose",
)
