"""Which image a run's agent has, and what the repository's devcontainer.json says beside it."""

from __future__ import annotations

from django.conf import settings

from devaipod_web.forges import staging
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run
from pods import devcontainer
from pods.devcontainer import DevcontainerPlan

#: Where the file may lie, in the order of the specification (containers.dev, "devcontainer.json").
PATHS = (".devcontainer/devcontainer.json", ".devcontainer.json")
MAX_BYTES = 64 * 1024


def plan(project: Project, commit: str, *, workspace: str) -> DevcontainerPlan:
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
        default_image=project.image or settings.AGENT_IMAGE,
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
        return plan(project, run.base_commit, workspace=workspace)
    check_own(project, run.asked_image)
    return DevcontainerPlan(image=run.asked_image, source="run")


def check_own(project: Project, image: str) -> None:
    """Raise PullRefused for an image that a run of the project may not name itself."""
    devcontainer.check_image(
        image,
        defaults=(project.image, settings.AGENT_IMAGE),
        allowed_images=project.allowed_images,
    )
