"""Targets over the API: where pods run. A kubeconfig goes in and never comes out."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from ninja import Router
from ninja.responses import Status

from devaipod_web.api.auth import caller
from devaipod_web.api.reach import nothing
from devaipod_web.api.routing import operation
from devaipod_web.api.schemas.targets import TargetChanges, TargetIn, TargetOut, TargetTestedOut
from devaipod_web.targets import look, queries, services
from devaipod_web.targets.models import Target

router = Router(tags=["targets"])


def find(key: str) -> Target:
    """The target of this key, or of this name. Raises Http404."""
    target = queries.find(key)
    if target is None:
        raise nothing("target", key)
    return target


def shown(target: Target) -> TargetOut:
    """A target as it is answered."""
    (row,) = (row for row in queries.shown() if row.target.pk == target.pk)
    return TargetOut.of(row)


@operation(router, "GET", "", operation_id="targets_list", response=list[TargetOut])
def targets_list(request: HttpRequest) -> list[TargetOut]:
    """List the targets, the oldest first."""
    return [TargetOut.of(row) for row in queries.shown()]


@operation(router, "POST", "", operation_id="target_create", response={201: TargetOut}, once=True)
def target_create(request: HttpRequest, body: TargetIn) -> Any:
    """Add a cluster.

    Nothing is asked of it: test it next.
    """
    given = body.model_dump()
    given["kubeconfig_text"] = given.pop("kubeconfig")
    return Status(201, shown(services.save(caller(request), None, **given)))


@operation(router, "GET", "/{key}", operation_id="target_get", response=TargetOut)
def target_get(request: HttpRequest, key: str) -> TargetOut:
    """One target, by its key or name."""
    return shown(find(key))


@operation(router, "PATCH", "/{key}", operation_id="target_update", response=TargetOut)
def target_update(request: HttpRequest, key: str, body: TargetChanges) -> TargetOut:
    """Change a target.

    Fields that are not named stay. Runs that are there go on, also when it takes no new ones.
    """
    target = find(key)
    given = body.model_dump(exclude_unset=True)
    given["kubeconfig_text"] = given.pop("kubeconfig", "") or ""
    kept = ("name", "namespace", "context", "gateway_mode", "gateway_address", "enabled")
    for name in kept:
        if given.get(name) is None:
            given[name] = getattr(target, name)
    if given["kubeconfig_text"] and body.context is None:
        given["context"] = ""
    given.setdefault("max_runs", target.max_runs)
    return shown(services.save(caller(request), target, **given))


@operation(
    router,
    "DELETE",
    "/{key}",
    operation_id="target_delete",
    response={204: None},
    problems=(409,),
)
def target_delete(request: HttpRequest, key: str) -> Any:
    """Remove a cluster.

    Refused (409) while a project names it or a run is there, and for podman. Nothing in the cluster is touched.
    """
    services.remove(caller(request), find(key))
    return Status(204, None)


@operation(router, "POST", "/{key}/test", operation_id="target_test", response=TargetTestedOut)
def target_test(request: HttpRequest, key: str) -> TargetTestedOut:
    """Test a target.

    Asks it for its version and its room, tries whether it enforces network policies (two short pods on a cluster), and notes the
    answers. Takes a second, on a cluster some ten.
    """
    tested = look.ask(find(key))
    return TargetTestedOut(
        ok=tested.ok,
        message=tested.message,
        next_step=tested.found.next_step,
        milliseconds=tested.milliseconds,
        version=tested.found.version,
        capacity=tested.found.capacity,
        policies_enforced=tested.found.policies_enforced,
    )
