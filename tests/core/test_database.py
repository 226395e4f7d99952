from __future__ import annotations

from pathlib import Path

import pytest

from devaipod_web.database import database_config

HERE = Path("/somewhere/db.sqlite3")


def test_no_address_means_sqlite_with_immediate_transactions():
    config = database_config("", sqlite=HERE)
    assert config["NAME"] == HERE
    assert config["OPTIONS"]["transaction_mode"] == "IMMEDIATE"
    assert "journal_mode=WAL" in config["OPTIONS"]["init_command"]


def test_a_postgresql_address_is_taken_apart():
    config = database_config(
        "postgresql://ada:p%40ss@db.example:5433/runs?sslmode=require", sqlite=HERE
    )
    assert config["USER"] == "ada"
    assert config["PASSWORD"] == "p@ss"
    assert config["HOST"] == "db.example"
    assert config["PORT"] == "5433"
    assert config["NAME"] == "runs"
    assert config["OPTIONS"] == {"sslmode": "require"}


def test_another_database_is_refused_by_the_settings_name():
    with pytest.raises(ValueError, match="DATABASE_URL must begin with"):
        database_config("mysql://x/y", sqlite=HERE)
