"""People and things that most tests need. Alice (operator), Bob (reviewer), Charlie (stranger), and two more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from devaipod_web.accounts.models import User
from devaipod_web.accounts.permissions import Role
from devaipod_web.projects.models import Project
from devaipod_web.runs.models import Run

#: Modules that drive real git, HTTP servers or processes throughout, or walk long lists: `make test` runs them, `make check`
#: (under a minute) does not.
INTEGRATION = (
    "accounts/test_permissions.py",
    "api/test_auth.py",
    "api/test_delete.py",
    "api/test_lists.py",
    "api/test_once.py",
    "api/test_reviews.py",
    "api/test_streams.py",
    "api/test_tokens.py",
    "api/test_usage.py",
    "budgets/test_accounting.py",
    "budgets/test_ledger.py",
    "budgets/test_pause.py",
    "cli/test_targets.py",
    "forges/test_git.py",
    "forges/test_http.py",
    "forges/test_staging.py",
    "gateway/test_doors.py",
    "gateway/test_port.py",
    "gateway/test_relayed.py",
    "gateway/test_sidecar_socket.py",
    "host/test_doctor.py",
    "llm/test_faults.py",
    "llm/test_paused.py",
    "llm/test_proxy.py",
    "llm/test_routes.py",
    "llm/test_vertex.py",
    "llm/test_wire_forms.py",
    "pages/test_pages.py",
    "pages/test_sockets.py",
    "projects/test_providers.py",
    "reviews/test_pages.py",
    "reviews/test_promote.py",
    "reviews/test_refresh.py",
    "runs/test_logs.py",
    "sidecar/test_relay.py",
    "spend/test_pages.py",
    "spend/test_sums.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the modules of INTEGRATION as slow, and put those first that take long: the quick ones fill the end of every process."""
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if item.path.as_posix().endswith(INTEGRATION):
            item.add_marker(pytest.mark.slow)
        if not item.nodeid.endswith(item.name):
            # pytest 9.2 leaves an operation's name out of schemathesis' tests, and xdist runs one of those that are named alike.
            item._id = item.id.with_params(item.name.partition("[")[2].removesuffix("]"))
        files.setdefault(item.path, []).append(item)
    assert len({item.nodeid for item in items}) == len(items)
    items[:] = [item for _, kept in sorted(files.items(), key=_turn) for item in kept]


def _turn(file: tuple[Path, list[pytest.Item]]) -> tuple[int, int]:
    """When a module's turn is: what has pods, browsers or a cluster, then what is slow, then the rest; each time the fullest first."""
    _, items = file
    marks = {mark.name for item in items for mark in item.iter_markers()}
    kind = 0 if marks & {"podman", "browser", "kube"} else 1 if "slow" in marks else 2
    return kind, -len(items)


#: How long an example takes, or its making, says how busy the machine is, and nothing about the code.
hypothesis.settings.register_profile(
    "any-machine",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("any-machine")

PASSWORD = "correct horse battery"


@pytest.fixture(scope="session", autouse=True)
def no_permission_rows() -> None:
    """Nobody reads Django's own permissions, and every test that commits would have them made anew: 120 rows."""
    from django.contrib.auth.management import create_permissions
    from django.db.models.signals import post_migrate

    uid = "django.contrib.auth.management.create_permissions"
    assert post_migrate.disconnect(create_permissions, dispatch_uid=uid)


@pytest.fixture
def person(db: None) -> Callable[..., User]:
    """Make a person: `person("alice", Role.OPERATOR)`."""
    from django.contrib.auth.models import Group

    def make(name: str, role: Role | None = None) -> User:
        user = User.objects.create_user(name, password=PASSWORD, first_name=name.capitalize())
        if role is not None:
            user.groups.add(Group.objects.get_or_create(name=role)[0])
        return user

    return make


@pytest.fixture
def viewer(person: Callable[..., User]) -> User:
    """Vera may look."""
    return person("vera", Role.VIEWER)


@pytest.fixture
def operator(person: Callable[..., User]) -> User:
    """Alice may launch."""
    return person("alice", Role.OPERATOR)


@pytest.fixture
def reviewer(person: Callable[..., User]) -> User:
    """Bob may promote."""
    return person("bob", Role.REVIEWER)


@pytest.fixture
def manager(person: Callable[..., User]) -> User:
    """Mona may do everything."""
    return person("mona", Role.MANAGER)


@pytest.fixture
def stranger(person: Callable[..., User]) -> User:
    """Charlie has an account and no role."""
    return person("charlie")


@pytest.fixture
def project(db: None) -> Project:
    """A project with the scripted demo; its upstream is never contacted."""
    return Project.objects.create(
        slug="payments", name="Payments", upstream_url="https://forge.example/acme/payments.git"
    )


@pytest.fixture
def run(project: Project, operator: User) -> Run:
    """A queued run of Alice's."""
    return Run.objects.create(
        project=project,
        owner=operator,
        title="Retry webhooks",
        task="Retry webhooks with back-off.",
        agent="opencode",
        model="scripted-demo",
        wall_seconds=3600,
    )
