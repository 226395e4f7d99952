from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.sidecar.rig import Rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """A rig in a short path, since its socket's name has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="rig-", dir="/tmp"))
    made = Rig(folder)
    try:
        yield made
        print(made.log())
    finally:
        await made.stop()
        shutil.rmtree(folder, ignore_errors=True)
