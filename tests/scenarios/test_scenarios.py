"""Stories as data: what to run, the fault, what must be seen. See README.md beside this file."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pods.diagnostics_text import as_text
from tests.agents.image import scripted_image, unhealthy_image
from tests.agents.registry import registry
from tests.e2e.installation import Installation, git, installed, make_upstream
from tests.harness import wait_for_findings, wait_until
from tests.llm.provider import ScriptedProvider

pytestmark = [pytest.mark.podman, pytest.mark.slow]

HERE = Path(__file__).parent
STORIES = {path.stem: tomllib.loads(path.read_text()) for path in sorted(HERE.glob("*.toml"))}
SECONDS = 150


@pytest.fixture(scope="module")
def images() -> Iterator[str]:
    """A registry at the world's edge that has no image; its name."""
    with registry() as name:
        yield name


@pytest.fixture(scope="module")
def place(images: str) -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="devaipod-stories-"))
    # podman speaks plain HTTP only to registries that are named so.
    conf = folder / "registries.conf"
    conf.write_text(f'[[registry]]\nlocation = "{images}"\ninsecure = true\n')
    with installed(
        folder / "home",
        DEVAIPOD_ALLOWED_PRIVATE_NETWORKS="127.0.0.0/8",
        DEVAIPOD_MAX_RUNS="2",
        DEVAIPOD_HEALTH_SECONDS="2",
        DEVAIPOD_STUCK_AFTER_SECONDS="15",
        CONTAINERS_REGISTRIES_CONF=str(conf),
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
def test_a_story_ends_as_told(
    name: str, place: Installation, provider: ScriptedProvider, images: str
) -> None:
    story = STORIES[name]
    project = make_project(place, name, story, provider, images)
    wall = {"wall_seconds": story["wall_seconds"]} if "wall_seconds" in story else {}
    run = place.api("POST", "/runs", {"project": project, "task": story["task"], **wall})
    key = run["key"]
    fault = story.get("fault")
    undo = put_in(place, key, fault) if fault else None
    try:
        if "during" in story:
            look_while_it_runs(place, key, story["during"])
        ended = place.wait_for_state(
            key, "succeeded", "failed", "stopped", "timed_out", seconds=SECONDS
        )
    finally:
        if undo is not None:
            undo()
    check(place, key, ended, story["expect"])


def look_while_it_runs(place: Installation, key: str, during: dict[str, Any]) -> None:
    """The run in progress is found to be what the story says, lists show it, and a person stops it."""
    handle = place.handle(key)
    seen = wait_for_findings(handle, *during["findings"], timeout=90)
    if "pod" in during:
        assert seen["state"] == during["pod"], as_text(seen)
    for part in during.get("says", []):
        assert part in as_text(seen, logs=False)
    if "banner" in during:
        wait_until(handle, lambda run: run["finding_code"] == during["banner"], "shown", timeout=30)
    place.api("POST", f"/runs/{key}/stop", {})


def make_project(
    place: Installation, name: str, story: dict[str, Any], provider: ScriptedProvider, images: str
) -> str:
    """A project of its own for a story; returns its slug."""
    settings = dict(story.get("project", {}))
    upstream = place.home.parent / "repositories" / name
    if settings.pop("upstream", "") == "missing":
        settings["upstream_url"] = str(upstream / "nowhere.git")
        upstream.mkdir(parents=True)
    else:
        settings["upstream_url"] = str(make_upstream(upstream, files_of(story)))
    image = settings.get("image")
    if image == "sidecar":
        settings["image"] = "localhost/devaipod-sidecar:dev"
    elif image == "unhealthy":
        settings["image"] = unhealthy_image()
    elif image is None and story["agent"] == "scripted":
        settings["image"] = scripted_image()
    elif image is not None:
        settings["image"] = image.replace("REGISTRY", images)
    if "provider" in story:
        provider.behaviour = story["provider"]["behaviour"]
        settings["provider"] = make_provider(place, name, provider)
        settings["model"] = story["provider"].get("model", "gpt-4o")
    settings.setdefault("permission_policy", "allow")
    made = place.api("POST", "/projects", {"name": name, **settings})
    slug: str = made["slug"]
    return slug


def files_of(story: dict[str, Any]) -> dict[str, str] | None:
    """What the upstream holds; MANY as a text is a folder of so many files that they don't fit into the smallest workspace."""
    given: dict[str, str] | None = story.get("files")
    if given is None:
        return None
    files = {name: text for name, text in given.items() if text != "MANY"}
    for folder in given.keys() - files.keys():
        files.update({f"{folder}/{number}.txt": f"{number}\n" for number in range(2000)})
    return files


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
    if fault["do"] == "close-gateway":
        close_gateway(place)
        return None
    place.wait_for_event(key, fault["after"], seconds=90, every=0.05)
    if fault["do"] == "break-repository":
        break_repository(place, key)
        return None
    if fault["do"] == "fill-logs":
        return fill_logs(place, key)
    pod = place.run(key)["pods"][-1]
    match fault["do"]:
        case "kill-agent":
            place.podman("kill", "--signal", "KILL", f"{pod}-agent")
        case "kill-sidecar":
            place.podman("kill", "--signal", "KILL", f"{pod}-sidecar")
        case unknown:
            raise AssertionError(f"no such fault: {unknown}")
    return None


def close_gateway(place: Installation) -> None:
    """Take the gateway's socket out of the folder of the next pod, before its sidecar is there to dial."""
    runtime = Path(place.python("from devaipod_web import home; print(home.runtime_dir())").strip())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        links = [link for link in runtime.glob("*/gateway.sock") if link.parent.name not in _closed]
        for link in links:
            link.unlink()
            _closed.add(link.parent.name)
        if links:
            return
        time.sleep(0.005)
    raise AssertionError("no pod's folder appeared")


_closed: set[str] = set()


def break_repository(place: Installation, key: str) -> None:
    """Take the mirror's objects from the run's repository: git answers, and has not what its refs name."""
    (repository,) = (place.home / "staging").glob(f"*/runs/{key}.git")
    (repository / "objects" / "info" / "alternates").unlink()


def fill_logs(place: Installation, key: str) -> Any:
    """Mount a tiny, full file system over the run's logs; returns what takes it away."""
    folder = place.home / "logs" / key
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
    (folder / "ballast").write_bytes(b"x" * 60 * 1024)

    def undo() -> None:
        subprocess.run(["umount", "-l", str(folder)], check=True)

    return undo


def check_findings(place: Installation, key: str, run: dict[str, Any], codes: list[str]) -> None:
    """The run's diagnosis has exactly these findings, the first is the run's own word, and so it is when the pod is gone."""
    handle = place.handle(key)

    def same(seen: dict[str, Any]) -> None:
        assert [finding["code"] for finding in seen["findings"]] == codes, as_text(seen)
        if codes:
            first = seen["findings"][0]
            assert (run["finding_code"], run["reason"], run["next_step"]) == (
                first["code"],
                first["message"],
                first["next_step"],
            )
        else:
            assert run["finding_code"] == ""

    same(handle.diagnostics())
    if not run["pods"]:
        return
    place.wait(
        lambda: place.api("GET", f"/pods/{run['pods'][-1]}")["removed_at"], 120, "the pod to go"
    )
    gone = handle.diagnostics()
    assert gone["state"] == "gone"
    assert all(container["name"] for container in gone["containers"])
    same(gone)


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
    if "findings" in expect:
        check_findings(place, key, run, expect["findings"])
    for number, codes in expect.get("attempts_findings", {}).items():
        seen = place.api("GET", f"/runs/{key}/diagnostics?attempt={number}")
        assert [finding["code"] for finding in seen["findings"]] == codes, as_text(seen)
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
