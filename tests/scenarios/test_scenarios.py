"""Stories as data: what to run, the fault, what must be seen. See README.md beside this file."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.agents.image import scripted_image
from tests.e2e.installation import Installation, git, installed, make_upstream
from tests.llm.provider import ScriptedProvider

pytestmark = [pytest.mark.podman, pytest.mark.slow]

HERE = Path(__file__).parent
STORIES = {path.stem: tomllib.loads(path.read_text()) for path in sorted(HERE.glob("*.toml"))}
SECONDS = 150


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="devaipod-stories-"))
    with installed(
        folder / "home",
        DEVAIPOD_ALLOWED_PRIVATE_NETWORKS="127.0.0.0/8",
        DEVAIPOD_MAX_RUNS="2",
    ) as made:
        yield made
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    """A provider at the world's edge, in a thread of its own."""
    scripted = ScriptedProvider()
    ready = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", scripted.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        scripted.port = runner.addresses[0][1]
        ready.set()

    def live() -> None:
        loop.run_until_complete(serve())
        loop.run_forever()

    thread = threading.Thread(target=live, daemon=True)
    thread.start()
    assert ready.wait(10)
    yield scripted
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)


@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_as_told(name: str, place: Installation, provider: ScriptedProvider) -> None:
    story = STORIES[name]
    project = make_project(place, name, story, provider)
    wall = {"wall_seconds": story["wall_seconds"]} if "wall_seconds" in story else {}
    run = place.api("POST", "/runs", {"project": project, "task": story["task"], **wall})
    key = run["key"]
    fault = story.get("fault")
    undo = put_in(place, key, fault) if fault else None
    try:
        ended = place.wait_for_state(
            key, "succeeded", "failed", "stopped", "timed_out", seconds=SECONDS
        )
    finally:
        if undo is not None:
            undo()
    check(place, key, ended, story["expect"])


def make_project(
    place: Installation, name: str, story: dict[str, Any], provider: ScriptedProvider
) -> str:
    """A project of its own for a story; returns its slug."""
    settings = dict(story.get("project", {}))
    upstream = place.home.parent / "repositories" / name
    if settings.pop("upstream", "") == "missing":
        settings["upstream_url"] = str(upstream / "nowhere.git")
        upstream.mkdir(parents=True)
    else:
        settings["upstream_url"] = str(make_upstream(upstream))
    image = settings.get("image")
    if image == "sidecar":
        settings["image"] = "localhost/devaipod-sidecar:dev"
    elif image is None and story["agent"] == "scripted":
        settings["image"] = scripted_image()
    if "provider" in story:
        provider.behaviour = story["provider"]["behaviour"]
        settings["provider"] = make_provider(place, name, provider)
        settings["model"] = "some-model"
    settings.setdefault("permission_policy", "allow")
    made = place.api("POST", "/projects", {"name": name, **settings})
    slug: str = made["slug"]
    return slug


def make_provider(place: Installation, name: str, provider: ScriptedProvider) -> str:
    """A provider's row, made as the page makes it; returns its key."""
    return place.python(
        "import django, os\n"
        "os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'\n"
        "django.setup()\n"
        "from devaipod_web.llm.models import Provider\n"
        "from devaipod_web.llm.vault import seal\n"
        f"row = Provider.objects.create(name={name!r}, kind='openai', base_url={provider.base_url!r}, "
        "credential=seal(b'sk-test'))\n"
        "print(row.key)"
    ).strip()


def put_in(place: Installation, key: str, fault: dict[str, str]) -> Any:
    """Wait for the moment and do it; returns what undoes it, or None."""
    place.wait_for_event(key, fault["after"], seconds=90)
    pod = place.run(key)["pods"][-1]
    match fault["do"]:
        case "kill-agent":
            place.podman("kill", "--signal", "KILL", f"{pod}-agent")
        case "kill-sidecar":
            place.podman("kill", "--signal", "KILL", f"{pod}-sidecar")
        case "fill-logs":
            return fill_logs(place, key)
        case unknown:
            raise AssertionError(f"no such fault: {unknown}")
    return None


def fill_logs(place: Installation, key: str) -> Any:
    """Mount a tiny, full file system over the run's logs; returns what takes it away."""
    folder = place.home / "logs" / key
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    (folder / "ballast").write_bytes(b"x" * 60 * 1024)

    def undo() -> None:
        subprocess.run(["umount", "-l", str(folder)], check=True)

    return undo


def check(place: Installation, key: str, run: dict[str, Any], expect: dict[str, Any]) -> None:
    """Everything that a story expects, with the run's own story in the message."""
    told = place.story(key)
    assert run["state"] == expect["state"], told
    for part in expect.get("reason", []):
        assert part in run["reason"], told
    if expect.get("next_step"):
        assert run["next_step"], told
    if "attempts" in expect:
        assert run["attempts"] == expect["attempts"], told
    events = place.events(key)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1)), told
    kinds = {event["kind"] for event in events}
    assert set(expect.get("events", [])) <= kinds, told
    assert not set(expect.get("absent", [])) & kinds, told
    notes = " ".join(str(event["payload"]) for event in events if event["kind"] == "run.note")
    for part in expect.get("notes", []):
        assert part in notes, told
    said = "".join(event["payload"]["text"] for event in events if event["kind"] == "message")
    for part in expect.get("said", []):
        assert part in said, told
    if expect.get("review"):

        def is_open() -> bool:
            reviews = place.api("GET", "/reviews?state=open")["results"]
            return any(review["run"] == key for review in reviews)

        # The run has ended with its push; the review opens right after.
        place.wait(is_open, 20, f"the review of:\n{told}")
    if "files" in expect:
        (repository,) = (place.home / "staging").glob(f"*/runs/{key}.git")
        branch = f"agent/{key}/work"
        names = git("ls-tree", "-r", "--name-only", branch, cwd=repository).splitlines()
        assert set(expect["files"]) <= set(names), told
