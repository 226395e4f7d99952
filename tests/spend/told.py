"""Fill a new installation's database with the world of `world.py`, and print what the reports tell of it as JSON."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from datetime import UTC, datetime

import django

NOW = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "devaipod_web.settings"
    django.setup()
    from django.contrib.auth.models import Group
    from django.core.management import call_command
    from django.test import Client

    from devaipod_web.accounts.models import User
    from devaipod_web.budgets.spend import changes, figures
    from devaipod_web.budgets.spend.ranges import preset
    from devaipod_web.llm import reports
    from tests.spend.world import fill

    def person(name: str, role: str) -> User:
        user = User.objects.create_user(name)
        user.groups.add(Group.objects.get_or_create(name=role)[0])
        return user

    call_command("migrate", verbosity=0)
    mona = person("mona", "manager")
    fill(person, mona, days=40, runs_a_day=4, now=NOW)
    told: dict[str, object] = {}
    for by in ("project", "owner", "agent", "model"):
        for per in ("hour", "day", "week", "month"):
            rows = reports.named_series(reports.calls(), by, per)
            # Projects and people are numbered as they come; told by their words they sort by them.
            told[f"{by} {per}"] = sorted(json.dumps(asdict(row), default=str) for row in rows)
        told[by] = [asdict(row) for row in reports.sums(reports.calls(), by, limit=50)]
    told["total"] = asdict(reports.total(reports.calls()))
    told["days"] = reports.costs_per_day(reports.calls())
    range_ = preset("month", NOW.date())
    told["figures"] = asdict(figures.figures(range_, NOW, None))
    runs = changes.launched(range_.start, range_.end)
    told["slowest"] = [row.run.ended_at for row in changes.slowest(runs.exclude(ended_at=None))]
    client = Client(headers={"host": "localhost"})
    client.force_login(mona)
    for path in ("/spend/?range=90d", "/spend/budgets/", "/spend/incidents/?state=all", "/"):
        told[path] = client.get(path).status_code
    print(json.dumps(told, default=str, sort_keys=True))


if __name__ == "__main__":
    main()
