"""Verbs about pods: pod create, pod ls, pod input, pod stop, pod rm."""

from __future__ import annotations

import sys
import time
import uuid
from typing import Annotated, Any

import typer

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.output import clean, note, say

app = typer.Typer(
    help="Run a command in a pod, as orchestrators do, and look after pods.", no_args_is_help=True
)

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
PodName = Annotated[
    str, typer.Argument(metavar="POD", help="The pod's name, or its run's key for the last one.")
]
GONE_SECONDS = 120.0
LOOK_SECONDS = 0.5


@app.command("create")
def create(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="The project's short name.")],
    argv: Annotated[
        list[str],
        typer.Argument(metavar="-- PROGRAM [ARGUMENT]…", help="What runs in the workspace."),
    ],
    image: Annotated[str, typer.Option(help="Its image; else the project's.")] = "",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", help="NAME=VALUE; may be repeated; no secrets."),
    ] = None,
    workdir: Annotated[
        str, typer.Option("--workdir", "-w", help="A folder, from the workspace on.")
    ] = "",
    interactive: Annotated[
        bool, typer.Option("--interactive", "-i", help="Keep its standard input open.")
    ] = False,
    title: Annotated[str, typer.Option(help="A title; else the command.")] = "",
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", help="NAME=TEXT; may be repeated.")
    ] = None,
    wall: Annotated[int, typer.Option(help="Wall time in seconds; else the project's.")] = 0,
    idempotency_key: Annotated[str, typer.Option(help="The same key, the same pod.")] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print its output and end as its run does.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run a command in a pod of a project: no agent, no protocol. Prints the run's key.

    With --follow the exit status is the run's: 0 succeeded, 10 failed, 11 stopped, 12 timed out, 130 detached.
    """
    client = Client()
    body: dict[str, Any] = {
        "project": project,
        "argv": argv,
        "image": image,
        "env": pairs(env or [], "--env"),
        "workdir": workdir,
        "interactive": interactive,
        "title": title,
        "labels": pairs(label or [], "--label"),
    }
    if wall:
        body["wall_seconds"] = wall
    key = idempotency_key or uuid.uuid4().hex
    made = client.send("POST", "/pods", body, headers={"Idempotency-Key": key})
    if not follow:
        output.document(made) if as_json else say(made["key"])
        return
    raise typer.Exit(_follow(client, made["key"], as_json=as_json))


def _follow(client: Client, key: str, *, as_json: bool) -> int:
    """Print a command's output until its run has ended, and return the exit status of its outcome."""
    from devaipod_web.cli.follow import DETACHED, OUTCOMES
    from devaipod_web.cli.runs import print_line

    try:
        printed = ""
        while True:
            run = client.get(f"/runs/{segment(key)}")
            ended = run["state"] in OUTCOMES
            if run["pods"] and run["pods"][-1] != printed:
                printed = run["pods"][-1]
                for line in client.stream(f"/pods/{segment(printed)}/logs", follow=True):
                    print_line(line, as_json=as_json)
            elif ended:
                break
            else:
                time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        note(f"Detached; the run goes on. `devaipod logs -f {key}`, `devaipod stop {key}`")
        return DETACHED
    if run["state"] != "succeeded":
        note(f"{output.state(run['state'])}  {clean(run['reason'])}")
    return OUTCOMES[run["state"]]


def pairs(words: list[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` words as a table. Raises CliError for one without `=`."""
    found = {}
    for word in words:
        name, mark, value = word.partition("=")
        if not mark or not name:
            raise CliError(f"{option} takes NAME=VALUE, not {clean(word)[:60]!r}.", status=2)
        found[name] = value
    return found


@app.command("ls")
def ls(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also those that ended.")] = False,
    run: Annotated[str, typer.Option(help="Only this run's.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List pods, those that have not ended unless told otherwise, newest first."""
    rows = list(Client().pages("/pods", limit=limit, run=run, live=not everything))
    if as_json:
        output.document(rows)
        return
    output.table(
        ["POD", "RUN", "PROJECT", "STATE", "IMAGE", "AGE"],
        [
            [
                row["name"],
                row["run"],
                clean(row["project"]),
                _state(row),
                clean(row["image"])[:60],
                output.since(row["created_at"]),
            ]
            for row in rows
        ],
        empty="There are no pods." if everything else "No pod is there now.",
    )


def _state(row: dict[str, Any]) -> str:
    if row["removed_at"]:
        return "removed"
    if row["ended_at"]:
        return "ended"
    return "running" if row["agent_started_at"] else "starting"


def pod_of(client: Client, word: str) -> str:
    """The pod's name for a pod's name or a run's key. Raises CliError for a run without a pod."""
    if word.startswith("devaipod-"):
        return word
    pods = client.get(f"/runs/{segment(word)}")["pods"]
    if not pods:
        raise CliError(
            "The run has had no pod yet.", next_step=f"`devaipod stop {word}` ends the run itself."
        )
    return str(pods[-1])


@app.command("input")
def input_(
    pod: PodName,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="A line; - sends standard input as it is.")
    ],
) -> None:
    """Write to the standard input of an interactive command."""
    client = Client()
    key = pod
    if pod.startswith("devaipod-"):
        key = str(client.get(f"/pods/{segment(pod)}")["run"])
    words = sys.stdin.read() if text == "-" else text + "\n"
    client.send("POST", f"/runs/{segment(key)}/input", {"text": words})


@app.command("stop")
def stop(
    pod: PodName, reason: Annotated[str, typer.Option(help="Why, for the record.")] = ""
) -> None:
    """Stop the run whose pod this is. What was done so far is staged, and then the pod goes."""
    client = Client()
    found = client.send("POST", f"/pods/{segment(pod_of(client, pod))}/stop", {"reason": reason})
    say(found["name"])


@app.command("rm")
def rm(
    pod: PodName,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Until it is gone.")] = True,
) -> None:
    """Have a pod go, and stop its run when it is at work. What was done so far is staged; logs and rows stay."""
    client = Client()
    name = pod_of(client, pod)
    end = time.monotonic() + GONE_SECONDS
    while not client.send("DELETE", f"/pods/{segment(name)}")["removed_at"] and wait:
        if time.monotonic() > end:
            raise CliError(
                f"{name} is not gone after {GONE_SECONDS:.0f} s.",
                next_step="`devaipod logs` shows what the supervisor says.",
            )
        time.sleep(LOOK_SECONDS)
    say(name)
