"""Setting up a host, up to where podman begins."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import time
from pathlib import Path

import pytest

from devaipod_web.host import commands, images, packages, terminal
from devaipod_web.host.errors import CommandFailed, HostError, PackagesMissing
from devaipod_web.host.facts import look
from devaipod_web.host.process import follow
from devaipod_web.host.terminal import Terminal
from pods.agents import PACKAGED

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def out():
    return io.StringIO()


def test_make_without_a_target_explains_every_target():
    text = subprocess.check_output(["make"], cwd=ROOT, text=True)
    for target in (
        "setup",
        "up",
        "demo",
        "down",
        "logs",
        "images",
        "control-plane",
        "test",
        "test-kube",
        "check",
        "bench",
        "fmt",
        "lint",
        "clean",
    ):
        assert re.search(rf"^  make {target} +\S", text, re.M), target


def test_a_host_without_podman_is_told_the_one_command_for_each_system(programs, out):
    with pytest.raises(PackagesMissing) as caught:
        # The PATH has no apt-get either: nothing may be installed here.
        packages.ensure_packages(say=Terminal(out))
    message = str(caught.value)
    assert re.search(r"Debian, Ubuntu: +sudo apt-get install .*\bpodman\b", message)
    assert re.search(r"Fedora: +sudo dnf install .*\bpodman\b", message)
    assert "mmdebstrap" in message


@pytest.mark.parametrize(("failures", "works"), [(1, True), (2, True), (3, False)])
def test_a_pod_that_podman_fails_to_remove_is_tried_again(tmp_path, failures, works):
    """podman 4.3 ends with 125 when a container ended by itself just before its kill."""
    tried = tmp_path / "tried"
    podman = tmp_path / "podman"
    podman.write_text(
        f'#!/bin/sh\necho "$@" >> {tried}\n'
        f'[ "$(wc -l < {tried})" -gt {failures} ] && exit 0\n'
        "echo 'sending SIGKILL to container x: container state improper: stopped' >&2; exit 125\n"
    )
    podman.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    with contextlib.nullcontext() if works else pytest.raises(CommandFailed, match="improper"):
        commands._remove_pod("shop-1", env)
    assert len(tried.read_text().splitlines()) == min(failures + 1, commands.REMOVALS)


def test_a_host_with_everything_needs_nothing_installed(out):
    missing = [need.what for need in packages.needs(look(), tests=True) if not need.there]
    assert missing == []


def test_a_slow_step_says_what_it_does_and_how_long_it_took(out, monkeypatch):
    monkeypatch.setattr(terminal, "QUIET_SECONDS", 0.05)
    monkeypatch.setattr(terminal, "BEAT_SECONDS", 0.1)
    say = Terminal(out)
    with say.step("building") as step:
        step.tail = "layer 3"
        step.downloading(True)
        time.sleep(0.3)
        step.downloading(False)
    lines = out.getvalue().splitlines()
    assert lines[0] == "… building"
    assert "layer 3" in lines[1]
    assert re.fullmatch(r"✓ building  \(0\.\d s, of it downloads 0\.\d s\)", lines[-1])
    assert "downloads 0.3 s" in say.total()


def test_a_quick_step_is_one_line_and_a_broken_one_is_marked(out):
    say = Terminal(out)
    with say.step("quick"):
        pass
    with pytest.raises(RuntimeError), say.step("broken"):
        raise RuntimeError
    assert [line[0] for line in out.getvalue().splitlines()] == ["✓", "✗"]


def test_a_failing_program_is_quoted(out):
    with Terminal(out).step("x") as step, pytest.raises(CommandFailed) as caught:
        follow(["sh", "-c", "echo no such suite; exit 7"], step=step, timeout=5)
    assert "status 7" in str(caught.value)
    assert "no such suite" in str(caught.value)


def test_a_hanging_program_is_ended_with_its_children(out):
    began = time.monotonic()
    with Terminal(out).step("x") as step, pytest.raises(CommandFailed) as caught:
        follow(["sh", "-c", "sleep 60 & wait"], step=step, timeout=0.3)
    assert "ended after" in str(caught.value)
    assert time.monotonic() - began < 5


def test_time_between_a_recipes_marks_counts_as_download(out):
    say = Terminal(out)
    with say.step("x") as step:
        follow(
            ["sh", "-c", "echo @devaipod-download; sleep 0.3; echo @devaipod-build; sleep 0.2"],
            step=step,
            timeout=5,
        )
    assert 0.25 <= say.download_seconds < 0.45


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of what the images are made from, to change at will."""
    import shutil

    for part in ("images", "pods"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(images, "ROOT", tmp_path)
    monkeypatch.setattr(images, "RECIPES", tmp_path / "images")
    return tmp_path


def test_an_images_tag_changes_with_what_goes_into_it_and_with_nothing_else(checkout):
    before = images.references()
    (checkout / "pods" / "sidecar" / "__pycache__").mkdir()
    (checkout / "pods" / "sidecar" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (checkout / "pods" / "backend.py").write_text("# no part of any image\n")
    assert images.references() == before
    (checkout / "pods" / "sidecar" / "new.py").write_text("x = 1\n")
    changed = images.references()
    assert (changed.base, changed.agent) == (before.base, before.agent)
    assert changed.sidecar != before.sidecar
    with (checkout / "images" / "base" / "packages").open("a") as file:
        file.write("jq\n")
    other = images.references()
    assert other.base != before.base
    assert other.agent != before.agent


def test_an_agents_image_follows_its_own_lock_file_and_the_one_containerfile(checkout):
    before = images.references()
    with (checkout / "images" / "agents" / "codex" / "package.json").open("a") as file:
        file.write("\n")
    changed = images.references()
    assert {k for k in PACKAGED if changed.agents[k] != before.agents[k]} == {"codex"}
    assert changed.agent == before.agent
    with (checkout / "images" / "agents" / "Containerfile").open("a") as file:
        file.write("# more\n")
    again = images.references()
    assert {k for k in PACKAGED if again.agents[k] != changed.agents[k]} == {*PACKAGED} - {"goose"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ()),
        ("codex", ("codex",)),
        ("gemini, codex", ("codex", "gemini")),
        ("opencode", ()),
        ("all", PACKAGED),
    ],
)
def test_agents_are_named_on_the_command_line_with_spaces_or_commas(text, found):
    assert images.named(text) == found


def test_an_agent_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(HostError, match="no image for cursor: there is opencode, claude, codex"):
        images.named("codex cursor")


def test_the_control_planes_image_is_of_this_program_and_not_of_the_tests():
    names = {name for name, _ in images._inputs(images.CONTROL_PLANE)}
    assert {"devaipod_web/serve.py", "pods/spec.py", "templates/base.html"} <= names
    assert {"pyproject.toml", "requirements-dev.lock", "README.md"} <= names
    assert not [name for name in names if name.startswith(("tests/", "var/", "docs/"))]


def test_an_installed_wheel_says_where_the_control_planes_image_is_built(monkeypatch, out):
    monkeypatch.setattr("devaipod_web.home.in_checkout", lambda: False)
    with pytest.raises(HostError, match="from a checkout"):
        images.ensure_control_plane(say=Terminal(out))


def test_nothing_committed_for_the_images_names_a_registry_or_a_path_of_a_machine():
    for path in sorted((ROOT / "images").rglob("*")):
        if path.is_file():
            text = path.read_text()
            # Lock files say where a package's authors take donations; where packages come from they do not.
            address = '"resolved"' if path.name == "package-lock.json" else "https?://"
            assert not re.search(rf"{address}|npmjs|pypi", text), path
            assert str(ROOT) not in text, path
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://|--index|--find-links|file:", text), name
        assert all("==" in line for line in text.splitlines() if line and line[0] not in "# "), name


def test_the_lock_files_pin_every_package_with_a_hash():
    import json

    sidecar = (ROOT / "images/sidecar/requirements.txt").read_text()
    pinned = re.findall(r"^([a-z0-9_.-]+)==", sidecar, re.M)
    assert {"aiohttp", "agent-client-protocol", "pydantic"} <= set(pinned)
    blocks = re.split(r"\n(?=[a-z0-9_.-]+==)", sidecar)
    assert all("--hash=sha256:" in block for block in blocks if "==" in block)
    lock = json.loads((ROOT / "images/agent/package-lock.json").read_text())
    for name, entry in lock["packages"].items():
        if name:
            assert entry["integrity"].startswith("sha512-"), name
            assert "resolved" not in entry, name
