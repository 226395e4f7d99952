"""What every run may spend by itself: two rows a run, made when it is launched or first asks a model.

The limit of a metric is the project's policy (a budget of window `each_run`), else the installation's, else the setting; a launch may
lower it, a manager raise the run's own row later. Rows, and not a rule that is worked out at each request, so that a run keeps the limit it
was launched with, and lease, extension, incident and page know one kind of budget.
"""

from __future__ import annotations

from collections.abc import Mapping

from django.conf import settings
from django.db.models import Q

from devaipod_web.budgets.models import Budget, Metric, Scope, Window, units


def open_run(run_id: int, project_id: int, *, lower: Mapping[str, int] | None = None) -> None:
    """Make the run's own budgets unless it has some. `lower` are limits of the launch, in units by metric: the smaller one counts."""
    if Budget.objects.filter(run_id=run_id).exists():
        return
    found = policy(project_id)
    for metric, limit in (lower or {}).items():
        found[metric] = min(limit, found.get(metric, limit))
    for metric, limit in sorted(found.items()):
        Budget.objects.get_or_create(
            scope=Scope.RUN,
            run_id=run_id,
            metric=metric,
            window=Window.TOTAL,
            removed_at=None,
            defaults={"limit": limit},
        )


def policy(project_id: int) -> dict[str, int]:
    """What a new run of this project may spend, in units by metric. A metric without a limit is missing."""
    found = {}
    if settings.RUN_BUDGET_USD:
        found[Metric.USD.value] = units(Metric.USD, settings.RUN_BUDGET_USD)
    if settings.RUN_REQUESTS:
        found[Metric.REQUESTS.value] = settings.RUN_REQUESTS
    policies = Budget.objects.filter(
        Q(scope=Scope.INSTALLATION) | Q(project_id=project_id),
        window=Window.EACH_RUN,
        enabled=True,
        removed_at=None,
    )
    # The project's last, so that it replaces the installation's.
    for budget in sorted(policies, key=lambda row: row.scope == Scope.PROJECT):
        found[budget.metric] = budget.limit
    return found
