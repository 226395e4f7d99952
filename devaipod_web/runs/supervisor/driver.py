"""One run's driver: looks at the database and the picture, does the next thing, and looks again.

Nothing is decided from memory: a driver may be killed after any line, and its successor in another process finds in the rows what
is done. It runs while it holds the run's lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from django.db.models import Max

from devaipod_web import db
from devaipod_web.gateway.sidecar import connected_pods
from devaipod_web.reviews.services.refresh import refresh
from devaipod_web.runs import wake
from devaipod_web.runs.models import Run, RunPod, Turn
from devaipod_web.runs.states import ENDED, WORKING, State
from devaipod_web.runs.supervisor import diagnose, ending, records, watch
from devaipod_web.runs.supervisor.followers import Followers
from devaipod_web.runs.supervisor.picture import Picture
from devaipod_web.runs.supervisor.pod_spec import volume_name
from devaipod_web.runs.supervisor.records import View
from devaipod_web.runs.supervisor.start import UNAVAILABLE_SECONDS, Starter, StepFailed, profile_of
from devaipod_web.runs.supervisor.status import service
from devaipod_web.runs.supervisor.watch import What
from devaipod_web.runs.supervisor.work import blocking
from devaipod_web.runs.wake import BEAT_SECONDS
from pods.agents import EXIT_LIFECYCLE_FAILED
from pods.backend import ContainerBackend
from pods.errors import BackendError, BackendUnavailable
from pods.spec import AGENT, EXIT_AGENT_MISSING, SIDECAR, Phase, PodState, VolumeKind

log = structlog.get_logger("devaipod.supervisor.driver")

#: A run at work wakes its driver with each event; looking more often than this gains nothing.
WORKING_PAUSE_SECONDS = 0.25
#: Between looks at how full a volume without a hard bound is.
MEASURE_SECONDS = 30.0
#: Tries of a step that fails in a way that nobody foresaw.
MAX_SURPRISES = 5
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Exit codes of the agent's entry, with what they mean and what to do.
EXIT_CODES = {
    EXIT_LIFECYCLE_FAILED: (
        f"A lifecycle command of devcontainer.json failed (exit code {EXIT_LIFECYCLE_FAILED}).",
        "Look at the agent's log: it names the command. Mend it on the base branch and launch a new run.",
    ),
}


@dataclass
class Shared:
    """What all drivers of a process share."""

    backend: ContainerBackend
    picture: Picture
    followers: Followers
    installation: str


@dataclass
class Driver:
    """Drives one run until there is nothing left to do for it."""

    run_id: int
    key: str
    shared: Shared
    starter: Starter = field(init=False)
    _refreshed: datetime | None = None
    _measured: float = 0.0
    _surprises: int = 0
    _unavailable: int = 0

    def __post_init__(self) -> None:
        self.starter = Starter(self.shared.backend, self.shared.installation)

    async def drive(self) -> None:
        """Go on until the run needs nobody any more."""
        with (
            structlog.contextvars.bound_contextvars(run=self.key),
            wake.listening(self.key) as woken,
        ):
            while True:
                view = await db.read(records.view, self.run_id)
                if view is None:
                    return
                pause = await self._step_guarded(view, woken)
                if pause is None:
                    return
                if pause:
                    await _wait(woken, pause)

    async def _step_guarded(self, view: View, woken: asyncio.Event) -> float | None:
        try:
            pause = await self._step(view, woken)
        except StepFailed as failed:
            await db.write(records.fail, self.run_id, failed.reason, failed.next_step)
            return 0.01
        except BackendUnavailable as error:
            return await self._unavailable_backend(view, error)
        except BackendError as error:
            return await self._backend_said_no(view, error)
        except Exception as error:
            return await self._surprise(view, error)
        self._surprises = self._unavailable = 0
        return pause

    async def _unavailable_backend(self, view: View, error: BackendUnavailable) -> float:
        await self._say_unavailable(view, error.message)
        starting = view.run.state in (State.PREPARING, State.STARTING)
        if starting and view.now - view.run.state_at > timedelta(seconds=UNAVAILABLE_SECONDS):
            await db.write(records.fail, self.run_id, error.message, error.next_step)
        pause = BACKOFF_SECONDS[min(self._unavailable, len(BACKOFF_SECONDS) - 1)]
        self._unavailable += 1
        return pause

    async def _say_unavailable(self, view: View, message: str) -> None:
        if view.run.state not in ENDED and view.run.state != State.WAITING:
            await db.write(records.waits_for, self.run_id, f"the container backend: {message}")

    async def _backend_said_no(self, view: View, error: BackendError) -> float:
        log.warning("backend.refused", reason=error.message)
        if view.run.state in (State.PREPARING, State.STARTING):
            await db.write(records.fail, self.run_id, error.message, error.next_step)
        return 1.0

    async def _surprise(self, view: View, error: Exception) -> float:
        log.exception("driver.failed")
        service.last_error, service.last_error_at = f"run {self.key}: {error}"[:500], view.now
        self._surprises += 1
        if self._surprises >= MAX_SURPRISES and view.run.state not in ENDED:
            await db.write(
                records.fail,
                self.run_id,
                f"The supervisor could not go on: {type(error).__name__}: {error}"[:900],
                "This is a fault of the control plane: its log has the details. Prompt the run again when it is mended.",
            )
        return BACKOFF_SECONDS[min(self._surprises, len(BACKOFF_SECONDS) - 1)]

    # --- what is next -----------------------------------------------------------------------------------------

    async def _step(self, view: View, woken: asyncio.Event) -> float | None:
        """Do the next thing. Returns the seconds to wait before the next look, 0 for none, None when all is done."""
        for pod in view.pods:
            shown = self.shared.picture.get(pod.name)
            if shown is not None:
                self.shared.followers.ensure(self.key, self.run_id, shown)
        await self._refresh_review(view)
        pause = await self._end_pods(view)
        if pause is not None:
            return pause
        state = State(view.run.state)
        if _deadline_passed(view):
            await self._end(State.TIMED_OUT, _timed_out(view.run))
            return 0
        if state is State.PREPARING:
            await self._until_state_changes(view, woken)
            return 0
        if state is State.STARTING:
            return await self._starting(view)
        if state in WORKING:
            return await self._working(view)
        if state in ENDED and view.pods:
            return await self._warm(view)
        return None

    async def _end_pods(self, view: View) -> float | None:
        """End the pods whose time is over. A pause when one is still going, None when there is nothing (more) to end."""
        ended_any = False
        for pod in view.pods:
            if not ending.should_end(view, pod):
                continue
            gone = await ending.end_pod(
                view,
                pod,
                backend=self.shared.backend,
                finish_logs=functools.partial(self.shared.followers.finish, self.key, self.run_id),
            )
            if not gone:
                return 0.5
            ended_any = True
        return 0 if ended_any else None

    async def _until_state_changes(self, view: View, woken: asyncio.Event) -> None:
        """Prepare, and give it up at once when the run is stopped meanwhile (a pull may take many minutes)."""
        work = asyncio.create_task(self.starter.prepare(view))
        try:
            while not work.done():
                waker = asyncio.create_task(woken.wait())
                await asyncio.wait(
                    {work, waker}, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                waker.cancel()
                woken.clear()
                if work.done():
                    break
                now = await db.read(records.view, self.run_id)
                if now is None or now.run.state != State.PREPARING or _deadline_passed(now):
                    return
            await work
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _starting(self, view: View) -> float:
        pod = view.current
        if pod is None:
            raise StepFailed(
                "The attempt's pod is not known any more.", "Prompt the run again for a new one."
            )
        if "pod" not in pod.steps:
            await self.starter.create(view, pod)
            await self.shared.picture.look()
            return 0
        state = await self._pod_now(pod)
        if state is None or not _runs(state, SIDECAR):
            await self._lost(pod, state)
            return 0
        if pod.workspace_ready_at is not None and pod.agent_started_at is None:
            await self.starter.start_agent(view, pod)
            return 0
        if _exited(state, AGENT) and pod.session_at is None:
            if _news_may_come(view, state):
                return 0.5
            await self._agent_ended(view, state)
            return 0
        late = self.starter.late(view, pod)
        if late is not None:
            raise late
        return BEAT_SECONDS

    async def _working(self, view: View) -> float:
        pod = view.current
        if pod is None:
            await self._end(
                State.FAILED,
                "The run's pod is gone and nobody knows where to.",
                "Prompt the run again: workspace and session are kept.",
            )
            return 0
        if "agent" not in pod.steps and pod.session_at is not None and pod.agent_started_at:
            await db.write(
                records.finish_step,
                self.run_id,
                pod.pk,
                "agent",
                text="The agent opened its session",
                seconds=(pod.session_at - pod.agent_started_at).total_seconds(),
            )
        if not self.shared.picture.known:
            if self.shared.picture.unavailable:
                await self._say_unavailable(view, self.shared.picture.unavailable)
            return BEAT_SECONDS
        if view.run.waits_for.startswith("the container backend:"):
            await db.write(records.waits_for, self.run_id, "")
        state = await self._pod_now(pod)
        facts = await db.read(watch.facts_of, view.run, pod, view.now)
        await self._act(watch.decide(facts, state), view, pod, state)
        await self._measure(view, state)
        await asyncio.sleep(WORKING_PAUSE_SECONDS)
        return BEAT_SECONDS - WORKING_PAUSE_SECONDS

    async def _act(self, what: What, view: View, pod: RunPod, state: PodState | None) -> None:
        match what:
            case What.NOTHING:
                return
            case What.TIME_OUT:
                await self._end(State.TIMED_OUT, _timed_out(view.run))
            case What.END_CANCELLED:
                await self._end(
                    State.STOPPED,
                    "The turn was cancelled, and the pod has ended without another prompt.",
                )
            case What.LOST:
                await self._lost(pod, state)
            case What.AGENT_ENDED:
                await self._agent_ended(view, state)
            case What.STAGE:
                await db.write(records.ask_to_stop, pod.pk, "the turn has ended: stage its work")
            case What.NOT_STAGED:
                await self._end(
                    State.FAILED,
                    "The turn ended and its work was not staged in time.",
                    "Nothing is lost: the workspace is kept. Prompt the run again and it is staged anew.",
                )
            case What.STUCK:
                connected = pod.pk in connected_pods() if connected_pods() else None
                words = await db.read(watch.what_it_waits_for, view.run, pod, connected=connected)
                await db.write(records.name_stuck, self.run_id, words)

    async def _warm(self, view: View) -> float:
        """An ended run whose pod is kept for a follow-up: until its time is over or one of its containers ends."""
        pod = view.pods[-1]
        if self.shared.picture.known:
            state = await self._pod_now(pod)
            if state is None or not (_runs(state, SIDECAR) and _runs(state, AGENT)):
                await db.write(_cool, self.run_id)
                return 0
        until = view.run.keep_warm_until
        left = (until - view.now).total_seconds() if until else 0.0
        return max(min(BEAT_SECONDS, left), 0.05)

    # --- what happened ----------------------------------------------------------------------------------------

    async def _pod_now(self, pod: RunPod) -> PodState | None:
        """The pod from the picture; where that shows none, or one that ended, it is asked for itself."""
        state = self.shared.picture.get(pod.name)
        if state is not None and _runs(state, SIDECAR) and not _exited(state, AGENT):
            return state
        return await self.shared.backend.pod(pod.name)

    async def _lost(self, pod: RunPod, state: PodState | None) -> None:
        reason = "it is gone from the container backend."
        if state is not None:
            sidecar = diagnose.exited(state, SIDECAR)
            lines = await diagnose.last_lines(self.shared.backend, pod.name, SIDECAR)
            reason = (
                diagnose.why_sidecar_ended(sidecar, lines)
                if sidecar
                else "its sidecar does not run."
            )
            kept = await diagnose.keep(self.shared.backend, state)
            await db.write(records.keep_diagnostics, pod.pk, kept)
        await db.write(records.lose, self.run_id, pod.pk, reason)

    async def _agent_ended(self, view: View, state: PodState | None) -> None:
        agent = diagnose.exited(state, AGENT)
        if agent is None or state is None:
            return
        lines = await diagnose.last_lines(self.shared.backend, state.name, AGENT)
        reason, next_step = diagnose.why_agent_ended(
            agent,
            program=profile_of(view.run).program,
            memory_bytes=view.run.project.memory_bytes,
            lines=lines,
            codes=EXIT_CODES,
        )
        await self._end(State.FAILED, reason, next_step)

    async def _end(self, state: State, reason: str, next_step: str = "") -> None:
        await db.write(records.end_as, self.run_id, state, reason, next_step)

    async def _measure(self, view: View, state: PodState | None) -> None:
        """Stop a run whose volumes outgrew their bound on a host that cannot bound them."""
        if state is None or not state.warnings:
            return
        if time.monotonic() - self._measured < MEASURE_SECONDS:
            return
        self._measured = time.monotonic()
        project = view.run.project
        name = volume_name(self.shared.installation, self.key, VolumeKind.WORKSPACE)
        used, inodes = await self.shared.backend.volume_usage(name)
        if used <= project.workspace_bytes and inodes <= project.workspace_inodes:
            return
        await self._end(
            State.FAILED,
            f"The workspace uses {used / 1024**3:.1f} GiB and {inodes:,} files; it may use "
            f"{project.workspace_bytes / 1024**3:.1f} GiB and {project.workspace_inodes:,}.",
            "Raise the limits in the project's settings, or give the agent a smaller task.",
        )

    async def _refresh_review(self, view: View) -> None:
        """Have the review follow what was staged, also when the gateway died between the push and its own look."""
        staged = await db.read(_last_staged, self.run_id)
        if staged is None or staged == self._refreshed:
            return
        self._refreshed = staged
        try:
            await blocking(refresh, self.key)
        except Exception as error:
            log.exception("review.refresh_failed")
            service.last_error = f"review of run {self.key}: {error}"[:500]
            service.last_error_at = view.now


def _last_staged(run_id: int) -> datetime | None:
    found: datetime | None = Turn.objects.filter(run_id=run_id).aggregate(at=Max("staged_at"))["at"]
    return found


def _cool(run_id: int) -> None:
    Run.objects.filter(pk=run_id, state=State.SUCCEEDED).update(keep_warm_until=None)


def _deadline_passed(view: View) -> bool:
    deadline = view.run.deadline_at
    return view.run.state not in ENDED and deadline is not None and deadline <= view.now


def _timed_out(run: Run) -> str:
    hours, rest = divmod(run.wall_seconds, 3600)
    words = f"{hours} h {rest // 60} min" if hours else f"{rest // 60} min {rest % 60} s"
    return f"The run took longer than its wall time of {words}. What was there is staged."


def _news_may_come(view: View, state: PodState) -> bool:
    finished = state.containers[AGENT].finished_at
    code = state.containers[AGENT].exit_code
    known = code in EXIT_CODES or code == EXIT_AGENT_MISSING
    return not known and finished is not None and view.now - finished < watch.EXIT_NEWS


def _runs(state: PodState, container: str) -> bool:
    found = state.containers.get(container)
    return found is not None and found.phase is Phase.RUNNING


def _exited(state: PodState, container: str) -> bool:
    return diagnose.exited(state, container) is not None


async def _wait(woken: asyncio.Event, seconds: float) -> None:
    # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes at the same moment as the wake.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()
    woken.clear()
