"""`up`, `down`, `logs`, `images`: the whole way from nothing to a running server, and back. Idempotent and quick."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from devaipod_web import home
from devaipod_web.host import podman_config, podman_service, python, server
from devaipod_web.host.errors import CommandFailed, HostError
from devaipod_web.host.images import ROOT, Images, ensure_control_plane, ensure_images
from devaipod_web.host.packages import ensure_packages
from devaipod_web.host.process import follow, quick
from devaipod_web.host.terminal import Terminal

SETUP_SECONDS = 120.0
#: How often a pod's removal is tried, and what lies between, in seconds.
REMOVALS = 3
REMOVAL_PAUSE_SECONDS = 0.5


def prepare(
    folder: Path, *, say: Terminal, tests: bool = False, agents: tuple[str, ...] = ()
) -> Images:
    """Packages, containers.conf, podman's service and images: what a host must have before anything runs.

    The images are the sidecar's, the default agent's, and those of `agents`.

    Raises HostError with the next step. `folder` becomes DEVAIPOD_HOME for this process and its children.
    """
    _enter(folder)
    facts = ensure_packages(say=say, tests=tests)
    podman_config.write(facts)
    podman_config.choose_storage(facts)
    if podman_service.ensure():
        say(f"✓ podman's API service started on {home.podman_socket()}")
    return ensure_images(say=say, agents=agents)


def prepare_control_plane(folder: Path, *, say: Terminal) -> str:
    """Build the image of the control plane itself; returns its reference. Raises HostError with the next step."""
    _enter(folder)
    facts = ensure_packages(say=say)
    podman_config.write(facts)
    podman_config.choose_storage(facts)
    return ensure_control_plane(say=say)


def up(folder: Path, *, say: Terminal, agents: tuple[str, ...] = ()) -> server.Card:
    """Everything that is missing, then the server in the background. Returns its card.

    A server that runs already stays, unless its program or images have changed since: then it is started anew, and runs
    go on meanwhile. Raises HostError with the next step.
    """
    before = _remembered_images(folder)
    chosen = prepare(folder, say=say, agents=agents)
    running = server.serving()
    if running and not server.outdated(running) and before == chosen:
        say(f"✓ The server is up at {running.url} (process {running.pid})")
        return running
    if running:
        with say.step("ending the server, whose program is older than the files here"):
            server.stop()
    _set_up(say)
    with say.step("starting the server") as step:
        arguments = ("--port", port) if (port := os.environ.get("DEVAIPOD_PORT", "")) else ()
        card = server.start(chosen, arguments=arguments)
        step.title = f"the server is up at {card.url} (process {card.pid})"
    if not arguments and not card.url.rstrip("/").endswith(":8000"):
        say(f"  Port 8000 is taken by another program: this server listens at {card.url}")
    return card


def down(folder: Path, *, say: Terminal) -> None:
    """End the server, then podman's service when we started it. Pods go on and are picked up at the next start."""
    _enter(folder)
    with say.step("ending the server") as step:
        card = server.stop()
        step.title = f"the server at {card.url} has ended" if card else "no server was running"
    if podman_service.stop():
        say("✓ podman's API service has ended")
    names = pods_alive()
    if names:
        say(
            f"  {len(names)} pod(s) go on: {', '.join(names[:5])}. The next {home.set_up()} picks them up; "
            "`podman pod rm -f NAME` ends one."
        )


def follow_logs(folder: Path, *, lines: int = 50) -> int:
    """Show the server's log and go on with what comes, until Ctrl-C. Returns an exit status."""
    _enter(folder)
    log = home.serve_log()
    if not log.exists():
        print(f"There is no log yet ({log}): {home.set_up()} starts the server.", file=sys.stderr)
        return 1
    tail = shutil.which("tail")
    if not tail:
        print(server.tail(log, lines=lines))
        return 0
    try:
        return subprocess.run([tail, "-n", str(lines), "-F", str(log)], check=False).returncode
    except KeyboardInterrupt:
        return 0


def pods_alive() -> list[str]:
    """Names of this installation's pods that podman has now; empty when podman can't say."""
    label = f"io.devaipod.installation={home.installation_id()}"
    try:
        text = quick(
            ["podman", "pod", "ps", "--filter", f"label={label}", "--format", "{{.Name}}"],
            env=podman_config.environment(),
        )
    except CommandFailed:
        return []
    return text.split()


def clean(folder: Path, *, say: Terminal) -> None:
    """End everything of this installation and remove its pods, volumes and folder. Other installations are not touched."""
    _enter(folder)
    identity = home.installation_id()
    down(folder, say=say)
    env = podman_config.environment()
    label = f"label=io.devaipod.installation={identity}"
    with say.step("removing pods and volumes of this installation"):
        for name in pods_alive():
            _remove_pod(name, env)
        volumes = quick(["podman", "volume", "ls", "--quiet", "--filter", label], env=env).split()
        for volume in volumes:
            quick(["podman", "volume", "rm", "--force", volume], timeout=60, env=env)
    shutil.rmtree(home.runtime_dir(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    say(f"✓ {folder} is gone")


def _remove_pod(name: str, env: dict[str, str]) -> None:
    """Remove a pod by force. Raises CommandFailed when podman does not do it in REMOVALS attempts."""
    for left in reversed(range(REMOVALS)):
        try:
            quick(["podman", "pod", "rm", "--force", "--time", "0", name], timeout=60, env=env)
            return
        except CommandFailed:
            # podman 4.3 gives up when a container ends by itself just before it is killed; the next attempt finds it ended.
            if not left:
                raise
        time.sleep(REMOVAL_PAUSE_SECONDS)


def link(folder: Path) -> int:
    """Print a one-time sign-in link, by the CLI's own verb. Returns its exit status."""
    _enter(folder)
    return _devaipod("sign-in-link")


def demo(folder: Path) -> int:
    """One more run on the sample project, told step by step, by the CLI's own verb. Returns its exit status."""
    _enter(folder)
    return _devaipod("demo")


def run_module(folder: Path, module: list[str]) -> int:
    """Become `python -m …` of `.venv`, in the environment that podman needs here. Returns only when it can't."""
    _enter(folder)
    words = [str(python.program()), "-m", *module]
    sys.stdout.flush()
    os.execve(words[0], words, podman_config.environment())  # noqa: S606 - our own interpreter


def _devaipod(*arguments: str) -> int:
    sys.stdout.flush()
    return subprocess.run(
        [sys.executable, "-m", "devaipod_web.cli.main", *arguments], cwd=ROOT, check=False
    ).returncode


def _enter(folder: Path) -> None:
    """All paths of `devaipod_web.home` are below `folder` from here on, in children too."""
    os.environ["DEVAIPOD_HOME"] = str(folder)
    try:
        home.ensure_home()
        home.runtime_dir()
    except OSError as error:
        raise HostError(
            f"{folder} can't be used: {error}. Make it writable for this user, or name another folder by DEVAIPOD_HOME"
        ) from error


def _remembered_images(folder: Path) -> Images | None:
    import json

    try:
        return Images(**json.loads((folder / "podman" / "images.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _set_up(say: Terminal) -> None:
    """Migrate and make the first user, by the CLI's own verb: it holds the lock and copies the database first."""
    began = time.monotonic()
    with say.step("setting up the database and the first user") as step:
        follow(
            [sys.executable, "-m", "devaipod_web.cli.main", "migrate"],
            step=step,
            timeout=SETUP_SECONDS,
            cwd=ROOT,
        )
        step.title = "the database is up to date" if time.monotonic() - began < 5 else step.title
