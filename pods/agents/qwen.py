"""Qwen Code. Its system settings win over those of the repository and of the home, so ours are the system's."""

from __future__ import annotations

import json

from pods.agents.profile import LLM_URL, OPENAI_CHAT, AgentProfile, Choice
from pods.command import PLACEHOLDER_KEY

SETTINGS = ".devaipod/qwen.json"


def _env(choice: Choice) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": LLM_URL,
        "OPENAI_API_KEY": PLACEHOLDER_KEY,
        "OPENAI_MODEL": choice.model,
        "QWEN_CODE_SYSTEM_SETTINGS_PATH": f"{choice.home}/{SETTINGS}",
        "QWEN_CODE_NO_RELAUNCH": "true",
        "NO_BROWSER": "true",
    }


def _files(choice: Choice) -> dict[str, str]:
    settings = {
        "general": {"enableAutoUpdate": False, "disableAutoUpdate": True, "gitCoAuthor": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "security": {
            "auth": {"selectedType": "openai", "useExternal": False},
            "folderTrust": {"enabled": False},
        },
        "model": {"name": choice.model},
        "tools": {"exclude": ["web_fetch", "web_search"]},
    }
    return {SETTINGS: json.dumps(settings, indent=2)}


PROFILE = AgentProfile(
    key="qwen",
    title="Qwen Code",
    program="qwen",
    argv=("qwen", "--acp"),
    env=_env,
    files=_files,
    forms=(OPENAI_CHAT,),
    modes={"ask": "default", "allow": "yolo"},
    auth_method="openai",
    image="agents/qwen",
)
