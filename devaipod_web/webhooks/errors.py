"""What a person is told when something with a webhook could not be done.

WebhookError
├── InvalidWebhook      fields that cannot be as they were given, each with a sentence
└── WebhookDisabled     nothing is sent to a webhook that is disabled
"""

from __future__ import annotations

from devaipod_web.errors import DevaipodError, InvalidFields


class WebhookError(DevaipodError):
    """Something with a webhook could not be done. `message` and `next_step` are sentences; both are shown."""

    code = "webhook-error"
    status = 409


class InvalidWebhook(InvalidFields, WebhookError):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-webhook"
    status = 400


class WebhookDisabled(WebhookError):
    """Nothing is sent to a webhook that is disabled."""

    code = "webhook-disabled"
