"""What a person is told when something with a webhook could not be done.

WebhookError
├── InvalidWebhook      fields that cannot be as they were given, each with a sentence
└── WebhookDisabled     nothing is sent to a webhook that is disabled
"""

from __future__ import annotations


class WebhookError(Exception):
    """Something with a webhook could not be done. `message` and `next_step` are sentences; both are shown."""

    code = "webhook-error"
    status = 409

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class InvalidWebhook(WebhookError):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-webhook"
    status = 400

    def __init__(self, errors: dict[str, str]) -> None:
        super().__init__(" ".join(errors.values()))
        self.errors = errors


class WebhookDisabled(WebhookError):
    """Nothing is sent to a webhook that is disabled."""

    code = "webhook-disabled"
