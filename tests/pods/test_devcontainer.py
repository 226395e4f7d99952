"""What a run takes from devcontainer.json, and what it refuses or lists."""

from __future__ import annotations

import pytest

from pods.devcontainer import MAX_BYTES, DevcontainerPlan, plan
from pods.errors import BackendError, PodRefused, PullRefused

DEFAULT = "localhost/devaipod-agent:dev"


def read(text: str, **how: object) -> DevcontainerPlan:
    """The plan of a file in the project shop of the owner acme."""
    known: dict[str, object] = {
        "default_image": DEFAULT,
        "upstream_url": "https://forge.example/Acme/Shop.git",
        "branch": "main",
        "workspace": "/workspaces/shop",
    }
    return plan(text.encode(), **{**known, **how})  # type: ignore[arg-type]


def test_a_repository_without_the_file_gets_the_projects_image_and_no_warning() -> None:
    assert plan(None, default_image=DEFAULT) == DevcontainerPlan(DEFAULT, "project")


def test_comments_and_trailing_commas_are_read() -> None:
    found = read('{ // the image\n "image": "ghcr.io/acme/dev:1", /* more */ }')
    assert (found.image, found.source) == ("ghcr.io/acme/dev:1", "image")
    assert found.warnings == ()


def test_a_build_means_the_image_that_the_projects_ci_publishes() -> None:
    found = read(
        '{"build": {"dockerfile": "Dockerfile"}}',
        image_pattern="ghcr.io/{owner}/{repo}-devcontainer:{branch}",
        branch="release/1.x",
    )
    assert (found.image, found.source) == ("ghcr.io/acme/shop-devcontainer:release-1.x", "build")


def test_an_upstream_by_ssh_has_an_owner_too() -> None:
    found = read(
        '{"build": {}, "dockerFile": "x"}',
        image_pattern="r.example/{owner}/{repo}:{branch}",
        upstream_url="git@forge.example:Acme/Shop.git",
    )
    assert found.image == "r.example/acme/shop:main"


@pytest.mark.parametrize(
    "text", ['{"build": {"dockerfile": "D"}}', '{"dockerComposeFile": "c"}', "{}"]
)
def test_without_an_image_the_default_is_used_and_said(text: str) -> None:
    found = read(text)
    assert (found.image, found.source) == (DEFAULT, "project")
    assert "default image is used" in found.warnings[0]


def test_an_image_must_be_on_the_projects_list() -> None:
    allowed = ("ghcr.io/acme/*", "docker.io/library/python:3.*")
    assert read('{"image": "ghcr.io/acme/dev:1"}', allowed_images=allowed).source == "image"
    for image in ("ghcr.io/evil/dev:1", "ghcr.io.evil.example/acme/dev:1"):
        with pytest.raises(PullRefused, match="not on this project's list"):
            read(f'{{"image": "{image}"}}', allowed_images=allowed)


@pytest.mark.parametrize(
    "image", ["docker-archive:/etc/shadow", "oci:/x", "dir:/etc", "../x", "a b", "x" * 400]
)
def test_an_image_is_a_plain_reference(image: str) -> None:
    with pytest.raises(PullRefused, match="not the name of an image"):
        read(f'{{"image": "{image}"}}')


def test_variables_are_substituted_and_those_of_the_host_are_empty_and_listed() -> None:
    found = read(
        """{"image": "a.example/b:1", "containerEnv": {
          "FOLDER": "${containerWorkspaceFolder}/src", "NAME": "${localWorkspaceFolderBasename}",
          "TOKEN": "x${localEnv:GITHUB_TOKEN}y", "WITH": "${localEnv:NOPE:kept}"},
          "remoteEnv": {"TWICE": "${containerEnv:NAME}-${containerEnv:NAME}"}}"""
    )
    assert found.env == {
        "FOLDER": "/workspaces/shop/src",
        "NAME": "shop",
        "TOKEN": "xy",
        "WITH": "kept",
        "TWICE": "shop-shop",
    }
    assert "${localEnv:GITHUB_TOKEN}" in found.ignored


def test_a_path_that_builds_on_the_images_own_is_ignored_rather_than_broken() -> None:
    found = read(
        '{"image": "a.example/b:1", "remoteEnv": {"PATH": "${containerEnv:PATH}:/opt/bin"}}'
    )
    assert found.env == {}
    assert "remoteEnv.PATH" in found.ignored


@pytest.mark.parametrize(
    "name", ["OPENCODE_CONFIG_CONTENT", "OPENAI_BASE_URL", "https_proxy", "LD_PRELOAD", "A B", "1X"]
)
def test_variables_that_decide_how_we_are_reached_stay_ours(name: str) -> None:
    found = read(f'{{"image": "a.example/b:1", "containerEnv": {{"{name}": "x"}}}}')
    assert found.env == {}
    assert f"containerEnv.{name}" in found.ignored


def test_lifecycle_commands_come_in_three_forms() -> None:
    found = read(
        """{"image": "a.example/b:1", "onCreateCommand": "make deps && echo 'done'",
            "postCreateCommand": ["npm", "ci"],
            "postStartCommand": {"one": "a", "two": ["b", "c d"]}}"""
    )
    assert found.lifecycle == {
        "onCreateCommand": [("sh", "-c", "make deps && echo 'done'")],
        "postCreateCommand": [("npm", "ci")],
        "postStartCommand": [("sh", "-c", "a"), ("b", "c d")],
    }
    with pytest.raises(PodRefused, match="postCreateCommand"):
        read('{"image": "a.example/b:1", "postCreateCommand": [1]}')


def test_the_remote_user_comes_before_the_containers() -> None:
    assert read('{"remoteUser": "vscode", "containerUser": "node"}').user == "vscode"
    assert read('{"containerUser": "1001"}').user == "1001"
    for user in ("a:b", "../x", "x y", "Root!", 7):
        with pytest.raises(PodRefused, match="user"):
            read(f'{{"remoteUser": "{user}:"}}')


def test_what_is_not_used_is_listed() -> None:
    found = read(
        '{"name": "x", "image": "a.example/b:1", "features": {}, "runArgs": ["--privileged"], "capAdd": ["ALL"],'
        ' "forwardPorts": [1], "workspaceMount": "source=/,target=/x,type=bind"}'
    )
    assert found.ignored == ("capAdd", "features", "forwardPorts", "runArgs", "workspaceMount")
    assert "features" in " ".join(found.warnings)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"privileged": true}', "privileged"),
        ('{"initializeCommand": "rm -rf /"}', "initializeCommand"),
        ('{"mounts": ["source=/etc,target=/x,type=bind"]}', "host path"),
        ('{"mounts": [{"source": "/etc", "target": "/x", "type": "bind"}]}', "host path"),
        ("[]", "not an object"),
        ("{", "cannot be read"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "cannot be read"),
        ('{"x": "' + "y" * MAX_BYTES + '"}', "bytes"),
    ],
)
def test_what_would_reach_the_host_or_cannot_be_read_is_refused(text: str, word: str) -> None:
    with pytest.raises(BackendError, match=word):
        read(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(PodRefused, match="cannot be read"):
        plan(b"\xff\xfe{}", default_image=DEFAULT)
