"""What an agent profile is, and what a run has chosen when a profile is asked for its environment and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pods.command import PROXY_URL

#: The base of OpenAI's forms; Anthropic's and Google's clients add their own version to `LLM_ROOT`.
LLM_URL = f"{PROXY_URL}/llm/v1"
LLM_ROOT = f"{PROXY_URL}/llm"
DEFAULT_MODEL = "default"

#: Wire forms by the names that the gateway's table has for them (devaipod_web/llm/forms).
OPENAI_CHAT = "openai-chat"
OPENAI_RESPONSES = "openai-responses"
ANTHROPIC_MESSAGES = "anthropic-messages"
GEMINI_FORM = "gemini"


@dataclass(frozen=True)
class Choice:
    """What a run has chosen: model, permission policy (`ask` or `allow`), wire form, and the home folder of the agent's user."""

    model: str = DEFAULT_MODEL
    policy: str = "ask"
    form: str = ""
    home: str = "/home/agent"

    @property
    def allows(self) -> bool:
        """Whether the agent need not ask anybody."""
        return self.policy == "allow"


def _nothing(choice: Choice) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class AgentProfile:
    """One kind of agent.

    `forms` are the wire forms that it speaks, the one that it speaks best first; empty: any. `env` is its environment, and `files`
    (path below its home → text) are written before it starts, whatever was there. `modes` maps a permission policy to the ACP
    session mode that means the same to this agent, and `auth_method` is the ACP method to authenticate with where the agent offers
    it; no credential is sent. `image` is the recipe below `images/` that holds it.
    """

    key: str
    title: str
    program: str
    argv: tuple[str, ...]
    env: Callable[[Choice], dict[str, str]] = _nothing
    files: Callable[[Choice], dict[str, str]] = _nothing
    forms: tuple[str, ...] = ()
    modes: Mapping[str, str] = field(default_factory=dict)
    auth_method: str = ""
    image: str = ""
    speaks_acp: bool = True
