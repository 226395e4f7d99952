"""The wire forms that agents speak with models. Adding one is a module beside this one and a line in `FORMS`."""

from __future__ import annotations

from devaipod_web.llm.forms.anthropic_messages import AnthropicMessages
from devaipod_web.llm.forms.base import Action, Asked, Door, Form
from devaipod_web.llm.forms.body import Body, NotPlain
from devaipod_web.llm.forms.gemini import Gemini
from devaipod_web.llm.forms.openai_chat import OpenAIChat
from devaipod_web.llm.forms.openai_responses import OpenAIResponses

#: Every form. The first one's error form answers where no form's path was asked for.
FORMS: tuple[Form, ...] = (OpenAIChat(), OpenAIResponses(), AnthropicMessages(), Gemini())

__all__ = ["FORMS", "Action", "Asked", "Body", "Door", "Form", "NotPlain"]
