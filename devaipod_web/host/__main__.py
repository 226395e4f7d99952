"""`python3 -m devaipod_web.host VERB`: what the Makefile calls; runs with the system's Python until `.venv` is there."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from devaipod_web import home
from devaipod_web.host import commands, doctor, images, python
from devaipod_web.host.errors import HostError
from devaipod_web.host.packages import ensure_packages
from devaipod_web.host.terminal import Terminal
from pods.agents import PACKAGED

VERBS = {
    "venv": "make .venv from the lock file (--dev: with what tests need)",
    "setup": "packages, containers.conf, podman's service and images (--dev: with what tests need)",
    "images": "build the images, or find them in the local store",
    "control-plane": "build the control plane's own image, for a cluster",
    "up": "everything, and the server in the background",
    "demo": "up, and one run on the sample project",
    "down": "end the server and podman's service",
    "logs": "follow the server's log",
    "test": "pytest, with podman's environment of this host",
    "bench": "the benchmark, with podman's environment of this host",
    "doctor": "say what is wrong on this host (--json)",
    "clean": "end and remove everything of this installation",
}


def main(arguments: list[str]) -> int:
    """Run one verb; errors are one message on standard error and status 1."""
    parser = argparse.ArgumentParser(
        prog="python3 -m devaipod_web.host",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {verb:13} {what}" for verb, what in VERBS.items()),
    )
    parser.add_argument("verb", choices=VERBS, metavar="VERB")
    parser.add_argument("--dev", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--agents", default="", help="agents whose images are built, or all")
    chosen, more = parser.parse_known_args(arguments)
    if more and chosen.verb != "test":
        parser.error(f"unknown arguments: {' '.join(more)}")
    say = Terminal()
    try:
        if chosen.verb in ("test", "bench"):
            module = ["pytest", *more] if chosen.verb == "test" else ["tests.bench"]
            return commands.run_module(home.home(), module)
        return _run(
            chosen.verb,
            dev=chosen.dev,
            as_json=chosen.json,
            agents=images.named(chosen.agents),
            say=say,
            arguments=arguments,
        )
    except HostError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What was made stays; start again to go on.", file=sys.stderr)
        return 130


def _run(
    verb: str,
    *,
    dev: bool,
    as_json: bool,
    agents: tuple[str, ...],
    say: Terminal,
    arguments: list[str],
) -> int:
    folder = home.home()
    if verb == "doctor":
        return _doctor(folder, as_json=as_json)
    if verb == "logs":
        return commands.follow_logs(folder)
    if verb in ("down", "clean"):
        (commands.down if verb == "down" else commands.clean)(folder, say=say)
        return 0
    _resume_clock(say)
    if verb == "venv":
        python.ensure_venv(say=say, dev=dev)
        return 0
    # Packages first: without git or podman nothing after is of use, and the message names them all at once.
    ensure_packages(say=say, tests=dev)
    python.ensure_venv(say=say, dev=dev)
    _hand_on_clock(say)
    python.enter(arguments)
    if verb == "control-plane":
        commands.prepare_control_plane(folder, say=say)
    elif verb in ("setup", "images"):
        # The tests drive every agent.
        commands.prepare(folder, say=say, tests=dev, agents=PACKAGED if dev else agents)
    else:
        commands.up(folder, say=say, agents=agents)
    say(f"  {say.total()}")
    if verb == "demo":
        return commands.demo(folder)
    return commands.link(folder) if verb == "up" else 0


def _doctor(folder: Path, *, as_json: bool) -> int:
    os.environ["DEVAIPOD_HOME"] = str(folder)
    found = doctor.check(folder)
    print(json.dumps([finding.as_dict() for finding in found]) if as_json else doctor.show(found))
    return 1 if any(finding.severity is doctor.Severity.ERROR for finding in found) else 0


def _hand_on_clock(say: Terminal) -> None:
    """The environment's Python goes on with the same clock: times are of the whole command."""
    os.environ["DEVAIPOD_CLOCK"] = f"{say.started} {say.download_seconds}"


def _resume_clock(say: Terminal) -> None:
    handed = os.environ.pop("DEVAIPOD_CLOCK", "").split()
    if len(handed) == 2:
        say.started, say.download_seconds = float(handed[0]), float(handed[1])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
