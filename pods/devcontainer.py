"""What devcontainer.json means here (DESIGN §6): an image, variables, a user and lifecycle commands; never a build, a mount or a privilege.

The file is read at the base commit and is as untrusted as anything of the repository's. What is not used is listed, never dropped in silence.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pyjson5

from pods.errors import PodRefused, PullRefused
from pods.podman_images import check_reference

MAX_BYTES = 64 * 1024
MAX_VARIABLES = 100
MAX_VALUE = 8 * 1024
#: Properties that say something to an editor alone and need no word.
SILENT = frozenset({"name", "$schema", "customizations"})
USED = frozenset(
    {
        "image",
        "build",
        "containerEnv",
        "remoteEnv",
        "remoteUser",
        "containerUser",
        "onCreateCommand",
        "postCreateCommand",
        "postStartCommand",
    }
)
LIFECYCLE = ("onCreateCommand", "postCreateCommand", "postStartCommand")
#: Variables that decide how the agent reaches us; a repository may not set them.
RESERVED = re.compile(
    r"(?i)^((OPENCODE|OPENAI|ANTHROPIC|CLAUDE|CODEX|GEMINI|GOOGLE_GE(MINI|NAI)|QWEN|GOOSE)_.*|GOOGLE_API_KEY|MODEL_PROVIDER"
    r"|INITIAL_AGENT_MODE|DEFAULT_AUTH_REQUEST|LLMPROXY_URL|LD_PRELOAD|LD_LIBRARY_PATH|HOME|.*_PROXY)$"
)
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
SUBSTITUTION = re.compile(r"\$\{([a-zA-Z]+)(?::([^}:]*))?(?::([^}]*))?\}")
USER = re.compile(r"[a-z_0-9][a-z0-9_-]{0,31}")


@dataclass(frozen=True)
class DevcontainerPlan:
    """What a run takes from the repository. `ignored` names properties, `warnings` are sentences for the run."""

    image: str
    source: str
    env: dict[str, str] = field(default_factory=dict)
    user: str = ""
    lifecycle: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def plan(
    text: bytes | None,
    *,
    default_image: str,
    image_pattern: str = "",
    allowed_images: Sequence[str] = (),
    upstream_url: str = "",
    branch: str = "",
    workspace: str = "/workspaces/project",
) -> DevcontainerPlan:
    """Resolve devcontainer.json (its bytes, or None when the repository has none) to what a run takes from it.

    `image_pattern` may hold `{owner}`, `{repo}` and `{branch}`, from `upstream_url` and `branch`: the image that the project's CI
    publishes for a `build`. `allowed_images` are globs that an `image` must match (none: any registry reference).
    Raises PodRefused for `privileged` and host mounts and for a file that is no object, PullRefused for an image that is not
    allowed.
    """
    if text is None:
        return DevcontainerPlan(image=default_image, source="project")
    document = _read(text)
    _refuse(document)
    warnings: list[str] = []
    image, source = _image(
        document,
        default_image,
        image_pattern,
        upstream_url=upstream_url,
        branch=branch,
        warnings=warnings,
    )
    if source != "project":
        check_reference(image)
    if source == "image" and allowed_images and not _listed(image, allowed_images):
        raise PullRefused(
            f"devcontainer.json names the image {image}, which is not on this project's list.",
            next_step="Add it to the project's allowed images, or change devcontainer.json.",
        )
    ignored = sorted(set(document) - USED - SILENT)
    env = _env(document, workspace=workspace, ignored=ignored)
    lifecycle = {name: _commands(name, document[name]) for name in LIFECYCLE if document.get(name)}
    if ignored:
        warnings.append(f"devcontainer.json: ignored {', '.join(ignored)}.")
    return DevcontainerPlan(
        image=image,
        source=source,
        env=env,
        user=_user(document),
        lifecycle=lifecycle,
        ignored=tuple(ignored),
        warnings=tuple(warnings),
    )


def check_image(
    image: str, *, defaults: Sequence[str] = (), allowed_images: Sequence[str] = ()
) -> None:
    """Raise PullRefused unless a run that names this image itself may have it: one of `defaults`, else by the project's list."""
    check_reference(image)
    if allowed_images and image not in defaults and not _listed(image, allowed_images):
        raise PullRefused(
            f"The image {image} is not on this project's list.",
            next_step="Add it to the project's allowed images, or choose another.",
        )


def _listed(image: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(image, glob) for glob in globs)


def _read(text: bytes) -> dict[str, Any]:
    if len(text) > MAX_BYTES:
        raise PodRefused(f"devcontainer.json has {len(text)} bytes; at most {MAX_BYTES} are read.")
    try:
        document = pyjson5.decode(text.decode("utf-8"), maxdepth=20)
    except (ValueError, pyjson5.Json5Exception) as error:
        raise PodRefused(
            f"devcontainer.json cannot be read: {str(error)[:200]}",
            next_step="Mend the file on the base branch.",
        ) from error
    if not isinstance(document, dict):
        raise PodRefused(
            "devcontainer.json is not an object.", next_step="Mend the file on the base branch."
        )
    return document


def _refuse(document: Mapping[str, Any]) -> None:
    """What would reach the host is refused, not ignored: a run that silently lacks it would fail in a way nobody understands."""
    if document.get("privileged"):
        raise PodRefused(
            "devcontainer.json asks for a privileged container, which no run gets.",
            next_step="Remove `privileged` on the base branch, or use another image.",
        )
    if document.get("initializeCommand"):
        raise PodRefused(
            "devcontainer.json has an initializeCommand, which would run on the host.",
            next_step="Remove it on the base branch.",
        )
    mounts = document.get("mounts") or []
    for mount in mounts if isinstance(mounts, list) else [mounts]:
        kind = mount.get("type", "") if isinstance(mount, dict) else str(mount)
        if "bind" in str(kind):
            raise PodRefused(
                "devcontainer.json asks for a mount of a host path, which no run gets.",
                next_step="Remove it from `mounts` on the base branch.",
            )


def _image(
    document: Mapping[str, Any],
    default: str,
    pattern: str,
    *,
    upstream_url: str,
    branch: str,
    warnings: list[str],
) -> tuple[str, str]:
    image = document.get("image")
    if isinstance(image, str) and image:
        return image, "image"
    if document.get("build") or document.get("dockerFile"):
        if pattern:
            owner, repo = _owner_and_repo(upstream_url)
            tag = re.sub(r"[^A-Za-z0-9_.-]+", "-", branch).lstrip(".-")[:120]
            return pattern.replace("{owner}", owner).replace("{repo}", repo).replace(
                "{branch}", tag
            ), "build"
        warnings.append(
            "devcontainer.json builds an image, and nothing is built here: the default image is used. Set the project's "
            "image pattern to what its CI publishes."
        )
        return default, "project"
    warnings.append("devcontainer.json names no image: the default image is used.")
    return default, "project"


def _owner_and_repo(url: str) -> tuple[str, str]:
    path = urlsplit(url).path if "://" in url else url.partition(":")[2]
    parts = [part for part in path.removesuffix(".git").lower().split("/") if part]
    return "/".join(parts[:-1]), parts[-1] if parts else ""


def _env(document: Mapping[str, Any], *, workspace: str, ignored: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("containerEnv", "remoteEnv"):
        table = document.get(name)
        if not isinstance(table, dict):
            continue
        for key, value in list(table.items())[:MAX_VARIABLES]:
            if (
                not VARIABLE.fullmatch(str(key))
                or RESERVED.match(str(key))
                or not isinstance(value, str)
            ):
                ignored.append(f"{name}.{str(key)[:60]}")
                continue
            if _needs_the_image(value, found):
                # `${containerEnv:PATH}:/more` without the image's own PATH would hide every program.
                ignored.append(f"{name}.{key}")
                continue
            found[str(key)] = _substitute(value, found, workspace, ignored)[:MAX_VALUE]
    return found


def _needs_the_image(value: str, env: Mapping[str, str]) -> bool:
    """Whether a value refers to a variable that only the image has: it is not known before the image is there."""
    return any(
        match.group(1) == "containerEnv" and match.group(2) not in env and match.group(3) is None
        for match in SUBSTITUTION.finditer(value)
    )


def _substitute(value: str, env: Mapping[str, str], workspace: str, ignored: list[str]) -> str:
    folder = workspace.rsplit("/", 1)[-1]
    words = {
        "containerWorkspaceFolder": workspace,
        "localWorkspaceFolder": workspace,
        "containerWorkspaceFolderBasename": folder,
        "localWorkspaceFolderBasename": folder,
    }

    def one(match: re.Match[str]) -> str:
        word, name, default = match.group(1), match.group(2) or "", match.group(3) or ""
        if word in words:
            return words[word]
        if word == "containerEnv":
            return env.get(name, default)
        # The host's environment is no business of a repository's.
        ignored.append(f"${{{word}:{name[:60]}}}")
        return default

    return SUBSTITUTION.sub(one, value)


def _user(document: Mapping[str, Any]) -> str:
    user = document.get("remoteUser") or document.get("containerUser") or ""
    if user and (not isinstance(user, str) or not USER.fullmatch(user)):
        raise PodRefused("devcontainer.json names a user that cannot be one.")
    return str(user)


def _commands(name: str, value: Any) -> list[tuple[str, ...]]:
    """The forms of the specification: a string for a shell, a list of arguments, or an object of either (here one after another)."""
    if isinstance(value, str):
        return [("sh", "-c", value)]
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return [tuple(value)]
    if isinstance(value, dict):
        return [step for part in value.values() for step in _commands(name, part)]
    raise PodRefused(f"devcontainer.json: {name} is neither a command nor a list of words.")
