"""The contract of a container backend: pods, their bounds, their volumes, their end."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from pods.errors import ImageMissing, PodRefused, StartFailed
from pods.spec import AGENT, SIDECAR, Phase, VolumeKind
from tests.pods.kit import IDLE, LIMITS, TMP_BYTES, Kit, with_agent

#: Reads what the kernel says of process 1 and its surroundings.
LOOK = r"""
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp|Uid|Gid):' /proc/1/status
echo "interfaces: $(ls /sys/class/net | tr '\n' ' ')"
touch /usr/nothing 2>&1
env
"""


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
        await kit.start(spec)
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
        assert set(rows["interfaces"].split()) <= kit.gives.interfaces
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
        assert {name.partition(":")[0] for name in same} == kit.gives.namespaces
        _, processes = await kit.sh(spec, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "catatonit" not in processes
        await kit.sh(spec, "echo mine > /dev/shm/of-the-sidecar", container=SIDECAR)
        _, shared = await kit.sh(spec, "ls -A /dev/shm")
        assert "of-the-sidecar" not in shared

    async def test_memory_processor_and_processes_are_limited(self, kit: Kit) -> None:
        spec = kit.spec()
        state = await kit.up(spec)
        if not kit.gives.cgroup_limits:
            assert any("memory, CPU or process limit" in text for text in state.warnings)
            return
        if not kit.gives.process_limit:
            assert any("processes is bounded by the node" in text for text in state.warnings)
        _, said = await kit.sh(
            spec,
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null;"
            "cat cpu/cpu.cfs_quota_us cpu.max 2>/dev/null;"
            "cat pids/pids.max pids.max 2>/dev/null",
        )
        memory, cpu, *pids = said.splitlines()
        assert int(memory) == LIMITS.memory_bytes
        assert int(cpu.split()[0]) == 100_000 * LIMITS.cpus
        if kit.gives.process_limit:
            assert [int(number) for number in pids] == [LIMITS.pids]

    async def test_an_agent_that_takes_too_much_memory_is_killed_and_it_says_so(
        self, kit: Kit
    ) -> None:
        if not kit.gives.cgroup_limits:
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
        if not kit.gives.bounded_tmp:
            # What outgrows it ends the pod; that takes the kubelet its time, and is tried beside this suite.
            assert not kit.backend.counts_volumes
            return
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
        _, said = await kit.sh(again, "exec 2>/dev/null; cat closed/file; stat -c %a closed .")
        kept = VolumeKind.WORKSPACE in kit.gives.kept
        assert said.split() == (["work", "700", "555"] if kept else ["2755"])
        await kit.backend.destroy(again.name)

    async def test_a_workspace_is_full_at_its_bytes_and_at_its_files(self, kit: Kit) -> None:
        spec = kit.spec()
        state = await kit.up(spec)
        workspace = spec.volumes[0]
        if not kit.backend.counts_volumes:
            assert await kit.backend.volume_usage(workspace.name) == (0, 0)
            return
        if not kit.gives.bounded_volumes:
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
        for user, numbers in kit.gives.users.items():
            spec = kit.spec(user=user)
            await kit.up(spec)
            for container in (AGENT, SIDECAR):
                _, said = await kit.sh(spec, "id -u; id -g", container=container)
                assert tuple(said.split()) == numbers, (user, container)

    async def test_a_user_that_the_image_does_not_have_is_refused_by_name(self, kit: Kit) -> None:
        spec = kit.spec(user="nobody-here")
        if not kit.gives.knows_users:
            # Where nobody can look into an image, every name is the one user that all pods have.
            await kit.up(spec)
            assert (await kit.sh(spec, "id -u; id -g"))[1].split() == ["1000", "1000"]
            return
        with pytest.raises(PodRefused, match="no user 'nobody-here'"):
            await kit.backend.create_pod(spec)
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
            await kit.start(spec)

    async def test_an_exit_code_is_told_with_its_times(self, kit: Kit) -> None:
        before = datetime.now(UTC) - kit.gives.clock
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
        assert set(mine) == kit.listed(one)
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
        assert agent.finished_at < sidecar.finished_at + kit.gives.clock
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
        kept = {volume.name for volume in spec.volumes if volume.kind in kit.gives.kept}
        assert set(await kit.backend.volumes(kit.labels())) == kept
        for name in kept:
            await kit.backend.remove_volume(name)
            await kit.backend.remove_volume(name)
        assert await kit.backend.volumes(kit.labels()) == []
