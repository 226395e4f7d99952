"""What each field of a project may be: one function a field, each raises ValueError with a sentence for a person."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from devaipod_web.forges import guard
from devaipod_web.forges.errors import ForgeError
from devaipod_web.projects import placement
from devaipod_web.projects.models import PermissionPolicy
from pods.agents import ACP_PROFILES

MIB = 1024**2
GIB = 1024**3

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,58}[a-z0-9])?")
RESERVED_SLUGS = frozenset({"new"})
#: A registry reference: no transport prefix (`docker://`, `dir:`), no space. The parser of the backend is stricter still.
IMAGE = re.compile(
    r"[a-z0-9][a-z0-9._-]*(?::[0-9]+)?(?:/[a-z0-9][a-z0-9._-]*)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
TRANSPORTS = (
    "containers-storage:",
    "dir:",
    "docker:",
    "docker-archive:",
    "docker-daemon:",
    "oci:",
    "oci-archive:",
)
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{")

#: Smallest and largest, with the unit's name for the sentence.
BOUNDS: dict[str, tuple[int | float, int | float, str]] = {
    "wall_seconds": (60, 7 * 24 * 3600, "seconds"),
    "memory_bytes": (256 * MIB, 1024 * GIB, "bytes"),
    "cpus": (0.1, 256, "cores"),
    "pids": (32, 32768, "processes"),
    "workspace_bytes": (64 * MIB, 4096 * GIB, "bytes"),
    "workspace_inodes": (1000, 100_000_000, "files"),
}


def text(name: str, most: int, *, least: int = 0) -> Callable[[Any], str]:
    """A rule for a line of text of `least` to `most` characters."""

    def rule(value: Any) -> str:
        line = " ".join(str(value or "").split())
        if len(line) < least:
            raise ValueError(f"{name} is needed.")
        if len(line) > most:
            raise ValueError(f"{name} has at most {most} characters, not {len(line)}.")
        return line

    return rule


def slug(value: Any) -> str:
    """The project's short name in addresses and in names of pods."""
    word = str(value or "").strip()
    if word in RESERVED_SLUGS:
        raise ValueError(f"{word} is the address of a page: choose another short name.")
    if not SLUG.fullmatch(word):
        raise ValueError(
            "A short name has 1 to 60 lower-case letters, digits and dashes, and begins and ends with a letter or digit."
        )
    return word


def remote(value: Any) -> str:
    """The address of a git repository, checked by the guard of addresses that people type."""
    address = str(value or "").strip()
    if not address:
        raise ValueError("The repository's address is needed.")
    if len(address) > 500:
        raise ValueError("A repository's address has at most 500 characters.")
    try:
        return guard.check_repository(address)
    except ForgeError as error:
        raise ValueError(error.sentence) from error


def remote_or_empty(value: Any) -> str:
    """Like `remote`, or empty."""
    return remote(value) if str(value or "").strip() else ""


def branch(value: Any) -> str:
    """A branch's name by the rules of git-check-ref-format(1)."""
    name = str(value or "").strip()
    bad = (
        not name
        or len(name) > 200
        or _BAD_IN_REF.search(name)
        or name.startswith(("-", "/", "."))
        or name.endswith(("/", ".", ".lock"))
        or "/." in name
        or name == "@"
        or ".lock/" in name
    )
    if bad:
        raise ValueError(f"{name[:60]!r} cannot be the name of a branch.")
    return name


def prefix(value: Any) -> str:
    """What the names of promoted branches begin with."""
    begin = str(value or "").strip()
    if len(begin) > 60:
        raise ValueError("A prefix has at most 60 characters.")
    try:
        branch(begin + "x")
    except ValueError:
        raise ValueError(f"{begin!r} cannot be the beginning of a branch's name.") from None
    return begin


def agent(value: Any) -> str:
    """One of the agent profiles that a project may have."""
    name = str(value or "").strip()
    if name not in ACP_PROFILES:
        raise ValueError(
            f"There is no agent {name[:40]!r} for a project; there is {', '.join(sorted(ACP_PROFILES))}."
        )
    return name


def model(value: Any) -> str:
    """A model's name as its provider spells it, or empty."""
    name = str(value or "").strip()
    if name and not MODEL.fullmatch(name):
        raise ValueError(f"{name[:60]!r} cannot be the name of a model.")
    return name


def policy(value: Any) -> str:
    """A permission policy."""
    if value not in PermissionPolicy.values:
        raise ValueError(f"The permission policy is one of {', '.join(PermissionPolicy.values)}.")
    return str(value)


def image(value: Any) -> str:
    """A registry reference without transport prefix, or empty."""
    name = str(value or "").strip()
    if not name:
        return ""
    if "://" in name or name.startswith(TRANSPORTS):
        raise ValueError(
            "An image is a registry reference such as registry.example/team/image:tag, without a transport before it."
        )
    if len(name) > 300 or not IMAGE.fullmatch(name):
        raise ValueError(f"{name[:60]!r} is not an image's name.")
    return name


def image_pattern(value: Any) -> str:
    """The name of the image that the project's CI publishes, with {owner}, {repo} and {branch} in it, or empty."""
    pattern = str(value or "").strip()
    if not pattern:
        return ""
    filled = pattern
    for word in ("{owner}", "{repo}", "{branch}"):
        filled = filled.replace(word, "x")
    if "{" in filled or "}" in filled:
        raise ValueError("A pattern may contain {owner}, {repo} and {branch}, and no other braces.")
    image(filled)
    return pattern


def images(value: Any) -> list[str]:
    """The images that devcontainer.json may name, one a line; a star stands for anything."""
    lines = value.splitlines() if isinstance(value, str) else list(value or [])
    names = [str(line).strip() for line in lines if str(line).strip()]
    if len(names) > 100:
        raise ValueError("At most 100 images can be listed.")
    for name in names:
        image(name.replace("*", "x"))
    return names


def number(field: str) -> Callable[[Any], int | float]:
    """A rule for a number within its bounds."""
    least, most, unit = BOUNDS[field]

    def rule(value: Any) -> int | float:
        try:
            found = float(value) if field == "cpus" else int(value)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"A number of {unit} is needed, not {str(value)[:40]!r}.") from None
        if not least <= found <= most:
            raise ValueError(f"It must lie between {least:,} and {most:,} {unit}.")
        return found

    return rule


RULES: dict[str, Callable[[Any], Any]] = {
    "name": text("The name", 120, least=1),
    "slug": slug,
    "description": text("The description", 500),
    "upstream_url": remote,
    "upstream_branch": branch,
    "production_url": remote_or_empty,
    "production_prefix": prefix,
    "agent": agent,
    "model": model,
    "permission_policy": policy,
    "image": image,
    "image_pattern": image_pattern,
    "allowed_images": images,
    **{field: number(field) for field in BOUNDS},
    **placement.RULES,
}
