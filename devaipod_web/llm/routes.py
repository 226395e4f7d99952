"""What can be done to routes: add, change, move, remove; and which of them takes a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.models import F, Max

from devaipod_web.accounts.models import User
from devaipod_web.errors import InvalidFields
from devaipod_web.llm import globs
from devaipod_web.llm.models import Provider, Route
from devaipod_web.projects.models import Project
from devaipod_web.reviews import audit

MAX_ROUTES = 200
MAX_PATTERN = 200
MAX_FALLBACKS = 5
MAX_LIMIT = 1_000_000


class InvalidRoute(InvalidFields):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid-route"


def save(
    by: User,
    route: Route | None,
    *,
    pattern: str,
    provider: Provider,
    rewrite: str = "",
    fallbacks: Sequence[tuple[str, str]] = (),
    output_limit: int | None = None,
    enabled: bool = True,
    project: Project | None = None,
) -> Route:
    """Add a route at the end (`route` None) or change one. `fallbacks` are (provider's key, model or empty). Raises InvalidRoute."""
    pattern, rewrite = pattern.strip(), rewrite.strip()
    errors = _errors(pattern, rewrite, fallbacks, output_limit)
    if route is None and Route.objects.count() >= MAX_ROUTES:
        errors["pattern"] = f"There are {MAX_ROUTES} routes already."
    if errors:
        raise InvalidRoute(errors)
    made = route is None
    with transaction.atomic():
        row = route or Route(position=_end())
        row.pattern, row.provider, row.rewrite = pattern, provider, rewrite
        row.fallbacks = [{"provider": key, "model": model.strip()} for key, model in fallbacks]
        row.output_limit, row.enabled, row.project = output_limit, enabled, project
        row.save()
        audit.write(
            by,
            "route.added" if made else "route.changed",
            target=row.pattern,
            target_url=f"/routes/{row.key}/",
            detail={
                "provider": provider.name,
                "rewrite": rewrite,
                "fallbacks": row.fallbacks,
                "output_limit": output_limit,
                "enabled": enabled,
                "project": project.slug if project else None,
            },
        )
    return row


def move(by: User, route: Route, position: int) -> Route:
    """Put a route at this place, from 1; the others move up or down. A place beyond the end is the end."""
    with transaction.atomic():
        rows = list(Route.objects.select_for_update().order_by("position", "id"))
        rows = [row for row in rows if row.pk != route.pk]
        rows.insert(max(position, 1) - 1, route)
        for place, row in enumerate(rows, 1):
            if row.position != place:
                Route.objects.filter(pk=row.pk).update(position=place)
        route.refresh_from_db()
        audit.write(
            by,
            "route.moved",
            target=route.pattern,
            target_url=f"/routes/{route.key}/",
            detail={"position": route.position},
        )
    return route


def remove(by: User, route: Route) -> None:
    """Remove a route; those after it move up."""
    with transaction.atomic():
        audit.write(by, "route.removed", target=route.pattern)
        Route.objects.filter(position__gt=route.position).update(position=F("position") - 1)
        route.delete()


def which(model: str, project: Project | None = None) -> tuple[Route, str] | None:
    """The enabled route that takes this model, and the name that its provider is sent; None when no route does."""
    for route in Route.objects.select_related("provider").filter(enabled=True):
        of_others = route.project_id is not None and (
            project is None or route.project_id != project.pk
        )
        if not of_others and globs.matches(route.pattern, model):
            return route, globs.rewritten(route.pattern, route.rewrite, model)
    return None


def _end() -> int:
    last: int | None = Route.objects.aggregate(last=Max("position"))["last"]
    return (last or 0) + 1


def _errors(
    pattern: str, rewrite: str, fallbacks: Sequence[tuple[str, str]], output_limit: int | None
) -> dict[str, str]:
    errors: dict[str, str] = {}
    if not _is_name(pattern):
        errors["pattern"] = (
            f"A pattern has 1 to {MAX_PATTERN} characters and no spaces; * is any characters, ? is one."
        )
    if rewrite and not _is_name(rewrite):
        errors["rewrite"] = "A model's name has no spaces."
    elif "*" in rewrite and "*" not in pattern:
        errors["rewrite"] = "A * stands for what the pattern's first * matched, and it has none."
    if output_limit is not None and not 1 <= output_limit <= MAX_LIMIT:
        errors["output_limit"] = f"A limit is a number of tokens from 1 to {MAX_LIMIT:,}."
    if len(fallbacks) > MAX_FALLBACKS:
        errors["fallbacks"] = f"There are at most {MAX_FALLBACKS} fallbacks."
    known = set(
        Provider.objects.filter(key__in=[key for key, _ in fallbacks]).values_list("key", flat=True)
    )
    for key, model in fallbacks:
        if key not in known:
            errors["fallbacks"] = f"There is no provider {key[:20]!r}."
        elif model and not _is_name(model):
            errors["fallbacks"] = "A model's name has no spaces."
    return errors


def _is_name(text: Any) -> bool:
    return 0 < len(text) <= MAX_PATTERN and text.isprintable() and " " not in text
