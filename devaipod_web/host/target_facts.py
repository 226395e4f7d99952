"""What the server last found at the targets, read from its database without Django: `make doctor` has none."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from devaipod_web.database import database_config


@dataclass(frozen=True)
class TargetFacts:
    """What the server last found at a target; `policies` is None where that is not known."""

    name: str
    is_podman: bool
    enabled: bool
    health: str
    error: str
    next_step: str
    policies: bool | None


def read(folder: Path) -> tuple[TargetFacts, ...]:
    """The targets' rows as the server left them, read from the database without Django; empty where they can't be read so."""
    try:
        config = database_config(os.environ.get("DATABASE_URL", ""), sqlite=folder / "db.sqlite3")
    except ValueError:
        return ()
    path = Path(config["NAME"])
    if "sqlite3" not in config["ENGINE"] or not path.is_file():
        return ()
    columns = "name, kind, enabled, health, error, next_step, policies_enforced"
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            rows = database.execute(f"SELECT {columns} FROM targets_target").fetchall()  # noqa: S608
    except sqlite3.Error:
        return ()
    return tuple(
        TargetFacts(
            name=name,
            is_podman=kind == "podman",
            enabled=bool(enabled),
            health=health,
            error=error,
            next_step=next_step,
            policies=None if policies is None else bool(policies),
        )
        for name, kind, enabled, health, error, next_step, policies in rows
    )
