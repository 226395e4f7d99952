"""Our gateway as `devaipod serve` runs it, alone in a process: tokens, routes, budgets and metering on, on SQLite.

`python -m tests.bench.llm.gateway PORT UPSTREAM_PORT RUNS` prepares DEVAIPOD_HOME, prints a JSON line with the runs' tokens, and serves.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from decimal import Decimal

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "devaipod_web.settings")


def prepare(upstream_port: int, runs: int) -> list[str]:
    """A project with budgets on everything, a provider behind a route, and runs that are at work. Returns their data tokens."""
    from django.core.management import call_command

    from devaipod_web.accounts.models import User
    from devaipod_web.budgets.models import Budget, Metric, Scope, Window, units
    from devaipod_web.llm import vault
    from devaipod_web.llm.models import Provider, Route
    from devaipod_web.projects.models import Project
    from devaipod_web.runs.models import Run
    from tests.gateway.served import make_pod

    call_command("migrate", verbosity=0)
    alice = User.objects.create_user("alice")
    project = Project.objects.create(slug="bench", name="Bench", upstream_url="https://x.example/x")
    provider = Provider.objects.create(
        name="Scripted",
        base_url=f"http://127.0.0.1:{upstream_port}/v1",
        credential=vault.seal(b"sk-bench-0123456789"),
    )
    Route.objects.create(position=1, pattern="claude-*", provider=provider)
    Route.objects.create(position=2, pattern="gpt-*", provider=provider)
    for scope, subject in (
        (Scope.INSTALLATION, {}),
        (Scope.PROJECT, {"project": project}),
        (Scope.PERSON, {"person": alice}),
    ):
        Budget.objects.create(
            scope=scope,
            metric=Metric.USD,
            window=Window.MONTH,
            limit=units(Metric.USD, Decimal(1_000_000)),
            **subject,
        )
    tokens = []
    for number in range(runs):
        run = Run.objects.create(
            project=project,
            owner=alice,
            title=f"Bench {number}",
            task="Be quick.",
            agent="opencode",
            model="gpt-4o",
            wall_seconds=3600,
        )
        tokens.append(make_pod(run).data)
    return tokens


async def serve(port: int) -> None:
    """The gateway's application and the budgets' ledger, until SIGTERM."""
    import uvicorn

    from devaipod_web import db
    from devaipod_web.budgets import ledger
    from devaipod_web.gateway.app import application
    from devaipod_web.parts import _Server

    stop, settled = asyncio.Event(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    accounts = asyncio.create_task(ledger.current().run(settled))
    server = _Server(
        uvicorn.Config(
            application, port=port, loop="none", http="httptools", ws="websockets-sansio", lifespan="on",
            log_config=None, access_log=False, proxy_headers=False, server_header=False,
        )
    )  # fmt: skip
    serving = asyncio.create_task(server.serve())
    await stop.wait()
    server.should_exit = True
    await serving
    settled.set()
    await accounts
    await db.close_connections()


def main() -> None:
    """Prepare, say the tokens, serve."""
    import django
    import uvloop

    port, upstream_port, runs = map(int, sys.argv[1:4])
    from devaipod_web import logging
    from devaipod_web.serve import freeze_heap

    logging.configure()
    django.setup()
    print(json.dumps(prepare(upstream_port, runs)), flush=True)
    freeze_heap()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(port))


if __name__ == "__main__":
    main()
