"""Each model provider: a test call now and then, and what the runs' own calls met since."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.utils import timezone

from devaipod_web import db
from devaipod_web.health.contract import Health, Kind, Named, Report, Service
from devaipod_web.llm import provider_test
from devaipod_web.llm.models import LlmCall, Provider, ProviderKind
from devaipod_web.llm.provider_test import Tested
from devaipod_web.parts import Part

EVERY_SECONDS = 2.0
#: How often a provider is asked for its models while it answers, and while it does not.
TEST_SECONDS, RETRY_SECONDS = 60.0, 10.0
#: A run's failed call counts for so long, unless a later one succeeded or somebody restarted the provider.
COUNTS_FOR = timedelta(minutes=15)
#: Answers of a provider that are its own fault or the key's, and no single request's.
KEY_REFUSED = frozenset({401, 402, 403})
BUSY = 429


class ModelProvider:
    """One provider."""

    kind = Kind.PROVIDER
    every = EVERY_SECONDS
    restart_does = (
        "It is another party's: it is asked for its models now, with its key, as a run would."
    )
    no_restart = ""

    def __init__(self, row: Provider) -> None:
        self.name = f"provider-{row.key}"
        self.title = row.name
        self._row = row
        self._tested = Tested(ok=False, message="It has not been asked yet.")
        self._tested_at: float | None = None
        self._forgiven_at = timezone.now() - COUNTS_FOR
        self._testing: asyncio.Task[None] | None = None

    def refresh(self, row: Provider) -> None:
        """Take over what was changed; another address or key is tested at once."""
        if (row.base_url, bytes(row.credential)) != (
            self._row.base_url,
            bytes(self._row.credential),
        ):
            self._tested_at, self._forgiven_at = None, timezone.now()
        self.title, self._row = row.name, row

    async def check(self) -> Report:
        """The last test call, made anew when it is due, and the newest call of a run."""
        since = max(self._forgiven_at, timezone.now() - COUNTS_FOR)
        status, error, at = await db.read(_newest_call, self._row.pk, since)
        failed = status in KEY_REFUSED or status >= 500
        now = time.monotonic()
        pause = TEST_SECONDS if self._tested.ok and not failed else RETRY_SECONDS
        if self._tested_at is None or now - self._tested_at > pause:
            await self._test()
        facts = {"address": self._row.base_url} if self._row.base_url else {}
        if not self._tested.ok:
            return Report(
                Health.DOWN, self._tested.message, next_step=self._tested.next_step, facts=facts
            )
        if failed or status == BUSY:
            return Report(
                Health.DEGRADED,
                f"It answers, and a run's last call met {status}: {error}"[:480],
                next_step="Check its key and quota; restart it to test it now.",
                last_error=f"{status}: {error}",
                last_error_at=at,
                facts=facts,
            )
        took = f" It took {self._tested.milliseconds} ms." if self._tested.milliseconds else ""
        return Report(Health.OK, self._tested.message + took, facts=facts)

    async def _test(self) -> None:
        # A test that is slow goes on over several looks: it is bounded by itself.
        if self._testing is None:
            self._testing = asyncio.create_task(self._ask(), name=f"test {self.name}")
        await asyncio.wait({self._testing}, timeout=3.0)

    async def _ask(self) -> None:
        try:
            self._tested = await asyncio.to_thread(provider_test.test, self._row)
        finally:
            self._tested_at = time.monotonic()
            self._testing = None

    async def restart(self) -> None:
        """Test it now, and forget what calls before met."""
        if self._testing is not None:
            await asyncio.wait({self._testing})
        self._forgiven_at = timezone.now()
        await self._ask()


def _newest_call(provider_id: int, since: datetime) -> tuple[int, str, datetime | None]:
    """Status, error and time of the newest call of a run to a provider since a moment; status 0 when there was none."""
    row = LlmCall.objects.filter(provider_id=provider_id, at__gt=since).order_by("-at").first()
    return (row.status, row.error, row.at) if row else (0, "", None)


def each(parts: Mapping[str, Part]) -> Named:
    """Every provider that a manager has added; the built-in demo is no service."""
    known: dict[str, ModelProvider] = {}

    async def named() -> Sequence[Service]:
        rows = await db.read(lambda: list(Provider.objects.exclude(kind=ProviderKind.DEMO)))
        for key in set(known) - {row.key for row in rows}:
            del known[key]
        for row in rows:
            if row.key in known:
                known[row.key].refresh(row)
            else:
                known[row.key] = ModelProvider(row)
        return list(known.values())

    return named
