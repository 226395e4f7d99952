"""What can be done to a project: create, change a section, archive. Each with its audit entry in one transaction."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from devaipod_web import home
from devaipod_web.accounts.models import User
from devaipod_web.llm import globs
from devaipod_web.llm.models import Provider, ProviderKind, Route
from devaipod_web.projects.errors import InvalidProject, ProjectError
from devaipod_web.projects.models import Project
from devaipod_web.projects.rules import RESERVED_SLUGS, RULES
from devaipod_web.reviews import audit
from devaipod_web.runs.states import ENDED

#: The tabs of a project's settings, each saved on its own, and the fields on it.
SECTIONS: dict[str, tuple[str, ...]] = {
    "repository": (
        "name",
        "description",
        "upstream_url",
        "upstream_branch",
        "production_url",
        "production_prefix",
    ),
    "agent": ("agent", "provider", "model"),
    "permissions": ("permission_policy",),
    "limits": (
        "wall_seconds",
        "memory_bytes",
        "cpus",
        "pids",
        "workspace_bytes",
        "workspace_inodes",
    ),
    "image": ("image", "image_pattern", "allowed_images"),
    "targets": (
        "targets",
        "node_selector",
        "tolerations",
        "runtime_class",
        "image_pull_secrets",
        "workspace",
        "storage_class",
    ),
}
SETTABLE = frozenset(name for fields in SECTIONS.values() for name in fields)


def create(by: User, **fields: Any) -> Project:
    """Make a project. `name` and `upstream_url` are needed; `slug` is made from the name when it is not given.

    Any field of SETTABLE may be given; `provider` is a Provider or None. Raises InvalidProject with a sentence a field.
    """
    fields.setdefault("name", "")
    fields.setdefault("upstream_url", "")
    fields.setdefault("wall_seconds", settings.DEFAULT_WALL_SECONDS)
    if not fields.get("slug"):
        fields["slug"] = _free_slug(str(fields["name"]))
    clean = _clean(fields, allowed=SETTABLE | {"slug"})
    _check_model(clean.get("provider"), clean.get("model", ""))
    try:
        with transaction.atomic():
            project = Project.objects.create(
                **clean, created_by=by, is_sample=_in_sample(clean["upstream_url"])
            )
            audit.write(
                by,
                "project.created",
                target=project.name,
                target_url=f"/projects/{project.slug}/",
                detail={"upstream": project.upstream_url},
            )
    except IntegrityError:
        raise InvalidProject(
            {"slug": f"There is a project with the short name {clean['slug']} already."}
        ) from None
    return project


def update(project: Project, by: User, changes: Mapping[str, Any]) -> list[str]:
    """Change fields of a project and return the names of those that differ from before. Raises InvalidProject.

    Runs that were launched keep what they were launched with.
    """
    clean = _clean(changes, allowed=SETTABLE)
    if "provider" in clean or "model" in clean:
        _check_model(clean.get("provider", project.provider), clean.get("model", project.model))
    changed = [name for name, value in clean.items() if getattr(project, name) != value]
    if not changed:
        return []
    before = {name: _plain(getattr(project, name)) for name in changed}
    for name in changed:
        setattr(project, name, clean[name])
    with transaction.atomic():
        if "upstream_url" in changed:
            project.is_sample = _in_sample(project.upstream_url)
            project.save(update_fields=[*changed, "is_sample"])
        else:
            project.save(update_fields=changed)
        audit.write(
            by,
            "project.changed",
            target=project.name,
            target_url=f"/projects/{project.slug}/",
            detail={
                name: {"from": before[name], "to": _plain(getattr(project, name))}
                for name in changed
            },
        )
    return changed


def archive(project: Project, by: User) -> None:
    """Take a project out of the lists; nothing new starts in it. Its runs and reviews stay. Raises ProjectError."""
    busy = project.runs.exclude(state__in=ENDED).count()
    if busy:
        raise ProjectError(
            f"{busy} of the project's runs {'has' if busy == 1 else 'have'} not ended.",
            next_step="Stop them first.",
        )
    with transaction.atomic():
        done = Project.objects.filter(pk=project.pk, archived_at=None).update(
            archived_at=timezone.now()
        )
        if done:
            audit.write(by, "project.archived", target=project.name)
    project.refresh_from_db()


def restore(project: Project, by: User) -> None:
    """Bring an archived project back."""
    with transaction.atomic():
        if Project.objects.filter(pk=project.pk, archived_at__isnull=False).update(
            archived_at=None
        ):
            audit.write(by, "project.restored", target=project.name)
    project.refresh_from_db()


def _clean(fields: Mapping[str, Any], *, allowed: frozenset[str]) -> dict[str, Any]:
    """Every field through its rule; all sentences together in one InvalidProject."""
    clean: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for name, value in fields.items():
        if name not in allowed:
            errors[name] = f"There is no setting {name[:40]!r}."
        elif name == "provider":
            clean[name] = _provider(value, errors)
        else:
            try:
                clean[name] = RULES[name](value)
            except ValueError as error:
                errors[name] = str(error)
    if errors:
        raise InvalidProject(errors)
    return clean


def _check_model(provider: Provider | None, model: str) -> None:
    """A provider needs a model's name, the scripted demo has none, and without a provider a route must take it."""
    demo = provider is None or provider.kind == ProviderKind.DEMO
    if provider is None and model and Route.objects.filter(enabled=True).exists():
        if not any(globs.matches(r.pattern, model) for r in Route.objects.filter(enabled=True)):
            raise InvalidProject(
                {
                    "model": f"No route takes the model {model}: choose a provider, or leave the model empty."
                }
            )
        return
    if demo and model:
        raise InvalidProject({"model": "The scripted demo has no models: leave the model empty."})
    if not demo and not model:
        raise InvalidProject({"model": "Name the model, as the provider spells it."})


def _provider(value: Any, errors: dict[str, str]) -> Provider | None:
    """A provider, by row or by key; nothing means the scripted demo."""
    if value is None or value == "" or isinstance(value, Provider):
        return value or None
    found = Provider.objects.filter(key=str(value)).first()
    if found is None:
        errors["provider"] = "There is no such provider."
    return found


def _free_slug(name: str) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:50].strip("-") or "project"
    taken = RESERVED_SLUGS | set(
        Project.objects.filter(slug__startswith=base).values_list("slug", flat=True)
    )
    slug, number = base, 2
    while slug in taken:
        slug, number = f"{base}-{number}", number + 1
    return slug


def _in_sample(address: str) -> bool:
    """Whether this is the demo's own repository: pages label such a project as the sample."""
    path = Path(address.removeprefix("file://"))
    return path.is_absolute() and home.sample_dir().resolve() in path.resolve().parents


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, Provider) else value
