from __future__ import annotations

import asyncio
import json
import re

import pytest
from asgiref.testing import ApplicationCommunicator
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.db import SessionStore
from django.template.loader import render_to_string

from devaipod_web import db
from devaipod_web.accounts.permissions import ROUTES
from devaipod_web.asgi import application
from devaipod_web.projects.models import Project
from devaipod_web.runs import consumers, log_writer, logs_hub, shown
from devaipod_web.runs.routing import websocket_urlpatterns
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.permissions import answer
from devaipod_web.runs.services.stop import stop
from pods.spec import LogLine
from tests.pages.conftest import begun

pytestmark = pytest.mark.django_db(transaction=True)


def session_of(user) -> str:
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return str(session.session_key)


class Browser:
    """A page's socket: what it has in its page after each message."""

    def __init__(self, settings, path: str, session: str = "") -> None:
        cookie = f"{settings.SESSION_COOKIE_NAME}={session}"
        headers = [(b"origin", b"http://localhost"), (b"host", b"localhost")]
        headers += [(b"cookie", cookie.encode())]
        path, _, query = path.partition("?")
        scope = {"type": "websocket", "path": path, "query_string": query.encode()}
        self.socket = ApplicationCommunicator(
            application, {**scope, "headers": headers, "subprotocols": []}
        )
        self.items: dict[str, str] = {}
        self.appended: list[str] = []
        self.parts: dict[str, str] = {}
        self.seq = 0

    async def opens(self) -> bool:
        await self.socket.send_input({"type": "websocket.connect"})
        answer = await self.socket.receive_output(timeout=10)
        self.code = answer.get("code")
        return bool(answer["type"] == "websocket.accept")

    async def hears(self) -> str:
        message = await self.socket.receive_output(timeout=15)
        assert message["type"] == "websocket.send", message
        return str(message["text"])

    async def reads(self, until) -> None:
        async with asyncio.timeout(15):
            while not until(self):
                message = json.loads(await self.hears())
                assert message["seq"] >= self.seq
                self.seq = message["seq"]
                for operation in message["items"]:
                    if operation["op"] != "item":
                        self.parts[operation["op"]] = operation["html"]
                        continue
                    if operation["id"] not in self.items:
                        self.appended.append(operation["id"])
                    self.items[operation["id"]] = operation["html"]

    @property
    def text(self) -> str:
        return "".join(self.items.values())

    async def closes(self) -> None:
        await self.socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await self.socket.wait(timeout=10)


@pytest.fixture
def page(settings):
    """The world of one run, made through the database's own door; `open(user, after)` is a browser on it."""

    class World:
        async def make(self, person, role) -> None:
            def build():
                self.user = person("alice", role)
                project = Project.objects.create(
                    slug="payments", name="P", upstream_url="https://x.example/y.git"
                )
                run = launch(project, self.user, task="Mend it")
                self.sidecar = begun(run)
                self.run = run
                self.key = run.key
                self.session = session_of(self.user)

            await db.write(build)

        async def says(self, kind, /, **payload) -> None:
            await db.write(lambda: self.sidecar.says(kind, **payload))

        async def open(self, after: int = 0) -> Browser:
            browser = Browser(settings, f"/ws/runs/{self.key}/?after={after}", self.session)
            assert await browser.opens()
            return browser

    return World()


@pytest.fixture
async def world(page, person):
    await page.make(person, "operator")
    yield page
    await db.close_connections()


async def test_a_page_gets_what_happens_as_it_happens(world):
    browser = await world.open()
    await browser.reads(lambda b: "Mend it" in b.text)
    await world.says("message", message_id="m", text="first ")
    await browser.reads(lambda b: "first" in b.text)
    await world.says("message", message_id="m", text="second")
    await browser.reads(lambda b: "first second" in b.text)
    assert len([html for html in browser.items.values() if "first" in html]) == 1
    assert "running" in browser.parts["header"]
    await browser.closes()


async def test_a_page_that_comes_back_has_every_item_once_and_none_missing(world):
    browser = await world.open()
    await browser.reads(lambda b: "Mend it" in b.text)
    await world.says("tool_call", tool_call_id="c", title="first-call", kind="other")
    await browser.reads(lambda b: "first-call" in b.text)
    seq = browser.seq
    await browser.closes()
    await world.says("tool_call.update", tool_call_id="c", status="failed")
    for number in range(20):
        await world.says("message", message_id=f"m{number}", text=f"missed-{number}-")
    again = await world.open(after=seq)
    await again.reads(lambda b: "missed-19-" in b.text)
    found = [
        int(n) for key in again.appended for n in re.findall(r"missed-(\d+)-", again.items[key])
    ]
    assert found == list(range(20))
    assert "failed" in again.text  # the call that was there already is sent again as it is now
    assert "Mend it" not in again.text  # and what has not changed is not
    await again.closes()


async def test_all_viewers_of_a_run_get_the_same_text_rendered_once(world, monkeypatch):
    rendered: list[str] = []

    def counted(name, *args, **kwargs):
        rendered.append(name)
        return render_to_string(name, *args, **kwargs)

    monkeypatch.setattr(shown, "render_to_string", counted)
    browsers = [await world.open() for _ in range(8)]
    for browser in browsers:
        await browser.reads(lambda b: "Mend it" in b.text)
    rendered.clear()
    await world.says("message", message_id="m", text="for everybody")
    for browser in browsers:
        await browser.reads(lambda b: "for everybody" in b.text)
    assert rendered.count("runs/items/message.html") == 1
    assert len({browser.text for browser in browsers}) == 1
    for browser in browsers:
        await browser.closes()


async def test_a_slow_viewer_catches_up_and_slows_nobody(world, monkeypatch):
    from devaipod_web.runs import live

    monkeypatch.setattr(live, "RING", 3)
    slow, quick = await world.open(), await world.open()
    await slow.reads(lambda b: "Mend it" in b.text)
    for number in range(12):
        await world.says("message", message_id=f"m{number}", text=f"word-{number}-")
        await quick.reads(lambda b, n=number: f"word-{n}-" in b.text)
    await slow.reads(lambda b: "word-11-" in b.text)
    assert slow.items == quick.items
    await slow.closes()
    await quick.closes()


async def test_a_question_appears_and_its_answer_replaces_it(world):
    browser = await world.open()
    await browser.reads(lambda b: "Mend it" in b.text)
    await db.write(world.sidecar.asks)
    await browser.reads(lambda b: "Allow once" in b.text and "waiting" in b.parts["header"])

    def allow():
        question = world.run.permissions.get()
        answer(question, world.user, option_id="once")

    await db.write(allow)
    await browser.reads(lambda b: "Allow once" not in b.text)
    assert "allowed" in browser.text
    assert "Alice" in browser.text
    await browser.closes()


async def test_an_unread_prompt_says_so_after_the_run_was_stopped(world):
    browser = await world.open()
    from devaipod_web.runs.services.prompt import prompt

    await db.write(lambda: prompt(world.run, world.user, "And the docs"))
    await browser.reads(lambda b: "not read yet" in b.text)
    await db.write(lambda: stop(world.run, world.user))
    await browser.reads(lambda b: "was not read" in b.text and b.parts.get("state") == "stopped")
    await browser.closes()


async def test_a_socket_ends_when_the_role_does(world, monkeypatch):
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.1)
    browser = await world.open()
    await db.write(world.user.groups.clear)
    async with asyncio.timeout(10):
        while True:
            message = await browser.socket.receive_output(timeout=10)
            if message["type"] == "websocket.close":
                break
    assert message["code"] == 4403


async def test_a_socket_ends_when_the_session_does(world, monkeypatch):
    monkeypatch.setattr(consumers, "CHECK_SECONDS", 0.1)
    browser = await world.open()
    await db.write(SessionStore(world.session).delete)
    async with asyncio.timeout(10):
        while True:
            message = await browser.socket.receive_output(timeout=10)
            if message["type"] == "websocket.close":
                break
    assert message["code"] == 4403


@pytest.mark.parametrize(
    "path", ["/ws/runs/{key}/", "/ws/runs/{key}/logs/{pod}/agent/", "/ws/wakes/"]
)
async def test_strangers_and_the_signed_out_hear_nothing(world, settings, person, path):
    path = path.format(key=world.key, pod=world.sidecar.pod.name)
    stranger = await db.write(lambda: session_of(person("charlie")))
    for session in ("", "nonsense", stranger):
        browser = Browser(settings, path, session)
        assert not await browser.opens()
        assert browser.code == 4403


async def test_a_run_that_is_not_there_has_no_socket(world, settings):
    browser = Browser(settings, "/ws/runs/aaaaaaaaaa/", world.session)
    assert not await browser.opens()
    assert browser.code == 4404


async def test_log_lines_arrive_after_the_one_that_the_page_has(world, settings):
    pod = world.sidecar.pod.name

    def write(first, count):
        writer = log_writer.Writer(world.key, pod, "agent")
        at = world.run.created_at
        lines = [
            LogLine(stream="stdout", at=at, text=f"line {n}".encode(), cursor=str(n))
            for n in range(first, first + count)
        ]
        stored = writer.append(lines)
        writer.close()
        return stored

    write(1, 10)
    browser = Browser(settings, f"/ws/runs/{world.key}/logs/{pod}/agent/?after=4", world.session)
    assert await browser.opens()
    numbers: list[int] = []
    async with asyncio.timeout(15):
        while len(numbers) < 6:
            numbers += [line["n"] for line in json.loads(await browser.hears())]
        logs_hub.publish(world.key, pod, "agent", write(11, 5))
        while len(numbers) < 11:
            numbers += [line["n"] for line in json.loads(await browser.hears())]
    assert numbers == list(range(5, 16))
    await browser.closes()


async def test_lists_are_woken_when_something_happens_to_any_run(world, settings):
    browser = Browser(settings, "/ws/wakes/", world.session)
    assert await browser.opens()
    await world.says("message", message_id="m", text="x")
    assert await browser.hears() == "{}"
    await browser.closes()


def test_every_socket_stands_in_the_permission_table():
    for pattern in websocket_urlpatterns:
        assert pattern.name in ROUTES
        assert pattern.callback.consumer_class.route == pattern.name
