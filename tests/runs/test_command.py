"""Runs that execute a command: what is taken, what is refused, and what their events mean."""

from __future__ import annotations

import pytest

from devaipod_web.projects.models import Project
from devaipod_web.runs.errors import BadRequest, NotNow, Taken
from devaipod_web.runs.models import Run, RunCommand, RunPod
from devaipod_web.runs.services import labels
from devaipod_web.runs.services.command import Command
from devaipod_web.runs.services.destroy import destroy_pod, stop_pod
from devaipod_web.runs.services.input import send_input
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.prompt import prompt
from devaipod_web.runs.services.stop import stop
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import State
from devaipod_web.runs.supervisor import image
from tests.runs.conftest import Sidecar, pod_of

pytestmark = pytest.mark.django_db

LS = Command(argv=["ls", "a b"])


def test_a_command_is_queued_with_its_words_as_task_and_title(project, ada):
    run = launch(project, ada, command=LS)
    assert (run.agent, run.argv, run.task, run.title) == ("command", ["ls", "a b"], "ls 'a b'", "ls 'a b'")  # fmt: skip
    assert RunCommand.objects.get(run=run).kind == "prompt"


def test_a_long_command_is_cut_as_a_task_and_whole_as_words(project, ada):
    words = ["sh", "-c", "'" * 90_000]
    run = launch(project, ada, command=Command(argv=words))
    assert run.argv == words
    assert len(run.task) == 200_000


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (Command(argv=[]), "needs argv"),
        (Command(argv=[" "]), "needs argv"),
        (Command(argv=["-x"]), "needs argv"),
        (Command(argv=["a\nb"]), "plain text"),
        (Command(argv=["a", "\0"]), "without NUL"),
        (Command(argv=["a", "\ud800"]), "text"),
        (Command(argv=["a"] * 257), "256 words"),
        (Command(argv=["a", "b" * 100_000]), "98,304 characters"),
        (Command(argv=["a"], env={"A-B": "x"}), "'A-B' cannot be the name"),
        (Command(argv=["a"], env={"A": "x" * 9000}), "8,192 characters"),
        (Command(argv=["a"], env={f"A{n}": "" for n in range(101)}), "100 variables"),
        (Command(argv=["a"], env={"GH_TOKEN": "x"}), "looks like a credential"),
        (Command(argv=["a"], workdir="a\nb"), "folder"),
        (Command(argv=["a"], image="oci:/etc"), "not the name of an image"),
        (Command(argv=["a"], image="other.example/x:1"), "not on this project's list"),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(project, ada, command, said):
    project.allowed_images = ["registry.example/*"]
    with pytest.raises(BadRequest) as refused:
        launch(project, ada, command=command)
    assert said in refused.value.message
    assert not Run.objects.exists()


def test_an_image_on_the_list_and_the_projects_own_may_be_named(project, ada, settings):
    project.allowed_images = ["registry.example/*"]
    project.image = "localhost/ours:1"
    for name in ("registry.example/x:1", "localhost/ours:1", settings.AGENT_IMAGE):
        run = launch(project, ada, command=Command(argv=["a"], image=name))
        assert image.plan_of(run, workspace="/w").image == name


def test_an_image_taken_from_the_list_since_is_refused_when_the_run_starts(project, ada):
    run = launch(project, ada, command=Command(argv=["a"], image="registry.example/x:1"))
    Project.objects.filter(pk=project.pk).update(allowed_images=["else.example/*"])
    with pytest.raises(Exception, match="not on this project's list"):
        image.plan_of(Run.objects.get(pk=run.pk), workspace="/w")


def test_variables_of_ours_are_left_out_and_named_on_the_run(project, ada):
    env = {"OPENAI_BASE_URL": "http://evil", "HOME": "/x", "MINE": "1"}
    run = launch(project, ada, command=Command(argv=["a"], env=env))
    assert run.env == {"MINE": "1"}
    assert run.notes[0]["text"] == "Set by devaipod, and not as given: HOME, OPENAI_BASE_URL."


def test_the_agent_command_without_a_command_is_refused(project, ada):
    with pytest.raises(BadRequest, match="needs argv"):
        launch(project, ada, task="x", agent="command")


def test_an_agent_that_is_not_there_is_refused(project, ada):
    with pytest.raises(BadRequest, match="no agent called"):
        launch(project, ada, task="x", agent="emacs")


def test_a_prompt_to_a_command_is_refused_whatever_its_state(project, ada):
    run = launch(project, ada, command=LS)
    with pytest.raises(NotNow, match="takes no prompt"):
        prompt(run, ada, "more")
    stop(run, ada)
    with pytest.raises(NotNow, match="takes no prompt"):
        prompt(run, ada, "more")


def at_work(run: Run) -> tuple[RunPod, Sidecar]:
    pod = pod_of(run)
    Run.objects.filter(pk=run.pk).update(state=State.STARTING, attempts=1)
    sidecar = Sidecar(pod)
    sidecar.says("workspace.ready", head="a" * 40, branch="b", resumed=False, seconds=1)
    sidecar.says("session.started", session_id="", how="new", context_lost=False)
    sidecar.says("turn.started", turn=1, text="")
    return pod, sidecar


def test_its_end_is_kept_and_left_to_the_supervisor_to_judge(project, ada):
    run = launch(project, ada, command=LS)
    _, sidecar = at_work(run)
    sidecar.says("turn.ended", turn=1, stop_reason="exited", exit_code=3, seconds=1)
    sidecar.says("work.staged", head="b" * 40, base="a" * 40, commits=1, turn=1)
    run.refresh_from_db()
    assert (run.state, run.exit_code) == (State.RUNNING, 3)


@pytest.mark.parametrize("code", [True, "0", -1, 256, None, 1e9])
def test_an_exit_code_that_is_none_is_not_kept(project, ada, code):
    run = launch(project, ada, command=LS)
    _, sidecar = at_work(run)
    sidecar.says("turn.ended", turn=1, stop_reason="exited", exit_code=code, seconds=1)
    run.refresh_from_db()
    assert run.exit_code is None


def test_input_goes_to_an_interactive_command_at_work_alone(project, ada):
    deaf = launch(project, ada, command=LS)
    at_work(deaf)
    with pytest.raises(NotNow, match="takes no input"):
        send_input(deaf, ada, "x")
    run = launch(project, ada, command=Command(argv=["cat"], interactive=True))
    with pytest.raises(NotNow, match="does not run"):
        send_input(run, ada, "x")
    at_work(run)
    with pytest.raises(BadRequest, match="empty"):
        send_input(run, ada, "")
    sent = send_input(run, ada, "x\n")
    assert (sent.kind, sent.payload) == ("input", {"text": "x\n"})
    for _ in range(49):
        send_input(run, ada, "x")
    with pytest.raises(BadRequest, match="50 inputs wait"):
        send_input(run, ada, "x")
    stop(run, ada)
    with pytest.raises(NotNow, match="does not run"):
        send_input(run, ada, "x")


def test_a_pod_that_is_to_go_stops_its_run_once_and_cools_an_ended_one(project, ada):
    run = launch(project, ada, command=LS)
    pod, _ = at_work(run)
    destroy_pod(pod, ada)
    run.refresh_from_db()
    assert (run.state, run.keep_warm_until) == (State.STOPPED, None)
    destroy_pod(pod, ada)
    with pytest.raises(NotNow):
        stop_pod(pod, ada)


def test_an_earlier_attempts_pod_stops_nothing(project, ada):
    run = launch(project, ada, command=LS)
    old = pod_of(run)
    Run.objects.filter(pk=run.pk).update(state=State.RUNNING, attempts=2)
    destroy_pod(old, ada)
    with pytest.raises(NotNow, match="took its place"):
        stop_pod(old, ada)
    run.refresh_from_db()
    assert run.state == State.RUNNING


# --- labels -------------------------------------------------------------------------------------------------------


def test_labels_are_set_removed_and_found(project, ada):
    run = launch(project, ada, task="x", labels={"gc.session": "mayor", "n": "007"})
    launch(project, ada, task="y", labels={"gc.session": "mayor 2"})
    launch(project, ada, task="z")
    found = labels.having(Run.objects.all(), "gc.session=mayor")
    assert list(found) == [run]
    assert labels.having(Run.objects.all(), "gc.session").count() == 2
    assert list(labels.having(Run.objects.all(), "n=007")) == [run]
    assert labels.change(run, {"n": None, "a/b:c": 'say "hi"'}) == {
        "gc.session": "mayor",
        "a/b:c": 'say "hi"',
    }
    assert list(labels.having(Run.objects.all(), 'a/b:c=say "hi"')) == [run]
    assert not labels.having(Run.objects.all(), "n").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"": "x"}, "cannot be the name"),
        ({"0": "x"}, "cannot be the name"),
        ({'a"b': "x"}, "cannot be the name"),
        ({"a": "x" * 5000}, "4,096 characters"),
        ({"a": "\0"}, "not text"),
        ({f"a{n}": "" for n in range(65)}, "64 labels"),
        ({f"a{n}": "x" * 4000 for n in range(10)}, "32,768 characters"),
    ],
)
def test_labels_have_their_bounds(project, ada, given, said):
    with pytest.raises(BadRequest, match=said):
        launch(project, ada, task="x", labels=given)


def test_a_unique_label_is_free_again_when_its_run_has_ended(project, ada):
    def again() -> Run:
        return launch(project, ada, task="x", labels={"name": "mayor"}, unique_label="name")

    run = again()
    with pytest.raises(Taken, match="already exists") as refused:
        again()
    assert run.key in refused.value.message
    transition(run.pk, State.STOPPED, reason="")
    again()
    with pytest.raises(BadRequest, match="not among the labels"):
        launch(project, ada, task="x", unique_label="name")
