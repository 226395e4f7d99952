"""A person's program in a running container, on any backend's `exec`: it tells its process id first, so that it can be ended.

Neither podman nor Kubernetes ends a program whose connection is dropped, and podman 4.3 has no call for it. So a program is started by
`sh` (which every agent's image has), which says its own process id and becomes the program; the end is a second exec that hangs it
up and, when it stays, kills it. Both run as the container's own user: a lying image can only harm itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Sequence

from pods.backend import ContainerBackend, ExecSession
from pods.errors import BackendError, StartFailed

START_SECONDS = 20
END_SECONDS = 10
#: The first of these that the image has.
SHELL = ("sh", "-c", "command -v bash >/dev/null 2>&1 && exec bash; exec sh")
DEFAULT_TERM = "xterm-256color"
_START = 'echo "devaipod-pid:$$"; exec "$@"'
#: Reads away what the program would not: conmon writes to a terminal without looking whether there is room, and one that waits for
#: room when the program dies waits for ever, and podman for it (seen with podman 4.3, conmon 2.1, Linux 6.1).
_DRAIN = 't=$(readlink "/proc/$1/fd/0"); [ -c "$t" ] && (while IFS= read -r _; do :; done) <"$t" & '
_PID = re.compile(rb"devaipod-pid:([0-9]{1,10})\r?\n")
_MAX_HEAD_BYTES = 4096
#: Hang-up reaches a shell's jobs too; what ignores it is killed after a second. Without a `sleep` in the image, at once.
_END = (
    _DRAIN
    + 'kill -HUP "$1" || exit 0; n=0; while [ $n -lt 10 ] && kill -0 "$1"; do n=$((n+1)); sleep 0.1 || n=10; done; kill -KILL "$1"; kill %1'
)


class Terminal:
    """A program that `open_terminal` started. `read` to its end, then `wait`; always `close`."""

    def __init__(
        self, backend: ContainerBackend, place: tuple[str, str], session: ExecSession
    ) -> None:
        self._backend, (self._pod, self._container) = backend, place
        self._session = session
        self._head = b""
        self._pid = 0
        self._is_over = False

    async def read(self) -> bytes:
        """The next output; empty at the end."""
        if self._head:
            data, self._head = self._head, b""
            return data
        data = await self._session.read()
        self._is_over = not data
        return data

    async def write(self, data: bytes) -> None:
        """Send input; waits while the program takes none."""
        await self._session.write(data)

    async def end_input(self) -> None:
        """Say that no more input comes; without a terminal the program reads its end of file."""
        await self._session.end_input()

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the terminal's size, in characters."""
        await self._session.resize(rows, columns)

    async def wait(self) -> int | None:
        """The exit code; None when the container went away before it was known."""
        try:
            return await self._session.wait()
        except BackendError:
            return None

    async def close(self) -> None:
        """Drop the connection and end the program if it still runs."""
        await self._session.close()
        if self._is_over or not self._pid:
            return
        self._is_over = True
        # The container may be gone, and then the program is too.
        with contextlib.suppress(BackendError, OSError, TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                argv = ["sh", "-c", f"{{ {_END}; }} 2>/dev/null", "sh", str(self._pid)]
                killer = await self._backend.exec(self._pod, self._container, argv)
                while await killer.read():
                    pass
                await killer.close()

    async def begin(self) -> None:
        """Wait for the process id. Raises StartFailed with the runtime's own words when none comes."""
        head = data = await self._session.read()
        while not (found := _PID.search(head)):
            data = await self._session.read() if len(head) < _MAX_HEAD_BYTES else b""
            head += data
            if not data:
                said = head[:300].decode("utf-8", "replace").strip()
                raise StartFailed(
                    f"The container could not start a shell: {said or 'it said nothing'}",
                    next_step="The image needs `sh`; the diagnostics say whether the container still runs.",
                )
        self._pid = int(found[1])
        # Without a terminal the two outputs may overtake each other: an error can come before the process id.
        self._head = head[: found.start()] + head[found.end() :]


async def open_terminal(
    backend: ContainerBackend,
    pod: str,
    container: str,
    argv: Sequence[str] = (),
    *,
    tty: bool = True,
    term: str = DEFAULT_TERM,
    size: tuple[int, int] | None = None,
) -> Terminal:
    """Start `argv`, or without one a shell, in a container as its own user and in its own folder.

    `size` is the terminal's at the start, in rows and columns of characters; `resize` tells later ones.
    Nothing is added to the container's environment but TERM. Raises PodNotFound, StartFailed, BackendUnavailable.
    """
    words = ["sh", "-c", _START, "sh", *(argv or SHELL)]
    env = {"TERM": term} if tty else {}
    session = await backend.exec(pod, container, words, tty=tty, size=size, env=env)
    terminal = Terminal(backend, (pod, container), session)
    try:
        async with asyncio.timeout(START_SECONDS):
            await terminal.begin()
    except TimeoutError:
        await terminal.close()
        raise StartFailed(f"The container started no shell within {START_SECONDS} s.") from None
    except BaseException:
        await terminal.close()
        raise
    return terminal
