"""From `preparing` to an agent with a session: mirror, image, pod, clone, agent.

Every step asks the database and the backend what is done already, so that a killed supervisor's successor goes on where it
was. Each ends in its own time; what fails, fails with a sentence and what to do next.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from django.conf import settings

from devaipod_web import db, home
from devaipod_web.forges import staging
from devaipod_web.forges.errors import ForgeError
from devaipod_web.gateway import sockets, tokens
from devaipod_web.llm import fit
from devaipod_web.projects import placement
from devaipod_web.runs import diagnosis
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.services.connect import workspace_path
from devaipod_web.runs.services.notes import note
from devaipod_web.runs.supervisor import image, pod_spec, records
from devaipod_web.runs.supervisor.records import View
from devaipod_web.runs.supervisor.sites import Site
from devaipod_web.runs.supervisor.work import blocking
from devaipod_web.targets import queries as targets
from pods import agents, command
from pods.agents import AgentProfile, Choice
from pods.causes import quoted
from pods.devcontainer import DevcontainerPlan
from pods.errors import BackendError, BackendUnavailable, ImageMissing, QuotaExceeded
from pods.findings import CODES, Finding, finding, of_backend
from pods.spec import AGENT, ImageInfo, Limits, PodSpec, PullProgress

MIRROR_SECONDS = 600.0
PULL_SECONDS = 1200.0
CREATE_SECONDS = 120.0
#: From the sidecar's start to its first word.
CONNECT_SECONDS = 60.0
CLONE_SECONDS = 600.0
#: From the agent's start to its session, the repository's lifecycle commands (an install, say) among it. An agent that runs
#: and does not answer is refused by the sidecar long before.
SESSION_SECONDS = 1200.0
#: A backend that does not answer is asked again for this long before the run fails.
UNAVAILABLE_SECONDS = 900.0
#: Lines of progress of one pull that become events, at most one in this many seconds.
PROGRESS_SECONDS = 2.0


class StepFailed(Exception):
    """A step of starting ended for good. What was found is shown on the run."""

    def __init__(self, found: Finding, *, is_for_room: bool = False) -> None:
        super().__init__(found.message)
        self.finding = found
        #: Whether the target lacked room, which it may have later, or another one now.
        self.is_for_room = is_for_room


class Starter:
    """The steps of one run's start. Holds a cache alone; what counts is in the database."""

    def __init__(self, site: Site, installation: str) -> None:
        self.site = site
        self.backend = site.backend
        self.installation = installation
        self._plan: tuple[str, DevcontainerPlan] | None = None

    # --- preparing --------------------------------------------------------------------------------------------

    async def prepare(self, view: View) -> None:
        """Mirror the upstream, have the image, and make the attempt's row (which moves the run to `starting`)."""
        run = view.run
        async with self._step(run, None, "mirror", "Fetched the upstream", MIRROR_SECONDS):
            await self._mirror(run)
        async with self._step(run, None, "image", "Have the agent's image", PULL_SECONDS) as said:
            plan = await self._plan_of(run)
            try:
                await self._have_image(run, plan.image)
            except ImageMissing as error:
                how = image.how_to_have(plan.image)
                if not how or self.site.is_cluster:
                    raise
                raise ImageMissing(
                    f"The image {plan.image} of {profile_of(run).title} is not on this host.",
                    next_step=f"{how} Then prompt the run again.",
                ) from error
            said.append(plan.image)
        await self._new_pod(run, plan.image)

    async def _mirror(self, run: Run) -> None:
        if not run.base_commit:
            await blocking(staging.ensure_mirror, run.project)
            commit = await blocking(staging.resolve, run.project, run.project.upstream_branch)
            await db.write(records.set_base, run.pk, commit)
            run.base_commit = commit
        await blocking(staging.ensure_run_repository, run.project, run)

    async def _plan_of(self, run: Run) -> DevcontainerPlan:
        if self._plan is not None and self._plan[0] == run.base_commit:
            return self._plan[1]
        plan = await blocking(image.plan_of, run, workspace=workspace_path(run))
        for text in plan.warnings:
            await db.write(note, run.pk, "warning", text)
        self._plan = (run.base_commit, plan)
        return plan

    async def _have_image(self, run: Run, reference: str) -> ImageInfo:
        found = await self.backend.image(reference)
        if found is not None:
            return found
        async with self._telling(run, "image") as tell:
            return await self.backend.pull(reference, tell)

    @contextlib.asynccontextmanager
    async def _telling(self, run: Run, step: str) -> AsyncIterator[Callable[[PullProgress], None]]:
        """What a backend is to tell its progress to; written as the run's, not too often."""
        loop = asyncio.get_running_loop()
        told = 0.0
        pending: set[asyncio.Task[None]] = set()

        def tell(progress: PullProgress) -> None:
            # May be called from the backend's own threads.
            nonlocal told
            if time.monotonic() - told >= PROGRESS_SECONDS:
                told = time.monotonic()
                loop.call_soon_threadsafe(say, progress.message)

        def say(message: str) -> None:
            task = loop.create_task(db.write(records.progress, run.pk, step, message))
            pending.add(task)
            task.add_done_callback(pending.discard)

        try:
            yield tell
        finally:
            if pending:
                await asyncio.gather(*pending, return_exceptions=True)

    async def _new_pod(self, run: Run, reference: str) -> None:
        attempt = run.attempts + 1
        name = pod_spec.pod_name(run.project.slug, run.key, attempt)
        control, control_digest = tokens.mint()
        data, data_digest = tokens.mint()
        # The files come first: a row without its tokens could never start, files without a row are written over.
        await blocking(write_tokens, name, control, data)
        await db.write(
            records.new_pod,
            run.pk,
            attempt=attempt,
            name=name,
            backend=self.backend.name,
            image=reference,
            key=home.new_key(),
            control_digest=control_digest,
            data_digest=data_digest,
            target=self.site.target.pk,
        )

    # --- starting ---------------------------------------------------------------------------------------------

    async def create(self, view: View, pod: RunPod) -> None:
        """Make the pod; its sidecar starts. Safe to repeat."""
        run = view.run
        seconds = CREATE_SECONDS + (PULL_SECONDS if self.site.is_cluster else 0)
        async with self._step(run, pod, "pod", "Made the pod", seconds):
            if not tokens_are_there(pod.name):
                words = "The tokens of this attempt are gone from the disk."
                step = "Prompt the run again: a new attempt gets new ones."
                raise StepFailed(finding("run-failed", words, next_step=step))
            if not self.site.is_cluster:
                await blocking(sockets.link_pod, pod.key)
            spec = await self._spec(run, pod)
            async with self._telling(run, "pod") as tell:
                state = await self.backend.create_pod(spec, tell)
            for text in state.warnings:
                await db.write(note, run.pk, "warning", text)

    async def _spec(self, run: Run, pod: RunPod) -> PodSpec:
        plan = await self._plan_of(run)
        info = await self._have_image(run, pod.image)
        form = await db.read(
            fit.form_of_run,
            run.project,
            agent=run.agent,
            provider=run.provider,
            model=run.model,
        )
        found = facts(run, pod, plan=plan, info=info, installation=self.installation, form=form)
        if self.site.is_cluster:
            found = await self._on_cluster(found, run, pod)
        return pod_spec.build(found)

    async def _on_cluster(self, found: pod_spec.Facts, run: Run, pod: RunPod) -> pod_spec.Facts:
        """What a pod has of its own where no folder of this host can be mounted."""
        gateway = targets.gateway_address(self.site.target)
        if not gateway:
            raise BackendUnavailable(
                f"the pods of {self.site.target} have no address of the gateway.",
                next_step="Name it in the target, or by DEVAIPOD_GATEWAY_ADDRESS.",
            )
        return replace(
            found,
            gateway=gateway,
            secrets=await blocking(read_tokens, pod.name),
            placement=placement.of(run.project),
            wall_seconds=run.wall_seconds,
        )

    async def start_agent(self, view: View, pod: RunPod) -> None:
        """The workspace is there: note how long it took and start the agent's container. Safe to repeat."""
        ready, since = pod.workspace_ready_at, pod.connected_at
        assert ready is not None
        begun = time.monotonic()
        await self.backend.start(pod.name, AGENT)
        started = time.monotonic() - begun
        # Written after the start: nobody should wait for the agent because of our book-keeping.
        cloned = (ready - since).total_seconds() if since else 0.0
        await db.write(records.agent_started, view.run.pk, pod.pk, cloned=cloned, started=started)

    async def late(self, view: View, pod: RunPod) -> StepFailed | None:
        """What took too long in `starting`, or None."""
        found = _late(view, pod)
        if found is None:
            return None
        container = CODES[found[0]].container
        lines = await diagnosis.last_lines(self.backend, pod.name, container)
        return StepFailed(finding(found[0], f"{found[1]}{quoted(lines)}"))

    # --- steps ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _step(
        self, run: Run, pod: RunPod | None, name: str, text: str, seconds: float
    ) -> AsyncIterator[list[str]]:
        """Do one step within its time, note how long it took, and turn what went wrong into `StepFailed`.

        BackendUnavailable passes: the driver tries the step again.
        """
        begun = time.monotonic()
        await db.write(records.begin_step, run.pk, name)
        said: list[str] = []
        try:
            async with asyncio.timeout(seconds):
                yield said
        except TimeoutError as error:
            words = f"The step “{name}” did not end within {seconds / 60:.0f} minutes."
            raise StepFailed(finding("step-timed-out", words)) from error
        except ForgeError as error:
            found = finding("upstream-failed", error.message, next_step=error.next_step)
            raise StepFailed(found) from error
        except BackendUnavailable:
            raise
        except BackendError as error:
            for_room = isinstance(error, QuotaExceeded)
            raise StepFailed(of_backend(error), is_for_room=for_room) from error
        await db.write(
            records.finish_step,
            run.pk,
            pod.pk if pod else None,
            name,
            text=": ".join([text, *said]),
            seconds=time.monotonic() - begun,
        )


def facts(
    run: Run,
    pod: RunPod,
    *,
    plan: DevcontainerPlan,
    info: ImageInfo,
    installation: str,
    form: str = "",
) -> pod_spec.Facts:
    """What the pod's document follows from, out of rows, settings and the image. `form` is the wire form that the agent is to speak."""
    project = run.project
    profile = profile_of(run)
    workspace = workspace_path(run)
    folder = home_of(info, plan.user)
    choice = Choice(
        model=run.model or agents.DEFAULT_MODEL,
        policy=run.permission_policy,
        form=form,
        home=folder,
    )
    return pod_spec.Facts(
        installation=installation,
        run=run.key,
        attempt=pod.attempt,
        project=project.key,
        slug=project.slug,
        owner=run.owner.key,
        image=pod.image,
        user=plan.user or info.user,
        home=folder,
        argv=entry(run, profile, plan, choice),
        workspace=workspace,
        sidecar_image=settings.SIDECAR_IMAGE,
        token_dir=home.pod_token_dir(pod.name),
        socket_dir=home.pod_socket_dir(pod.key),
        limits=Limits(memory_bytes=project.memory_bytes, cpus=project.cpus, pids=project.pids),
        workspace_bytes=project.workspace_bytes,
        workspace_inodes=project.workspace_inodes,
        env=agents.agent_env(profile, choice, extra={**plan.env, **run.env}),
    )


def entry(
    run: Run, profile: AgentProfile, plan: DevcontainerPlan, choice: Choice
) -> tuple[str, ...]:
    """What the agent's container executes: the profile's agent, or the run's own command."""
    if profile.speaks_acp:
        return agents.entry_argv(profile, lifecycle=plan.lifecycle, files=profile.files(choice))
    return command.entry_argv(
        run.argv,
        workdir=run.workdir or workspace_path(run),
        interactive=run.interactive,
        before=agents.lifecycle_lines(plan.lifecycle),
    )


def home_of(info: ImageInfo, user: str) -> str:
    """The home folder of the agent's user: of the one that devcontainer.json names, else of the image's own."""
    named = info.users.get(user) if user else None
    return (named[1] if named else info.home) or "/home/agent"


def profile_of(run: Run) -> AgentProfile:
    """The run's agent profile. Raises StepFailed for one that this version does not have."""
    profile = agents.PROFILES.get(run.agent)
    if profile is None:
        step = f"Choose one of: {', '.join(sorted(agents.PROFILES))}."
        words = f"There is no agent called {run.agent!r}."
        raise StepFailed(finding("agent-missing", words, next_step=step))
    return profile


def write_tokens(pod_name: str, control: str, data: str) -> Path:
    """Write a pod's two tokens where its sidecar mounts them. The parent is closed to other users of the host."""
    folder = home.pod_token_dir(pod_name)
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.parent.chmod(0o700)
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    for name, token in (("control", control), ("data", data)):
        draft = folder / f".{name}.{secrets.token_hex(4)}"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
        with os.fdopen(descriptor, "w") as out:
            out.write(token)
        # The umask may have taken bits that the sidecar's uid needs.
        draft.chmod(0o444)
        draft.replace(folder / name)
    return folder


def tokens_are_there(pod_name: str) -> bool:
    """Whether both token files of a pod are on the disk."""
    folder = home.pod_token_dir(pod_name)
    return all((folder / name).is_file() for name in ("control", "data"))


def read_tokens(pod_name: str) -> dict[str, str]:
    """A pod's two tokens by their files' names. Raises OSError when they are not there."""
    folder = home.pod_token_dir(pod_name)
    return {name: (folder / name).read_text() for name in ("control", "data")}


def remove_tokens(pod_name: str) -> None:
    """Remove a pod's tokens from the disk. Safe to repeat."""
    shutil.rmtree(home.pod_token_dir(pod_name).parent, ignore_errors=True)


def step_time(pod: RunPod, step: str) -> datetime | None:
    """When a step of this attempt was done, or None."""
    text = pod.steps.get(step)
    return datetime.fromisoformat(text) if text else None


def _late(view: View, pod: RunPod) -> tuple[str, str] | None:
    """(code, sentence) of what took too long, or None. Only looks at stamps in the database."""
    made = step_time(pod, "pod")
    if pod.session_at is not None or made is None:
        return None
    if pod.connected_at is None:
        since, seconds = made, CONNECT_SECONDS
        code, what = "gateway-unreachable", "the sidecar did not reach the gateway"
    elif pod.workspace_ready_at is None:
        since, seconds = pod.connected_at, CLONE_SECONDS
        code, what = "clone-failed", "the clone of the repository did not end"
    elif pod.agent_started_at is not None:
        since, seconds = pod.agent_started_at, SESSION_SECONDS
        code, what = "agent-silent", "the agent opened no session"
    else:
        return None
    if view.now - since < timedelta(seconds=seconds):
        return None
    return code, f"Gave up after {seconds:.0f} seconds: {what}."
