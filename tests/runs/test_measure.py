from __future__ import annotations

from typing import Any

import pytest

from devaipod_web.projects.models import Project
from devaipod_web.runs.supervisor.measure import overrun
from devaipod_web.runs.supervisor.pod_spec import HOME_INODES
from pods.errors import QuotaExceeded

PROJECT = Project(workspace_bytes=1024**3, workspace_inodes=1000)


class Volumes:
    """The one question that is asked of a backend here, answered from a table."""

    def __init__(self, **used):
        self.used = used

    async def volume_usage(self, name):
        found = self.used.get(name.rpartition("-")[2], (0, 0))
        if isinstance(found, Exception):
            raise found
        return found


async def look(**used):
    backend: Any = Volumes(**used)
    return await overrun(backend, installation="aaaaaaaaaa", run="bbbbbbbbbb", project=PROJECT)


async def test_volumes_within_their_limits_are_no_overrun():
    assert await look(workspace=(1024**3, 1000), home=(5, 5), state=(5, 5)) is None


@pytest.mark.parametrize(
    "used",
    [
        {"workspace": (1024**3 + 1, 5)},
        {"workspace": (5, 1001)},
        {"home": (5, HOME_INODES + 1)},
        {"state": (3 * 1024**3, 5)},
    ],
)
async def test_each_volume_is_measured_in_bytes_and_files(used):
    found = await look(**used)
    assert f"The {next(iter(used))} volume uses" in found.message
    assert found.next_step


async def test_files_that_are_too_many_to_count_are_an_overrun():
    found = await look(home=QuotaExceeded("too many to count", next_step="Fewer."))
    assert (found.message, found.next_step) == ("too many to count", "Fewer.")
