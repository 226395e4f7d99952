"""Which wire form a run's agent speaks with its provider, and what is said where they have none in common.

Requests are never translated (see `forms/base.py`), so this is decided when a run is asked for, not when its first request fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from devaipod_web.llm import demo, routes
from devaipod_web.llm.forms import FORMS
from devaipod_web.llm.models import Provider, ProviderKind
from devaipod_web.projects.models import Project
from pods.agents import ACP_PROFILES, PROFILES, AgentProfile, choose_form

LABELS = {form.name: form.label for form in FORMS}


@dataclass(frozen=True)
class Answerer:
    """Who answers a run: a provider's kind and name, and the model's name there."""

    kind: str
    name: str
    model: str


@dataclass(frozen=True)
class Misfit:
    """An agent and a provider without a common language, in a sentence, and what to do."""

    message: str
    next_step: str


def answerer(project: Project, provider: Provider | None, model: str) -> Answerer:
    """Who answers a run of `project` that names this provider or none, and this model or none. Blocking."""
    # The demo's own model is no name that routes take.
    if provider is None and model and model != demo.MODEL:
        found = routes.which(model, project)
        if found is not None:
            route, there = found
            return Answerer(route.provider.kind, route.provider.name, there)
    if provider is None:
        return Answerer(ProviderKind.DEMO, ProviderKind.DEMO.label, "")
    return Answerer(provider.kind, provider.name, model)


def spoken(who: Answerer) -> list[str]:
    """Names of the wire forms that they speak. Vertex speaks the form of the model's maker."""
    names = [form.name for form in FORMS if who.kind in form.kinds]
    if who.kind == ProviderKind.VERTEX and who.model:
        is_claude = "claude" in who.model.lower()
        return [name for name in names if (name == "anthropic-messages") is is_claude]
    return names


def form_for(profile: AgentProfile, who: Answerer) -> str | None:
    """The form that this agent should speak; empty when it does not care, None when they have none in common."""
    return choose_form(profile, spoken(who))


def misfit(agent: str, who: Answerer) -> Misfit | None:
    """Why this agent cannot work with them, or None when it can. An agent that nobody knows is not judged here."""
    profile = PROFILES.get(agent)
    if profile is None or form_for(profile, who) is not None:
        return None
    wants = " or ".join(LABELS[form] for form in profile.forms)
    whom = f"{who.name} ({ProviderKind(who.kind).label})"
    if who.kind == ProviderKind.VERTEX:
        whom = f"the model {who.model} of {whom}"
    others = [p.title for p in ACP_PROFILES.values() if form_for(p, who) is not None]
    kinds = {kind for form in FORMS if form.name in profile.forms for kind in form.kinds}
    labels = [str(kind.label) for kind in ProviderKind if kind in kinds]
    return Misfit(
        f"{profile.title} speaks {wants}, and {whom} does not.",
        f"Choose {_either(others)} as the agent, or for {profile.title} a provider of the kind {_either(labels)}.",
    )


def form_of_run(project: Project, *, agent: str, provider: Provider | None, model: str) -> str:
    """The form for a run that starts now; empty for the profile's own choice. Blocking.

    Where provider or routes have changed since the launch so that none fits, the gateway says so at the first request.
    """
    profile = PROFILES.get(agent)
    if profile is None:
        return ""
    return form_for(profile, answerer(project, provider, model)) or ""


def _either(names: list[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}" if most else last
