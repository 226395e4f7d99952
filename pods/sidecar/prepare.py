"""`python3 -m pods.sidecar.prepare`: the sidecar's beginning where all containers of a pod start together.

It dials the gateway with the run's control token, makes the workspace, and ends when that is known over there. Exit code 0 lets the
agent start; 3, 4 as the sidecar's own; 6 when it was told to end. Commands are left alone: the gateway sends them again to the sidecar.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from pods.sidecar import leftovers, making
from pods.sidecar.link import Refused
from pods.sidecar.main import (
    ACKNOWLEDGE_SECONDS,
    EXIT_NO_WORKSPACE,
    EXIT_REFUSED,
    Sidecar,
    begin,
)
from pods.sidecar.proxy import Proxy
from pods.spec import PROXY_PORT

EXIT_ENDED = 6


class Preparation(Sidecar):
    """The first part of an attempt, on the same state and the same outbox as the second."""

    async def take(self, command: dict[str, Any]) -> None:
        """Leave a command for the sidecar."""

    async def run(self) -> int:
        """Dial, make the workspace, wait until that is acknowledged; returns the exit code."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stopping.set)
        port = int(os.environ.get("DEVAIPOD_PROXY_PORT", PROXY_PORT))
        self.proxy = Proxy(self.data_token, port=port)
        await self.proxy.start()
        link = asyncio.create_task(self.link.run(), name="link")
        sync = asyncio.create_task(self.outbox.keep_synced(), name="sync")
        work = asyncio.create_task(self._prepare(), name="prepare")
        ended = asyncio.create_task(self.stopping.wait(), name="ended")
        try:
            await asyncio.wait({link, work, ended}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if link.done():
                link.result()  # it ends by Refused alone
            return EXIT_ENDED
        except Refused as error:
            print(f"refused: {error}", flush=True)
            return EXIT_REFUSED
        finally:
            for task in (work, ended, link, sync):
                task.cancel()
            await asyncio.gather(work, ended, link, sync, return_exceptions=True)
            await self.proxy.stop()
            self.outbox.close()

    async def _prepare(self) -> int:
        config = await self.link.config
        await leftovers.carry_over(self.outbox)
        workspace = making.workspace_of(config, own=self.own, port=self.proxy.port)
        is_there = await making.make(
            workspace, state=self.state, outbox=self.outbox, attempt=self.attempt
        )
        await self.outbox.wait_acked(ACKNOWLEDGE_SECONDS)
        return 0 if is_there else EXIT_NO_WORKSPACE


if __name__ == "__main__":
    sys.exit(begin(Preparation))
