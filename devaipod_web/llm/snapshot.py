"""What a run may do with models, as the database has it; read beside the run's requests and not in their way (`gateway.fresh`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

from devaipod_web.gateway.fresh import Fresh
from devaipod_web.llm import demo, vault
from devaipod_web.llm.errors import NotConfigured
from devaipod_web.llm.models import Price, Provider, Route
from devaipod_web.llm.prices import Override, in_order
from devaipod_web.llm.routing import RouteView, RunView, Upstream
from devaipod_web.runs.models import Run
from devaipod_web.runs.states import State


@dataclass(frozen=True)
class _Tables:
    """Providers, routes and prices of the installation; the same for every run."""

    providers: Mapping[str, Upstream]
    routes: tuple[RouteView, ...]
    prices: tuple[tuple[int | None, Override], ...]


async def of(run_id: int) -> RunView:
    """The view of a run, at most `fresh.MAX_AGE_SECONDS` old. Raises `NotConfigured` when its row is gone."""
    view = await _fresh.get(run_id)
    if view is None:
        raise NotConfigured("The run was removed.")
    return view


async def of_resumed(run_id: int) -> RunView:
    """As `of`, but read now: a run that was paused a moment ago may have been resumed, and its agent asks at once."""
    view = await _fresh.anew(run_id)
    if view is None:
        raise NotConfigured("The run was removed.")
    return view


def forget_all() -> None:
    """Read everything anew; between tests."""
    _fresh.forget_all()


def read_all(run_ids: Collection[int]) -> dict[int, RunView]:
    """The views of these runs as the database has them now: four queries, however many runs there are."""
    tables = _read_tables()
    overrides = {
        project_id: in_order(
            o for of_project, o in tables.prices if of_project in (None, project_id)
        )
        for project_id in {None, *(project_id for project_id, _ in tables.prices)}
    }
    # Columns and not rows: a run's task may be long.
    rows = Run.objects.filter(pk__in=run_ids).values_list(
        *("pk", "project_id", "owner_id", "token_id", "model", "project__model", "provider__key"),
        *("state", "reason"),
    )
    return {
        run_id: RunView(
            run_id=run_id,
            project_id=project_id,
            person_id=person_id,
            token_id=token_id,
            model=model or (project_model if provider else ""),
            demo_model=demo.MODEL,
            provider=provider,
            providers=tables.providers,
            routes=tables.routes,
            overrides=overrides.get(project_id, overrides[None]),
            paused=(reason or "Somebody paused it.") if state == State.PAUSED else "",
        )
        for run_id, project_id, person_id, token_id, model, project_model, provider, state, reason in rows
        # One that was added after the tables were read is there at the next reading.
        if provider is None or provider in tables.providers
    }


_fresh: Fresh[int, RunView] = Fresh("runs", read_all)


def _read_tables() -> _Tables:
    providers = {row.key: upstream_of(row) for row in Provider.objects.all()}
    keys = {upstream.id: key for key, upstream in providers.items()}
    routes = tuple(
        RouteView(
            key=row.key,
            pattern=row.pattern,
            provider=keys[row.provider_id],
            rewrite=row.rewrite,
            fallbacks=tuple((f["provider"], f["model"]) for f in row.fallbacks),
            output_limit=row.output_limit,
            project_id=row.project_id,
        )
        for row in Route.objects.filter(enabled=True)
        if row.provider_id in keys
    )
    prices = tuple((row.project_id, override_of(row)) for row in Price.objects.all())
    return _Tables(providers, routes, prices)


def upstream_of(provider: Provider) -> Upstream:
    """A provider's row with its credential unsealed; where that fails, with the sentence that says so."""
    key = trouble = ""
    try:
        key = _unsealed(bytes(provider.credential)) if provider.credential else ""
    except vault.CannotUnseal as error:
        trouble = str(error)
    return Upstream(
        provider.pk, provider.key, provider.name, provider.kind, provider.base_url, key, trouble
    )


@lru_cache(maxsize=256)
def _unsealed_with(sealed: bytes, fingerprint: str) -> str:
    return vault.unseal(sealed).decode()


def _unsealed(sealed: bytes) -> str:
    """Deriving the key and checking the seal take longer than reading the row; the same seal says the same."""
    return _unsealed_with(sealed, vault.fingerprint())


def override_of(price: Price) -> Override:
    """A row of the Prices page as the prices know it."""
    return Override(
        pattern=price.pattern,
        is_ceiling=price.is_ceiling,
        of_project=price.project_id is not None,
        sent=price.sent,
        received=price.received,
        cached=price.cached,
        written=price.written,
        reasoning=price.reasoning,
        request=price.request,
    )
