from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from tests.e2e.installation import ROOT
from tests.sidecar.rig import Rig

pytestmark = pytest.mark.slow


def check(rig: Rig, **env: str) -> tuple[int, str]:
    """Run the check as the container's does; its exit code and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "pods.sidecar.health"],
        cwd=ROOT,
        env={
            **os.environ,
            "DEVAIPOD_PROXY_PORT": str(rig.port),
            "DEVAIPOD_SOCKET_DIR": str(rig.gateway.socket.parent),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.returncode, done.stdout.strip()


async def test_a_sidecar_that_works_is_healthy_and_says_nothing(rig: Rig):
    await rig.start()

    assert await asyncio.to_thread(check, rig) == (0, "")


async def test_a_sidecar_whose_gateway_went_away_says_that(rig: Rig):

    await rig.start()
    await rig.gateway.stop()
    rig.gateway.socket.unlink(missing_ok=True)
    status, said = await asyncio.to_thread(check, rig)
    assert status == 1
    assert said == "gateway: No such file or directory"
    # And a gateway that came back by address instead of by socket.
    status, said = await asyncio.to_thread(check, rig, DEVAIPOD_GATEWAY="http://127.0.0.1:1")
    assert (status, said) == (1, "gateway: Connection refused")


async def test_a_sidecar_that_does_not_serve_its_proxy_says_that(rig: Rig):

    status, said = await asyncio.to_thread(check, rig)
    assert (status, said) == (1, "the sidecar's proxy: Connection refused")
