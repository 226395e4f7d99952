"""The images of a pod, made on this host from the recipes in `images/`, or taken from the local store.

An image's tag is a hash of its recipe and of everything that goes into it, so an unchanged recipe is never built
twice and two checkouts with different recipes do not disturb each other. `:dev` follows the last one made.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from devaipod_web import home
from devaipod_web.host import podman_config
from devaipod_web.host.errors import CommandFailed, HostError
from devaipod_web.host.process import follow, quick
from devaipod_web.host.terminal import Terminal
from pods.agents import PACKAGED

ROOT = home.ROOT
RECIPES = home.assets() / "images"
UPSTREAM = "docker.io/library/debian:trixie-slim"
REGISTRY_HOST = "registry-1.docker.io"
SUITE = "trixie"
#: A registry that has not answered after this long is taken for unreachable.
REGISTRY_SECONDS = 5.0
BUILD_SECONDS = 1200.0
HASH_LENGTH = 12
#: Of each image so many versions stay in the store: other checkouts may be behind or ahead of this one.
KEEP_IMAGES = 5


@dataclass(frozen=True)
class Recipe:
    """What an image is made from: its Containerfile and folders below `images/`, and sources relative to what holds `pods`."""

    containerfile: str
    parts: tuple[str, ...]
    sources: tuple[str, ...] = ()
    #: Build arguments beside the base.
    arguments: tuple[str, ...] = ()
    #: Whether its packages are fetched in the image `npm`.
    by_npm: bool = False


#: Agents whose packages hold no program for Node.js, so that they have a Containerfile of their own.
BARE = ("goose",)


def _packaged(key: str) -> Recipe:
    """An agent that npm has: each one's package.json with its lock file, and one Containerfile for all that run on Node.js."""
    if key in BARE:
        return Recipe(f"agents/{key}/Containerfile", (f"agents/{key}",), by_npm=True)
    return Recipe(
        "agents/Containerfile",
        ("agents/Containerfile", f"agents/{key}"),
        arguments=(f"AGENT={key}",),
        by_npm=True,
    )


#: The image of the control plane itself, for clusters; no run ever has it, and no `setup` builds it.
CONTROL_PLANE = "control-plane"
#: Every image of ours by its name behind `devaipod-`.
RECIPES_BY_NAME = {
    "base": Recipe("base/Containerfile", ("base",)),
    "agent": Recipe("agent/Containerfile", ("agent",)),
    "sidecar": Recipe(
        "sidecar/Containerfile",
        ("sidecar",),
        ("pods/__init__.py", "pods/spec.py", "pods/sidecar"),
    ),
    "npm": Recipe("npm/Containerfile", ("npm",)),
    CONTROL_PLANE: Recipe(
        "control-plane/Containerfile",
        (),
        (
            "devaipod_web",
            "pods",
            "templates",
            "static",
            "images",
            "pyproject.toml",
            "requirements-dev.lock",
            "README.md",
            "LICENSE",
        ),
    ),
    **{f"agent-{key}": _packaged(key) for key in PACKAGED},
}
#: Names on the command line: that of the default image, of the others, and all of these.
ALL = "all"
DEFAULT_AGENT = "opencode"
CA_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)


@dataclass(frozen=True)
class Images:
    """References of the images of this checkout, for `DEVAIPOD_AGENT_IMAGE`, `DEVAIPOD_SIDECAR_IMAGE` and `DEVAIPOD_AGENT_IMAGES`.

    `agents` has those of the agents beside the default one by their key, built or not.
    """

    base: str
    agent: str
    sidecar: str
    agents: dict[str, str] = field(default_factory=dict)


def references() -> Images:
    """What this checkout's images are called, whether they are there or not."""
    base = _digest("base")
    return Images(
        base=f"localhost/devaipod-base:{base}",
        agent=f"localhost/devaipod-agent:{_digest('agent', base)}",
        sidecar=f"localhost/devaipod-sidecar:{_digest('sidecar', base)}",
        agents={
            key: f"localhost/devaipod-agent-{key}:{_digest(f'agent-{key}', base)}"
            for key in PACKAGED
        },
    )


def named(text: str) -> tuple[str, ...]:
    """Agents as people name them, with spaces or commas between, or `all`; without the default one, which is always built.

    Raises HostError for a name that is none.
    """
    words = text.replace(",", " ").split()
    unknown = sorted(set(words) - {ALL, DEFAULT_AGENT, *PACKAGED})
    if unknown:
        raise HostError(
            f"There is no image for {', '.join(unknown)}: there is {', '.join((DEFAULT_AGENT, *PACKAGED))}, or all of them by `{ALL}`"
        )
    return PACKAGED if ALL in words else tuple(key for key in PACKAGED if key in words)


def card() -> Path:
    """JSON of the images that setup chose last."""
    return home.podman_dir() / "images.json"


def ensure_images(*, say: Terminal, agents: tuple[str, ...] = ()) -> Images:
    """Build what is not in the local store, with the images of these agents. Raises HostError with the last lines of what failed.

    The base is pulled when a registry answers within seconds, else made by mmdebstrap. Certificates and addresses of this
    host's mirrors are mounted into the builds and left out of the images.
    """
    if not RECIPES.is_dir():
        raise HostError(
            f"The images' recipes are not in {RECIPES}: install devaipod-web again (`pipx reinstall devaipod-web`)"
        )
    wanted = references()
    asked = {
        "sidecar": wanted.sidecar,
        "agent": wanted.agent,
        **{f"agent-{key}": wanted.agents[key] for key in agents},
    }
    missing = {name: reference for name, reference in asked.items() if not stored(reference)}
    if missing and not stored(wanted.base):
        _make_base(wanted.base, say=say)
    if any(RECIPES_BY_NAME[name].by_npm for name in missing):
        npm = _npm(wanted.base)
        if not stored(npm):
            _build("npm", npm, base=wanted.base, say=say)
    for name, reference in missing.items():
        _build(name, reference, base=wanted.base, say=say)
    if missing:
        for name in RECIPES_BY_NAME:
            _forget_old(name)
    for name, reference in asked.items():
        quick(
            ["podman", "tag", reference, f"localhost/devaipod-{name}:dev"],
            env=podman_config.environment(),
        )
    if not missing:
        say(f"✓ Images are in the local store: {', '.join(asked.values())}")
    card().parent.mkdir(parents=True, exist_ok=True)
    card().write_text(json.dumps(asdict(wanted)))
    return wanted


def control_plane() -> str:
    """What the image of this checkout's control plane is called, whether it is there or not."""
    return f"localhost/devaipod-{CONTROL_PLANE}:{_digest(CONTROL_PLANE, _digest('base'))}"


def ensure_control_plane(*, say: Terminal) -> str:
    """Build the control plane's image when it is not in the local store; returns its reference, and `:dev` names it too.

    Only from a checkout: a wheel holds no pyproject.toml. Raises HostError with the last lines of what failed.
    """
    if not home.in_checkout():
        raise HostError(
            "The control plane's image is built from a checkout: `git clone` the repository and `make control-plane` there"
        )
    base = f"localhost/devaipod-base:{_digest('base')}"
    reference = control_plane()
    if not stored(reference):
        if not stored(base):
            _make_base(base, say=say)
        _build(CONTROL_PLANE, reference, base=base, say=say)
        _forget_old(CONTROL_PLANE)
    quick(
        ["podman", "tag", reference, f"localhost/devaipod-{CONTROL_PLANE}:dev"],
        env=podman_config.environment(),
    )
    say(f"✓ The control plane's image is {reference}")
    return reference


def _npm(base: str) -> str:
    """The reference of the image in which npm fetches packages: those are pinned by lock files, so it counts in no other's tag."""
    return f"localhost/devaipod-npm:{_digest('npm', base.rpartition(':')[2])}"


def _digest(name: str, base: str = "") -> str:
    """A hash over the recipe's folder and the sources it copies: paths, bytes, and whether they may be executed."""
    found = hashlib.sha256(f"{name}\0{base}\0{os.uname().machine}\0".encode())
    for place, file in _inputs(name):
        found.update(place.encode() + b"\0")
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:HASH_LENGTH]


def _inputs(name: str) -> Iterator[tuple[str, Path]]:
    """(path in the build's context, file) of everything that goes into an image; the same paths in a checkout and a wheel."""
    recipe = RECIPES_BY_NAME[name]
    tops = [
        *((f"images/{part}", RECIPES / part) for part in recipe.parts),
        *((part, ROOT / part) for part in recipe.sources),
    ]
    for place, top in tops:
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if file.is_file() and "__pycache__" not in file.parts:
                yield f"{place}/{file.relative_to(top)}" if file != top else place, file


@contextmanager
def _context(name: str) -> Iterator[Path]:
    """A folder with exactly what the image is made from: in a wheel recipes and sources lie apart, among everybody's packages."""
    with tempfile.TemporaryDirectory(prefix="devaipod-context-", dir=_scratch()) as folder:
        for place, file in _inputs(name):
            target = Path(folder) / place
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        yield Path(folder)


def stored(reference: str) -> bool:
    """Whether an image is in the local store. Raises CommandFailed when podman itself fails."""
    try:
        quick(["podman", "image", "exists", reference], env=podman_config.environment())
    except CommandFailed as error:
        if error.output or "status 1:" not in str(error):
            raise
        return False
    return True


def _forget_old(name: str) -> None:
    """Remove all but the last few images of a recipe. What a container uses stays: podman refuses to remove it."""
    env = podman_config.environment()
    listed = quick(
        [
            "podman",
            "images",
            "--sort=created",
            "--format={{.Repository}}:{{.Tag}}",
            f"--filter=reference=localhost/devaipod-{name}",
        ],
        env=env,
    ).split()
    # Only tags of our own making: a person may have named one of these images as well.
    ours = [one for one in listed if re.fullmatch(rf".*:[0-9a-f]{{{HASH_LENGTH}}}", one)]
    for reference in ours[KEEP_IMAGES:]:
        with suppress(CommandFailed):
            quick(["podman", "rmi", reference], timeout=60, env=env)


def _make_base(reference: str, *, say: Terminal) -> None:
    if registry_answers():
        with say.step("pulling Debian from the registry, adding git and Python") as step:
            step.downloading(True)
            follow(
                ["podman", "pull", "--quiet", UPSTREAM],
                step=step,
                timeout=BUILD_SECONDS,
                env=podman_config.environment(),
            )
            step.downloading(False)
        _build("base", reference, base="", say=say)
        return
    say(f"  No registry answers within {REGISTRY_SECONDS:g} s: the base is made with mmdebstrap.")
    if not shutil.which("mmdebstrap"):
        raise HostError(
            "Neither does an image registry answer, nor is mmdebstrap installed: "
            "`apt-get install mmdebstrap` (or `dnf install mmdebstrap`), or give this host a way to docker.io"
        )
    packages = ",".join((RECIPES / "base" / "packages").read_text().split())
    with (
        tempfile.TemporaryDirectory(
            prefix="devaipod-base-", dir=_shared_scratch(), ignore_cleanup_errors=True
        ) as folder,
        say.step("making the base image with mmdebstrap") as step,
    ):
        Path(folder).chmod(0o755)
        tar = Path(folder) / "base.tar"
        command = [
            "mmdebstrap",
            "--variant=minbase",
            f"--include={packages}",
            *(
                f"--dpkgopt=path-exclude=/usr/share/{part}/*"
                for part in ("man", "doc", "locale", "info")
            ),
            SUITE,
            str(tar),
        ]
        if mirror := os.environ.get("DEVAIPOD_DEBIAN_MIRROR"):
            command.append(mirror)
        follow(
            command,
            step=step,
            timeout=BUILD_SECONDS,
            env={**podman_config.environment(), "TMPDIR": folder},
            downloads={
                "I: running apt-get update": True,
                "I: extracting archives": False,
                "I: downloading packages": True,
                "I: installing": False,
            },
        )
        step.tail = "podman import"
        follow(
            ["podman", "import", "--quiet", str(tar), reference],
            step=step,
            timeout=BUILD_SECONDS,
            env=podman_config.environment(),
        )


def _build(name: str, reference: str, *, base: str, say: Terminal) -> None:
    with (
        _host_settings() as settings,
        _context(name) as context,
        say.step(f"building the {name} image") as step,
    ):
        step.tail = reference
        recipe = RECIPES_BY_NAME[name]
        npm = [f"NPM={_npm(base)}"] if recipe.by_npm else []
        given = [*([f"BASE={base}"] if base else []), *npm, *recipe.arguments]
        arguments = [word for one in given for word in ("--build-arg", one)]
        follow(
            [
                "podman",
                "build",
                # An agent's build has gigabytes of packages between; only the result is worth keeping.
                *(["--layers=false"] if name not in ("sidecar", CONTROL_PLANE) else []),
                "--network=host",
                *arguments,
                f"--volume={settings}:/mnt:ro",
                f"--tag={reference}",
                f"--file={context / 'images' / recipe.containerfile}",
                str(context),
            ],
            step=step,
            timeout=BUILD_SECONDS,
            env=podman_config.environment(),
        )


@contextmanager
def _host_settings() -> Iterator[Path]:
    """A folder for the builds' /mnt: this host's certificates, and where its pip and npm look, as a shell script.

    Mounted, never copied: none of it may be left in an image that others get.
    """
    with tempfile.TemporaryDirectory(prefix="devaipod-build-", dir=_scratch()) as name:
        folder = Path(name)
        folder.chmod(0o755)
        lines: list[str] = []
        bundle = ca_bundle()
        if bundle:
            shutil.copyfile(bundle, folder / "ca.crt")
            lines += [
                f"export {variable}=/mnt/ca.crt"
                for variable in (
                    "SSL_CERT_FILE",
                    "PIP_CERT",
                    "NODE_EXTRA_CA_CERTS",
                    "npm_config_cafile",
                )
            ]
        for variable, argv in (
            ("PIP_INDEX_URL", ["pip3", "config", "get", "global.index-url"]),
            ("npm_config_registry", ["npm", "config", "get", "registry"]),
        ):
            address = os.environ.get(variable) or _setting(argv)
            if address.startswith(("https://", "http://")):
                lines.append(f"export {variable}='{address}'")
        (folder / "env").write_text("\n".join(lines) + "\n")
        for file in folder.iterdir():
            file.chmod(0o644)
        yield folder


def ca_bundle() -> str:
    """The bundle of certificates that this host trusts, or an empty text."""
    named = os.environ.get("SSL_CERT_FILE", "")
    return next((path for path in (named, *CA_BUNDLES) if path and Path(path).is_file()), "")


def registry_answers() -> bool:
    """Whether the registry of the base image answers within seconds (any HTTP status will do).

    In a thread's stead a deadline: name resolution alone can hang for longer than a connect time-out allows.
    """
    try:
        quick(
            ["getent", "ahosts", REGISTRY_HOST],
            timeout=REGISTRY_SECONDS,
        )
    except CommandFailed:
        return bool(os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"))
    line = http.client.HTTPSConnection(
        REGISTRY_HOST,
        timeout=REGISTRY_SECONDS,
        context=ssl.create_default_context(cafile=ca_bundle() or None),
    )
    try:
        line.request("GET", "/v2/")
        return line.getresponse().status in (200, 401)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        line.close()


def _setting(argv: list[str]) -> str:
    if not shutil.which(argv[0]):
        return ""
    try:
        return quick(argv).strip()
    except CommandFailed:
        return ""


def _shared_scratch() -> Path:
    """The same for a rootless mmdebstrap, which works under subordinate ids that may not enter DEVAIPOD_HOME."""
    return _scratch() if os.geteuid() == 0 else Path("/var/tmp")  # noqa: S108 - a fresh folder is made in it


def _scratch() -> Path:
    """Where builds put large files for a moment: on the installation's disk, since /tmp may be memory."""
    folder = home.podman_dir() / "build"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
