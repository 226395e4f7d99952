"""`devaipod doctor`: what is wrong on this host, why it matters, and what mends it."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from devaipod_web import home as paths
from devaipod_web.host import facts as host_facts
from devaipod_web.host import images, podman_config, podman_service, target_facts
from devaipod_web.host.errors import CommandFailed
from devaipod_web.host.facts import CAP_SYS_ADMIN, CAP_SYS_RESOURCE, Facts
from devaipod_web.host.process import quick
from devaipod_web.host.target_facts import TargetFacts

MIN_PODMAN = (4, 3)
MIN_GIT = (2, 39)
#: subuid(5): images have ids up to 65534 (nobody), so a range smaller than this cannot hold them.
MIN_SUBIDS = 65_536
MIN_NOFILE = 4096
#: Images take 0.7 GB, a run's volumes up to some GB: below the first a run fails soon, below the second it may.
DISK_ERROR_BYTES = 2 * 1024**3
DISK_WARNING_BYTES = 10 * 1024**3
DEFAULT_PORT = 8000
#: Beside `/<pod key>/gateway.sock` below the runtime folder.
LONGEST_SOCKET = f"/{'k' * paths.KEY_LENGTH}/gateway.sock.new"


class Severity(StrEnum):
    """`error`: runs fail. `warning`: a guarantee or some comfort is missing. `note`: nothing to do."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One thing found: what is so, why it matters, what mends it. `code` is stable and documented."""

    code: str
    severity: Severity
    what: str
    why: str
    mend: str

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "what": self.what,
            "why": self.why,
            "mend": self.mend,
        }


@dataclass(frozen=True)
class Case:
    """What the checks look at: one look at the host, and the installation's folder."""

    facts: Facts
    folder: Path
    podman_error: str = ""
    graph_root: str = ""
    targets: tuple[TargetFacts, ...] = ()


def check(folder: Path, *, targets: Iterable[TargetFacts] = ()) -> list[Finding]:
    """Every finding on this host and its targets for the installation in `folder`, worst first; empty when all is well.

    `targets` are those that could not be read from the folder's own database.
    Changes nothing but the folder's existence and what a write probe leaves for a moment. Takes about a second.
    """
    case = _look(folder)
    case = replace(case, targets=(*case.targets, *targets))
    found: list[Finding] = []
    for look in CHECKS:
        if look not in OF_PODMAN or host_facts.uses_podman():
            found += look(case)
    order = list(Severity)
    return sorted(found, key=lambda finding: order.index(finding.severity))


def _look(folder: Path) -> Case:
    """Facts, and what podman says about itself (asked once: it takes a third of a second)."""
    facts, targets = host_facts.look(), target_facts.read(folder)
    if not facts.podman:
        return Case(facts=facts, folder=folder, targets=targets)
    try:
        text = quick(
            [facts.podman, "info", "--format", "{{.Store.GraphRoot}}"],
            timeout=30,
            env=podman_config.environment(),
        )
    except CommandFailed as error:
        said = error.output or str(error)
        return Case(facts=facts, folder=folder, podman_error=said, targets=targets)
    return Case(facts=facts, folder=folder, graph_root=text.strip(), targets=targets)


def _targets(case: Case) -> Iterator[Finding]:
    for target in case.targets:
        if target.is_podman or not target.enabled:
            continue
        if target.health == "down":
            yield Finding(
                "target-down",
                Severity.WARNING,
                f"The cluster {target.name} does not answer: {target.error.rstrip('.')}.",
                "Runs that may go elsewhere do; the others wait.",
                target.next_step or f"`devaipod target test {target.name}` asks it again.",
            )
        elif target.relay_closed:
            yield Finding(
                "relay-closed",
                Severity.WARNING,
                f"The forward to the relay in {target.name} is not open: {target.relay_closed.rstrip('.')}.",
                "Pods there reach the gateway through it alone: runs wait until it opens.",
                target.relay_next_step
                or "While `devaipod serve` runs it is opened again and again: `devaipod services` tells how it is now.",
            )
        if target.policies is False:
            yield Finding(
                "policies-not-enforced",
                Severity.WARNING,
                f"The cluster {target.name} does not enforce network policies.",
                "A pod there can reach whatever the cluster's network reaches, and not the gateway alone.",
                f"Use a network plugin that enforces NetworkPolicy (Calico, Cilium), then `devaipod target test {target.name}`.",
            )
        elif target.policies is None and target.health != "down":
            yield Finding(
                "policies-unknown",
                Severity.WARNING,
                f"It is not known whether the cluster {target.name} enforces network policies.",
                "Where they are not enforced, a pod can reach whatever the cluster's network reaches.",
                f"`devaipod target test {target.name}` tries it with two short pods.",
            )


def _podman(case: Case) -> Iterator[Finding]:
    if not case.facts.podman:
        yield Finding(
            "podman-missing",
            Severity.ERROR,
            "podman is not installed, or not on PATH.",
            "Agents run in podman's pods.",
            "`sudo apt-get install podman` (Debian, Ubuntu) or `sudo dnf install podman` (Fedora), "
            f"or {paths.set_up()} as root.",
        )
        return
    version = host_facts.podman_version(case.facts.podman)
    if version < MIN_PODMAN:
        shown = ".".join(map(str, version)) or "one that does not say its version"
        yield Finding(
            "podman-old",
            Severity.ERROR,
            f"podman is {shown}; at least {'.'.join(map(str, MIN_PODMAN))} is needed.",
            "Older ones lack parts of the API that pods are made through.",
            "Upgrade the system (Debian 12, Ubuntu 23.04, Fedora 37 and later have it).",
        )
        return
    if case.podman_error:
        yield Finding(
            "podman-broken",
            Severity.ERROR,
            f"`podman info` fails: {case.podman_error.strip()[-300:]}",
            "No pod can be made as long as it does.",
            "Read the message above; `podman system migrate` helps after an upgrade or a change of /etc/subuid.",
        )


def _runtime(case: Case) -> Iterator[Finding]:
    facts = case.facts
    if not facts.podman:
        return
    if not facts.crun and not facts.runc:
        yield Finding(
            "runtime-missing",
            Severity.ERROR,
            "Neither crun nor runc is installed.",
            "podman starts containers through one of them.",
            "`sudo apt-get install crun` (or runc).",
        )
    elif facts.cgroups == "hybrid" and not facts.runc:
        yield Finding(
            "cgroups-hybrid",
            Severity.ERROR,
            "cgroups v1 and v2 are mixed on this host, and only crun is installed.",
            'crun refuses to start containers then ("cgroups in hybrid mode not supported").',
            f"`sudo apt-get install runc`, then {paths.set_up()}; or boot with `systemd.unified_cgroup_hierarchy=1`.",
        )
    if facts.cgroups == "none":
        yield Finding(
            "cgroups-none",
            Severity.ERROR,
            "No cgroup file system is mounted at /sys/fs/cgroup.",
            "Nothing can bound a container's memory and processes.",
            "Mount it: `sudo mount -t cgroup2 none /sys/fs/cgroup`.",
        )
    elif facts.cgroups != "v2" and not facts.root:
        yield Finding(
            "cgroups-v1-rootless",
            Severity.WARNING,
            "This host has cgroups v1, and podman runs as an ordinary user.",
            "podman ignores memory, CPU and process limits then: an agent can use the whole machine.",
            "Boot with `systemd.unified_cgroup_hierarchy=1` (cgroups v2), or run devaipod as root.",
        )
    if (
        podman_config.document(facts)
        and not podman_config.path().is_file()
        and not os.environ.get("CONTAINERS_CONF")
    ):
        yield Finding(
            "containers-conf",
            Severity.WARNING,
            "podman's defaults do not hold on this host, and devaipod's containers.conf is not written yet.",
            "Containers may fail to start (limits, cgroups, logs).",
            f"{paths.set_up()} writes it.",
        )


def _limits(case: Case) -> Iterator[Finding]:
    facts = case.facts
    if facts.nofile_hard < MIN_NOFILE:
        yield Finding(
            "ulimit-nofile",
            Severity.WARNING,
            f"A process here may open {facts.nofile_hard} files at most.",
            f"The server keeps a handful open for each viewer and run; agents want {MIN_NOFILE}.",
            f"`ulimit -n {MIN_NOFILE * 4}` before the start, or LimitNOFILE= of the service.",
        )
    if facts.root and not facts.may(CAP_SYS_RESOURCE):
        yield Finding(
            "no-sys-resource",
            Severity.NOTE,
            "Root here lacks CAP_SYS_RESOURCE.",
            "podman's default limits are above the host's own and could not be set.",
            "Nothing to do: devaipod's containers.conf asks for the host's own limits.",
        )


def _rootless(case: Case) -> Iterator[Finding]:
    facts = case.facts
    if facts.root:
        return
    if min(facts.subuids, facts.subgids) < MIN_SUBIDS:
        yield Finding(
            "subuid",
            Severity.ERROR,
            f"{facts.user} has {facts.subuids} subordinate user ids and {facts.subgids} group ids; "
            f"{MIN_SUBIDS} of each are needed.",
            "Rootless podman maps the users inside of containers to them.",
            f"`sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {facts.user}` "
            "(another range when it is taken in /etc/subuid), then `podman system migrate`.",
        )
    if not facts.newuidmap:
        yield Finding(
            "newuidmap",
            Severity.ERROR,
            "newuidmap is not installed.",
            "Rootless podman needs it to use its subordinate ids.",
            "`sudo apt-get install uidmap` (Fedora: shadow-utils).",
        )
    if facts.runtime_dir and not os.access(facts.runtime_dir, os.W_OK):
        yield Finding(
            "runtime-dir",
            Severity.WARNING,
            f"XDG_RUNTIME_DIR is {facts.runtime_dir}, which {facts.user} may not write.",
            "It is another user's, as `su` leaves it; podman would fail in it and devaipod works around it.",
            f"Sign in as {facts.user} (`machinectl shell {facts.user}@`), or `unset XDG_RUNTIME_DIR`.",
        )
    if podman_config.has_vfs_store():
        yield Finding(
            "storage-vfs",
            Severity.WARNING,
            "This user's podman keeps images with the driver vfs.",
            "It copies an image whole for every container: starts are slow, and disk is used many times over.",
            "`podman system reset` (it removes all of this user's containers and images), "
            f"then {paths.set_up()}.",
        )
    yield Finding(
        "no-bounds-rootless",
        Severity.WARNING,
        "Without root a run's volumes have no hard bound.",
        "An agent could fill the disk; the supervisor measures and stops the run instead.",
        "Put DEVAIPOD_HOME and podman's storage on a partition of their own, or run devaipod as root.",
    )


def _bounds(case: Case) -> Iterator[Finding]:
    facts = case.facts
    if not facts.root:
        return
    if not facts.mkfs_ext4:
        yield Finding(
            "mkfs-missing",
            Severity.ERROR,
            "mkfs.ext4 is not installed.",
            "A run's volumes are ext4 images of a fixed size, so that no agent fills the disk.",
            "`sudo apt-get install e2fsprogs`.",
        )
    if not Path("/dev/loop-control").exists() or not facts.may(CAP_SYS_ADMIN):
        yield Finding(
            "no-loop",
            Severity.ERROR,
            "Loop devices can't be used here (/dev/loop-control or CAP_SYS_ADMIN is missing).",
            "A run's volumes are mounted from images of a fixed size.",
            "`sudo modprobe loop`; inside a container, give it /dev/loop-control and CAP_SYS_ADMIN.",
        )


def _git(case: Case) -> Iterator[Finding]:
    if not case.facts.git:
        yield Finding(
            "git-missing",
            Severity.ERROR,
            "git is not installed, or not on PATH.",
            "Every run clones, stages and promotes with it.",
            "`sudo apt-get install git` or `sudo dnf install git`.",
        )
        return
    version = host_facts.version_of([case.facts.git, "--version"])
    if version < MIN_GIT:
        yield Finding(
            "git-old",
            Severity.ERROR,
            f"git is {'.'.join(map(str, version))}; at least {'.'.join(map(str, MIN_GIT))} is needed.",
            "The rules that keep an agent's repository from running code were tried with that version.",
            "Upgrade git.",
        )


def _home(case: Case) -> Iterator[Finding]:
    folder = case.folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x" * 65_536)
            probe.flush()
    except OSError as error:
        yield Finding(
            "home-not-writable",
            Severity.ERROR,
            f"{folder} can't be written: {error.strerror}.",
            "Database, staging repositories, logs and keys lie there.",
            "Make it writable for this user, make room, or name another folder by DEVAIPOD_HOME.",
        )
        return
    if folder.stat().st_mode & 0o077:
        yield Finding(
            "home-open",
            Severity.WARNING,
            f"{folder} can be entered by other users of this host.",
            "It holds keys and every run's logs.",
            f"`chmod 700 {folder}`.",
        )
    yield from _room(folder, "DEVAIPOD_HOME")
    if case.graph_root and Path(case.graph_root).is_dir():
        yield from _room(Path(case.graph_root), "podman's storage")


def _room(place: Path, what: str) -> Iterator[Finding]:
    free = shutil.disk_usage(place).free
    if free >= DISK_WARNING_BYTES:
        return
    short = free < DISK_ERROR_BYTES
    yield Finding(
        "disk-full" if short else "disk-low",
        Severity.ERROR if short else Severity.WARNING,
        f"{free / 1024**3:.1f} GB are free for {what} ({place}).",
        "Images, workspaces and logs need room; a full disk stops runs.",
        "Make room: `devaipod prune` (old logs and volumes), `podman image prune` (unused images).",
    )


def _sockets(case: Case) -> Iterator[Finding]:
    if not case.folder.is_dir():
        return
    try:
        runtime = paths.runtime_dir()
    except OSError as error:
        yield Finding(
            "runtime-not-ours",
            Severity.ERROR,
            f"The folder of the sockets can't be used: {error}",
            "Pods reach the gateway through it, and nobody else may.",
            "Remove the folder that the message names, or set XDG_RUNTIME_DIR to one of your own.",
        )
        return
    longest = len(os.fsencode(str(runtime) + LONGEST_SOCKET))
    if longest > paths.MAX_SOCKET_PATH:
        yield Finding(
            "socket-path",
            Severity.ERROR,
            f"Sockets below {runtime} would have {longest} bytes in their path; Linux holds {paths.MAX_SOCKET_PATH}.",
            "The gateway could not listen.",
            "Set XDG_RUNTIME_DIR to a shorter folder of your own, such as /run/user/1000.",
        )
    service = paths.podman_socket()
    if service.exists() and not podman_service.answers(service):
        yield Finding(
            "podman-socket-stale",
            Severity.WARNING,
            f"Nobody answers at podman's socket {service}.",
            "Its service has ended; runs wait for it.",
            f"{paths.set_up()} starts it again."
            if not os.environ.get("DEVAIPOD_PODMAN_SOCKET")
            else "Start the service that DEVAIPOD_PODMAN_SOCKET names.",
        )


def _port(case: Case) -> Iterator[Finding]:
    port = int(os.environ.get("DEVAIPOD_PORT") or DEFAULT_PORT)
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            line.bind(("127.0.0.1", port))
        except OSError as error:
            if _served_by_us(case.folder, port):
                return
            yield Finding(
                "port-taken",
                Severity.WARNING,
                f"Port {port} can't be used: {error.strerror}.",
                "Another program listens there.",
                "Nothing need be done: devaipod takes the next free port and says which. To choose: `devaipod serve --port N`.",
            )


def _served_by_us(folder: Path, port: int) -> bool:
    from devaipod_web.host.server import serving

    card = serving(folder)
    return card is not None and card.url.rstrip("/").endswith(f":{port}")


def _images(case: Case) -> Iterator[Finding]:
    if not case.facts.podman or case.podman_error or not images.RECIPES.is_dir():
        return
    wanted = images.references()
    missing = [name for name in (wanted.agent, wanted.sidecar) if not images.stored(name)]
    if missing:
        yield Finding(
            "images-missing",
            Severity.WARNING,
            f"Not in the local store: {', '.join(missing)}.",
            "Runs need the sidecar's image, and most the default agent image.",
            f"{paths.set_up()} builds them.",
        )


def _browser(case: Case) -> Iterator[Finding]:
    if paths.in_checkout() and not case.facts.chromium:
        yield Finding(
            "chromium-missing",
            Severity.NOTE,
            "Chromium is not installed.",
            "Only the test suite needs it.",
            "`sudo apt-get install chromium` before `make test`.",
        )


#: Every check, in the order in which a person would look.
CHECKS: tuple[Callable[[Case], Iterator[Finding]], ...] = (
    _podman,
    _runtime,
    _limits,
    _rootless,
    _bounds,
    _git,
    _home,
    _sockets,
    _port,
    _images,
    _targets,
    _browser,
)
#: Of these what a control plane without podman need not have.
OF_PODMAN = (_podman, _runtime, _limits, _rootless, _bounds, _images)


def show(found: list[Finding]) -> str:
    """The findings for a terminal, or one sentence when there is none."""
    if not found:
        return "Nothing is wrong on this host."
    marks = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.NOTE: "·"}
    blocks = [
        f"{marks[finding.severity]} {finding.what}  [{finding.code}]\n"
        f"    {finding.why}\n"
        f"    → {finding.mend}"
        for finding in found
    ]
    return "\n".join(blocks)
