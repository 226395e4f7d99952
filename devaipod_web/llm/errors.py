"""What can go wrong between a run and its model.

ModelError
├── RequestRefused      the gateway does not pass the request: too large, not JSON, reaches further than the model
├── RunPaused           the run is paused: it may ask nothing until somebody resumes it
├── BudgetsUnavailable  the ledger can write nothing down, so nothing may be spent
├── PriceUnknown        nobody has said what the model costs, and no ceiling applies
├── NotConfigured       the run has no model, or its provider's credential cannot be read
├── CredentialRefused   the provider does not take the key
├── BudgetUsedUp        the provider's credit or quota is used up (402, `insufficient_quota`), or a budget of ours
├── RateLimited         the provider's limit is reached
├── ProviderRefused     the provider answers 4xx: unknown model, context too long, …
├── ProviderFailed      the provider answers 5xx, breaks off, or says something that is no answer
├── ProviderSilent      the provider said nothing for too long
└── ProviderUnreachable no connection: its name is not known, nobody listens, or the address is not allowed any more
"""

from __future__ import annotations


class ModelError(Exception):
    """A model request that did not go well. `message` and `next_step` are sentences for people and for the agent.

    `status` is what the agent is told; agents repeat 429 and 5xx by themselves.
    """

    code = "model-error"
    status = 502

    def __init__(
        self,
        message: str,
        *,
        next_step: str = "",
        status: int | None = None,
        retry_after: str = "",
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.status = status or self.status
        self.retry_after = retry_after
        #: The provider's own error, in the client's form and without its secrets; empty where the gateway speaks.
        self.body = body

    @property
    def sentence(self) -> str:
        """What went wrong and what to do, for the agent."""
        return f"{self.message} {self.next_step}".strip()


class RequestRefused(ModelError):
    """The gateway does not pass the request on."""

    code = "request-refused"
    status = 400


class RunPaused(ModelError):
    """The run stands still; repeating the request will not help. 403, which agents do not repeat as they do 429."""

    code = "run-paused"
    status = 403


class BudgetsUnavailable(ModelError):
    """Neither database nor journal can be written: what would be spent could not be counted."""

    code = "budgets-unavailable"
    status = 503


class PriceUnknown(ModelError):
    """The model's price is not known, and a price that is not known never counts as zero."""

    code = "price-unknown"
    status = 402


class NotConfigured(ModelError):
    """The run's provider or model is not set up; a manager mends it."""

    code = "not-configured"
    status = 400


class CredentialRefused(ModelError):
    """The provider answered 401 or 403; a manager checks the key."""

    code = "credential-refused"
    status = 401


class BudgetUsedUp(ModelError):
    """There is no money left for this call; repeating it will not help. 402, so that agents do not repeat it as they do 429."""

    code = "budget-used-up"
    status = 402


class RateLimited(ModelError):
    """The provider answered 429; the agent may repeat later."""

    code = "rate-limited"
    status = 429


class ProviderRefused(ModelError):
    """The provider answered another 4xx; repeating the same request will not help."""

    code = "provider-refused"
    status = 400


class ProviderFailed(ModelError):
    """The provider answered 5xx, broke off, or said something that is no answer."""

    code = "provider-failed"
    status = 502


class ProviderSilent(ModelError):
    """The provider said nothing for too long."""

    code = "provider-silent"
    status = 504


class ProviderUnreachable(ModelError):
    """The provider could not be reached."""

    code = "provider-unreachable"
    status = 504
