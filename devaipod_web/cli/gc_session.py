"""`devaipod gc-session`: Gas City's script-backed session provider (RPP version 0), over the API.

Gas City executes `<script> <operation> <session> [argument]…` and reads the exit code: 0 done, 1 failed (the reason is on standard
error), 2 an operation that this script does not know (taken for success), 75 a start that may be tried again. An operation has
30 seconds, a start 120.

A session is a run with the label `gc.session`. What is set by `set-meta` is a label `gc.meta.<key>` of that run.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from devaipod_web.cli.client import Client, CliError, Refused, segment
from devaipod_web.cli.output import note

SESSION = "gc.session"
STOPPED = "gc.stopped"
CLEARED = "gc.cleared"
META = "gc.meta."
COMMAND = "command"

DONE, FAILED, UNKNOWN = 0, 1, 2
#: Before Gas City's own 30 seconds, so that there is a sentence.
OPERATION_SECONDS = 25
ALIVE = frozenset({"queued", "preparing", "starting", "running", "waiting", "paused"})
MAX_PEEK_LINES = 2000
#: Events of an agent's run that are looked at for the last lines of its transcript.
PEEK_EVENTS = 500
MAX_STDIN = 1024 * 1024

CONTEXT = {"ignore_unknown_options": True, "help_option_names": ["--help"]}


class NoSession(CliError):
    """There is no session of that name."""


def gc_session(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="OPERATION SESSION [ARGUMENT]…")
    ] = None,
) -> None:
    """Be Gas City's session provider: GC_SESSION=exec:gc-session-devaipod calls this.

    DEVAIPOD_GC_PROJECT names the project whose runs the sessions are.
    """
    raise typer.Exit(call(words or []))


def main() -> None:
    """The program `gc-session-devaipod`, which Gas City can name as one word."""
    sys.exit(call(sys.argv[1:]))


def call(words: list[str]) -> int:
    """Do one operation and return its exit code. Never raises, and never 2 for anything but an operation that is not known."""
    if not words:
        note("The operation is missing.")
        return FAILED
    operation, *rest = words
    found = OPERATIONS.get(operation)
    if found is None:
        return UNKNOWN
    try:
        if operation != "start":  # it has its own time
            signal.signal(signal.SIGALRM, _too_late)
            signal.alarm(OPERATION_SECONDS)
        return found(rest)
    except CliError as error:
        note(f"{error.message} {error.next_step}".strip())
    except Exception as error:
        note(f"{operation}: {error.__class__.__name__}: {error}")
    return FAILED


def _too_late(*_: object) -> None:
    raise TimeoutError(f"no answer within {OPERATION_SECONDS} s")


# --- sessions among runs --------------------------------------------------------------------------------------------


def project() -> str:
    """The project whose runs the sessions are. Raises CliError when none is named."""
    name = os.environ.get("DEVAIPOD_GC_PROJECT", "")
    if not name:
        raise CliError(
            "DEVAIPOD_GC_PROJECT is not set.",
            next_step="Set it to the short name of the project whose runs the sessions are.",
        )
    return name


def argument(words: list[str], index: int, what: str) -> str:
    """One argument of an operation. Raises CliError when it is missing."""
    if index >= len(words) or not words[index]:
        raise CliError(f"The {what} is missing.")
    return words[index]


def given() -> str:
    """What came on standard input; nothing from a terminal."""
    return "" if sys.stdin.isatty() else sys.stdin.read(MAX_STDIN)


def find(client: Client, name: str) -> dict[str, Any] | None:
    """The newest run of this session, or None."""
    rows = client.pages("/runs", limit=1, project=project(), label=f"{SESSION}={name}")
    brief = next(rows, None)
    return client.get(f"/runs/{segment(brief['key'])}") if brief else None


def the(client: Client, name: str) -> dict[str, Any]:
    """The newest run of this session. Raises NoSession."""
    run = find(client, name)
    if run is None:
        raise NoSession(f"There is no session {name!r}.")
    return run


def runs_now(run: dict[str, Any] | None) -> bool:
    """Whether a session is alive. An agent that ended its turn is: the next nudge goes on with it."""
    if run is None or STOPPED in run["labels"]:
        return False
    return run["state"] in ALIVE or (run["agent"] != COMMAND and run["state"] == "succeeded")


def patch(client: Client, run: dict[str, Any], **labels: str | None) -> None:
    """Set or remove labels of the session's run; `_` of a name is written as `.`."""
    client.send("PATCH", f"/runs/{segment(run['key'])}/labels", {"labels": labels})


# --- operations ---------------------------------------------------------------------------------------------------


def start(words: list[str]) -> int:
    """`start NAME`, with the session's configuration as JSON on standard input."""
    from devaipod_web.cli.gc_start import start as begin

    return begin(Client(), argument(words, 0, "session's name"), given())


def stop(words: list[str]) -> int:
    """`stop NAME`: also of a session that is not there."""
    client = Client()
    run = find(client, argument(words, 0, "session's name"))
    if run is None:
        return DONE
    if run["state"] in ALIVE:
        _unless_late(client, "POST", f"/runs/{segment(run['key'])}/stop", {"reason": "Gas City."})
    elif run["pods"] and STOPPED not in run["labels"]:
        client.send("DELETE", f"/pods/{segment(run['pods'][-1])}")
    if STOPPED not in run["labels"]:
        patch(client, run, **{STOPPED: "yes"})
    return DONE


def _unless_late(client: Client, method: str, path: str, body: Any = None) -> bool:
    """Send, and take it for done when it was too late for it (409); returns whether it was in time."""
    try:
        client.send(method, path, body)
    except Refused as refused:
        if refused.http_status != 409:
            raise
        note(refused.message)
        return False
    return True


def interrupt(words: list[str]) -> int:
    """`interrupt NAME`: SIGINT to a command's processes, the end of an agent's turn. Best effort, as the protocol says."""
    client = Client()
    run = find(client, argument(words, 0, "session's name"))
    if run is not None and runs_now(run):
        _unless_late(client, "POST", f"/runs/{segment(run['key'])}/cancel-turn")
    return DONE


def is_running(words: list[str]) -> int:
    """`is-running NAME` prints true or false."""
    _say(runs_now(find(Client(), argument(words, 0, "session's name"))))
    return DONE


def process_alive(words: list[str]) -> int:
    """`process-alive NAME`: a pod lives exactly as long as its program, so the names on standard input say nothing more."""
    given()
    return is_running(words)


def attach(words: list[str]) -> int:
    """`attach NAME`: a shell in the session's container, in this terminal."""
    client = Client()
    run = the(client, argument(words, 0, "session's name"))
    signal.alarm(0)
    program = [sys.executable, "-m", "devaipod_web.cli.main", "attach", run["key"]]
    os.execv(program[0], program)  # noqa: S606 - Gas City gave us its terminal


def nudge(words: list[str]) -> int:
    """`nudge NAME`, text on standard input: a prompt to an agent, a line on a command's standard input. Best effort."""
    client = Client()
    text = given()
    run = find(client, argument(words, 0, "session's name"))
    if run is None or not runs_now(run) or not text.strip():
        return DONE
    where, text = (
        ("input", text.rstrip("\n") + "\n") if run["agent"] == COMMAND else ("prompt", text)
    )
    _unless_late(client, "POST", f"/runs/{segment(run['key'])}/{where}", {"text": text})
    return DONE


def set_meta(words: list[str]) -> int:
    """`set-meta NAME KEY`, the value on standard input."""
    client = Client()
    run, key = the(client, argument(words, 0, "session's name")), argument(words, 1, "key")
    patch(client, run, **{META + key: given()})
    return DONE


def get_meta(words: list[str]) -> int:
    """`get-meta NAME KEY` prints the value, nothing for none."""
    run = find(Client(), argument(words, 0, "session's name"))
    if run is not None:
        sys.stdout.write(run["labels"].get(META + argument(words, 1, "key"), ""))
    return DONE


def remove_meta(words: list[str]) -> int:
    """`remove-meta NAME KEY`."""
    client = Client()
    run = find(client, argument(words, 0, "session's name"))
    if run is not None:
        patch(client, run, **{META + argument(words, 1, "key"): None})
    return DONE


def peek(words: list[str]) -> int:
    """`peek NAME N` prints the last N lines (0: many) of a command's output, or of an agent's transcript."""
    client = Client()
    run = find(client, argument(words, 0, "session's name"))
    asked = words[1] if len(words) > 1 else "0"
    count = min(int(asked) if asked.isdecimal() else 0, MAX_PEEK_LINES) or MAX_PEEK_LINES
    if run is not None:
        lines = _output(client, run, count) if run["agent"] == COMMAND else _transcript(client, run)
        for line in lines[-count:]:
            print(line)
    return DONE


def _output(client: Client, run: dict[str, Any], count: int) -> list[str]:
    if not run["pods"]:
        return []
    cleared = int(run["labels"].get(CLEARED, "0"))
    rows = client.stream(f"/pods/{segment(run['pods'][-1])}/logs", tail=count, after=cleared)
    lines = [""]
    for row in rows:
        lines[-1] += row["text"]
        if not row["partial"]:
            lines.append("")
    return lines[:-1] if not lines[-1] else lines


def _transcript(client: Client, run: dict[str, Any]) -> list[str]:
    after = max(0, run["last_seq"] - PEEK_EVENTS, int(run["labels"].get(CLEARED, "0")))
    text, last = "", ""
    for event in client.stream(f"/runs/{segment(run['key'])}/events", after=after):
        payload = event["payload"]
        if event["kind"] == "message":
            text += ("" if last == payload.get("message_id") else "\n") + payload.get("text", "")
            last = payload.get("message_id")
        elif event["kind"] in ("prompt", "tool_call"):
            text += f"\n> {payload.get('text') or payload.get('title') or ''}"
            last = ""
    return text.strip("\n").split("\n") if text else []


def clear_scrollback(words: list[str]) -> int:
    """`clear-scrollback NAME`: peek begins after what is there now."""
    client = Client()
    run = find(client, argument(words, 0, "session's name"))
    if run is not None:
        last = str(run["last_seq"])
        if run["agent"] == COMMAND:
            rows = _last_line(client, run)
            last = str(rows["n"]) if rows else "0"
        patch(client, run, **{CLEARED: last})
    return DONE


def _last_line(client: Client, run: dict[str, Any]) -> dict[str, Any] | None:
    if not run["pods"]:
        return None
    return next(client.stream(f"/pods/{segment(run['pods'][-1])}/logs", tail=1), None)


def list_running(words: list[str]) -> int:
    """`list-running PREFIX` prints the names of the sessions that are alive, one a line."""
    prefix = words[0] if words else ""
    rows = Client().pages("/runs", project=project(), label=SESSION, state="active,succeeded")
    names = {row["labels"][SESSION] for row in rows if runs_now(row)}
    for name in sorted(name for name in names if name.startswith(prefix)):
        print(name)
    return DONE


def last_activity(words: list[str]) -> int:
    """`get-last-activity NAME` prints when it last did something, RFC 3339, or nothing."""
    client = Client()
    run = find(client, argument(words, 0, "session's name"))
    if run is None:
        return DONE
    stamps = [run["last_event_at"] or run["created_at"]]
    if run["agent"] == COMMAND and (line := _last_line(client, run)) is not None:
        stamps.append(line["at"])
    from devaipod_web.cli.output import moment

    at = max(found for found in map(moment, stamps) if found is not None)
    print(at.isoformat().replace("+00:00", "Z"))
    return DONE


def protocol(words: list[str]) -> int:
    """`protocol` prints the version that is spoken and what is done beyond its floor."""
    print(json.dumps({"version": 0, "capabilities": ["report-activity"]}))
    return DONE


def _say(value: bool) -> None:
    print("true" if value else "false")


#: Not among them, and so 2: copy-to (nothing is copied into a pod but by git), send-keys (there is no terminal), check-image (podman pulls
#: what is missing), is-attached, exec and provision.
OPERATIONS: dict[str, Callable[[list[str]], int]] = {
    "start": start,
    "stop": stop,
    "interrupt": interrupt,
    "is-running": is_running,
    "attach": attach,
    "process-alive": process_alive,
    "nudge": nudge,
    "set-meta": set_meta,
    "get-meta": get_meta,
    "remove-meta": remove_meta,
    "peek": peek,
    "clear-scrollback": clear_scrollback,
    "list-running": list_running,
    "get-last-activity": last_activity,
    "protocol": protocol,
}


if __name__ == "__main__":
    main()
