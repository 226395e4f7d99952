"""Migrate the database and make the first person. Needs no server; holds its lock while it migrates."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from devaipod_web import home
from devaipod_web.cli.client import LOCAL_TOKEN, CliError

#: Copies of the database from before a migration; older ones are removed.
KEEP_COPIES = 3
LOCAL_TOKEN_NAME = "devaipod on this host"


def django() -> None:
    """Load Django with the product's settings: needed only by verbs that work without a server."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "devaipod_web.settings")
    import django as framework

    framework.setup()


def bring_up_to_date(say: Callable[[str], None]) -> None:
    """Bring the installation up to date: migrations (after a copy), roles, first manager, the CLI's token. Safe to repeat."""
    home.ensure_home()
    django()
    waiting = unapplied()
    if waiting:
        with alone():
            copy = copy_database()
            if copy is not None:
                say(f"A copy of the database is at {copy}")
            migrate()
            say(f"Applied {len(waiting)} migrations")
    from devaipod_web.accounts import services

    services.ensure_groups()
    user = services.first_user()
    ensure_local_token()
    say(f"The first manager is {user.username}")


def unapplied() -> list[str]:
    """Names of the migrations that the database lacks."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    connection.close()
    return [f"{migration.app_label}.{migration.name}" for migration, _ in plan]


@contextmanager
def alone() -> Iterator[None]:
    """Hold the lock that a serving process holds. Raises CliError naming the next step when one serves."""
    with home.serve_lock().open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            pid = file.read(20).strip()
            raise CliError(
                f"A server of this installation runs{f' (process {pid})' if pid else ''}, "
                "and the database cannot be migrated under it.",
                next_step="End it first: `devaipod down`. Runs go on meanwhile.",
            ) from None
        yield


def copy_database() -> Path | None:
    """Copy a SQLite database whole (VACUUM INTO) before it is migrated, keeping the last few copies. None when there is none."""
    from django.conf import settings

    config = settings.DATABASES["default"]
    source = Path(str(config["NAME"]))
    if "sqlite3" not in config["ENGINE"] or not source.exists() or source.stat().st_size == 0:
        return None
    folder = home.home() / "backups"
    folder.mkdir(mode=0o700, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    target = folder / f"db-{stamp}-{os.getpid()}.sqlite3"
    with closing(sqlite3.connect(source)) as database:
        tables = "SELECT count(*) FROM sqlite_master WHERE name = 'django_migrations'"
        if database.execute(tables).fetchone()[0] == 0:
            return None
        database.execute("VACUUM INTO ?", [str(target)])
    target.chmod(0o600)
    for old in sorted(folder.glob("db-*.sqlite3"))[:-KEEP_COPIES]:
        old.unlink()
    return target


def migrate() -> None:
    """Apply every migration."""
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=0)


def ensure_local_token() -> None:
    """Leave a token of the first manager's for the CLI of this host, in a file that only this user reads."""
    from devaipod_web.accounts import services, tokens

    path = home.home() / LOCAL_TOKEN
    try:
        if tokens.live(tokens.digest(path.read_text().strip())) is not None:
            return
    except OSError:
        pass
    _, text = tokens.create(services.first_user(), LOCAL_TOKEN_NAME)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
    draft.replace(path)


def sign_in_link(username: str = "") -> str:
    """A one-time sign-in link's whole address. Raises CliError when there is no such person."""
    from devaipod_web.accounts import services
    from devaipod_web.accounts.models import User
    from devaipod_web.cli.client import server_url

    url = server_url()
    if unapplied():
        raise CliError("The database is not set up.", next_step="Run `devaipod setup`.")
    user = (
        User.objects.filter(username=username, is_active=True).first()
        if username
        else services.first_user()
    )
    if user is None:
        raise CliError(
            f"There is no active person {username!r}.",
            next_step="The page People lists them; a manager adds new ones there.",
        )
    return url + services.sign_in_link(user)
