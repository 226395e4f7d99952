from __future__ import annotations

import pytest

from tests.forges.world import World


@pytest.fixture
def world(tmp_path, settings, project, run):
    """Real repositories below an allowed folder."""
    settings.LOCAL_REPOSITORY_ROOTS = [str(tmp_path)]
    return World(tmp_path, project, run)
