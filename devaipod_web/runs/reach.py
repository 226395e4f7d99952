"""What a run could reach, before it is launched and while it runs. Reads what is here already; contacts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from devaipod_web import home
from devaipod_web.forges import staging
from devaipod_web.forges.errors import ForgeError
from devaipod_web.llm import fit
from devaipod_web.llm.models import ProviderKind
from devaipod_web.projects.models import PermissionPolicy, Project
from devaipod_web.runs import tabs
from devaipod_web.runs.supervisor import image
from devaipod_web.targets import queries as targets
from devaipod_web.targets.models import Target
from pods.command import COMMAND
from pods.errors import BackendError

#: From the surest to the weakest.
NETWORKS = list(tabs.Network)


@dataclass(frozen=True)
class Reach:
    """Rows by heading: (may it, what, whence). `notes` are sentences with a level."""

    image: str
    image_whence: str
    models: str
    models_whence: str
    is_demo: bool
    #: Whether agent and models have a wire form in common.
    fits: bool
    forge_read: str
    forge_write: str
    policy: str
    #: The targets that the run may go to, the first choice first, and what holds its pod to its network on the weakest of them.
    targets: str
    network: tabs.Network
    notes: list[tuple[str, str]] = field(default_factory=list)


def of(project: Project, given: Mapping[str, str]) -> Reach:
    """The reach of a run of `project` with the choices of the launch form."""
    agent = str(given.get("agent", ""))[:40] or project.agent
    own = str(given.get("image", ""))[:300] if agent == COMMAND else ""
    name, whence, notes = _own_image(project, own) if own else _image(project, agent)
    model = str(given.get("model", ""))[:200] or project.model
    who = fit.answerer(project, project.provider, model)
    is_demo = who.kind == ProviderKind.DEMO
    misfit = fit.misfit(agent, who)
    policy = str(given.get("permission_policy", "")) or project.permission_policy
    labels = dict(PermissionPolicy.choices)
    order = _targets(project, str(given.get("target", ""))[:40])
    network = max(
        (tabs.network(row) for row in order), key=NETWORKS.index, default=tabs.Network.NONE
    )
    notes += _network_notes(order)
    if is_demo:
        models, models_whence = ProviderKind.DEMO.label, "this installation"
    else:
        models = model or "any of the provider's"
        models_whence = who.name
    if misfit is not None:
        notes.append(("warning", f"{misfit.message} {misfit.next_step}"))
    if policy == PermissionPolicy.ALLOW:
        notes.append(("info", "Edits and commands are allowed without asking, inside the sandbox."))
    return Reach(
        image=name,
        image_whence=whence,
        models=models,
        models_whence=models_whence,
        is_demo=is_demo,
        fits=misfit is None,
        forge_read=f"read {project.name}, {project.upstream_branch}",
        forge_write="push to its own branch on the staging forge",
        policy=labels.get(policy, policy),
        targets=", then ".join(row.name for row in order) or "none: add a target first",
        network=network,
        notes=notes,
    )


def _targets(project: Project, asked: str) -> list[Target]:
    found = targets.find(asked) if asked else None
    return [found] if found is not None else targets.order_of(project)


def _network_notes(order: list[Target]) -> list[tuple[str, str]]:
    notes = []
    for row in order:
        kind = tabs.network(row)
        if kind is tabs.Network.OPEN:
            text = f"{row.name} does not enforce network policies: a pod there reaches whatever the cluster's network reaches."
            notes.append(("warning", text))
        elif kind is tabs.Network.UNKNOWN:
            text = f"It is not known whether {row.name} enforces network policies."
            notes.append(("warning", text))
    return notes


def _own_image(project: Project, name: str) -> tuple[str, str, list[tuple[str, str]]]:
    """An image that a command's run names itself, and what the project's rules say to it."""
    try:
        image.check_own(project, name)
    except BackendError as error:
        return name, "this run", [("warning", f"{error.message} {error.next_step}".strip())]
    return name, "this run", []


def _image(project: Project, agent: str) -> tuple[str, str, list[tuple[str, str]]]:
    """The image, where its name comes from, and what devcontainer.json asks for besides."""
    default = project.image or image.default_image(agent)
    whence = "project" if project.image else "default"
    if not home.mirror_repository(project.key).is_dir():
        note = "The repository has not been fetched yet: its devcontainer.json is read when the run starts."
        return default, whence, [("info", note)]
    try:
        commit = staging.resolve(project, project.upstream_branch)
        found = image.plan(project, commit, agent=agent, workspace=f"/workspaces/{project.slug}")
    except (ForgeError, BackendError) as error:
        return default, whence, [("warning", f"{error.message} {error.next_step}".strip())]
    if found.source != "project":
        whence = "devcontainer.json"
    return found.image, whence, [("warning", text) for text in found.warnings]
