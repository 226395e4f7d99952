"""Follow a stream across broken connections: from the last document on, until what it is about has ended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from devaipod_web.cli import output
from devaipod_web.cli.client import Client, ServerGone, segment
from devaipod_web.cli.output import clean, note, say
from devaipod_web.cli.transcript import Transcript

#: Exit status by how a run ended; 1 and 2 stay for errors of the command itself.
OUTCOMES = {"succeeded": 0, "failed": 10, "stopped": 11, "timed_out": 12}
DETACHED = 130

#: A server that is restarted is back within this time; after it the command gives up and the run goes on.
RECONNECT_SECONDS = 120.0
#: Pauses between two attempts, the last one again and again.
PAUSES = (0.2, 0.5, 1.0, 2.0)


def documents(
    path: str,
    *,
    cursor: str,
    after: int,
    over: Callable[[Client], bool],
    give_up: str,
    **query: Any,
) -> Iterator[dict[str, Any]]:
    """The documents of a followed stream from the number `after` of their field `cursor` on, none twice and none left out.

    A connection that breaks is made again; a stream that ends by itself is believed only when `over` said so before it began:
    what came between the two would be lost else. `give_up` is the next step of the ServerGone that is raised when the server
    stays away.
    """
    gone_since: float | None = None
    tries = 0
    ended = False

    def opened() -> None:
        nonlocal gone_since, tries
        if gone_since is not None:
            note("Connected again.")
        gone_since, tries = None, 0

    while True:
        try:
            client = Client()  # anew each time: a server that was restarted may listen elsewhere
            stream = client.stream(path, opened=opened, after=after, follow=True, **query)
            for document in stream:
                after = int(document[cursor])
                yield document
            if ended:
                return
            ended = over(client)
            if ended:
                continue
        except ServerGone as error:
            now = time.monotonic()
            if gone_since is None:
                gone_since = now
                note("The connection to the server broke; trying again …")
            if now - gone_since > RECONNECT_SECONDS:
                raise ServerGone(
                    f"{error.message} It has not come back within {RECONNECT_SECONDS:.0f} s.",
                    next_step=give_up.format(after=after),
                ) from error
        time.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
        tries += 1


def run_events(key: str, *, after: int) -> Iterator[dict[str, Any]]:
    """A run's events until it has ended."""

    def over(client: Client) -> bool:
        return client.get(f"/runs/{segment(key)}")["state"] in OUTCOMES

    return documents(
        f"/runs/{segment(key)}/events",
        cursor="seq",
        after=after,
        over=over,
        give_up=f"The run goes on without it. Later: `devaipod events {key} --follow --after {{after}}`.",
    )


def run(key: str, *, as_json: bool = False, after: int = 0) -> int:
    """Print a run's events until it has ended and return the exit status of its outcome. Ctrl-C asks what to do."""
    transcript = Transcript()
    while True:
        try:
            for event in run_events(key, after=after):
                after = int(event["seq"])
                if as_json:
                    print(json.dumps(event, ensure_ascii=False), flush=True)
                    continue
                transcript.show(event)
                if event.get("kind") == "permission.requested":
                    _say_how_to_answer(Client(), key)
            break
        except KeyboardInterrupt:
            transcript.end()
            choice = ask()
            if choice == "d":
                note(
                    f"Detached; the run goes on. `devaipod events -f {key}`, `devaipod stop {key}`"
                )
                return DETACHED
            if choice == "s":
                Client().send("POST", f"/runs/{segment(key)}/stop", {"reason": "Ctrl-C"})
                note("Told to stop; its work is staged first.")
    transcript.end()
    client = Client()
    found = client.get(f"/runs/{segment(key)}")
    if not as_json:
        _say_outcome(client, found)
    return OUTCOMES.get(found["state"], 1)


def ask() -> str:
    """What a person wants after Ctrl-C: `d`, `s` or `c`. Without a terminal, and on a second Ctrl-C, it is `d`."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "d"
    try:
        while True:
            sys.stderr.write(
                "\n[d]etach and let the run go on, [s]top it, or [c]ontinue to watch? "
            )
            sys.stderr.flush()
            line = sys.stdin.readline()
            if not line:
                return "d"
            choice = line.strip().lower()[:1] or "d"
            if choice in ("d", "s", "c"):
                return choice
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return "d"


def _say_how_to_answer(client: Client, key: str) -> None:
    found = client.get(f"/runs/{segment(key)}")
    for request in found["permissions"]:
        for option in request["options"]:
            say(
                f"  {clean(option.get('name'))}: devaipod answer {key} {request['key']} "
                f"{clean(option.get('id'))}"
            )
    if found["permissions"]:
        say(f"  or on {client.url}/runs/{key}/")


def _say_outcome(client: Client, found: dict[str, Any]) -> None:
    spent = f"{output.money(found['cost'])} · {found['tokens_in']}+{found['tokens_out']} tokens"
    say(f"{output.state(found['state'])}  {clean(found['title'])}  ({spent})")
    if found["reason"] and found["state"] != "succeeded":
        say(f"  {clean(found['reason'])}")
        if found["next_step"]:
            say(f"  → {clean(found['next_step'])}")
    if found["review"]:
        say(
            f"  Review: devaipod review show {found['review']}  {client.url}/reviews/{found['review']}/"
        )
