from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from devaipod_web import home
from devaipod_web.llm.models import LlmCall, Provider
from devaipod_web.projects import queries, services
from devaipod_web.projects.errors import InvalidProject, ProjectError
from devaipod_web.reviews.models import AuditEntry
from devaipod_web.runs.models import Run

pytestmark = pytest.mark.django_db(transaction=True)

UPSTREAM = "https://forge.example/acme/payments.git"


def test_a_project_needs_a_name_and_an_upstream(manager):
    with pytest.raises(InvalidProject) as caught:
        services.create(manager)
    assert set(caught.value.errors) == {"name", "upstream_url"}


def test_a_short_name_is_made_from_the_name_and_is_free(manager):
    first = services.create(manager, name="Payments API!", upstream_url=UPSTREAM)
    second = services.create(manager, name="Payments API", upstream_url=UPSTREAM)
    assert (first.slug, second.slug) == ("payments-api", "payments-api-2")


def test_a_short_name_that_is_taken_is_refused_at_its_field(manager):
    services.create(manager, name="One", slug="one", upstream_url=UPSTREAM)
    with pytest.raises(InvalidProject) as caught:
        services.create(manager, name="Two", slug="one", upstream_url=UPSTREAM)
    assert "already" in caught.value.errors["slug"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("upstream_url", "file:///etc"),
        ("upstream_url", "ext::sh -c id"),
        ("upstream_url", "ftp://forge.example/x.git"),
        ("upstream_url", "https://user:secret@forge.example/x.git"),
        ("upstream_url", "--upload-pack=touch /tmp/x"),
        ("upstream_branch", "-x"),
        ("upstream_branch", "a..b"),
        ("upstream_branch", "a\nb"),
        ("upstream_branch", ""),
        ("production_prefix", "/x"),
        ("production_prefix", "a b"),
        ("image", "docker://alpine"),
        ("image", "docker-archive:/etc/passwd"),
        ("image", "alpine; rm"),
        ("image_pattern", "registry.example/{host}"),
        ("allowed_images", ["dir:/tmp"]),
        ("model", "a b"),
        ("permission_policy", "always"),
        ("agent", "clippy"),
        ("wall_seconds", 5),
        ("wall_seconds", "soon"),
        ("memory_bytes", 1),
        ("cpus", "nan"),
        ("cpus", "inf"),
        ("pids", 10**9),
        ("provider", "zzzzzzzzzz"),
        ("slug", "x"),
        ("created_by", 1),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(manager, project, field, value):
    with pytest.raises(InvalidProject) as caught:
        services.update(project, manager, {field: value})
    assert set(caught.value.errors) == {field}
    assert caught.value.errors[field].endswith((".", ")"))


def test_the_demos_repositories_make_a_sample_and_other_paths_of_the_installation_are_refused(
    manager,
):
    inside = services.create(
        manager, name="Sample", upstream_url=str(home.sample_dir() / "courier.git")
    )
    assert inside.is_sample
    with pytest.raises(InvalidProject):
        services.create(manager, name="Evil", upstream_url=str(home.home() / "staging" / "x.git"))


def test_only_what_differs_is_changed_and_written_down(manager, project):
    changed = services.update(
        project, manager, {"name": "Payments", "wall_seconds": 600, "cpus": "1.5"}
    )
    assert changed == ["wall_seconds", "cpus"]
    entry = AuditEntry.objects.get(action="project.changed")
    assert entry.detail["wall_seconds"] == {"from": 7200, "to": 600}
    assert services.update(project, manager, {"wall_seconds": 600}) == []
    assert AuditEntry.objects.filter(action="project.changed").count() == 1


def test_a_provider_is_chosen_by_its_key_and_taken_away_by_nothing(manager, project):
    provider = Provider.objects.create(name="Local", base_url="https://models.example/v1")
    services.update(project, manager, {"provider": provider.key, "model": "vendor/model-1"})
    project.refresh_from_db()
    assert project.provider == provider
    with pytest.raises(InvalidProject, match="leave the model empty"):
        services.update(project, manager, {"provider": ""})
    services.update(project, manager, {"provider": "", "model": ""})
    project.refresh_from_db()
    assert project.provider is None


def test_a_provider_without_a_model_is_refused(manager, project):
    provider = Provider.objects.create(name="Local", base_url="https://models.example/v1")
    with pytest.raises(InvalidProject, match="Name the model"):
        services.update(project, manager, {"provider": provider.key})


def test_a_project_with_runs_at_work_is_not_archived(manager, project, run):
    with pytest.raises(ProjectError, match="has not ended"):
        services.archive(project, manager)
    Run.objects.update(state="stopped")
    services.archive(project, manager)
    assert list(queries.projects()) == []
    assert list(queries.projects(archived=True)) == [project]
    services.restore(project, manager)
    assert list(queries.projects()) == [project]


def test_a_list_says_what_each_project_is_doing_in_one_query(
    project, run, django_assert_num_queries
):
    for cost in ("0.25", "0.5"):
        LlmCall.objects.create(
            run=run,
            provider_kind="openai",
            model="m",
            at=timezone.now(),
            status=200,
            cost=Decimal(cost),
        )
    with django_assert_num_queries(1):
        row: Any = queries.projects().get()
        assert (row.run_count, row.active_runs, row.open_reviews) == (1, 1, 0)
        assert (row.last_run_key, row.last_run_state) == (run.key, "queued")
        assert row.spend == Decimal("0.75")
    seen = queries.overview(project)
    assert (seen.run_count, seen.active_runs, seen.spend) == (1, 1, Decimal("0.75"))


def test_a_new_project_begins_with_the_installations_wall_time(manager, settings):
    settings.DEFAULT_WALL_SECONDS = 1800
    made = services.create(manager, name="Short", upstream_url="https://forge.example/a/b.git")
    assert made.wall_seconds == 1800
