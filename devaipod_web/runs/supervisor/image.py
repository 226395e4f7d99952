"""Which image a run's agent has, and what the repository's devcontainer.json says beside it."""

from __future__ import annotations

from django.conf import settings

from devaipod_web import home
from devaipod_web.forges import staging
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run
from pods import devcontainer
from pods.agents import PROFILES
from pods.devcontainer import DevcontainerPlan

#: Where the file may lie, in the order of the specification (containers.dev, "devcontainer.json").
PATHS = (".devcontainer/devcontainer.json", ".devcontainer.json")
MAX_BYTES = 64 * 1024


def default_image(agent: str) -> str:
    """The installation's image for runs of this agent, where neither project nor devcontainer.json names one."""
    return settings.AGENT_IMAGES.get(agent) or settings.AGENT_IMAGE


def how_to_have(reference: str) -> str:
    """The command that builds an image of ours, in a sentence; empty for another image."""
    if reference == settings.AGENT_IMAGE:
        return f"{home.set_up().capitalize()} on the host builds it."
    key = next((key for key, name in settings.AGENT_IMAGES.items() if name == reference), "")
    ours = key in PROFILES and PROFILES[key].image and reference.startswith("localhost/")
    return f"{home.build_images(key)} on the host builds it (some minutes)." if ours else ""


def plan(project: Project, commit: str, *, agent: str, workspace: str) -> DevcontainerPlan:
    """Read devcontainer.json at the base commit (never from the workspace) and resolve the image. Blocking.

    Raises `pods.errors.PodRefused` or `PullRefused` for what is not allowed, `forges.errors.TooLarge` for a file beyond 64 KiB.
    """
    text: bytes | None = None
    for path in PATHS:
        text = staging.read_file(project, commit, path, limit=MAX_BYTES)
        if text is not None:
            break
    return devcontainer.plan(
        text,
        default_image=project.image or default_image(agent),
        image_pattern=project.image_pattern,
        allowed_images=tuple(project.allowed_images),
        upstream_url=project.upstream_url,
        branch=project.upstream_branch,
        workspace=workspace,
    )


def plan_of(run: Run, *, workspace: str) -> DevcontainerPlan:
    """The plan of a run: that of its base commit, unless the run itself names its image. Blocking. Raises as `plan` does.

    What devcontainer.json says beside the image (variables, user, lifecycle commands) belongs to the image that it names.
    """
    project = run.project
    if not run.asked_image:
        return plan(project, run.base_commit, agent=run.agent, workspace=workspace)
    check_own(project, run.asked_image)
    return DevcontainerPlan(image=run.asked_image, source="run")


def own_images(project: Project) -> tuple[str, ...]:
    """The images that a run of the project may name whatever the project's list says."""
    return (project.image, settings.AGENT_IMAGE, *settings.AGENT_IMAGES.values())


def check_own(project: Project, image: str) -> None:
    """Raise PullRefused for an image that a run of the project may not name itself."""
    devcontainer.check_image(
        image,
        defaults=own_images(project),
        allowed_images=project.allowed_images,
    )
