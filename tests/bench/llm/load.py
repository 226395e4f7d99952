"""The load: one client for all targets, in turn, so that whatever else the machine does falls on each alike."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

from tests.bench.llm.upstream import CHUNKS

#: A request as an agent's later ones are: a conversation and a tool, some 8 KB.
MESSAGES = [
    {"role": "system", "content": "You are an agent. " * 40},
    *(
        {"role": ("user", "assistant")[number % 2], "content": "What do the tests say? " * 20}
        for number in range(14)
    ),
]
TOOL = {
    "type": "function",
    "function": {"name": "bash", "parameters": {"type": "object", "properties": {}}},
}
CONCURRENT = 20


@dataclass
class Target:
    """Where requests go: an address and the tokens that take turns."""

    name: str
    url: str
    tokens: Sequence[str] = ("sk-none",)
    plain: list[float] = field(default_factory=list)
    streamed: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._turns = itertools.cycle(self.tokens)

    def headers(self) -> dict[str, str]:
        """The next token's header."""
        return {"Authorization": f"Bearer {next(self._turns)}"}

    @property
    def plain_ms(self) -> float:
        """The median of plain requests."""
        return statistics.median(self.plain) * 1000

    @property
    def streamed_ms(self) -> float:
        """The median of streams."""
        return statistics.median(self.streamed) * 1000

    @property
    def rate(self) -> float:
        """The median of streams a second."""
        return statistics.median(self.rates)


async def one(client: aiohttp.ClientSession, target: Target, *, stream: bool) -> float:
    """Seconds of one request from its first byte to its last; raises when the answer is not whole."""
    body = {"model": "gpt-4o", "messages": MESSAGES, "tools": [TOOL], "max_tokens": 1000}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    began = time.perf_counter()
    async with client.post(target.url, json=body, headers=target.headers()) as answer:
        data = await answer.read()
    took = time.perf_counter() - began
    if answer.status != 200:
        raise RuntimeError(f"{target.name} answered {answer.status}: {data[:300]!r}")
    if stream and not (data.count(b"data:") >= CHUNKS and b"[DONE]" in data):
        raise RuntimeError(f"{target.name} lost a part of the stream")
    if not stream and b"Hello there." not in data:
        raise RuntimeError(f"{target.name} lost the answer")
    return took


async def latencies(targets: Sequence[Target], rounds: int) -> None:
    """One request at a time, each target in turn."""
    async with aiohttp.ClientSession() as client:
        for number in range(rounds + 20):
            for target in targets:
                for stream, found in ((False, target.plain), (True, target.streamed)):
                    took = await one(client, target, stream=stream)
                    if number >= 20:
                        found.append(took)


async def throughput(targets: Sequence[Target], rounds: int, streams: dict[str, int]) -> None:
    """`CONCURRENT` streams at once, so many in all a round, each target in turn."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        for number in range(rounds + 1):
            for target in targets:
                left = itertools.count(1)
                wanted = streams.get(target.name, streams[""])

                async def work(target: Target = target, left=left, wanted=wanted) -> None:
                    while next(left) <= wanted:
                        await one(client, target, stream=True)

                began = time.perf_counter()
                await asyncio.gather(*(work() for _ in range(CONCURRENT)))
                if number:
                    target.rates.append(wanted / (time.perf_counter() - began))
