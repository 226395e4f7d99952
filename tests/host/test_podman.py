"""Podman's service, the images and the server on this very host."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devaipod_web import home
from devaipod_web.host import doctor, images, podman_config, podman_service, server
from devaipod_web.host.errors import ServiceFailed
from devaipod_web.host.facts import look
from devaipod_web.host.process import alive
from devaipod_web.host.terminal import Terminal
from pods.agents import PACKAGED, PROFILES

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = pytest.mark.podman


@pytest.fixture
def podman_home(own_home):
    """An installation with the containers.conf of this host; its service has ended after the test."""
    podman_config.write(look())
    podman_config.choose_storage(look())
    yield own_home
    podman_service.stop()


def in_container(image, *command, user="1000:1000", expect=0):
    done = subprocess.run(
        [
            "podman",
            "run",
            "--rm",
            "--network=none",
            f"--user={user}",
            "--read-only",
            # A home and a /tmp to write to, as in a pod.
            "--tmpfs=/home:mode=1777",
            "--env=HOME=/home/agent",
            f"--entrypoint={json.dumps(list(command))}",
            image,
        ],
        env=podman_config.environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == expect, done.stderr
    return done.stdout


def test_the_service_starts_once_and_again_after_it_was_killed(podman_home):
    assert podman_service.ensure()
    first = podman_service.pid()
    assert first is not None
    assert not podman_service.ensure()
    assert podman_service.pid() == first

    os.kill(first, signal.SIGKILL)
    os.waitpid(first, 0)
    assert home.podman_socket().exists()
    assert "podman-socket-stale" in {finding.code for finding in doctor.check(podman_home)}

    assert podman_service.ensure()
    assert podman_service.answers(home.podman_socket())
    last = podman_service.pid()
    assert podman_service.stop()
    assert last is not None and not alive(last)
    assert not home.podman_socket().exists()
    assert not podman_service.stop()


def test_a_service_of_somebody_elses_is_not_started_for_them(podman_home, monkeypatch, tmp_path):
    monkeypatch.setenv("DEVAIPOD_PODMAN_SOCKET", str(tmp_path / "none.sock"))
    with pytest.raises(ServiceFailed, match="DEVAIPOD_PODMAN_SOCKET"):
        podman_service.ensure()


@pytest.fixture(scope="module")
def made():
    """The images of this checkout; `make test` has made them."""
    wanted = images.references()
    for reference in (wanted.agent, wanted.sidecar, *wanted.agents.values()):
        assert images.stored(reference), f"{reference} is not in the local store: run `make images`"
    return wanted


def test_images_that_are_there_are_not_built_again(podman_home, made):
    out = io.StringIO()
    assert images.ensure_images(say=Terminal(out)) == made
    assert "in the local store" in out.getvalue()
    assert "building" not in out.getvalue()
    assert json.loads(images.card().read_text())["agent"] == made.agent


def test_the_agents_image_holds_the_pinned_agent_for_an_ordinary_user(podman_home, made):
    lock = json.loads((ROOT / "images/agent/package-lock.json").read_text())
    pinned = lock["packages"]["node_modules/opencode-linux-x64"]["version"]
    text = in_container(
        made.agent,
        "sh",
        "-c",
        "mkdir -p $HOME; id -un; id -u; echo $HOME; opencode --version; git --version; rg --version",
    ).splitlines()
    assert text[:4] == ["agent", "1000", "/home/agent", pinned]
    assert text[4].startswith("git version 2.")


def test_the_sidecars_image_runs_as_any_user_on_a_read_only_root(podman_home, made):
    text = in_container(
        made.sidecar,
        "python3",
        "-c",
        "import acp, aiohttp, sys, pods.sidecar, pods.spec; print(aiohttp.__version__, sys.flags.safe_path)",
        user="4321:4321",
    )
    assert re.fullmatch(r"3\.\d+\.\d+ True\n", text)


@pytest.mark.parametrize("key", PACKAGED)
def test_the_image_of_each_other_agent_holds_its_program_for_an_ordinary_user(
    podman_home, made, key
):
    program = PROFILES[key].program
    found = f"mkdir -p $HOME; id -un; command -v {program}; git --version"
    text = in_container(made.agents[key], "sh", "-c", found).splitlines()
    assert text[0] == "agent"
    assert text[1].endswith(f"/{program}")
    assert text[2].startswith("git version 2.")


@pytest.mark.parametrize("name", ["agent", "sidecar", *PACKAGED])
def test_nothing_of_the_building_host_is_left_in_an_image(podman_home, made, name):
    image = made.agents.get(name) or getattr(made, name)
    inspected = subprocess.check_output(
        ["podman", "image", "inspect", image], env=podman_config.environment(), text=True
    )
    document = json.loads(inspected)[0]["Config"]
    assert not [
        word for word in document["Env"] if re.search(r"CERT|PROXY|INDEX|registry", word, re.I)
    ]
    text = in_container(
        image, "sh", "-c", "ls -A /mnt; ls -A /root 2>&1; ls /etc/apt/apt.conf.d", user="0:0"
    )
    assert "ca.crt" not in text
    assert "npmrc" not in text
    assert str(ROOT) not in inspected


def test_the_program_that_holds_a_pod_ends_on_the_first_signal(podman_home, made):
    name = f"devaipod-test-hold-{os.getpid()}"
    env = podman_config.environment()
    subprocess.run(
        [
            "podman",
            "run",
            "-d",
            "--rm",
            "--network=none",
            f"--name={name}",
            '--entrypoint=["catatonit","-P"]',
            made.sidecar,
        ],
        env=env,
        check=True,
        capture_output=True,
    )
    began = time.monotonic()
    subprocess.run(["podman", "stop", "--time=10", name], env=env, check=True, capture_output=True)
    assert time.monotonic() - began < 5


def run_host(verb, folder, runtime):
    """A verb of the Makefile's in an installation of its own, as a process."""
    env = {**os.environ, "DEVAIPOD_HOME": str(folder), "XDG_RUNTIME_DIR": str(runtime)}
    for name in ("DJANGO_SETTINGS_MODULE", "DEVAIPOD_TEST_HOME", "DEVAIPOD_URL", "DEVAIPOD_TOKEN"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "devaipod_web.host", verb],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def status(url, path="/healthz"):
    line = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        line.request("GET", path)
        return line.getresponse().status
    finally:
        line.close()


@pytest.mark.slow
def test_two_installations_come_up_side_by_side_and_go_down_alone(own_home, tmp_path, made):
    runtime = os.environ["XDG_RUNTIME_DIR"]
    other = tmp_path / "other"
    try:
        said = run_host("up", own_home, runtime)
        assert "Sign in" in said or "/sign-in/" in said
        first = server.serving(own_home)
        assert first is not None and status(first.url) == 200

        run_host("up", other, runtime)
        second = server.serving(other)
        assert second is not None and second.url != first.url

        began = time.monotonic()
        again = run_host("up", own_home, runtime)
        assert "is up at" in again and "building" not in again
        assert time.monotonic() - began < 15
        assert server.serving(own_home) == first

        run_host("down", own_home, runtime)
        assert server.serving(own_home) is None
        assert not alive(first.pid)
        assert status(second.url) == 200
    finally:
        for folder in (own_home, other):
            run_host("clean", folder, runtime)
    assert not own_home.exists() and not other.exists()
    assert not list(Path(runtime).glob("devaipod-*"))
