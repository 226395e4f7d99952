"""The agents on the launch page: their images, and what is said of one that cannot speak with the run's provider."""

from __future__ import annotations

import pytest

from devaipod_web.llm.models import Provider
from devaipod_web.runs.models import Run
from pods.agents import ACP_PROFILES


@pytest.fixture
def on_openai(project):
    project.provider = Provider.objects.create(
        name="Acme", kind="openai", base_url="https://models.example/v1"
    )
    project.model = "large"
    project.save()
    return project


def test_every_agent_can_be_chosen_for_a_run_and_for_a_project(page, operator, manager, project):
    launch = page(operator, "run_new", query="?project=payments")
    settings = page(manager, "project_settings", "payments", "agent")
    for key, profile in ACP_PROFILES.items():
        assert f'name="agent" value="{key}"' in launch
        assert profile.title in launch
        assert f'<option value="{key}"' in settings


def test_the_reach_shows_the_image_of_the_chosen_agent(page, operator, project, settings):
    settings.AGENT_IMAGES = {"codex": "localhost/the-codex:1"}
    shown = page(operator, "run_reach", query="?project=payments&agent=codex")
    assert "localhost/the-codex:1" in shown
    project.agent = "codex"
    project.save()
    assert "localhost/the-codex:1" in page(operator, "run_reach", query="?project=payments")
    project.image = "registry.example/ours:1"
    project.save()
    assert "registry.example/ours:1" in page(operator, "run_reach", query="?project=payments")


def test_an_agent_that_cannot_speak_with_the_provider_is_named_while_the_form_is_filled_in(
    page, operator, on_openai
):
    shown = page(operator, "run_reach", query="?project=payments&agent=claude")
    assert "Claude Code speaks Anthropic messages, and Acme (OpenAI-compatible) does not." in shown
    assert "Choose OpenCode, Codex, Qwen Code or Goose as the agent" in shown
    assert "▲" in shown
    assert "▲" not in page(operator, "run_reach", query="?project=payments&agent=codex")


def test_launching_it_all_the_same_is_refused_with_the_same_words(post, operator, on_openai):
    answer = post(operator, "run_new", project="payments", agent="claude", task="Do it.")
    assert answer.status_code == 400
    text = answer.content.decode()
    assert "Claude Code speaks Anthropic messages" in text
    assert "Do it." in text
    assert not Run.objects.exists()
