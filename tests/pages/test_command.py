"""A command on the pages: its fields in the launch form, and its run for what it is."""

from __future__ import annotations

import pytest

from devaipod_web.runs.models import Run
from devaipod_web.runs.services.command import Command
from devaipod_web.runs.services.launch import launch
from tests.pages.conftest import HOSTILE, begun

FIELDS = ("command", "image", "workdir", "env")


def test_the_fields_of_a_command_are_shown_for_it_alone_and_keep_what_was_typed(
    page, operator, project
):
    typed = "&command=make+test&env=A%3D1"
    shown = page(operator, "run_what", query=f"?agent=command{typed}")
    assert '<textarea name="command"' in shown
    assert ">\nmake test</textarea>" in shown
    hidden = page(operator, "run_what", query=f"?agent=opencode{typed}")
    for name in FIELDS:
        assert f'<input type="hidden" name="{name}"' in hidden
    assert 'value="make test"' in hidden
    assert "<label" not in hidden


def test_a_link_to_a_command_fills_the_form_in(page, operator, project):
    text = page(operator, "run_new", query="?agent=command&command=make+test&image=x/y:1")
    assert '<textarea name="command"' in text
    assert 'value="x/y:1"' in text


def test_the_form_launches_a_command(post, operator, project):
    answer = post(
        operator, "run_new", project="payments", agent="command", task="",
        command="sh -c 'make test'", env="MODE=quick\n\nEMPTY=", workdir="till", image="x.example/y:1",
    )  # fmt: skip
    assert answer.status_code == 200
    run = Run.objects.get()
    assert (run.agent, run.argv) == ("command", ["sh", "-c", "make test"])
    assert (run.env, run.workdir, run.asked_image) == (
        {"MODE": "quick", "EMPTY": ""},
        "till",
        "x.example/y:1",
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"command": ""}, "Write the program that is to run"),
        ({"command": "sh -c 'oh"}, "The quotes do not match"),
        ({"command": "ls", "env": "nonsense"}, "Write one NAME=value a line."),
        ({"command": "ls", "env": "GH_TOKEN=x"}, "looks like a credential"),
        ({"command": "ls", "image": "oci:/etc"}, "not the name of an image"),
    ],
)
def test_what_cannot_be_run_is_said_and_nothing_typed_is_lost(post, operator, project, given, said):
    answer = post(operator, "run_new", project="payments", agent="command", title="T", **given)
    assert answer.status_code == 400
    text = answer.content.decode()
    assert said in text
    assert 'value="T"' in text
    assert '<textarea name="command"' in text
    assert not Run.objects.exists()


def test_an_agent_needs_a_task(post, operator, project):
    answer = post(operator, "run_new", project="payments", agent="opencode", task=" ")
    assert answer.status_code == 400
    assert "Say what the agent should do." in answer.content.decode()


def test_the_reach_shows_the_image_that_a_command_names(page, operator, project):
    project.allowed_images = ["registry.example/*"]
    project.save()
    query = "?project=payments&agent=command&image=registry.example/x:1"
    assert "this run" in page(operator, "run_reach", query=query)
    refused = page(operator, "run_reach", query=query.replace("registry", "other"))
    assert "not on this project" in refused
    assert "registry.example" not in page(
        operator, "run_reach", query=query.replace("agent=command", "agent=opencode")
    )


@pytest.fixture
def commanded(project, operator):
    command = Command(argv=["echo", HOSTILE], env={"NOTE": HOSTILE}, workdir="till")
    return begun(launch(project, operator, command=command, title="Say it"))


def test_a_commands_run_shows_its_words_and_offers_no_prompt(page, operator, commanded):
    text = page(operator, "run", commanded.run.key)
    assert "takes no prompt" in text
    assert 'id="composer"' not in text
    assert "Interrupt" in text
    assert "Cancel turn" not in text
    assert "<script>alert(1)" not in text
    assert "echo &#x27;&lt;script" in text
    assert "\u202e" not in text


def test_how_it_ended_is_said_with_its_exit_code(page, operator, commanded):
    commanded.says("turn.ended", turn=1, stop_reason="exited", exit_code=3, seconds=2)
    text = page(operator, "run", commanded.run.key)
    assert "The command ended with exit code 3 after 2" in text
    assert "<span>exit code 3</span>" in text


def test_it_is_launched_again_with_the_same_words(page, operator, project):
    run = launch(project, operator, command=Command(argv=["make", "a b"], workdir="till"))
    Run.objects.filter(pk=run.pk).update(state="failed")
    text = page(operator, "run", run.key)
    assert "agent=command&amp;command=make%20%27a%20b%27&amp;image=&amp;workdir=till" in text


def test_a_project_offers_no_command_as_its_agent(page, manager, project):
    assert 'value="command"' not in page(manager, "project_settings", project.slug)
