"""Gemini CLI. Its system settings win over those of the repository and of the home, so ours are the system's."""

from __future__ import annotations

import json

from pods.agents.profile import GEMINI_FORM, LLM_ROOT, AgentProfile, Choice
from pods.command import PLACEHOLDER_KEY

SETTINGS = ".devaipod/gemini.json"


def _env(choice: Choice) -> dict[str, str]:
    return {
        # Its client adds /v1beta/models/….
        "GOOGLE_GEMINI_BASE_URL": LLM_ROOT,
        "GEMINI_API_KEY": PLACEHOLDER_KEY,
        "GEMINI_MODEL": choice.model,
        "GEMINI_CLI_SYSTEM_SETTINGS_PATH": f"{choice.home}/{SETTINGS}",
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "GEMINI_CLI_NO_RELAUNCH": "true",
        "GEMINI_TELEMETRY_ENABLED": "false",
        "NO_BROWSER": "true",
    }


def _files(choice: Choice) -> dict[str, str]:
    settings = {
        "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "security": {
            "auth": {"selectedType": "gemini-api-key"},
            "folderTrust": {"enabled": False},
        },
        "model": {"name": choice.model},
        "tools": {"exclude": ["google_web_search", "web_fetch"]},
    }
    return {SETTINGS: json.dumps(settings, indent=2)}


PROFILE = AgentProfile(
    key="gemini",
    title="Gemini CLI",
    program="gemini",
    argv=("gemini", "--acp"),
    env=_env,
    files=_files,
    forms=(GEMINI_FORM,),
    modes={"ask": "default", "allow": "yolo"},
    auth_method="gemini-api-key",
    image="agents/gemini",
)
