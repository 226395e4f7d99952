"""What a run may do with models, read from the database beside its requests and not in their way.

A view counts for at most `MAX_AGE_SECONDS`. One that is used and older than `REFRESH_SECONDS` is read anew in the
background, so that a run at work waits for the database only at its first request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import structlog

from devaipod_web import db
from devaipod_web.llm import demo, vault
from devaipod_web.llm.errors import NotConfigured
from devaipod_web.llm.models import Price, Provider, Route
from devaipod_web.llm.prices import Override, in_order
from devaipod_web.llm.routing import RouteView, RunView, Upstream
from devaipod_web.runs.models import Run

log = structlog.get_logger("devaipod.llm")

REFRESH_SECONDS = 0.4
MAX_AGE_SECONDS = 1.0
MAX_REMEMBERED = 4096


@dataclass(frozen=True)
class _Tables:
    """Providers, routes and prices of the installation; the same for every run."""

    read_at: float
    providers: Mapping[str, Upstream]
    routes: tuple[RouteView, ...]
    prices: tuple[tuple[int | None, Override], ...]


class _Views:
    """The views of one process."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[float, RunView]] = {}
        self.reading: dict[int, asyncio.Task[RunView]] = {}
        self.tables: _Tables | None = None

    async def of(self, run_id: int) -> RunView:
        now = time.monotonic()
        found = self.known.get(run_id)
        if found is not None:
            age = now - found[0]
            if age < MAX_AGE_SECONDS:
                if age > REFRESH_SECONDS and run_id not in self.reading:
                    self._read(run_id).add_done_callback(_reap)
                return found[1]
        task = self.reading.get(run_id) or self._read(run_id)
        return await asyncio.shield(task)

    def _read(self, run_id: int) -> asyncio.Task[RunView]:
        task = asyncio.create_task(self._fresh(run_id), name="llm-snapshot")
        self.reading[run_id] = task
        task.add_done_callback(lambda _: self.reading.pop(run_id, None))
        return task

    async def _fresh(self, run_id: int) -> RunView:
        # When the reading begins, not when it ends: what was changed meanwhile may not be in it.
        at = time.monotonic()
        tables = self.tables
        if tables is None or at - tables.read_at > REFRESH_SECONDS:
            tables = await db.read(_read_tables, at)
            self.tables = tables
        view = await db.read(_read_run, run_id, tables)
        if len(self.known) >= MAX_REMEMBERED:
            self.known.clear()
        self.known[run_id] = (min(at, tables.read_at), view)
        return view


_views = _Views()


async def of(run_id: int) -> RunView:
    """The view of a run, at most `MAX_AGE_SECONDS` old. Raises `NotConfigured` when its row is gone."""
    return await _views.of(run_id)


def forget_all() -> None:
    """Read everything anew; between tests."""
    global _views
    _views = _Views()


def _reap(task: asyncio.Task[RunView]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        # The view that is there counts until it is too old; then the error reaches a request.
        log.warning("llm.snapshot_not_read", error=str(error)[:300])


def _read_tables(at: float) -> _Tables:
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
    return _Tables(at, providers, routes, prices)


def _read_run(run_id: int, tables: _Tables) -> RunView:
    run = Run.objects.select_related("project", "provider").filter(pk=run_id).first()
    if run is None:
        raise NotConfigured("The run was removed.")
    named = run.provider
    if named is not None and named.key not in tables.providers:
        # It was added after the tables were read.
        tables = _read_tables(tables.read_at)
    return RunView(
        run_id=run.pk,
        project_id=run.project_id,
        person_id=run.owner_id,
        token_id=getattr(run, "token_id", None),
        model=run.model or ("" if named is None else run.project.model),
        demo_model=demo.MODEL,
        provider=named.key if named else None,
        providers=tables.providers,
        routes=tables.routes,
        overrides=in_order(
            override
            for project_id, override in tables.prices
            if project_id in (None, run.project_id)
        ),
    )


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
