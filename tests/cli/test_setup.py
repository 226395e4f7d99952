"""Setting an installation up, as processes with a home of their own."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
import subprocess

import pytest

from tests.cli.conftest import devaipod

pytestmark = pytest.mark.slow


@pytest.fixture
def env(tmp_path):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DEVAIPOD")}
    return {
        **clean,
        "DEVAIPOD_HOME": str(tmp_path / "home"),
        "DJANGO_SETTINGS_MODULE": "devaipod_web.settings",
    }


def test_setup_makes_everything_once_and_again_changes_nothing(env, tmp_path):
    first = devaipod("migrate", env=env)
    assert first.returncode == 0, first.stderr
    assert "The first manager is admin" in first.stdout
    token = tmp_path / "home" / "cli.token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    before = token.read_text()
    second = devaipod("migrate", env=env)
    assert "Applied" not in second.stdout
    assert token.read_text() == before
    database = sqlite3.connect(tmp_path / "home" / "db.sqlite3")
    assert database.execute("SELECT count(*) FROM accounts_user").fetchone() == (1,)
    names = {row[0] for row in database.execute("SELECT name FROM auth_group")}
    assert names == {"viewer", "operator", "reviewer", "manager"}


def test_setup_copies_the_database_before_it_migrates(env, tmp_path):
    devaipod("migrate", env=env)
    home = tmp_path / "home"
    database = sqlite3.connect(home / "db.sqlite3")
    database.execute("DELETE FROM django_migrations WHERE app='health'")
    for table in ("health_drain", "health_servicebeat"):
        database.execute(f"DROP TABLE {table}")
    database.commit()
    database.close()
    result = devaipod("migrate", env=env)
    assert "Applied 1 migration" in result.stdout
    (copy,) = (home / "backups").iterdir()
    kept = sqlite3.connect(copy)
    assert kept.execute("SELECT count(*) FROM accounts_user").fetchone() == (1,)
    tables = "SELECT count(*) FROM sqlite_master WHERE name='health_drain'"
    assert kept.execute(tables).fetchone() == (0,)


def test_setup_does_not_migrate_under_a_running_server(env, tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    with (home / "serve.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711\n")
        lock.flush()
        result = devaipod("migrate", env=env)
    assert result.returncode == 1
    assert "4711" in result.stderr
    assert "devaipod down" in result.stderr


def test_a_sign_in_link_needs_a_server_to_lead_to(env):
    devaipod("migrate", env=env)
    result = devaipod("sign-in-link", env=env)
    assert result.returncode == 1
    assert "No devaipod server" in result.stderr


def test_the_sample_is_a_real_code_base_whose_tests_pass(env, tmp_path):
    code = "from devaipod_web.cli.demo import ensure_sample as e; print(e(), e())"
    import sys

    made = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert made.stdout.split() == ["True", "False"]
    upstream = tmp_path / "home" / "sample" / "courier.git"
    subprocess.run(["git", "clone", "-q", str(upstream), str(tmp_path / "clone")], check=True)
    tests = subprocess.run(
        [sys.executable, "-m", "unittest", "-q"], cwd=tmp_path / "clone", check=False
    )
    assert tests.returncode == 0
