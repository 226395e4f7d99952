"""Which wire form an agent speaks with its provider, and what is said of those that have none in common."""

from __future__ import annotations

import pytest

from devaipod_web.llm import demo, fit, routes
from devaipod_web.llm.fit import Answerer
from devaipod_web.llm.forms import FORMS
from devaipod_web.llm.models import Provider, ProviderKind
from devaipod_web.runs.errors import BadRequest
from devaipod_web.runs.models import Run
from devaipod_web.runs.services.launch import launch
from pods.agents import ACP_PROFILES, PROFILES

pytestmark = pytest.mark.django_db


def provider(kind: str, name: str = "Acme") -> Provider:
    return Provider.objects.create(name=name, kind=kind, base_url="https://models.example/v1")


def who(kind: str, model: str = "m") -> Answerer:
    return Answerer(kind, "Acme", model)


def test_profiles_and_gateway_call_the_forms_the_same():
    known = {form.name for form in FORMS}
    for profile in PROFILES.values():
        assert set(profile.forms) <= known, profile.key


@pytest.mark.parametrize(
    ("agent", "kind", "model", "form"),
    [
        ("opencode", "openai", "m", "openai-chat"),
        ("opencode", "anthropic", "m", "anthropic-messages"),
        ("opencode", "gemini", "m", "gemini"),
        ("opencode", "vertex", "gemini-3-pro", "gemini"),
        ("opencode", "vertex", "claude-opus-4@1", "anthropic-messages"),
        ("codex", "openai", "m", "openai-responses"),
        ("claude", "vertex", "claude-opus-4@1", "anthropic-messages"),
        ("claude", "vertex", "gemini-3-pro", None),
        ("claude", "openai", "m", None),
        ("codex", "anthropic", "m", None),
        ("gemini", "openai", "m", None),
        ("qwen", "gemini", "m", None),
        ("command", "gemini", "m", ""),
        *((key, "demo", "", profile.forms[0]) for key, profile in ACP_PROFILES.items()),
    ],
)
def test_the_form_follows_from_agent_and_provider(agent, kind, model, form):
    assert fit.form_for(PROFILES[agent], who(kind, model)) == form
    assert (fit.misfit(agent, who(kind, model)) is None) is (form is not None)


def test_a_misfit_is_told_with_both_names_and_both_ways_out():
    found = fit.misfit("claude", who("openai"))
    assert found is not None
    assert found.message == (
        "Claude Code speaks Anthropic messages, and Acme (OpenAI-compatible) does not."
    )
    assert "OpenCode, Codex, Qwen Code or Goose as the agent" in found.next_step
    assert "Anthropic, Google Vertex AI or scripted demo" in found.next_step
    on_vertex = fit.misfit("claude", who("vertex", "gemini-3-pro"))
    assert on_vertex is not None
    assert "the model gemini-3-pro of Acme (Google Vertex AI) does not" in on_vertex.message


def test_who_answers_follows_routes_where_no_provider_is_named(project, manager):
    there = provider("anthropic")
    routes.save(manager, None, pattern="team/*", provider=there, rewrite="claude-*")
    assert fit.answerer(project, None, "team/opus") == Answerer("anthropic", "Acme", "claude-opus")
    assert fit.answerer(project, None, "other").kind == ProviderKind.DEMO
    routes.save(manager, None, pattern="*", provider=there)
    assert fit.answerer(project, None, demo.MODEL).kind == ProviderKind.DEMO
    assert fit.answerer(project, provider("gemini", "Other"), "team/opus").kind == "gemini"


def test_a_run_that_could_not_speak_with_its_provider_is_refused_at_launch(project, operator):
    project.provider = provider("openai")
    project.model = "large"
    project.save()
    with pytest.raises(BadRequest, match="Claude Code speaks Anthropic messages") as error:
        launch(project, operator, task="Do it.", agent="claude")
    assert "provider of the kind Anthropic" in error.value.next_step
    assert not Run.objects.exists()
    assert launch(project, operator, task="Do it.", agent="codex").agent == "codex"
    project.agent = "gemini"
    project.save()
    with pytest.raises(BadRequest, match="Gemini CLI speaks Gemini generateContent"):
        launch(project, operator, task="Do it.")


def test_a_routed_model_decides_as_well(project, operator, manager):
    routes.save(manager, None, pattern="claude-*", provider=provider("anthropic"))
    with pytest.raises(BadRequest, match="Codex speaks OpenAI responses, and Acme"):
        launch(project, operator, task="Do it.", agent="codex", model="claude-opus")
    run = launch(project, operator, task="Do it.", agent="claude", model="claude-opus")
    assert run.model == "claude-opus"
    form = fit.form_of_run(project, agent="opencode", provider=None, model="claude-opus")
    assert form == "anthropic-messages"
