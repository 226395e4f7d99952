"""Schemas of projects."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from ninja import Field, Schema

from devaipod_web.api.schemas.common import Body, doc, optional
from devaipod_web.llm.models import ProviderKind
from devaipod_web.projects.models import Project
from devaipod_web.projects.placement import MAX_LINES
from devaipod_web.projects.rules import BOUNDS

DEMO_LABEL = ProviderKind.DEMO.label

Policy = Literal["ask", "allow"]
Workspace = Literal["emptydir", "pvc"]

#: Field → (description, example): said once for what is sent and what is answered.
ABOUT: dict[str, tuple[str, Any]] = {
    "name": ("The project's name.", "Payments"),
    "slug": ("Its short name, in addresses and names of pods.", "payments"),
    "description": ("What it is, for people.", "Takes money, sends webhooks."),
    "upstream_url": (
        "The repository that agents work on: https or ssh.",
        "https://forge.example/acme/payments.git",
    ),
    "upstream_branch": ("The branch that runs start from.", "main"),
    "production_url": ("Where approved changes are pushed; empty: the upstream.", ""),
    "production_prefix": ("What the names of promoted branches begin with.", "devaipod/"),
    "agent": ("The agent profile of its runs.", "opencode"),
    "provider": (
        "The key of the provider of its models; null: as routes decide by its model, else the scripted demo.",
        None,
    ),
    "model": (
        "The model, as its provider spells it or a route takes it; empty with the scripted demo.",
        "",
    ),
    "permission_policy": (
        "What happens when an agent asks: `ask` a person, or `allow`.",
        "ask",
    ),
    "image": ("The image of its agents; empty: the installation's.", ""),
    "image_pattern": (
        "The image that the project's CI publishes, with {owner}, {repo} and {branch}; or empty.",
        "registry.example/{owner}/{repo}-devcontainer:{branch}",
    ),
    "workspace": (
        "What a workspace lies on in a cluster: `emptydir` goes with the pod, `pvc` is kept for follow-ups.",
        "emptydir",
    ),
    "storage_class": ("The storage class of that volume; empty: the cluster's default.", ""),
    "runtime_class": ("The runtime class of its pods on a cluster; empty: its default.", ""),
    "targets": (
        "Targets of its runs, the first choice first: keys in answers, keys or names when sent. Empty: podman, else the oldest.",
        [],
    ),
    "node_selector": ("Labels that a cluster's node must have, `key=value` each.", ["disk=ssd"]),
    "tolerations": (
        "Taints that its pods tolerate: `key=value:Effect`, `key:Effect` or `key` each.",
        ["agents=only:NoSchedule"],
    ),
    "image_pull_secrets": ("Secrets of a cluster's namespace for pulling images.", []),
    "wall_seconds": ("How long a run may take, in seconds", 7200),
    "memory_bytes": ("The agent container's memory, in bytes", 3221225472),
    "cpus": ("The agent container's CPUs", 2.0),
    "pids": ("Processes in the agent container", 512),
    "workspace_bytes": ("The size of the workspace, in bytes", 4294967296),
    "workspace_inodes": ("Files in the workspace", 400000),
}
# Said, not declared: the room names everything that cannot be at once, with its own sentences.
for _name, (_least, _most, _) in BOUNDS.items():
    ABOUT[_name] = (f"{ABOUT[_name][0]}: {_least:,} to {_most:,}.", ABOUT[_name][1])
IMAGES = "Images that devcontainer.json may name, beside the project's; `*` stands for anything."


def about(name: str, default: Any = ..., **more: Any) -> Any:
    """The field of this name."""
    description, example = ABOUT[name]
    return doc(description, example, default, **more)


def settable(name: str, **more: Any) -> Any:
    """The field of this name in a body, where it may be left out."""
    description, example = ABOUT[name]
    return optional(description, example, **more)


class ProjectOut(Schema):
    """A project and its settings."""

    key: str = doc("The project's public key.", "t5xw2n7qke")
    slug: str = about("slug")
    name: str = about("name")
    description: str = about("description")
    upstream_url: str = about("upstream_url")
    upstream_branch: str = about("upstream_branch")
    production_url: str = about("production_url")
    production_prefix: str = about("production_prefix")
    agent: str = about("agent")
    provider: str | None = about("provider")
    provider_label: str = doc("The provider's name.", DEMO_LABEL)
    model: str = about("model")
    permission_policy: Policy = about("permission_policy")
    image: str = about("image")
    image_pattern: str = about("image_pattern")
    allowed_images: list[str] = Field(..., description=IMAGES, examples=[[]])
    wall_seconds: int = about("wall_seconds")
    memory_bytes: int = about("memory_bytes")
    cpus: float = about("cpus")
    pids: int = about("pids")
    workspace_bytes: int = about("workspace_bytes")
    workspace_inodes: int = about("workspace_inodes")
    targets: list[str] = about("targets")
    node_selector: list[str] = about("node_selector")
    tolerations: list[str] = about("tolerations")
    runtime_class: str = about("runtime_class")
    image_pull_secrets: list[str] = about("image_pull_secrets")
    workspace: Workspace = about("workspace")
    storage_class: str = about("storage_class")
    is_sample: bool = doc("Whether it works on the demo's own repository.", False)
    created_at: datetime = doc("When it was made, RFC 3339.", "2026-11-01T09:30:00Z")
    archived_at: datetime | None = doc("When it was archived, or null.", None)

    @staticmethod
    def resolve_provider(obj: Project) -> str | None:
        return obj.provider.key if obj.provider else None

    @staticmethod
    def resolve_provider_label(obj: Project) -> str:
        if obj.provider is None:
            return "routes" if obj.model else DEMO_LABEL
        return obj.provider.name


class ProjectSettings(Body):
    """The settings that a new project may have and that may be changed later."""

    description: str | None = settable("description", max_length=500)
    upstream_branch: str | None = settable("upstream_branch", max_length=200)
    production_url: str | None = settable("production_url", max_length=500)
    production_prefix: str | None = settable("production_prefix", max_length=60)
    agent: str | None = settable("agent", max_length=40)
    provider: str | None = settable("provider", max_length=40)
    model: str | None = settable("model", max_length=200)
    permission_policy: Policy | None = settable("permission_policy")
    image: str | None = settable("image", max_length=300)
    image_pattern: str | None = settable("image_pattern", max_length=300)
    allowed_images: list[str] | None = Field(
        None, description=IMAGES, examples=[["registry.example/acme/*"]], max_length=100
    )
    wall_seconds: int | None = settable("wall_seconds")
    memory_bytes: int | None = settable("memory_bytes")
    cpus: float | None = settable("cpus")
    pids: int | None = settable("pids")
    workspace_bytes: int | None = settable("workspace_bytes")
    workspace_inodes: int | None = settable("workspace_inodes")
    targets: list[str] | None = settable("targets", max_length=MAX_LINES)
    node_selector: list[str] | None = settable("node_selector", max_length=MAX_LINES)
    tolerations: list[str] | None = settable("tolerations", max_length=MAX_LINES)
    runtime_class: str | None = settable("runtime_class", max_length=253)
    image_pull_secrets: list[str] | None = settable("image_pull_secrets", max_length=MAX_LINES)
    workspace: Workspace | None = settable("workspace")
    storage_class: str | None = settable("storage_class", max_length=253)


class ProjectIn(ProjectSettings):
    """A new project. What is not given has the installation's default."""

    name: str = about("name", min_length=1, max_length=120)
    upstream_url: str = about("upstream_url", min_length=1, max_length=500)
    slug: str | None = settable("slug", max_length=60)


class ProjectChanges(ProjectSettings):
    """Fields of a project to be changed; those not named stay. `provider` null means the scripted demo."""

    name: str | None = settable("name", min_length=1, max_length=120)
    upstream_url: str | None = settable("upstream_url", min_length=1, max_length=500)
