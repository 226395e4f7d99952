"""The contract of a container backend: logs, changes, and programs in a container."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pods.errors import PodNotFound, StartFailed
from pods.spec import AGENT, SIDECAR, LogLine
from pods.terminal import open_terminal
from tests.pods.kit import LIMITS, MIB, Kit


def whole(lines: list[LogLine]) -> list[bytes]:
    """The lines as the program wrote them, their parts put together."""
    said, begun = [], b""
    for line in lines:
        begun += line.text
        if not line.partial:
            said.append(begun)
            begun = b""
    return said


class StreamTests:
    """Logs, events and processes in a container."""

    async def test_a_log_has_both_streams_with_their_times(self, kit: Kit) -> None:
        before = datetime.now(UTC)
        spec = kit.spec("echo out; echo err >&2; printf 'no newline'")
        await kit.up(spec)
        await kit.until_exited(spec)
        lines = await kit.said(spec)
        said = {(line.stream, line.text) for line in lines if not line.partial}
        errors = "stderr" if kit.gives.tells_streams else "stdout"
        assert {("stdout", b"out"), (errors, b"err")} <= said
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
        assert sorted(late[5:])[len(late[5:]) // 2] < kit.gives.follow_seconds

    async def test_following_starts_before_the_container_does(self, kit: Kit) -> None:
        spec = kit.spec("echo first; exit 0")
        await kit.backend.create_pod(spec)
        reading = asyncio.create_task(kit.said(spec, follow=True))
        await asyncio.sleep(0.3)
        await kit.start(spec)
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
        if not kit.gives.log_limit:
            return
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
        assert sorted(said.split()) == [
            "1000",
            "wrong",
        ]  # each stream keeps its order, not both together

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

    async def test_a_terminal_has_its_size_from_the_first_moment_on(self, kit: Kit) -> None:
        spec = kit.spec()
        await kit.up(spec)
        session = await kit.backend.exec(
            spec.name, AGENT, ["stty", "size"], tty=True, size=(31, 97)
        )
        try:
            said = b""
            async with asyncio.timeout(15):
                while data := await session.read():
                    said += data
            assert said == b"31 97\r\n"
        finally:
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
