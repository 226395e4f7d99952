"""Windows of a run's events as rendered items: the one place where transcripts become HTML, for pages and sockets alike.

Everything here is synchronous and reads the database: views call it, followers through `db.read`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any

from django.template.loader import render_to_string
from django.utils import timezone

from devaipod_web.budgets import pace
from devaipod_web.budgets.pace import Pace
from devaipod_web.llm import demo
from devaipod_web.reviews.models import Review
from devaipod_web.runs import events
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run, RunEvent
from devaipod_web.runs.services.pause import PAUSABLE, held_by
from devaipod_web.runs.starting import steps_of
from devaipod_web.runs.states import ENDED, State
from devaipod_web.runs.transcript import CONTINUES, Item, Transcript, plan_entries
from devaipod_web.targets import queries as targets
from pods.sidecar.protocol import EventKind

#: Events that one window is folded from, and items of it that a page shows.
WINDOW_EVENTS = 1500
PAGE_ITEMS = 200
#: Events after an older window in which the ends of its tool calls are looked for.
LOOK_AHEAD = 1000
#: Budgets beside a transcript.
LEFT_SHOWN = 2
#: How far back a window's beginning is moved to stand before a whole item.
LOOK_BACK = 500


@dataclass
class Window:
    """Items of a run, the oldest first, and where older ones begin (0: there are none)."""

    items: list[Item]
    older: int = 0
    transcript: Transcript = field(default_factory=Transcript)


def latest(run: Run) -> Window:
    """The end of a run's transcript, with the fold to go on with."""
    start = _whole_item_start(run.pk, run.last_seq - WINDOW_EVENTS + 1)
    transcript = Transcript(run.agent)
    feed_all(transcript, run.pk, start - 1)
    if not transcript.plan and start > 1:
        transcript.plan = last_plan(run.pk)
    items = list(transcript.items.values())
    shown = items[-PAGE_ITEMS:]
    has_older = start > 1 or len(items) > len(shown)
    return Window(shown, (shown[0].seq if shown else start) if has_older else 0, transcript)


def feed_all(transcript: Transcript, run_id: int, after: int) -> list[Item]:
    """Fold everything after `after` in; returns the items that it made or changed."""
    changed: dict[str, Item] = {}
    at = after
    while True:
        rows = events.after(run_id, at, limit=500)
        if not rows:
            return list(changed.values())
        changed.update((item.id, item) for item in transcript.feed(rows))
        at = rows[-1].seq


def older(run: Run, before: int) -> Window:
    """The items before event `before`, up to a page of them."""
    start = _whole_item_start(run.pk, before - WINDOW_EVENTS)
    transcript = Transcript(run.agent)
    rows = RunEvent.objects.filter(run_id=run.pk, seq__gte=start, seq__lt=before)
    transcript.feed(events.whole(row) for row in rows.select_related("run").order_by("seq"))
    later = RunEvent.objects.filter(
        run_id=run.pk, seq__gte=before, seq__lt=before + LOOK_AHEAD
    ).select_related("run")
    transcript.feed((events.whole(row) for row in later.order_by("seq")), known_only=True)
    items = list(transcript.items.values())
    for item in items:
        item.data["live"] = False
    shown = items[-PAGE_ITEMS:]
    has_older = start > 1 or len(items) > len(shown)
    return Window(shown, (shown[0].seq if shown else start) if has_older else 0, transcript)


def _whole_item_start(run_id: int, wanted: int) -> int:
    """The last event at or before `wanted` that begins an item of its own; pieces before a window would be lost else."""
    if wanted <= 1:
        return 1
    rows = RunEvent.objects.filter(run_id=run_id, seq__lte=wanted, seq__gt=wanted - LOOK_BACK)
    found = (
        rows.exclude(kind__in=[str(kind) for kind in CONTINUES])
        .order_by("-seq")
        .values_list("seq", flat=True)
        .first()
    )
    return int(found) if found is not None else wanted


def last_plan(run_id: int) -> list[dict[str, str]]:
    """The agent's plan as it last stood."""
    row = (
        RunEvent.objects.filter(run_id=run_id, kind=EventKind.PLAN)
        .select_related("run")
        .order_by("-seq")
        .first()
    )
    return plan_entries(events.whole(row).payload) if row is not None else []


# --- HTML ---------------------------------------------------------------------------------------------------------


def render_items(run: Run, items: list[Item]) -> None:
    """Give every item its HTML, where it does not have it already for what it now says."""
    questions = _questions(run, items)
    for item in items:
        request = questions.get((item.data.get("pod"), item.data.get("request_id", "")))
        mark = (
            item.touched,
            item.data.get("live"),
            request.state if request else "",
            bool(item.data.get("pending")) and run.state in ENDED,
            item.data.get("state"),
        )
        if item.html and item.html_of == mark:
            continue
        item.html = render_to_string(
            f"runs/items/{item.name}.html", _context(run, item, request)
        ).strip()
        item.html_of = mark


def _context(run: Run, item: Item, request: PermissionRequest | None) -> dict[str, Any]:
    context = {**item.data, "item": item, "run": run}
    if item.name == "starting":
        context["rows"] = steps_of(item.data)
    if item.name == "permission":
        context["request"] = request
        context["is_open"] = request is not None and request.state == PermissionState.OPEN
        if request is not None and request.state != PermissionState.OPEN:
            context["state"] = request.state
            context["by"] = _by(request)
    if item.name == "prompt":
        context["pending"] = item.data["pending"] and run.state not in ENDED
        context["unread"] = item.data["pending"] and run.state in ENDED
    return context


def _by(request: PermissionRequest) -> str:
    if request.by_policy:
        return "the project's policy"
    return str(request.answered_by) if request.answered_by else ""


def _questions(run: Run, items: list[Item]) -> dict[tuple[int | None, str], PermissionRequest]:
    if not any(item.name == "permission" for item in items):
        return {}
    rows = PermissionRequest.objects.filter(run=run).select_related("answered_by")
    return {(row.pod_id, row.request_id): row for row in rows}


def header(run: Run, *, live: bool = False) -> str:
    """The line of facts under a run's title. With `live` its timer is left to the page's script, so that the text stays the same."""
    return render_to_string("runs/_facts.html", {**facts(run), "live": live}).strip()


def actions(run: Run) -> str:
    """The buttons beside a run's title."""
    return render_to_string("runs/_actions.html", facts(run)).strip()


def aside(run: Run, plan: list[dict[str, str]], context: dict[str, Any] | None = None) -> str:
    """The cards beside a run's transcript."""
    done = sum(1 for entry in plan if entry["status"] == "completed")
    used, size = (context or {}).get("used"), (context or {}).get("size")
    fill = (
        round(100 * used / size)
        if isinstance(used, int) and isinstance(size, int) and size
        else None
    )
    return render_to_string(
        "runs/_aside.html",
        {**facts(run), "plan": plan, "plan_done": done, "context_fill": fill, "left": _left(run)},
    ).strip()  # fmt: skip


def _left(run: Run) -> list[Pace]:
    """The budgets that bind the run most, while it may still ask a model."""
    if run.state in ENDED:
        return []
    return pace.left_for(run.project, run.owner, run)[:LEFT_SHOWN]


def facts(run: Run) -> dict[str, Any]:
    """What header, buttons and aside say of a run."""
    review = Review.objects.filter(run=run).first()
    cached = round(100 * run.tokens_cached / run.tokens_in) if run.tokens_in else None
    ended = run.state in ENDED
    return {
        "run": run,
        "review": review,
        "place": targets.words(targets.queue_places(run), long=True),
        "is_ended": ended,
        "is_demo": run.provider_id is None and run.model == demo.MODEL,
        "may_cancel": run.state in (State.RUNNING, State.WAITING)
        and run.turns.filter(ended_at=None).exclude(started_at=None).exists(),
        "may_pause": run.state in PAUSABLE,
        "held": held_by(run) if run.state == State.PAUSED else None,
        "elapsed": _elapsed(run),
        "command": shlex.join(run.argv),
        "cached": cached,
        "pod": run.pods.order_by("-attempt").first(),
    }


def _elapsed(run: Run) -> float | None:
    """Seconds from the run's start, or of its wait in the queue, until now or its end."""
    begin = run.started_at or run.queued_at
    if begin is None:
        return None
    end = run.ended_at if run.state in ENDED and run.ended_at else timezone.now()
    return max((end - begin).total_seconds(), 0.0)


def find(key: str) -> Run | None:
    """A run with what its header says."""
    return (
        Run.objects.select_related("project", "owner", "provider", "target")
        .filter(key=key)
        .first()
    )  # fmt: skip
