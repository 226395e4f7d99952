"""Where a run's model requests go: decided from the run's row at each request, never from what the agent says."""

from __future__ import annotations

from dataclasses import dataclass

from devaipod_web.llm import demo, vault
from devaipod_web.llm.errors import NotConfigured
from devaipod_web.llm.models import ProviderKind
from devaipod_web.llm.upstream import Upstream
from devaipod_web.runs.models import Run


@dataclass(frozen=True)
class Target:
    """A provider and a model. `upstream` is None for the scripted demo."""

    kind: str
    model: str
    provider_id: int | None
    upstream: Upstream | None

    @property
    def base_url(self) -> str:
        """The provider's address, or nothing for the demo."""
        return self.upstream.base_url if self.upstream else ""


def target_of(run_id: int) -> Target:
    """The provider and model of a run. Raises `NotConfigured` with what a manager can do."""
    run = Run.objects.select_related("provider", "project").get(pk=run_id)
    provider = run.provider
    if provider is None and run.model != demo.MODEL:
        # The provider's row was removed (SET_NULL): a scripted answer in its place would be a lie.
        raise NotConfigured(
            "The run's provider was removed.",
            next_step="Choose another provider in the project's settings and launch again.",
        )
    if provider is None or provider.kind == ProviderKind.DEMO:
        return Target(ProviderKind.DEMO, demo.MODEL, provider.pk if provider else None, None)
    model = run.model or run.project.model
    if not model:
        raise NotConfigured(
            f"No model is chosen for the provider {provider.name}.",
            next_step="Name a model in the project's settings.",
        )
    try:
        key = vault.unseal(bytes(provider.credential)).decode() if provider.credential else ""
    except vault.CannotUnseal as error:
        raise NotConfigured(f"{error}", next_step="A manager enters the key again.") from error
    upstream = Upstream(provider.name, provider.base_url, key)
    return Target(provider.kind, model, provider.pk, upstream)
