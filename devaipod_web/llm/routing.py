"""Where a request goes: the run's own provider, else the first route that takes the model, else the scripted demo.

Everything here is plain data and arithmetic; `snapshot` reads it from the database.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from devaipod_web.llm import globs
from devaipod_web.llm.errors import NotConfigured
from devaipod_web.llm.forms import Form
from devaipod_web.llm.models import ProviderKind
from devaipod_web.llm.prices import Override

#: Output limits of models that allow less than the usual limit, as their makers document them; the first match counts.
SMALLER_LIMITS = (
    ("gpt-4o*", 16_384),
    ("gpt-4-*", 4_096),
    ("gpt-4", 4_096),
    ("gpt-3.5*", 4_096),
    ("claude-3-5-*", 8_192),
    ("claude-3-opus*", 4_096),
    ("claude-3-haiku*", 4_096),
    ("gemini-1.*", 8_192),
    ("gemini-2.0*", 8_192),
    ("deepseek-chat*", 8_192),
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider with its credential, in memory only. `key` is empty where it has none; `trouble` says why it can't be used."""

    id: int | None
    public_key: str
    name: str
    kind: str
    base_url: str
    key: str = field(repr=False, default="")
    trouble: str = ""


DEMO = Upstream(None, "", ProviderKind.DEMO.label, ProviderKind.DEMO, "")


@dataclass(frozen=True, slots=True)
class RouteView:
    """One enabled route. `project_id` None: for every project."""

    key: str
    pattern: str
    provider: str
    rewrite: str
    fallbacks: tuple[tuple[str, str], ...]
    output_limit: int | None
    project_id: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider and the model's name there. `route` is the key of the route that led here, or empty."""

    upstream: Upstream
    model: str
    route: str = ""
    output_limit: int | None = None

    @property
    def is_demo(self) -> bool:
        """Whether the scripted demo answers."""
        return self.upstream.kind == ProviderKind.DEMO

    def limit(self, usual: int) -> int:
        """The output limit for requests without one: the route's, else the model's where it is smaller than the usual one."""
        if self.output_limit:
            return self.output_limit
        name = self.model.rpartition("/")[2]
        return next((n for pattern, n in SMALLER_LIMITS if globs.matches(pattern, name)), usual)


@dataclass(frozen=True)
class RunView:
    """What decides about a run's requests, as it was read at one moment. Its database ids are never shown."""

    run_id: int
    project_id: int
    person_id: int
    token_id: int | None
    model: str
    demo_model: str
    #: The provider that the run names; None when it names none or it was removed.
    provider: str | None
    providers: Mapping[str, Upstream]
    routes: tuple[RouteView, ...]
    overrides: tuple[Override, ...]
    #: Why the run is paused, in a sentence; empty while it may ask.
    paused: str = ""
    #: What was worked out from this view, by whoever did.
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False, compare=False)


def candidates(run: RunView, form: Form, asked: str) -> tuple[Candidate, ...]:
    """Who may answer, in order: the first one is asked, the others when it fails before a word came back.

    Raises `NotConfigured` when nobody takes the model, or the one who does speaks another form.
    """
    found = _chosen(run, asked)
    first = found[0].upstream
    if first.trouble:
        raise NotConfigured(first.trouble, next_step="A manager enters the key again.")
    if first.kind not in form.kinds:
        raise NotConfigured(
            f"The agent speaks {form.label}, and the provider {first.name} ({_kind(first.kind)}) does not.",
            next_step="Choose an agent or a provider that fits the other, in the project's settings or the routes.",
        )
    usable = (c for c in found if c.upstream.kind in form.kinds and not c.upstream.trouble)
    return tuple(usable)


def _chosen(run: RunView, asked: str) -> list[Candidate]:
    if run.provider is not None:
        upstream = run.providers[run.provider]
        if upstream.kind == ProviderKind.DEMO:
            return [Candidate(upstream, run.demo_model)]
        if not run.model:
            raise NotConfigured(
                f"No model is chosen for the provider {upstream.name}.",
                next_step="Name a model in the project's settings.",
            )
        return [Candidate(upstream, run.model)]
    if run.model == run.demo_model:
        return [Candidate(DEMO, run.demo_model)]
    for name in dict.fromkeys((asked, run.model)):
        route = takes(run.routes, name, run.project_id) if name else None
        if route is not None:
            return _along(route, name, run)
    # The provider's row was removed (SET_NULL): a scripted answer in its place would be a lie.
    raise NotConfigured(
        f"The run's provider was removed, and no route takes the model {run.model or asked}.",
        next_step="Choose another provider in the project's settings or add a route, and launch again.",
    )


def takes(routes: Iterable[RouteView], model: str, project_id: int | None) -> RouteView | None:
    """The first route that takes this model for this project."""
    for route in routes:
        if route.project_id in (None, project_id) and globs.matches(route.pattern, model):
            return route
    return None


def _along(route: RouteView, name: str, run: RunView) -> list[Candidate]:
    first = Candidate(
        run.providers[route.provider],
        globs.rewritten(route.pattern, route.rewrite, name),
        route.key,
        route.output_limit,
    )
    others = [
        Candidate(run.providers[provider], model or first.model, route.key, route.output_limit)
        for provider, model in route.fallbacks
        if provider in run.providers
    ]
    return [_as_demo(each, run) for each in (first, *others)]


def _as_demo(candidate: Candidate, run: RunView) -> Candidate:
    if not candidate.is_demo:
        return candidate
    return Candidate(candidate.upstream, run.demo_model, candidate.route)


def offered(run: RunView) -> list[str]:
    """Names of models that the run may ask for: its own, and those that routes name plainly."""
    if run.provider is not None or run.model == run.demo_model:
        upstream = run.providers.get(run.provider or "", DEMO)
        return [run.demo_model if upstream.kind == ProviderKind.DEMO else run.model]
    plain = [
        route.pattern
        for route in run.routes
        if route.project_id in (None, run.project_id) and not globs.is_wild(route.pattern)
    ]
    return list(dict.fromkeys([run.model, *plain] if run.model else plain))


def _kind(kind: str) -> str:
    return str(ProviderKind(kind).label)
