"""Verbs about runs: run, ps, show, logs, events, prompt, answer, stop, rm."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from devaipod_web.cli import complete, follow, output
from devaipod_web.cli.client import Client, CliError, segment
from devaipod_web.cli.output import ask_once, clean, note, say
from pods.agents import ACP_PROFILES

#: Of an event's payload so much is shown to people; --json has it whole.
EVENT_CHARACTERS = 160

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]
RunKey = Annotated[
    str, typer.Argument(metavar="RUN", help="The run's key.", autocompletion=complete.runs)
]


def run(
    project: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT",
            help="The project's short name.",
            autocompletion=complete.projects,
        ),
    ],
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="What to do; - reads standard input.")
    ],
    title: Annotated[str, typer.Option(help="A title; else the task's first line.")] = "",
    agent: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(ACP_PROFILES)}; else the project's.", autocompletion=complete.agents
        ),
    ] = "",
    model: Annotated[str, typer.Option(help="Model; else the project's.")] = "",
    permissions: Annotated[str, typer.Option(help="ask or allow; else the project's.")] = "",
    wall: Annotated[int, typer.Option(help="Wall time in seconds; else the project's.")] = 0,
    target: Annotated[str, typer.Option(help="Where it runs; else as the project says.")] = "",
    idempotency_key: Annotated[str, typer.Option(help="The same key, the same run.")] = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not follow the run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Launch a run and follow it until it has ended; a broken connection is made again.

    Ctrl-C asks whether to detach (the run goes on), to stop it, or to go on watching; a second Ctrl-C detaches.
    """
    words = sys.stdin.read() if task == "-" else task
    client = Client()
    body: dict[str, Any] = {
        "project": project,
        "task": words,
        "title": title,
        "agent": agent,
        "model": model,
        "permission_policy": permissions,
    }
    if wall:
        body["wall_seconds"] = wall
    if target:
        body["target"] = target
    # A key of our own: a connection that breaks after the POST cannot make a second run.
    key = idempotency_key or uuid.uuid4().hex
    made = client.send("POST", "/runs", body, headers={"Idempotency-Key": key}, again=True)
    if detach:
        output.document(made) if as_json else say(made["key"])
        return
    if not as_json:
        say(f"Run {made['key']}  {client.url}/runs/{made['key']}/")
    raise typer.Exit(follow.run(made["key"], as_json=as_json))


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Ended runs too.")] = False,
    project: Annotated[str, typer.Option(help="Only this project's.")] = "",
    mine: Annotated[bool, typer.Option("--mine", help="Only my own.")] = False,
    state: Annotated[str, typer.Option(help="States, with commas between.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List runs: those that have not ended, or all with -a."""
    client = Client()
    rows = list(
        client.pages(
            "/runs",
            limit=limit,
            project=project,
            owner="me" if mine else "",
            state=state or ("" if everything else "active"),
        )
    )
    if as_json:
        output.document(rows)
        return
    output.table(
        ["RUN", "STATE", "PROJECT", "TITLE", "AGE", "COST", "CHANGE", "LAST"],
        [
            [
                row["key"],
                output.state(row["state"]),
                clean(row["project"]),
                clean(row["title"])[:60],
                output.since(row["created_at"]),
                output.money(row["cost"]),
                f"+{row['additions']} −{row['deletions']}" if row["changed_files"] else "—",
                clean(_last(row))[:60],
            ]
            for row in rows
        ],
        empty="No run is at work." if not everything else "There are no runs yet.",
    )


def _last(row: dict[str, Any]) -> str:
    """What a run waits for or did last; of one that stands still why."""
    if row["state"] == "paused":
        return str(row["reason"])
    return str(row["waits_for"] or row["last_line"] or row["reason"])


def _places(found: dict[str, Any]) -> str:
    """Where a run waits: its place at each target that it may go to."""
    told = []
    for one in found["queue_places"]:
        room = f"{one['taken']} of {one['most']} taken" if one["most"] is not None else ""
        why = clean(one["closed"]) or room
        told.append(f"{one['place']} at {clean(one['target'])}" + (f" ({why})" if why else ""))
    return ", ".join(told)


def show(key: RunKey, as_json: AsJson = False) -> None:
    """Show one run: state, reason, cost, branch, pods, and what it asks."""
    client = Client()
    found = client.get(f"/runs/{segment(key)}")
    if as_json:
        output.document(found)
        return
    say(f"{output.state(found['state'])}  {clean(found['title'])}")
    for label, value in (
        ("reason", found["reason"]),
        ("next step", found["next_step"]),
        ("waits for", found["waits_for"]),
        ("incident", found["incident"]),
        ("target", found["target"]),
        ("place in the queue", _places(found)),
        ("project", found["project"]),
        ("owner", found["owner"]),
        ("agent", f"{found['agent']} · {found['model'] or found['provider_label']}"),
        ("branch", found["branch"]),
        (
            "change",
            f"+{found['additions']} −{found['deletions']} in {found['changed_files']} files",
        ),
        ("cost", output.money(found["cost"])),
        ("tokens", f"{found['tokens_in']} in, {found['tokens_out']} out"),
        ("pods", ", ".join(found["pods"])),
        ("review", found["review"]),
        ("page", f"{client.url}/runs/{key}/"),
    ):
        if value not in (None, ""):
            say(f"  {label + ':':<20}{clean(value)}")
    for item in found["notes"]:
        say(f"  {clean(item.get('level'))}: {clean(item.get('text'))}")
    for request in found["permissions"]:
        say(output.paint(f"◆ asks: {clean(request['title'])}", "yellow"))
        for option in request["options"]:
            say(f"    devaipod answer {key} {request['key']} {clean(option.get('id'))}")


def logs(
    key: Annotated[
        str, typer.Argument(metavar="[RUN]", help="The run's key; none: the server's log.")
    ] = "",
    follow_: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    container: Annotated[
        str, typer.Option("--container", "-c", help="agent or sidecar.")
    ] = "agent",
    attempt: Annotated[
        int, typer.Option("--attempt", help="That attempt's, counted from 1; else the last one's.")
    ] = 0,
    pod: Annotated[str, typer.Option("--pod", help="That pod's, by name.")] = "",
    tail: Annotated[int, typer.Option("--tail", help="Only the last so many lines.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print the log of a run's container, of an ended run too, or of the server when neither run nor pod is named."""
    if not key and not pod:
        from devaipod_web.cli.server import server_log

        server_log(follow=follow_, tail=tail or 50)
        return
    client = Client()
    name = pod or _pod_of(client, key, attempt)
    query: dict[str, Any] = {"container": container}
    if tail:
        query["tail"] = tail
    path = f"/pods/{segment(name)}/logs"
    if not follow_:
        for line in client.stream(path, **query):
            print_line(line, as_json=as_json)
        return
    try:
        for line in _followed(path, query, pod=name, key=key or name):
            print_line(line, as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(follow.DETACHED) from None


def _pod_of(client: Client, key: str, attempt: int) -> str:
    """The name of the pod of a run's attempt, 0 for the last."""
    pods: list[str] = client.get(f"/runs/{segment(key)}")["pods"]
    if not pods:
        raise CliError(
            "The run has had no pod yet.",
            next_step=f"`devaipod show {key}` says what it waits for.",
        )
    if not attempt:
        return pods[-1]
    found = next((name for name in pods if name.endswith(f"-{attempt}")), None)
    if found is None:
        raise CliError(
            f"The run has no attempt {attempt}.",
            next_step=f"It has {len(pods)}: {', '.join(pods)}.",
        )
    return found


def _followed(path: str, query: dict[str, Any], *, pod: str, key: str) -> Iterator[dict[str, Any]]:
    def over(client: Client) -> bool:
        # After the first connection the cursor alone counts, else a tail would skip what came meanwhile.
        query.pop("tail", None)
        return client.get(f"/pods/{segment(pod)}")["removed_at"] is not None

    return follow.documents(
        path,
        cursor="n",
        after=0,
        over=over,
        give_up=f"Later: `devaipod logs -f {key}`.",
        **query,
    )


def print_line(line: dict[str, Any], *, as_json: bool) -> None:
    """Print one line of a container's log, to the stream that it came from."""
    if as_json:
        print(json.dumps(line, ensure_ascii=False), flush=True)
        return
    if line.get("gap"):
        note("… lines before this one were discarded by the container's log limit")
    end = "" if line.get("partial") else "\n"
    stream = sys.stderr if line.get("stream") == "stderr" else sys.stdout
    print(clean(line.get("text", "")), end=end, file=stream, flush=True)


def events(
    key: RunKey,
    follow_: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")
    ] = False,
    after: Annotated[int, typer.Option(help="Only events after this number (seq).")] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a run's events, a line each; with --json one document a line. The number of the last one is the cursor for --after."""
    client = Client()
    if follow_:
        found: Iterator[dict[str, Any]] = follow.run_events(key, after=after)
    else:
        found = client.stream(f"/runs/{segment(key)}/events", after=after)
    try:
        for event in found:
            if as_json:
                print(json.dumps(event, ensure_ascii=False), flush=True)
                continue
            words = clean(json.dumps(event.get("payload"), ensure_ascii=False))
            say(
                f"{event['seq']:>6}  {str(event['at'])[11:19]}  {clean(event['kind']):<22} {words[:EVENT_CHARACTERS]}"
            )
    except KeyboardInterrupt:
        raise typer.Exit(follow.DETACHED) from None


def rm(
    keys: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Keys of ended runs.", autocompletion=complete.runs),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete ended runs: transcript, logs, workspace and staged branch. What was promoted and the audit log stay."""
    ask_once(f"Delete {len(keys)} run(s) for good: {clean(', '.join(keys))}?", yes=yes)
    client = Client()
    for key in keys:
        client.send("DELETE", f"/runs/{segment(key)}")
        say(f"Run {clean(key)} is deleted.")


def prompt(
    key: RunKey,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="What to say; - reads standard input.")
    ],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not follow.")] = False,
) -> None:
    """Say something more to a run's agent, ended or not, and follow it."""
    client = Client()
    before = client.get(f"/runs/{segment(key)}")["last_seq"]
    words = sys.stdin.read() if text == "-" else text
    turn = client.send("POST", f"/runs/{segment(key)}/prompt", {"text": words})
    if detach:
        say(f"Turn {turn['number']} waits for the agent.")
        return
    raise typer.Exit(follow.run(key, after=before))


def answer(
    key: RunKey,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="The request's key.")],
    option: Annotated[str, typer.Argument(metavar="OPTION", help="The option's id.")],
) -> None:
    """Answer a permission request of a run."""
    found = Client().send(
        "POST", f"/runs/{segment(key)}/permission", {"request": request, "option_id": option}
    )
    say(f"{found['state'].capitalize()}: {clean(found['title'])}")


def pause(
    key: RunKey,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Pause a run: its turn is cancelled and staged, its model is closed to it, its time stands still."""
    found = Client().send("POST", f"/runs/{segment(key)}/pause", {"reason": reason})
    say(f"{output.state(found['state'])}  {clean(found['title'])}")


def resume(
    key: RunKey,
    text: Annotated[
        str, typer.Option("--text", help="Its next prompt, - reads standard input; else to go on.")
    ] = "",
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not follow.")] = False,
) -> None:
    """Let a paused run go on, in the same session, and follow it."""
    client = Client()
    before = client.get(f"/runs/{segment(key)}")["last_seq"]
    words = sys.stdin.read() if text == "-" else text
    found = client.send("POST", f"/runs/{segment(key)}/resume", {"text": words})
    if detach:
        say(f"{output.state(found['state'])}  {clean(found['title'])}")
        return
    raise typer.Exit(follow.run(key, after=before))


def stop(
    key: RunKey,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
) -> None:
    """Stop a run. What its agent has done so far is staged."""
    found = Client().send("POST", f"/runs/{segment(key)}/stop", {"reason": reason})
    say(f"{output.state(found['state'])}  {clean(found['title'])}")
