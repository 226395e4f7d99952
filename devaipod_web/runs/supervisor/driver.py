"""One run's driver: looks at the database and the picture, does the next thing, and looks again.

Nothing is decided from memory: a driver may be killed after any line, and its successor in another process finds in the rows what
is done. It runs while it holds the run's lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from devaipod_web import db
from devaipod_web.gateway.sidecar import connected_pods
from devaipod_web.reviews.services.refresh import refresh
from devaipod_web.runs import diagnosis, wake
from devaipod_web.runs.models import Run, RunPod
from devaipod_web.runs.states import ENDED, WORKING, State
from devaipod_web.runs.supervisor import diagnose, ending, records, watch
from devaipod_web.runs.supervisor.measure import overrun
from devaipod_web.runs.supervisor.pod_spec import volume_name
from devaipod_web.runs.supervisor.records import View
from devaipod_web.runs.supervisor.sites import Site, Sites
from devaipod_web.runs.supervisor.start import UNAVAILABLE_SECONDS, Starter, StepFailed, profile_of
from devaipod_web.runs.supervisor.status import service
from devaipod_web.runs.supervisor.watch import What
from devaipod_web.runs.supervisor.work import blocking
from devaipod_web.runs.wake import BEAT_SECONDS
from pods.causes import (
    agent_ended,
    command_ended,
    ended_by_backend,
    not_kept,
    pod_lost,
    timed_out,
    work_not_staged,
    workspace_full,
)
from pods.command import COMMAND
from pods.diagnostics import degraded
from pods.errors import BackendError, BackendUnavailable
from pods.findings import Finding, finding, of_backend
from pods.reports import report
from pods.spec import AGENT, SIDECAR, PodState, VolumeKind

log = structlog.get_logger("devaipod.supervisor.driver")

#: A run at work wakes its driver with each event; looking more often than this gains nothing.
WORKING_PAUSE_SECONDS = 0.25
#: Between looks at how full the workspace is.
MEASURE_SECONDS = 30.0
#: A workspace of which so much is used is called full.
FULL_FRACTION = 0.98
#: Tries of a step that fails in a way that nobody foresaw.
MAX_SURPRISES = 5
BACKOFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: A step of starting a run that is in one of these is of no use any more.
GIVEN_UP = ENDED | {State.PAUSED, State.QUEUED}
COMMAND_SUCCEEDED = "The command ended with exit code 0 and its work is staged."


@dataclass
class Shared:
    """What all drivers of a process share."""

    sites: Sites
    installation: str


@dataclass
class Driver:
    """Drives one run until there is nothing left to do for it."""

    run_id: int
    key: str
    shared: Shared
    _starter: Starter | None = None
    _refreshed: datetime | None = None
    _measured: float = 0.0
    _looked: float = 0.0
    _full: Finding | None = None
    _surprises: int = 0
    _unavailable: int = 0

    def _site(self, of: Run | RunPod) -> Site:
        """Where a run or one of its pods is. Raises BackendUnavailable for a target that is no more."""
        return self.shared.sites.of(of.target_id)

    def _starter_at(self, site: Site) -> Starter:
        if self._starter is None or self._starter.site is not site:
            self._starter = Starter(site, self.shared.installation)
        return self._starter

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
            if not await self._sent_back(view, failed):
                await db.write(records.fail, self.run_id, failed.finding)
            return 0.01
        except BackendUnavailable as error:
            return await self._unavailable_backend(view, error)
        except BackendError as error:
            return await self._backend_said_no(view, error)
        except Exception as error:
            return await self._surprise(view, error)
        self._surprises = self._unavailable = 0
        return pause

    async def _sent_back(self, view: View, failed: StepFailed) -> bool:
        """Whether the run waits for room again instead of failing: a cluster had none, or somewhere else there may be some."""
        if not failed.is_for_room or view.run.state not in (State.PREPARING, State.STARTING):
            return False
        pod = view.current
        if not await db.read(records.may_be_elsewhere, self.run_id):
            return False
        return await db.write(
            records.send_back, self.run_id, pod.pk if pod else None, failed.finding.message
        )

    async def _unavailable_backend(self, view: View, error: BackendUnavailable) -> float:
        await self._say_unavailable(view, error.message)
        starting = view.run.state in (State.PREPARING, State.STARTING)
        if starting and view.now - view.run.state_at > timedelta(seconds=UNAVAILABLE_SECONDS):
            await db.write(records.fail, self.run_id, of_backend(error))
        pause = BACKOFF_SECONDS[min(self._unavailable, len(BACKOFF_SECONDS) - 1)]
        self._unavailable += 1
        return pause

    async def _say_unavailable(self, view: View, message: str) -> None:
        if view.run.state not in ENDED | {State.WAITING, State.PAUSED}:
            await db.write(records.waits_for, self.run_id, f"the container backend: {message}")

    async def _backend_said_no(self, view: View, error: BackendError) -> float:
        log.warning("backend.refused", reason=error.message)
        if view.run.state in (State.PREPARING, State.STARTING):
            await db.write(records.fail, self.run_id, of_backend(error))
        return 1.0

    async def _surprise(self, view: View, error: Exception) -> float:
        log.exception("driver.failed")
        service.last_error, service.last_error_at = f"run {self.key}: {error}"[:500], view.now
        self._surprises += 1
        if self._surprises >= MAX_SURPRISES and view.run.state not in ENDED:
            words = f"The supervisor could not go on: {type(error).__name__}: {error}"
            await db.write(records.fail, self.run_id, finding("control-plane-fault", words))
        return BACKOFF_SECONDS[min(self._surprises, len(BACKOFF_SECONDS) - 1)]

    # --- what is next -----------------------------------------------------------------------------------------

    async def _step(self, view: View, woken: asyncio.Event) -> float | None:
        """Do the next thing. Returns the seconds to wait before the next look, 0 for none, None when all is done."""
        for pod in view.pods:
            site = self._site(pod)
            shown = site.picture.get(pod.name)
            if shown is not None:
                site.followers.ensure(self.key, self.run_id, shown)
        await self._refresh_review(view)
        pause = await self._end_pods(view)
        if pause is not None:
            return pause
        state = State(view.run.state)
        if _deadline_passed(view):
            await self._end(State.TIMED_OUT, timed_out(view.run.wall_seconds))
            return 0
        if state is State.PREPARING:
            work = self._starter_at(self._site(view.run)).prepare(view)
            await self._unless_it_moves(view, woken, work)
            return 0
        if state is State.STARTING:
            return await self._starting(view, woken)
        if state is State.PAUSED and view.run.agent != COMMAND:
            return await self._paused(view)
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
                backend=self._site(pod).backend,
                finish_logs=functools.partial(
                    self._site(pod).followers.finish, self.key, self.run_id
                ),
            )
            if not gone:
                return 0.5
            ended_any = True
        return 0 if ended_any else None

    async def _unless_it_moves(
        self,
        view: View,
        woken: asyncio.Event,
        step: Coroutine[Any, Any, None],
        *,
        site: Site | None = None,
    ) -> bool:
        """Do a step, and give it up at once when the run is stopped meanwhile (a pull may take many minutes). Whether it was done."""
        # podman's threads would go on beside whoever ends the pod.
        if site is not None and not site.is_cluster:
            await step
            return True
        work = asyncio.create_task(step)
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
                if now is None or now.run.state in GIVEN_UP or _deadline_passed(now):
                    return False
            await work
            return True
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def _starting(self, view: View, woken: asyncio.Event) -> float:
        pod = view.current
        if pod is None:
            raise StepFailed(
                finding(
                    "run-failed",
                    "The attempt's pod is not known any more.",
                    next_step="Prompt the run again for a new one.",
                )
            )
        site = self._site(pod)
        starter = self._starter_at(site)
        if "pod" not in pod.steps:
            if await self._unless_it_moves(view, woken, starter.create(view, pod), site=site):
                await db.write(records.pod_made, self.run_id, pod.target_id)
                await site.picture.look()
            return 0
        state = await self._pod_now(pod)
        if state is None or not watch.begins(state, on_cluster=site.is_cluster):
            await self._lost(pod, state)
            return 0
        if pod.workspace_ready_at is not None and pod.agent_started_at is None:
            await self._unless_it_moves(view, woken, starter.start_agent(view, pod), site=site)
            return 0
        if watch.exited(state, AGENT) and pod.session_at is None:
            if watch.news_may_come(state, view.now):
                return 0.5
            await self._agent_ended(view, state)
            return 0
        late = await starter.late(view, pod)
        if late is not None:
            raise late
        await self._show_degraded(pod, state)
        return BEAT_SECONDS

    async def _paused(self, view: View) -> float | None:
        """A run that stands still: its pod is kept until its time is over or one of its containers ends. None without a pod."""
        pod = view.current
        if pod is None:
            return BEAT_SECONDS if view.pods else None
        if self._site(pod).picture.known:
            state = await self._pod_now(pod)
            if state is None or not (watch.runs(state, SIDECAR) and watch.runs(state, AGENT)):
                await db.write(records.let_go, self.run_id)
                return 0
        return _until(view.run.keep_warm_until, view.now)

    async def _working(self, view: View) -> float | None:
        pod = view.current
        if pod is None and view.run.state == State.PAUSED:
            return BEAT_SECONDS if view.pods else None
        if pod is None:
            words = "The run's pod is gone and nobody knows where to."
            step = "Prompt the run again: workspace and session are kept."
            await self._end(State.FAILED, finding("run-failed", words, next_step=step))
            return 0
        if "agent" not in pod.steps and pod.session_at is not None and pod.agent_started_at:
            await db.write(
                records.finish_step,
                self.run_id,
                pod.pk,
                "agent",
                text=(
                    "The command's program is there"
                    if view.run.agent == COMMAND
                    else "The agent opened its session"
                ),
                seconds=(pod.session_at - pod.agent_started_at).total_seconds(),
            )
        site = self._site(pod)
        if pod.agent_started_at is None and pod.workspace_ready_at is not None:
            # A cluster starts it by itself, and its session may be there before we saw that.
            await self._starter_at(site).start_agent(view, pod)
            return 0
        picture = site.picture
        if not picture.known:
            if picture.unavailable:
                await self._say_unavailable(view, picture.unavailable)
            return BEAT_SECONDS
        if view.run.waits_for.startswith("the container backend:"):
            await db.write(records.waits_for, self.run_id, "")
        state = await self._pod_now(pod)
        facts = await db.read(watch.facts_of, view.run, pod, view.now)
        await self._act(watch.decide(facts, state), view, pod, state)
        await self._measure(view, pod, state)
        await self._show_degraded(pod, state)
        await asyncio.sleep(WORKING_PAUSE_SECONDS)
        return BEAT_SECONDS - WORKING_PAUSE_SECONDS

    async def _act(self, what: What, view: View, pod: RunPod, state: PodState | None) -> None:
        match what:
            case What.NOTHING:
                return
            case What.TIME_OUT:
                await self._end(State.TIMED_OUT, timed_out(view.run.wall_seconds))
            case What.END_CANCELLED:
                words = "The turn was cancelled, and the pod has ended without another prompt."
                await db.write(records.end_as, self.run_id, State.STOPPED, words)
            case What.LOST:
                await self._lost(pod, state)
            case What.AGENT_ENDED:
                await self._agent_ended(view, state)
            case What.COMMAND_ENDED:
                await self._command_ended(view, pod, state)
            case What.STAGE:
                await db.write(records.ask_to_stop, pod.pk, "the turn has ended: stage its work")
            case What.NOT_STAGED:
                words = "The turn ended and its work was not staged in time."
                await self._end(State.FAILED, work_not_staged(words))
            case What.STUCK:
                connected = pod.pk in connected_pods() if connected_pods() else None
                words = await db.read(watch.what_it_waits_for, view.run, pod, connected=connected)
                await db.write(records.name_stuck, self.run_id, words)

    async def _warm(self, view: View) -> float:
        """An ended run whose pod is kept for a follow-up: until its time is over or one of its containers ends."""
        pod = view.pods[-1]
        if self._site(pod).picture.known:
            state = await self._pod_now(pod)
            if state is None or not (watch.runs(state, SIDECAR) and watch.runs(state, AGENT)):
                await db.write(records.cool, self.run_id)
                return 0
        return _until(view.run.keep_warm_until, view.now)

    # --- what happened ----------------------------------------------------------------------------------------

    async def _pod_now(self, pod: RunPod) -> PodState | None:
        """The pod from the picture; where that shows none, or one that ended, it is asked for itself."""
        site = self._site(pod)
        state = site.picture.get(pod.name)
        if state is not None and watch.runs(state, SIDECAR) and not watch.exited(state, AGENT):
            return state
        return await site.backend.pod(pod.name)

    async def _lost(self, pod: RunPod, state: PodState | None) -> None:
        found = ended_by_backend(state.troubles) if state is not None else None
        if found is not None:
            ended = State.TIMED_OUT if found.code == "timed-out" else State.FAILED
            await self._end(ended, found)
            return
        backend = self._site(pod).backend
        why = await diagnose.why_lost(backend, pod.name, state)
        if state is not None:
            kept = await diagnose.keep(backend, pod, state, lost=pod_lost(why))
            await db.write(records.keep_diagnostics, pod.pk, kept)
        await db.write(records.lose, self.run_id, pod.pk, why)

    async def _agent_ended(self, view: View, state: PodState | None) -> None:
        if state is None or diagnose.exited(state, AGENT) is None:
            return
        seen = await diagnose.with_lines(self._site(view.run).backend, state)
        agent = seen.container(AGENT)
        assert agent is not None
        program = profile_of(view.run).program or view.run.argv[0]
        memory = view.run.project.memory_bytes
        await self._end(State.FAILED, agent_ended(agent, program=program, memory_bytes=memory))

    async def _command_ended(self, view: View, pod: RunPod, state: PodState | None) -> None:
        """Its work is staged: the exit code decides. Its sidecar said the code, or where that was killed too, the backend does."""
        backend = self._site(pod).backend
        seen = await diagnose.with_lines(backend, state) if state else None
        agent = seen.container(AGENT) if seen else None
        code = view.run.exit_code
        if code is None and agent is not None:
            code = agent.exit_code
        if code == 0:
            await db.write(records.end_as, self.run_id, State.SUCCEEDED, COMMAND_SUCCEEDED)
            return
        memory = view.run.project.memory_bytes
        await self._end(State.FAILED, command_ended(code, agent, memory_bytes=memory))

    async def _end(self, state: State, found: Finding) -> None:
        await db.write(
            records.end_as, self.run_id, state, found.message, found.next_step, code=found.code
        )

    async def _show_degraded(self, pod: RunPod, state: PodState | None) -> None:
        """Have the run show in lists what is wrong with it while it goes on; looked at once a beat."""
        if time.monotonic() - self._looked < BEAT_SECONDS:
            return
        self._looked = time.monotonic()
        facts = await db.read(diagnosis.facts_of_pod, pod.pk)
        seen = report(state, backend=pod.backend) if state is not None else None
        no_room = self._site(pod).followers.no_room.get(self.run_id)
        full = [self._full] if self._full is not None else []
        full += [not_kept(no_room)] if no_room else []
        facts = replace(facts, noted=tuple(full))
        await db.write(records.degrade, self.run_id, degraded(seen, facts))

    async def _measure(self, view: View, pod: RunPod, state: PodState | None) -> None:
        """Look how full the workspace is; stop a run that outgrew its bound on a host that cannot hold it."""
        backend = self._site(pod).backend
        if state is None or not backend.counts_volumes:
            return
        if time.monotonic() - self._measured < MEASURE_SECONDS:
            return
        self._measured = time.monotonic()
        project = view.run.project
        name = volume_name(self.shared.installation, self.key, VolumeKind.WORKSPACE)
        used, _ = await backend.volume_usage(name)
        most = project.workspace_bytes
        self._full = workspace_full(used, most) if used >= most * FULL_FRACTION else None
        # `warnings` name what the host can't hold: without any the volumes hold by themselves.
        if not state.warnings:
            return
        found = await overrun(
            backend,
            installation=self.shared.installation,
            run=self.key,
            project=project,
        )
        if found is not None:
            await self._end(State.FAILED, found)

    async def _refresh_review(self, view: View) -> None:
        """Have the review follow what was staged, also when the gateway died between the push and its own look."""
        staged = await db.read(records.last_staged, self.run_id)
        if staged is None or staged == self._refreshed:
            return
        self._refreshed = staged
        try:
            await blocking(refresh, self.key)
        except Exception as error:
            log.exception("review.refresh_failed")
            service.last_error = f"review of run {self.key}: {error}"[:500]
            service.last_error_at = view.now


def _deadline_passed(view: View) -> bool:
    deadline = view.run.deadline_at
    return view.run.state not in ENDED and deadline is not None and deadline <= view.now


def _until(moment: datetime | None, now: datetime) -> float:
    """Seconds to wait for a moment, at most a beat."""
    left = (moment - now).total_seconds() if moment else 0.0
    return max(min(BEAT_SECONDS, left), 0.05)


async def _wait(woken: asyncio.Event, seconds: float) -> None:
    # Not `wait_for`: on Python 3.11 it swallows a cancellation that comes at the same moment as the wake.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await woken.wait()
    woken.clear()
