"""What the shell offers after Tab: keys and names of this installation, asked for over the API.

A shell must not wait or be written to: whatever goes wrong, nothing is offered.
"""

from __future__ import annotations

from typing import Any

#: A shell that waits longer feels broken.
SECONDS = 1.5
OFFERED = 50


def _rows(path: str, **query: Any) -> list[dict[str, Any]]:
    from devaipod_web.cli.client import Client

    try:
        answer = Client(seconds=SECONDS).get(path, **query)
    except Exception:
        return []
    rows = answer["results"] if isinstance(answer, dict) else answer
    return list(rows[:OFFERED])


def _pairs(rows: list[dict[str, Any]], word: str, about: str, begun: str) -> list[tuple[str, str]]:
    from devaipod_web.cli.output import clean

    # Shells split what is offered at colons and line ends.
    return [
        (str(row[word]), clean(row[about]).replace(":", " ")[:60])
        for row in rows
        if str(row[word]).startswith(begun)
    ]


def runs(incomplete: str) -> list[tuple[str, str]]:
    """Keys of the newest runs, with their titles."""
    return _pairs(_rows("/runs"), "key", "title", incomplete)


def projects(incomplete: str) -> list[tuple[str, str]]:
    """Short names of projects."""
    return _pairs(_rows("/projects"), "slug", "name", incomplete)


def agents(incomplete: str) -> list[tuple[str, str]]:
    """Agents that a run may have; no server need be asked."""
    from pods.agents import ACP_PROFILES

    rows = [{"key": key, "title": profile.title} for key, profile in ACP_PROFILES.items()]
    return _pairs(rows, "key", "title", incomplete)


def reviews(incomplete: str) -> list[tuple[str, str]]:
    """Keys of open reviews."""
    return _pairs(_rows("/reviews", state="open"), "key", "title", incomplete)


def services(incomplete: str) -> list[tuple[str, str]]:
    """Names of services."""
    return _pairs(_rows("/services"), "name", "title", incomplete)


def budgets(incomplete: str) -> list[tuple[str, str]]:
    """Keys of budgets, but for those that each run has, with whose they are."""
    rows = [
        {**row, "about": f"{row['scope']} {row['subject'] or ''} {row['metric']} {row['window']}"}
        for row in _rows("/budgets", scope="installation,project,person,token")
    ]
    return _pairs(rows, "key", "about", incomplete)


def incidents(incomplete: str) -> list[tuple[str, str]]:
    """Keys of open incidents, with what happened."""
    return _pairs(_rows("/incidents", state="open"), "key", "message", incomplete)


def ways(incomplete: str) -> list[str]:
    """How an incident can be resolved."""
    return [way for way in ("raise", "extend", "stop", "dismiss") if way.startswith(incomplete)]
