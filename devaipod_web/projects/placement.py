"""Where the pods of a project's runs may be on a cluster: rules of what people write, and what a pod is given of it.

Lists are lines as `kubectl` has them: a node selector is `key=value`, a toleration `key=value:Effect`, `key:Effect` or `key`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, cast

from devaipod_web.projects.models import Project, Workspace
from devaipod_web.targets.models import Target
from pods.spec import Placement

MAX_LINES = 20
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
#: Kubernetes' own rules (apimachinery validation): a qualified name, a label's value, a DNS-1123 subdomain.
KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
)
VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")


def lines(value: Any) -> list[str]:
    """The lines of a text, or the members of a list, without empty ones."""
    found = value.splitlines() if isinstance(value, str) else list(value or [])
    kept = [str(line).strip() for line in found if str(line).strip()]
    if len(kept) > MAX_LINES:
        raise ValueError(f"At most {MAX_LINES} lines can be listed.")
    return kept


def targets(value: Any) -> list[str]:
    """Keys of targets, from their names or keys, the first choice first."""
    known = dict(Target.objects.values_list("name", "key"))
    found = []
    for word in lines(value):
        key = known.get(word, word)
        if key not in known.values():
            there = ", ".join(sorted(known)) or "none"
            raise ValueError(f"There is no target {word[:40]!r}; there is {there}.")
        if key not in found:
            found.append(key)
    return found


def node_selector(value: Any) -> list[str]:
    """Labels that the node must have, each `key=value`, each key once."""
    found = lines(value)
    for line in found:
        key, equals, rest = line.partition("=")
        if not equals or not KEY.fullmatch(key) or not VALUE.fullmatch(rest):
            raise ValueError(f"{line[:60]!r} is no label of a node: write key=value.")
    keys = [line.partition("=")[0] for line in found]
    if len(set(keys)) < len(keys):
        raise ValueError("A label of a node can be named once.")
    return found


def tolerations(value: Any) -> list[str]:
    """Taints that the pod tolerates, each `key=value:Effect`, `key:Effect` or `key`."""
    found = lines(value)
    for line in found:
        _toleration(line)
    return found


def _toleration(line: str) -> dict[str, str]:
    taint, colon, effect = line.partition(":")
    key, equals, value = taint.partition("=")
    if not KEY.fullmatch(key) or not VALUE.fullmatch(value) or (colon and effect not in EFFECTS):
        raise ValueError(
            f"{line[:60]!r} is no toleration: write key=value:Effect, key:Effect or key; "
            f"an effect is one of {', '.join(EFFECTS)}."
        )
    told = {"key": key, "operator": "Equal" if equals else "Exists"}
    return told | ({"value": value} if equals else {}) | ({"effect": effect} if colon else {})


def name_or_empty(what: str) -> Callable[[Any], str]:
    """A rule for the name of a cluster's object, or empty."""

    def rule(value: Any) -> str:
        name = str(value or "").strip()
        if name and not SUBDOMAIN.fullmatch(name):
            raise ValueError(f"{name[:60]!r} cannot be the name of {what}.")
        return name

    return rule


def image_pull_secrets(value: Any) -> list[str]:
    """Names of Secrets of the target's namespace."""
    rule = name_or_empty("a Secret")
    return [rule(line) for line in lines(value)]


def workspace(value: Any) -> str:
    """What the workspace lies on."""
    if value not in Workspace.values:
        raise ValueError(f"The workspace is one of {', '.join(Workspace.values)}.")
    return str(value)


RULES: dict[str, Callable[[Any], Any]] = {
    "targets": targets,
    "node_selector": node_selector,
    "tolerations": tolerations,
    "runtime_class": name_or_empty("a runtime class"),
    "image_pull_secrets": image_pull_secrets,
    "workspace": workspace,
    "storage_class": name_or_empty("a storage class"),
}


def of(project: Project) -> Placement:
    """What the pods of a project's runs are given."""
    pairs = (line.partition("=") for line in project.node_selector)
    return Placement(
        node_selector={key: value for key, _, value in pairs},
        tolerations=tuple(_toleration(line) for line in project.tolerations),
        runtime_class=project.runtime_class,
        image_pull_secrets=tuple(project.image_pull_secrets),
        workspace=cast("Literal['emptydir', 'pvc']", project.workspace),
        storage_class=project.storage_class,
    )
