from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse

from devaipod_web.accounts.models import User
from devaipod_web.projects.models import Project
from devaipod_web.runs import log_writer
from devaipod_web.runs.models import PermissionRequest, PermissionState, Run
from devaipod_web.runs.services.launch import launch
from devaipod_web.runs.services.transition import transition
from devaipod_web.runs.states import State
from pods.spec import LogLine
from tests.pages.conftest import HOSTILE, begun

READING = ["now", "now_live", "rail", "runs", "runs_live", "search", "help"]
OF_A_RUN = [
    "run",
    "run_header",
    "run_aside",
    "run_changes",
    "run_logs",
    "run_access",
    "run_diagnostics",
]


@pytest.mark.parametrize("name", READING)
def test_a_viewer_reads_every_page_and_a_stranger_none(page, viewer, stranger, name, working):
    page(viewer, name)
    page(stranger, name, status=403)


@pytest.mark.parametrize("name", OF_A_RUN)
def test_every_tab_of_a_run_is_there_for_a_viewer_and_not_for_a_stranger(
    page, viewer, stranger, name, working
):
    working.asks()
    page(viewer, name, working.run.key)
    page(stranger, name, working.run.key, status=403)


def test_somebody_who_is_not_signed_in_is_sent_to_the_door(client, working):
    answer = client.get(reverse("run", args=[working.run.key]))
    assert answer.status_code == 302
    assert answer.url.startswith("/sign-in/")


@pytest.mark.parametrize("name", ["run_prompt", "run_stop", "run_cancel_turn"])
def test_a_viewer_may_not_act_on_a_run(post, viewer, working, name):
    assert post(viewer, name, working.run.key, text="x").status_code == 403
    assert Run.objects.get(pk=working.run.pk).state == State.RUNNING


def test_a_viewer_may_neither_launch_nor_answer(client, post, page, viewer, working):
    working.asks()
    question = PermissionRequest.objects.get()
    page(viewer, "run_new", status=403)
    assert post(viewer, "permission_answer", question.key, option="once").status_code == 403
    question.refresh_from_db()
    assert question.state == PermissionState.OPEN


def test_the_page_tells_its_script_and_style_what_the_person_may(page, viewer, manager, working):
    assert 'data-may=""' in page(viewer, "now")
    assert 'data-may="launch review manage"' in page(manager, "now")


def test_only_a_manager_sees_the_way_to_the_audit_log_and_to_people(page, operator, manager):
    assert reverse("audit") not in page(operator, "now")
    text = page(manager, "now")
    assert reverse("audit") in text
    assert reverse("people") in text


def test_every_link_of_a_page_leads_somewhere(page, client, manager, working):
    working.asks()
    for name, args in [("now", []), ("runs", []), ("run", [working.run.key]), ("help", [])]:
        for link in sorted(set(re.findall(r'href="(/[^"#?]*)', page(manager, name, *args)))):
            if not link.startswith("/static/"):
                assert client.get(link).status_code == 200, (name, link)


# --- Now and the list -----------------------------------------------------------------------------------------------


def test_now_begins_with_what_to_do_when_there_is_nothing(page, manager, operator):
    assert reverse("project_new") in page(manager, "now")
    assert "A manager makes the first project" in page(operator, "now")


def test_now_shows_what_needs_a_person_and_answers_there(page, post, operator, working):
    working.asks()
    text = page(operator, "now")
    assert "alembic upgrade head" in text
    question = PermissionRequest.objects.get()
    answer = post(operator, "permission_answer", question.key, option="refuse", next="/")
    assert answer.redirect_chain == [("/", 302)]
    question.refresh_from_db()
    assert (question.state, question.option_id) == (PermissionState.REFUSED, "no")
    assert "alembic upgrade head" not in page(operator, "now").split("In progress")[0]


def test_now_shows_failed_runs_with_reason_and_next_step(page, operator, working):
    transition(
        working.run.pk,
        State.FAILED,
        reason="No opencode in the image.",
        next_step="Choose another image.",
    )
    text = page(operator, "now")
    assert "No opencode in the image." in text
    assert "Choose another image." in text


def test_a_queued_run_shows_its_place(page, operator, project, run):
    second = launch(project, operator, task="Another thing")
    assert "Place 2 in the queue" in page(operator, "now")
    assert "place 2 in the queue" in page(operator, "runs")
    assert "place 2 in the queue" in page(operator, "run", second.key)


def test_filters_and_order_of_the_list_are_in_its_address(page, operator, project, run):
    launch(project, operator, task="Dark icons")
    assert "Dark icons" not in page(operator, "runs", query="?q=webhooks")
    assert "Retry webhooks" in page(
        operator, "runs", query="?q=webhooks&state=queued&project=payments&person=alice"
    )
    assert "No run matches" in page(operator, "runs", query="?state=failed")
    text = page(operator, "runs_live", query="?sort=title")
    assert text.index("Dark icons") < text.index("Retry webhooks")
    page(operator, "runs", query="?sort=nonsense&page=99&state=%00")


def test_an_empty_list_carries_the_action_that_fills_it(page, operator):
    text = page(operator, "runs")
    assert "No runs yet" in text
    assert reverse("run_new") in text


@pytest.mark.parametrize(
    ("name", "most"), [("now", 30), ("runs", 24), ("runs_live", 12), ("now_live", 24)]
)
def test_lists_take_the_same_number_of_queries_however_long(
    client, operator, project, django_assert_max_num_queries, name, most
):
    client.force_login(operator)
    for number in range(12):
        fresh = launch(project, operator, task=f"Task {number}")
        if number % 2:
            begun(fresh).asks()
    with django_assert_max_num_queries(most):
        client.get(reverse(name))


def test_a_runs_page_takes_the_same_number_of_queries_however_much_happened(
    client, operator, working, django_assert_max_num_queries
):
    for number in range(60):
        working.says("tool_call", tool_call_id=f"c{number}", title="ls", kind="execute")
        working.says("message", message_id=f"m{number}", text="words")
    client.force_login(operator)
    with django_assert_max_num_queries(32):
        client.get(reverse("run", args=[working.run.key]))


# --- launching ------------------------------------------------------------------------------------------------------


def test_a_launch_queues_a_run_with_what_was_chosen(post, operator, project):
    answer = post(
        operator,
        "run_new",
        project="payments",
        task="# Mend it\n\nwell",
        agent="opencode",
        wall="90 min",
        permission_policy="allow",
    )
    made = Run.objects.get()
    assert answer.redirect_chain == [(reverse("run", args=[made.key]), 302)]
    assert (made.title, made.wall_seconds, made.permission_policy) == ("Mend it", 5400, "allow")
    assert made.owner == operator


def test_the_same_form_sent_twice_makes_one_run(post, operator, project):
    for _ in range(2):
        post(operator, "run_new", project="payments", task="Once", idempotency_key="k1")
    assert Run.objects.count() == 1


def test_a_link_fills_the_form_in(page, operator, project):
    text = page(operator, "run_new", query="?project=payments&task=Say+%3Cb%3E&wall=3+h")
    assert "Say &lt;b&gt;" in text
    assert 'value="3 h"' in text


def test_nothing_typed_is_lost_on_an_error(post, operator, project):
    answer = post(
        operator, "run_new", project="payments", task="My long task", wall="soon", title="T"
    )
    assert answer.status_code == 400
    text = answer.content.decode()
    assert "My long task" in text
    assert "Write a duration" in text
    assert 'value="soon"' in text
    assert not Run.objects.exists()


def test_the_form_says_what_the_run_could_reach(page, operator, project):
    text = page(operator, "run_reach", query="?project=payments&permission_policy=allow")
    for said in (
        "none",
        "scripted demo, no AI",
        "push to production",
        "Allow",
        "devcontainer.json",
    ):
        assert said in text


def test_without_a_project_the_form_says_what_to_do(page, operator, manager):
    assert "A manager makes the first project" in page(operator, "run_new")
    assert reverse("project_new") in page(manager, "run_new")


# --- one run --------------------------------------------------------------------------------------------------------


def test_a_runs_page_shows_what_happened(page, operator, working):
    working.says("plan", entries=[{"content": "Find the worker", "status": "in_progress"}])
    working.says("message", message_id="m", text="I look at **the worker**.")
    working.says(
        "tool_call",
        tool_call_id="c",
        title="bash",
        kind="execute",
        status="completed",
        input={"command": "pytest -q"},
        output={"output": "1 passed", "metadata": {"exit": 1}},
    )
    working.says("from.the.future", shape="round")
    working.asks()
    text = page(operator, "run", working.run.key)
    for said in (
        "Retry webhooks with back-off.",
        "<strong>the worker</strong>",
        "pytest -q",
        "exit 1",
        "1 passed",
        "from.the.future",
        "Find the worker",
        "waiting for you",
        "Allow once",
        "agent/",
    ):
        assert said in text


def test_a_page_works_without_script_its_forms_carry_the_token(operator, working):
    working.asks()
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator)
    text = client.get(reverse("run", args=[working.run.key])).content.decode()
    form = text[text.index('action="/permissions/') :]
    token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', form)
    assert token
    question = PermissionRequest.objects.get()
    address = reverse("permission_answer", args=[question.key])
    assert client.post(address, {"option": "once"}).status_code == 403
    sent = {"option": "once", "csrfmiddlewaretoken": token[1]}
    assert client.post(address, sent).status_code == 302
    question.refresh_from_db()
    assert (question.state, question.answered_by) == (PermissionState.ALLOWED, operator)


def test_the_second_answer_is_told_who_was_first(post, operator, reviewer, working):
    working.asks()
    question = PermissionRequest.objects.get()
    post(operator, "permission_answer", question.key, option="once")
    answer = post(reviewer, "permission_answer", question.key, option="no", htmx=True)
    assert "Alice was first" in answer.content.decode()


def test_an_answer_that_was_not_offered_is_refused(post, operator, working):
    working.asks()
    question = PermissionRequest.objects.get()
    answer = post(operator, "permission_answer", question.key, option="root", htmx=True)
    assert "did not offer" in answer.content.decode()


def test_a_follow_up_is_shown_as_not_read_until_the_agent_has_it(page, post, operator, working):
    post(operator, "run_prompt", working.run.key, text="And the docs")
    text = page(operator, "run", working.run.key)
    assert "And the docs" in text
    assert "not read yet" in text
    working.says("turn.ended", turn=1, stop_reason="end_turn")
    working.says("turn.started", turn=2, text="And the docs")
    assert "not read yet" not in page(operator, "run", working.run.key)


def test_an_empty_prompt_says_so_and_a_refused_one_keeps_its_text(post, operator, working):
    answer = post(operator, "run_prompt", working.run.key, text="  ")
    assert answer.status_code == 400
    assert "The prompt is empty." in answer.content.decode()
    long = "x" * 200_001
    answer = post(operator, "run_prompt", working.run.key, text=long, htmx=True)
    assert answer.status_code == 400
    assert long in answer.content.decode()


def test_stopping_names_the_run_and_a_second_time_says_why_not(page, post, operator, working):
    text = page(operator, "run", working.run.key)
    assert 'id="stop-run"' in text
    assert (
        "is stopped" in post(operator, "run_stop", working.run.key, reason="wrong").content.decode()
    )
    assert Run.objects.get(pk=working.run.pk).reason == "Stopped by Alice. wrong"
    assert "has ended already" in post(operator, "run_stop", working.run.key).content.decode()


def test_cancelling_a_turn_tells_what_comes_next(post, operator, working):
    assert (
        "waits for your next prompt"
        in post(operator, "run_cancel_turn", working.run.key).content.decode()
    )


def test_older_parts_fit_to_the_end_without_a_gap_or_a_double(page, operator, working):
    for number in range(300):
        working.says("message", message_id=f"m{number}", text=f"word-{number}-")
    text = page(operator, "run", working.run.key)
    seen = re.findall(r"word-(\d+)-", text)
    while found := re.search(r'href="[^"]*/transcript/\?before=(\d+)"', text):
        text = page(operator, "run_transcript", working.run.key, query=f"?before={found[1]}")
        seen = re.findall(r"word-(\d+)-", text) + seen
    assert [int(number) for number in seen] == list(range(300))
    page(operator, "run_transcript", working.run.key, query="?before=x", status=404)


def test_an_unknown_run_is_not_found(page, operator):
    assert "There is nothing here" in page(operator, "run", "aaaaaaaaaa", status=404)


def test_logs_are_shown_as_text_by_container(page, operator, working):
    writer = log_writer.Writer(working.run.key, working.pod.name, "agent")
    at = working.run.created_at
    writer.append(
        [
            LogLine(stream="stdout", at=at, text=f"\x1b[31mline {n} <b>".encode(), cursor=str(n))
            for n in range(700)
        ]
    )
    writer.close()
    text = page(operator, "run_logs", working.run.key)
    assert "line 699 &lt;b&gt;" in text
    assert "line 100 " not in text
    older = page(
        operator,
        "run_logs",
        working.run.key,
        query=f"?pod={working.pod.name}&container=agent&before=201",
    )
    assert older.count('"n"') == 200
    assert (
        page(operator, "run_logs", working.run.key, query="?pod=../../etc&container=agent&before=5")
        == "[]"
    )


def test_a_run_without_logs_says_what_will_be_there(page, operator, run):
    assert "No logs yet" in page(operator, "run_logs", run.key)


# --- hostile text ---------------------------------------------------------------------------------------------------


def test_hostile_text_is_text_wherever_it_stands(page, operator, manager, project):
    Project.objects.filter(pk=project.pk).update(name=HOSTILE[:100])
    User.objects.filter(pk=operator.pk).update(first_name=HOSTILE[:100])
    project.refresh_from_db()
    operator.refresh_from_db()
    run = launch(project, operator, task=HOSTILE, title=HOSTILE)
    sidecar = begun(run)
    sidecar.says("message", message_id="m", text=HOSTILE)
    sidecar.says("thought", message_id="t", text=HOSTILE)
    sidecar.says("plan", entries=[{"content": HOSTILE, "status": "pending"}])
    diff = {"type": "diff", "path": HOSTILE, "oldText": "", "newText": HOSTILE}
    text = {"type": "content", "content": {"type": "text", "text": HOSTILE}}
    sidecar.says(
        "tool_call",
        tool_call_id=HOSTILE,
        title=HOSTILE,
        kind=HOSTILE,
        status=HOSTILE,
        input={HOSTILE: HOSTILE},
        content=[diff, diff],
    )
    sidecar.says(
        "tool_call",
        tool_call_id="x",
        title=HOSTILE,
        kind="read",
        input={HOSTILE: HOSTILE},
        content=[text],
    )
    sidecar.says("agent.junk", line=HOSTILE)
    sidecar.says("sidecar.note", level="error", message=HOSTILE)
    sidecar.says(HOSTILE[:50], value=HOSTILE)
    sidecar.says("lifecycle", command=HOSTILE, exit_code=1, output=HOSTILE)
    sidecar.says(
        "permission.requested",
        request_id="q",
        tool_call={"toolCallId": "c", "title": HOSTILE, "rawInput": {"command": HOSTILE}},
        options=[{"id": HOSTILE[:60], "name": HOSTILE, "kind": "allow_once"}],
    )
    sidecar.says("turn.ended", turn=1, stop_reason=HOSTILE[:39])
    for name, args in [
        ("now", []),
        ("runs", []),
        ("run", [run.key]),
        ("run_access", [run.key]),
        ("run_logs", [run.key]),
        ("run_new", []),
        ("search", []),
    ]:
        html = page(manager, name, *args, query="?q=script" if name == "search" else "")
        assert "<script>alert" not in html, name
        assert "<img" not in html, name


def test_bidirectional_signs_of_an_agent_are_named_in_the_transcript(page, operator, working):
    working.says("message", message_id="m", text="safe \u202e evil")
    working.says("tool_call", tool_call_id="c", title="run \u2066 x", kind="other")
    html = page(operator, "run", working.run.key)
    transcript = html[html.index('id="transcript"') : html.index('id="composer"')]
    assert "\u202e" not in transcript
    assert "\u2066" not in transcript
    assert "U+202E" in transcript


# --- the frame ------------------------------------------------------------------------------------------------------


def test_the_theme_comes_right_from_the_server(client, page, post, viewer):
    assert "data-theme=" not in page(viewer, "now").split("<body")[0]
    post(viewer, "theme", theme="dark", next="/runs/")
    assert 'data-theme="dark"' in page(viewer, "now")
    post(viewer, "theme", theme="system")
    assert "data-theme=" not in page(viewer, "now").split("<body")[0]


def test_a_way_back_never_leaves_the_site(post, viewer):
    answer = post(viewer, "theme", theme="dark", next="https://evil.example/")
    assert answer.redirect_chain[0][0] == "/"


def test_search_finds_runs_projects_and_reviews(page, client, viewer, run):
    text = page(viewer, "search", query="?q=webhooks")
    assert "Retry webhooks" in text
    found = client.get(reverse("search") + "?q=payments", headers={"Accept": "application/json"})
    assert {row["kind"] for row in found.json()["results"]} >= {"project"}
    assert "Nothing found" in page(viewer, "search", query="?q=zzzz")


def test_nothing_inline_is_in_the_pages(page, manager, working):
    working.asks()
    for name, args in [
        ("now", []),
        ("run", [working.run.key]),
        ("run_logs", [working.run.key]),
        ("run_new", []),
    ]:
        html = page(manager, name, *args)
        assert not re.search(r"<script(?![^>]*src=)", html), name
        assert not re.search(r"<[^>]+ (style|on[a-z]+)=", html), name
        assert "<style" not in html, name


def test_the_style_guide_is_there_while_developing_only(page, viewer, settings):
    page(viewer, "styleguide", status=404)
    settings.DEBUG = True
    assert "Style guide" in page(viewer, "styleguide")


def test_a_page_without_right_says_whose_it_is(page, viewer):
    assert "You may not do this" in page(viewer, "people", status=403)


def test_libraries_are_served_by_us_with_version_and_licence():
    listed = (settings.ASSETS_DIR / "static/vendor/README.md").read_text()
    for folder in (settings.ASSETS_DIR / "static/vendor").iterdir():
        if folder.is_dir():
            assert f"`{folder.name}/`" in listed
            assert (folder / "LICENSE").is_file()


def test_scripts_stay_short_and_load_each_other(client):
    folder = settings.ASSETS_DIR / "static/js"
    for path in folder.glob("*.js"):
        lines = path.read_text().splitlines()
        assert len(lines) < 150, path.name
        for name in re.findall(r'from "\./([^"]+)"|import "\./([^"]+)"', path.read_text()):
            assert (folder / (name[0] or name[1])).is_file(), (path.name, name)
