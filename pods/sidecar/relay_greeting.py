"""How a control plane and the relay recognise each other: both prove that they know the token, and neither sends it.

    control plane   devaipod-relay 1 <its nonce> <its process>
    relay           devaipod-relay 1 <its nonce> <its proof>
    control plane   <its proof>
    relay           welcome

One line each; a proof is HMAC-SHA256 of the token over who proves it, the process and both nonces. Then frames follow (`mux`).
"""

from __future__ import annotations

import asyncio
import hmac
import secrets

from pods.sidecar.mux import Pipe, PipeBroken

NAME = "devaipod-relay"
VERSION = 1
NONCE_BYTES = 32
SECONDS = 10.0
MAX_LINE_BYTES = 256


class GreetingRefused(PipeBroken):
    """The other side does not know the token, or speaks another version: dialling again does not help, making the relay anew does."""


async def greet(pipe: Pipe, token: str, process: str) -> bytes:
    """The control plane's side; returns what came after it. `process` is letters and digits.

    Raises `GreetingRefused`, `PipeBroken`, OSError or TimeoutError.
    """
    async with asyncio.timeout(SECONDS):
        mine = secrets.token_hex(NONCE_BYTES)
        await pipe.write(f"{NAME} {VERSION} {mine} {process}\n".encode())
        line, rest = await _line(pipe, b"")
        words = line.split(" ")
        if words[:1] != [NAME] or len(words) != 4:
            raise GreetingRefused(f"what answers there is no relay: {line[:80]!r}")
        if words[1] != str(VERSION):
            raise GreetingRefused(f"the relay speaks version {words[1][:20]}, and not {VERSION}")
        theirs = words[2]
        said = (process, mine, theirs)
        if not _same(words[3], _proof(token, "relay", said)):
            raise GreetingRefused("the relay has another token")
        await pipe.write((_proof(token, "control", said) + "\n").encode())
        line, rest = await _line(pipe, rest)
        if line != "welcome":
            raise GreetingRefused(f"the relay said {line[:80]!r} instead of welcome")
        return rest


async def admit(pipe: Pipe, token: str) -> tuple[str, bytes]:
    """The relay's side; returns who it is and what came after it. Raises like `greet`."""
    async with asyncio.timeout(SECONDS):
        line, rest = await _line(pipe, b"")
        words = line.split(" ")
        if words[:1] != [NAME] or len(words) != 4 or len(words[2]) != 2 * NONCE_BYTES:
            raise GreetingRefused("what called is no control plane")
        mine, process = secrets.token_hex(NONCE_BYTES), words[3]
        said = (process, words[2], mine)
        await pipe.write(f"{NAME} {VERSION} {mine} {_proof(token, 'relay', said)}\n".encode())
        line, rest = await _line(pipe, rest)
        if not _same(line, _proof(token, "control", said)):
            raise GreetingRefused("the control plane has another token")
        await pipe.write(b"welcome\n")
        return process, rest


def _proof(token: str, who: str, said: tuple[str, str, str]) -> str:
    text = " ".join((NAME, str(VERSION), who, *said))
    return hmac.new(token.encode(), text.encode(), "sha256").hexdigest()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


async def _line(pipe: Pipe, kept: bytes) -> tuple[str, bytes]:
    while b"\n" not in kept:
        if len(kept) > MAX_LINE_BYTES:
            raise GreetingRefused("the other side greets in words without an end")
        data = await pipe.read()
        if not data:
            raise PipeBroken("the other side hung up in the greeting")
        kept += data
    line, _, rest = kept.partition(b"\n")
    return line.decode("ascii", errors="replace"), rest
