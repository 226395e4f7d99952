"""Codex through its ACP adapter, which drives the program's own server."""

from __future__ import annotations

import json

from pods.agents.profile import LLM_URL, OPENAI_RESPONSES, AgentProfile, Choice

CONFIG = """\
# Written by devaipod before each start.
model = {model}
model_provider = "devaipod"
approval_policy = "{approval}"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
web_search = "disabled"

[model_providers.devaipod]
name = "devaipod"
base_url = {base}
wire_api = "responses"
requires_openai_auth = false

[analytics]
enabled = false

[feedback]
enabled = false
"""


def _env(choice: Choice) -> dict[str, str]:
    return {
        "CODEX_HOME": f"{choice.home}/.codex",
        "MODEL_PROVIDER": "devaipod",
        "INITIAL_AGENT_MODE": MODES[choice.policy],
        "NO_BROWSER": "1",
    }


def _files(choice: Choice) -> dict[str, str]:
    # A JSON text without characters beyond ASCII is a TOML basic string.
    text = CONFIG.format(
        model=json.dumps(choice.model),
        base=json.dumps(LLM_URL),
        approval="never" if choice.allows else "on-request",
    )
    return {".codex/config.toml": text}


#: The adapter's session modes; "read-only" asks before it changes or runs anything.
MODES = {"ask": "read-only", "allow": "agent-full-access"}

PROFILE = AgentProfile(
    key="codex",
    title="Codex",
    program="codex-acp",
    argv=("codex-acp",),
    env=_env,
    files=_files,
    forms=(OPENAI_RESPONSES,),
    modes=MODES,
    image="agents/codex",
)
