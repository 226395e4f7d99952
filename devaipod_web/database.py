"""The database's address, and the settings that SQLite needs under async load. Imports nothing of Django's ORM."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

#: How long a writer waits for another one, in seconds.
BUSY_TIMEOUT_SECONDS = 20


def database_config(url: str, *, sqlite: Path) -> dict[str, Any]:
    """Django's description of the database that `url` names, or of the SQLite file when it is empty.

    `url` is `postgresql://user:password@host:port/name?option=value` or `sqlite:///path`. Raises ValueError with the
    setting's name for anything else.
    """
    parts = urlsplit(url)
    if not url or parts.scheme == "sqlite":
        path = Path(unquote(parts.path)) if url else sqlite
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": path,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": BUSY_TIMEOUT_SECONDS,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            },
            # Consumers and the supervisor cross threads: a shared-memory database would not be seen by all.
            "TEST": {"NAME": str(path.with_name("test.sqlite3"))},
        }
    if parts.scheme in ("postgres", "postgresql"):
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": unquote(parts.path.lstrip("/")),
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            "HOST": parts.hostname or "",
            "PORT": str(parts.port or ""),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
            "OPTIONS": dict(parse_qsl(parts.query)),
        }
    raise ValueError(
        f"DATABASE_URL must begin with postgresql:// or sqlite:///, not {parts.scheme!r}"
    )
