"""A process that looks after its services: real parts, a real provider and a real podman socket at the world's edge."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from asgiref.sync import sync_to_async
from django.conf import settings as settings_of_django

from devaipod_web import db, home
from devaipod_web.health import queries
from devaipod_web.health.beat import Beats
from devaipod_web.health.errors import NotRestarted
from devaipod_web.health.verbs import restart as restarting
from devaipod_web.llm import vault
from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.parts import Gateway, Supervisor
from tests.llm.provider import KEY

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.slow]


class Edge:
    """A program that is not ours, on a socket: answers what it is told, and counts."""

    def __init__(self) -> None:
        self.status, self.body, self.calls = 200, "{}", 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        if request.path.endswith("/events"):
            return web.Response()
        return web.Response(status=self.status, text=self.body, content_type="application/json")

    @contextlib.asynccontextmanager
    async def listening(self, *, unix: str = "") -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        site: web.BaseSite = (
            web.UnixSite(runner, unix) if unix else web.TCPSite(runner, "127.0.0.1", 0)
        )
        await site.start()
        try:
            yield unix or f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        finally:
            await runner.cleanup()


@contextlib.asynccontextmanager
async def process(*parts) -> AsyncIterator[Beats]:
    """A process with these parts, as `serve` runs them."""
    beats = Beats({part.name: part for part in parts})
    for part in parts:
        await part.start()
    task = asyncio.create_task(beats.run())
    try:
        yield beats
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for part in parts:
            await part.stop()
        await db.close_connections()


async def until(name: str, health: str, seconds: float = 20.0) -> queries.State:
    """Wait until a service is so, as anybody sees it."""
    deadline = time.monotonic() + seconds
    while True:
        found = await db.read(queries.service, name)
        if found is not None and found.health == health:
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


async def restart(name: str, manager) -> queries.State:
    return await sync_to_async(restarting.restart, thread_sensitive=False)(name, manager)


async def test_a_gateway_whose_socket_is_gone_is_down_and_comes_back_by_a_restart(manager):
    async with process(Gateway()):
        await until("gateway", "ok")
        home.gateway_socket().unlink()
        lost = await until("gateway", "down")
        assert "socket gateway.sock is gone" in lost.says
        after = await restart("gateway", manager)
        assert after.health == "ok"
        assert home.gateway_socket().is_socket()
        assert "is gone" in after.last_error
        assert after.last_error_at is not None


async def test_a_stranger_on_the_gateways_socket_is_not_taken_for_it(manager):
    async with process(Gateway()):
        await until("gateway", "ok")
        path = home.gateway_socket()
        path.unlink()
        async with Edge().listening(unix=str(path)):
            assert "Somebody else" in (await until("gateway", "down")).says
        assert (await restart("gateway", manager)).health == "ok"


async def test_a_restart_that_goes_wrong_says_why_and_may_be_tried_again(manager):
    async with process(Gateway()) as beats:
        await until("gateway", "ok")
        path = home.gateway_socket()
        path.unlink()
        (path / "in-the-way").mkdir(parents=True)
        with pytest.raises(NotRestarted) as caught:
            await restart("gateway", manager)
        assert "directory" in caught.value.message.lower()
        assert "gateway" in beats.kept
        (path / "in-the-way").rmdir()
        path.rmdir()
        assert (await restart("gateway", manager)).health == "ok"


async def test_a_provider_that_refuses_the_key_is_down_within_seconds_and_mended_by_a_test(
    settings, manager
):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    edge = Edge()
    edge.body = '{"data": [{"id": "m"}]}'
    async with edge.listening() as address:
        row = await sync_to_async(Provider.objects.create)(
            name="Acme", base_url=address, credential=vault.seal(KEY.encode())
        )
        name = f"provider-{row.key}"
        async with process(Gateway()):
            assert "offers 1 model" in (await until(name, "ok")).says
            edge.status = 401
            # Nobody waits for the next test: a person asks for one.
            assert (await restart(name, manager)).health == "down"
            assert "refuses the key (401)" in (await until(name, "down")).says
            edge.status = 200
            assert (await restart(name, manager)).health == "ok"
            assert edge.calls == 3
            await sync_to_async(row.delete)()
            while await db.read(queries.service, name) is not None:
                await asyncio.sleep(0.1)


async def test_a_runs_refused_call_shows_on_the_provider_without_waiting_for_a_test(
    settings, manager, run
):
    from django.utils import timezone

    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    edge = Edge()
    edge.body = '{"data": []}'
    async with edge.listening() as address:
        row = await sync_to_async(Provider.objects.create)(name="Acme", base_url=address)
        async with process(Gateway()):
            await until(f"provider-{row.key}", "ok")
            await sync_to_async(LlmCall.objects.create)(
                run=run,
                provider=row,
                provider_kind="openai",
                model="m",
                at=timezone.now(),
                status=401,
                error="bad key",
            )
            found = await until(f"provider-{row.key}", "degraded")
            assert "401: bad key" in found.last_error
            assert (await restart(f"provider-{row.key}", manager)).health == "ok"


async def test_a_supervisor_whose_loop_fails_says_so_and_a_restart_mends_it(
    manager, monkeypatch, tmp_path
):
    """podman answers, and with nonsense: no error of the backend's tree, but a loop that breaks."""
    path = home.runtime_dir() / "edge.sock"
    monkeypatch.setenv("DEVAIPOD_PODMAN_SOCKET", str(path))
    edge = Edge()
    edge.body = "[]"
    async with edge.listening(unix=str(path)), process(Supervisor()):
        await until("supervisor", "ok")
        assert "not ours" in (await until("podman", "down")).no_restart
        edge.body = '{"nonsense'
        broken = await until("supervisor", "degraded")
        assert "JSONDecodeError" in broken.last_error
        edge.body = "[]"
        after = await restart("supervisor", manager)
        # Several tasks of the loop met the nonsense; whichever did last is remembered.
        assert after.health == "ok"
        assert "JSONDecodeError" in after.last_error


async def test_a_process_that_ends_says_good_bye(manager):
    async with process(Gateway()):
        await until("gateway", "ok")
    assert (await sync_to_async(queries.service)("gateway")).health == "down"


async def test_an_error_is_remembered_by_the_next_process(manager):
    async with process(Gateway()):
        await until("gateway", "ok")
        home.gateway_socket().unlink()
        await until("gateway", "down")
    async with process(Gateway()):
        after = await until("gateway", "ok")
        assert "is gone" in after.last_error


#: A gateway in a process of its own, as `serve gateway` runs it.
APART = """
import asyncio, os
os.environ["DJANGO_SETTINGS_MODULE"] = "devaipod_web.settings"
import django
django.setup()
from devaipod_web.health.beat import Beats
from devaipod_web.parts import Gateway

async def main():
    part = Gateway()
    await part.start()
    await Beats({"gateway": part}).run()

asyncio.run(main())
"""


async def test_another_process_is_seen_restarted_and_missed_through_the_table_alone(manager):
    database = settings_of_django.DATABASES["default"]["NAME"]
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith("DEVAIPOD_TEST")},
        "DATABASE_URL": f"sqlite://{database}",
    }
    other = await asyncio.create_subprocess_exec(sys.executable, "-c", APART, env=env, cwd=ROOT)
    try:
        await until("gateway", "ok")
        home.gateway_socket().unlink()
        await until("gateway", "down")
        assert (await restart("gateway", manager)).health == "ok"
        assert home.gateway_socket().is_socket()
    finally:
        other.kill()
        await other.wait()
    # Killed, it says no good-bye: its rows grow old.
    assert "No process" in (await until("gateway", "down", seconds=30)).says
