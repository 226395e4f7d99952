"""The sentences of `pods.backend.ContainerBackend`, tried on a real backend. Subclassed once a backend, with a `kit` fixture."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pods.errors import ImageMissing, PodNotFound, PodRefused, PullRefused, StartFailed
from pods.spec import AGENT, SIDECAR, LogLine, Phase, VolumeKind
from pods.terminal import open_terminal
from tests.pods.kit import IDLE, LIMITS, MIB, TMP_BYTES, Kit, with_agent

#: Reads what the kernel says of process 1 and its surroundings.
LOOK = r"""
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Uid|Gid):' /proc/1/status
echo "interfaces: $(ls /sys/class/net | tr '\n' ' ')"
touch /usr/nothing 2>&1
env
"""


def whole(lines: list[LogLine]) -> list[bytes]:
    """The lines as the program wrote them, their parts put together."""
    said, begun = [], b""
    for line in lines:
        begun += line.text
        if not line.partial:
            said.append(begun)
            begun = b""
    return said


class PodTests:
    """What a pod is and how it is made, started, ended and removed."""

    async def test_a_new_pod_runs_its_sidecar_alone(self, kit: Kit) -> None:
        spec = kit.spec()
        state = await kit.backend.create_pod(spec)
        assert set(state.containers) == {AGENT, SIDECAR}
        assert state.containers[SIDECAR].phase is Phase.RUNNING
        assert state.containers[AGENT].phase is Phase.CREATED
        assert state.containers[AGENT].started_at is None
        assert state.labels == spec.labels

    async def test_a_started_agent_runs_and_starting_it_again_succeeds(self, kit: Kit) -> None:
        spec = kit.spec()
        first = await kit.up(spec)
        await kit.backend.start(spec.name, AGENT)
        again = await kit.backend.pod(spec.name)
        assert again is not None
        assert again.containers[AGENT].phase is Phase.RUNNING
        assert again.containers[AGENT].started_at == first.containers[AGENT].started_at

    async def test_creating_what_is_there_changes_nothing(self, kit: Kit) -> None:
        spec = kit.spec()
        first = await kit.up(spec)
        second = await kit.backend.create_pod(spec)
        assert second.id == first.id
        assert {c.id for c in second.containers.values()} == {
            c.id for c in first.containers.values()
        }

    async def test_nothing_of_the_kernels_rights_is_left_to_an_agent(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.up(spec)
        _, said = await kit.sh(spec, LOOK)
        rows = dict(line.split(":", 1) for line in said.splitlines() if ":" in line)
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(rows[name], 16) == 0, name
        assert rows["NoNewPrivs"].strip() == "1"
        assert rows["Seccomp"].strip() == "2"
        assert rows["Uid"].split() == ["1000"] * 4
        assert rows["Gid"].split() == ["1000"] * 4
        assert rows["interfaces"].split() == ["lo"]
        assert "Read-only file system" in said
        assert "GREETING=hello" in said
        assert "secret-of-the-host" not in said

    async def test_the_sidecar_has_no_more_rights_than_the_agent(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.up(spec)
        _, said = await kit.sh(spec, LOOK, container=SIDECAR)
        assert "CapBnd:\t0000000000000000" in said
        assert "NoNewPrivs:\t1" in said
        assert "Uid:\t1000\t1000\t1000\t1000" in said

    async def test_the_two_containers_share_the_network_and_nothing_else(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.up(spec)
        ask = "for n in net pid ipc mnt uts; do readlink /proc/self/ns/$n; done"
        _, agent = await kit.sh(spec, ask)
        _, sidecar = await kit.sh(spec, ask, container=SIDECAR)
        same = set(agent.split()) & set(sidecar.split())
        assert [name.partition(":")[0] for name in same] == ["net"]
        _, processes = await kit.sh(spec, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "catatonit" not in processes

    async def test_memory_processor_and_processes_are_limited(self, kit: Kit) -> None:
        spec = kit.spec()
        state = await kit.up(spec)
        if not kit.cgroup_limits:
            assert any("memory, CPU or process limit" in text for text in state.warnings)
            return
        _, said = await kit.sh(
            spec,
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null;"
            "cat pids/pids.max pids.max 2>/dev/null;"
            "cat cpu/cpu.cfs_quota_us cpu.max 2>/dev/null",
        )
        memory, pids, cpu = said.splitlines()
        assert int(memory) == LIMITS.memory_bytes
        assert int(pids) == LIMITS.pids
        assert int(cpu.split()[0]) == 100_000 * LIMITS.cpus

    async def test_an_agent_that_takes_too_much_memory_is_killed_and_it_says_so(
        self, kit: Kit
    ) -> None:
        if not kit.cgroup_limits:
            state = await kit.backend.create_pod(kit.spec())
            assert state.warnings
            return
        spec = kit.spec("exec python3 -c 'x = bytearray(400 * 1024 ** 2)'")
        await kit.up(spec)
        state = await kit.until_exited(spec)
        assert state.containers[AGENT].exit_code == 137
        assert state.containers[AGENT].oom_killed

    async def test_the_temporary_folder_holds_what_was_asked_for_and_no_more(
        self, kit: Kit
    ) -> None:
        spec = kit.spec()
        await kit.up(spec)
        code, said = await kit.sh(
            spec, f"head -c {TMP_BYTES * 2} /dev/zero > /tmp/x; wc -c < /tmp/x"
        )
        assert "No space left" in said
        assert int(said.split()[-1]) <= TMP_BYTES

    async def test_no_secret_is_in_what_the_backend_tells_of_the_pod(self, kit: Kit) -> None:
        spec = kit.spec()
        state = await kit.up(spec)
        _, token = await kit.sh(spec, "cat /run/devaipod-token/control", container=SIDECAR)
        assert token.startswith("token-of-")
        _, tried = await kit.sh(spec, "cat /run/devaipod-token/control; mount; env")
        assert token not in tried
        assert "devaipod-token" not in tried.replace("cat: /run/devaipod-token", "")
        assert token not in repr(state)

    async def test_volumes_belong_to_the_agents_user_from_the_first_moment(self, kit: Kit) -> None:
        first = "stat -c '%u:%g %a %n' /var/lib/devaipod /run/devaipod-stdio /workspaces/shop; "
        second = "stat -c '%u:%g %a %n' /home/agent /workspaces/shop; ls -A /workspaces/shop; "
        spec = kit.spec(second + IDLE, first + IDLE)
        await kit.up(spec)
        for container, rows in ((SIDECAR, 3), (AGENT, 2)):
            said = await kit.first(spec, rows, container)
            assert len(said) == rows, said
            assert all(line.startswith(b"1000:1000 ") for line in said), said

    async def test_fifos_carry_between_the_two_and_the_agent_cannot_replace_them(
        self, kit: Kit
    ) -> None:
        spec = kit.spec(
            sidecar="mkfifo -m 660 /run/devaipod-stdio/in; echo question > /run/devaipod-stdio/in; "
            + IDLE,
        )
        await kit.up(spec)
        _, said = await kit.sh(spec, "head -n 1 < /run/devaipod-stdio/in")
        assert said == "question\n"
        code, said = await kit.sh(spec, "rm -f /run/devaipod-stdio/in")
        assert code != 0
        assert "Read-only file system" in said

    async def test_a_workspace_keeps_its_files_and_owners_over_pods(self, kit: Kit) -> None:
        spec = kit.spec(run="kept")
        await kit.up(spec)
        await kit.sh(spec, "mkdir -m 700 closed; echo work > closed/file; chmod 555 .")
        await kit.backend.destroy(spec.name)
        again = kit.spec(run="kept", attempt=2)
        await kit.up(again)
        _, said = await kit.sh(again, "cat closed/file; stat -c %a closed .")
        assert said.split() == ["work", "700", "555"]
        await kit.backend.destroy(again.name)

    async def test_a_workspace_is_full_at_its_bytes_and_at_its_files(self, kit: Kit) -> None:
        spec = kit.spec()
        state = await kit.up(spec)
        workspace = spec.volumes[0]
        if not kit.bounded_volumes:
            assert any("cannot bound the disk use" in text for text in state.warnings)
            await kit.sh(spec, "mkdir -m 700 x; cd x; head -c 3000000 /dev/zero > y")
            await kit.sh(spec, "cd x; for n in $(seq 300); do : > $n; done; cd ..; chmod 0 x")
            used, inodes = await kit.backend.volume_usage(workspace.name)
            assert 3_000_000 <= used < 4_000_000
            assert 302 <= inodes <= 304
            return
        _, said = await kit.sh(spec, f"head -c {2 * workspace.size_bytes} /dev/zero > big")
        assert "No space left" in said
        used, _ = await kit.backend.volume_usage(workspace.name)
        assert 0.8 * workspace.size_bytes < used <= workspace.size_bytes
        code, said = await kit.run(
            spec,
            [
                "python3",
                "-c",
                "import os\nos.unlink('big')\nn = 0\ntry:\n    while True:\n        open(f'f{n}', 'x').close(); n += 1\n"
                "except OSError as e:\n    print(n, e.strerror)",
            ],
        )
        assert "No space left" in said
        assert 0.8 * workspace.inodes < int(said.split()[0]) <= workspace.inodes * 1.1
        _, inodes = await kit.backend.volume_usage(workspace.name)
        assert inodes >= workspace.inodes * 0.8

    async def test_the_users_name_is_looked_up_in_the_agents_image(self, kit: Kit) -> None:
        for user, numbers in (("agent", ["1000", "1000"]), ("1234", ["1234", "0"])):
            spec = kit.spec(user=user)
            await kit.up(spec)
            for container in (AGENT, SIDECAR):
                _, said = await kit.sh(spec, "id -u; id -g", container=container)
                assert said.split() == numbers, (user, container)

    async def test_a_user_that_the_image_does_not_have_is_refused_by_name(self, kit: Kit) -> None:
        with pytest.raises(PodRefused, match="no user 'nobody-here'"):
            await kit.backend.create_pod(kit.spec(user="nobody-here"))
        assert await kit.backend.pods(kit.labels()) == []

    async def test_an_image_that_is_not_there_is_named_and_nothing_is_left(self, kit: Kit) -> None:
        spec = with_agent(kit.spec(), image="localhost/not-here:1")
        with pytest.raises(ImageMissing, match="localhost/not-here:1") as error:
            await kit.backend.create_pod(spec)
        assert error.value.next_step
        assert await kit.backend.pod(spec.name) is None
        assert await kit.backend.volumes(kit.labels()) == []

    async def test_a_program_that_is_not_in_the_image_is_a_failed_start(self, kit: Kit) -> None:
        spec = with_agent(kit.spec(), argv=("/no/such/program",))
        await kit.backend.create_pod(spec)
        with pytest.raises(StartFailed, match="/no/such/program"):
            await kit.backend.start(spec.name, AGENT)

    async def test_an_exit_code_is_told_with_its_times(self, kit: Kit) -> None:
        before = datetime.now(UTC)
        spec = kit.spec("echo ready; exit 42")
        await kit.up(spec)
        agent = (await kit.until_exited(spec)).containers[AGENT]
        assert agent.exit_code == 42
        assert not agent.oom_killed
        assert agent.started_at is not None
        assert agent.finished_at is not None
        assert before <= agent.started_at <= agent.finished_at

    async def test_volumes_are_found_only_when_every_label_is_theirs(self, kit: Kit) -> None:
        one, other = kit.spec(), kit.spec()
        await kit.backend.create_pod(one)
        await kit.backend.create_pod(other)
        mine = await kit.backend.volumes(kit.labels(one.labels["io.devaipod.run"]))
        assert set(mine) == {volume.name for volume in one.volumes}
        assert await kit.backend.volumes({**kit.labels(), "io.devaipod.run": "none"}) == []

    async def test_pods_are_found_by_their_labels_alone(self, kit: Kit) -> None:
        one, other = kit.spec(), kit.spec()
        await kit.backend.create_pod(one)
        await kit.backend.create_pod(other)
        both = await kit.backend.pods(kit.labels())
        assert {pod.name for pod in both} == {one.name, other.name}
        mine = await kit.backend.pods(
            {**kit.labels(), "io.devaipod.run": one.labels["io.devaipod.run"]}
        )
        assert [pod.name for pod in mine] == [one.name]
        assert await kit.backend.pods({"io.devaipod.installation": "another"}) == []

    async def test_stop_asks_first_and_is_quick_with_those_who_listen(self, kit: Kit) -> None:
        script = "trap 'echo goodbye; exit 7' TERM; echo hello; sleep 1000 & wait"
        spec = kit.spec(script, script)
        await kit.up(spec)
        await kit.first(spec, 1)
        began = time.monotonic()
        await kit.backend.stop(spec.name, grace_seconds=10)
        assert time.monotonic() - began < 8
        state = await kit.backend.pod(spec.name)
        assert state is not None
        assert not state.running
        agent, sidecar = state.containers[AGENT], state.containers[SIDECAR]
        assert agent.exit_code == sidecar.exit_code == 7
        assert agent.finished_at is not None
        assert sidecar.finished_at is not None
        assert agent.finished_at < sidecar.finished_at
        assert [line.text for line in await kit.said(spec)] == [b"hello", b"goodbye"]

    async def test_stop_kills_what_does_not_listen_after_the_grace(self, kit: Kit) -> None:
        spec = kit.spec("trap '' TERM; echo deaf; sleep 1000 & wait")
        await kit.up(spec)
        await kit.first(spec, 1)
        await kit.backend.stop(spec.name, grace_seconds=1)
        state = await kit.backend.pod(spec.name)
        assert state is not None
        assert state.containers[AGENT].exit_code == 137

    async def test_stopping_and_destroying_what_is_gone_succeeds(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.up(spec)
        for _ in range(2):
            await kit.backend.stop(spec.name, grace_seconds=1)
        for _ in range(2):
            await kit.backend.destroy(spec.name)
        await kit.backend.stop(spec.name)
        assert await kit.backend.pod(spec.name) is None

    async def test_destroy_takes_the_fifos_and_leaves_the_runs_volumes(self, kit: Kit) -> None:
        spec = kit.spec("trap '' TERM; sleep 1000 & wait")
        await kit.up(spec)
        began = time.monotonic()
        await kit.backend.destroy(spec.name)
        assert time.monotonic() - began < 8, "it waited for a grace"
        kept = {volume.name for volume in spec.volumes if volume.kind is not VolumeKind.STDIO}
        assert set(await kit.backend.volumes(kit.labels())) == kept
        for name in kept:
            await kit.backend.remove_volume(name)
            await kit.backend.remove_volume(name)
        assert await kit.backend.volumes(kit.labels()) == []


class StreamTests:
    """Logs, events and processes in a container."""

    async def test_a_log_has_both_streams_with_their_times(self, kit: Kit) -> None:
        before = datetime.now(UTC)
        spec = kit.spec("echo out; echo err >&2; printf 'no newline'")
        await kit.up(spec)
        await kit.until_exited(spec)
        lines = await kit.said(spec)
        said = {(line.stream, line.text) for line in lines if not line.partial}
        assert {("stdout", b"out"), ("stderr", b"err")} <= said
        assert b"no newline" in {line.text for line in lines}
        assert all(before <= line.at <= datetime.now(UTC) for line in lines)
        assert not any(line.gap for line in lines)

    async def test_a_long_line_comes_in_parts_that_make_it_whole(self, kit: Kit) -> None:
        spec = kit.spec("python3 -c \"print('x' * 100_000)\"; echo after")
        await kit.up(spec)
        await kit.until_exited(spec)
        lines = await kit.said(spec)
        *parts, last = lines
        assert last.text == b"after"
        assert b"".join(line.text for line in parts) == b"x" * 100_000
        assert all(line.partial for line in parts[:-1])

    async def test_the_tail_is_the_last_lines(self, kit: Kit) -> None:
        spec = kit.spec("seq 1 100")
        await kit.up(spec)
        await kit.until_exited(spec)
        assert [line.text for line in await kit.said(spec, tail=3)] == [b"98", b"99", b"100"]
        assert len(await kit.said(spec, tail=1000)) == 100

    async def test_a_cursor_resumes_just_after_its_line_without_a_gap_or_a_double(
        self, kit: Kit
    ) -> None:
        spec = kit.spec("seq 1 2000")
        await kit.up(spec)
        await kit.until_exited(spec)
        everything = await kit.said(spec)
        assert whole(everything) == [b"%d" % n for n in range(1, 2001)]
        for place in (0, 777, 1999):
            rest = await kit.said(spec, since=everything[place].cursor)
            assert rest == everything[place + 1 :]

    async def test_following_brings_each_line_soon_and_ends_with_the_container(
        self, kit: Kit
    ) -> None:
        spec = kit.spec(
            'python3 -uc "import time\nfor n in range(40): print(time.time()); time.sleep(0.05)"'
        )
        await kit.up(spec)
        late = []
        async with (
            asyncio.timeout(20),
            aclosing(
                kit.backend.logs(spec.name, AGENT, follow=True)  # type: ignore[type-var]
            ) as lines,
        ):
            async for line in lines:
                if line.text:  # an unbuffered print writes the newline by itself
                    late.append(time.time() - float(line.text))
        assert len(late) == 40
        assert sorted(late[5:])[len(late[5:]) // 2] < 0.05

    async def test_following_starts_before_the_container_does(self, kit: Kit) -> None:
        spec = kit.spec("echo first; exit 0")
        await kit.backend.create_pod(spec)
        reading = asyncio.create_task(kit.said(spec, follow=True))
        await asyncio.sleep(0.3)
        await kit.backend.start(spec.name, AGENT)
        assert [line.text for line in await asyncio.wait_for(reading, 15)] == [b"first"]

    async def test_a_log_beyond_its_limit_is_followed_whole_or_says_where_it_is_not(
        self, kit: Kit
    ) -> None:
        spec = kit.spec(
            "sleep 0.3; exec python3 -c \"for n in range(60_000): print(n, 'x' * 40)\"",
            limits=replace(LIMITS, log_bytes=1 * MIB, cpus=2),
        )
        await kit.up(spec)
        lines = await asyncio.wait_for(kit.said(spec, follow=True), 40)
        if not any(line.gap for line in lines):
            assert [int(text.split()[0]) for text in whole(lines)] == list(range(60_000))
        assert whole(lines)[-1].startswith(b"59999 ")
        late = await kit.said(spec, since=lines[0].cursor)
        assert late[0].gap
        assert whole(late)[-1].startswith(b"59999 ")

    async def test_the_log_of_no_container_is_not_found(self, kit: Kit) -> None:
        with pytest.raises(PodNotFound):
            await kit.said(kit.spec())

    async def test_watching_tells_of_starts_and_ends(self, kit: Kit) -> None:
        spec = kit.spec("exit 3")
        seen: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

        async def watch() -> None:
            async for event in kit.backend.watch(kit.labels()):
                seen.put_nowait((event.pod, event.container))

        watching = asyncio.create_task(watch())
        try:
            await asyncio.sleep(0.5)
            await kit.up(spec)
            found: set[tuple[str, str]] = set()
            async with asyncio.timeout(10):
                while (spec.name, AGENT) not in found or (spec.name, SIDECAR) not in found:
                    found.add(await seen.get())
            assert {pod for pod, _ in found} == {spec.name}
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def test_a_program_runs_in_the_container_as_its_user_with_its_exit_code(
        self, kit: Kit
    ) -> None:
        spec = kit.spec()
        await kit.up(spec)
        code, said = await kit.sh(spec, "id -u; echo wrong >&2; exit 9")
        assert code == 9
        assert said.split() == ["1000", "wrong"]

    async def test_a_terminal_takes_input_and_knows_its_size(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.up(spec)
        session = await kit.backend.exec(
            spec.name, AGENT, ["sh"], tty=True, env={"TERM": "xterm", "PS1": "> "}
        )
        try:
            await session.resize(33, 101)
            await session.write(b"stty size; echo $((6 * 7)); exit 5\n")
            said = b""
            async with asyncio.timeout(15):
                while data := await session.read():
                    said += data
            assert b"33 101\r\n42\r\n" in said
            assert await session.wait() == 5
        finally:
            await session.close()
            await session.close()

    async def test_without_a_terminal_the_end_of_the_input_is_passed_on(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.up(spec)
        session = await kit.backend.exec(spec.name, AGENT, ["sh", "-c", "cat; exit 6"])
        try:
            data = bytes(range(256)) * 64
            await session.write(data)
            await session.end_input()
            said = b""
            async with asyncio.timeout(15):
                while piece := await session.read():
                    said += piece
                assert said == data
                assert await session.wait() == 6
        finally:
            await session.close()

    @pytest.mark.parametrize("tty", [True, False])
    async def test_a_program_that_a_person_leaves_is_ended_whatever_it_does(
        self, kit: Kit, tty: bool
    ) -> None:
        spec = kit.spec()
        await kit.up(spec)
        deaf = ["sh", "-c", "trap '' HUP INT TERM; while :; do sleep 1; done; echo leaver"]
        left = await open_terminal(kit.backend, spec.name, AGENT, deaf, tty=tty)
        # More input than it will ever take: conmon must not wait for room when the program is gone.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    await left.write(b"x" * 999 + b"\n")
        async with asyncio.timeout(15):
            await left.close()
            await left.close()
            seen = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
            while "leaver" in (await kit.sh(spec, seen))[1].replace(seen, ""):
                await asyncio.sleep(0.2)
            # And podman is not held up by it.
            await kit.backend.stop(spec.name, grace_seconds=1)
            await kit.backend.destroy(spec.name)
        assert await kit.backend.pod(spec.name) is None

    async def test_a_program_that_can_not_be_started_says_so(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.up(spec)
        missing = await open_terminal(kit.backend, spec.name, AGENT, ["no-such-program"])
        async with asyncio.timeout(15):
            said = b""
            while piece := await missing.read():
                said += piece
            assert b"not found" in said
            assert await missing.wait() == 127
            await missing.close()

    async def test_no_program_runs_in_what_does_not_run(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.backend.create_pod(spec)
        with pytest.raises(StartFailed):
            await kit.sh(spec, "true")
        with pytest.raises(PodNotFound):
            await kit.sh(kit.spec(), "true")


class LookTests:
    """A pod and its containers' last lines at once, and health checks."""

    async def test_a_look_shows_the_pod_and_the_last_lines_of_each_container(
        self, kit: Kit
    ) -> None:
        spec = kit.spec("for n in 1 2 3 4; do echo line $n; done; exit 7", "echo up; " + IDLE)
        await kit.up(spec)
        await kit.until_exited(spec)
        for _ in range(2):  # the second time less is asked, and the answer is the same
            found = await kit.backend.look(spec.name, tail=3)
            assert found is not None
            state, lines = found
            assert state == await kit.backend.pod(spec.name)
            assert state.containers[AGENT].exit_code == 7
            assert [line.text for line in lines[AGENT]] == [b"line 2", b"line 3", b"line 4"]
            assert [line.text for line in lines[SIDECAR]] == [b"up"]

    async def test_a_look_at_what_is_not_there_is_none_also_when_it_was_there(
        self, kit: Kit
    ) -> None:
        spec = kit.spec()
        assert await kit.backend.look(spec.name, tail=3) is None
        await kit.up(spec)
        first = await kit.backend.look(spec.name, tail=3)
        assert first is not None
        await kit.backend.destroy(spec.name)
        assert await kit.backend.look(spec.name, tail=3) is None
        again = await kit.backend.create_pod(spec)
        second = await kit.backend.look(spec.name, tail=3)
        assert second is not None
        assert second[0].id == again.id != first[0].id

    async def test_a_check_that_fails_three_times_makes_a_container_unhealthy(
        self, kit: Kit
    ) -> None:
        healthy = ("sh", "-c", "test ! -e /tmp/sick || { echo it is sick; exit 1; }")
        spec = with_agent(kit.spec(), health_argv=healthy)
        await kit.up(spec)

        async def health(want: str) -> str:
            async with asyncio.timeout(60):
                while True:
                    assert await kit.backend.check_health(spec.name, AGENT)
                    state = await kit.backend.pod(spec.name)
                    assert state is not None
                    agent = state.containers[AGENT]
                    if agent.health == want:
                        return agent.health_said.strip()
                    await asyncio.sleep(0.2)

        assert await health("healthy") == ""
        await kit.sh(spec, "touch /tmp/sick")
        assert await health("unhealthy") == "it is sick"
        await kit.sh(spec, "rm /tmp/sick")
        assert await health("healthy") == ""

    async def test_checking_what_has_no_check_or_is_gone_does_nothing(self, kit: Kit) -> None:
        spec = kit.spec()
        assert await kit.backend.check_health(spec.name, AGENT)
        state = await kit.up(spec)
        assert state.containers[SIDECAR].health == ""
        assert await kit.backend.check_health(spec.name, SIDECAR)
        assert (await kit.backend.pod(spec.name)) is not None

    async def test_a_check_that_does_not_end_is_given_up(self, kit: Kit) -> None:
        spec = with_agent(kit.spec(), health_argv=("sleep", "60"))
        await kit.up(spec)
        began = time.monotonic()
        assert not await kit.backend.check_health(spec.name, AGENT)
        assert time.monotonic() - began < 20


class ImageTests:
    """Images of the local store and of registries."""

    async def test_an_image_is_described_with_its_user_and_home(self, kit: Kit) -> None:
        spec = kit.spec()
        found = await kit.backend.image(spec.agent.image)
        assert found is not None
        assert (found.user, found.home) == ("1000:1000", "/home/agent")
        assert found.env["HOME"] == "/home/agent"
        assert found.size_bytes > 100 * MIB

    async def test_an_image_that_is_there_is_not_pulled(self, kit: Kit) -> None:
        spec = kit.spec()
        assert await kit.backend.pull(spec.agent.image) == await kit.backend.image(spec.agent.image)

    async def test_a_registry_that_cannot_be_reached_is_told_within_seconds(self, kit: Kit) -> None:
        assert await kit.backend.image("registry.invalid/acme/tool:1") is None
        began = time.monotonic()
        with pytest.raises(ImageMissing, match=r"registry\.invalid/acme/tool:1") as error:
            await kit.backend.pull("registry.invalid/acme/tool:1", print)
        assert time.monotonic() - began < 15
        assert "registry" in error.value.next_step

    @pytest.mark.parametrize(
        "reference",
        [
            "docker-archive:/etc/passwd",
            "oci:/tmp/image",
            "dir:/etc",
            "containers-storage:x",
            "../../v4.0.0/libpod/info",
            "UPPER/case",
            "a b",
            "",
        ],
    )
    async def test_only_a_plain_reference_is_pulled(self, kit: Kit, reference: str) -> None:
        with pytest.raises(PullRefused):
            await kit.backend.pull(reference)


class Conformance(PodTests, StreamTests, LookTests, ImageTests):
    """Everything that a backend must keep."""
