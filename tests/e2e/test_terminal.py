"""A terminal in a pod, over a real installation's websocket: who gets in, what it is, and how it ends."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from tests.bench.browser import cookie
from tests.bench.viewers import resident
from tests.e2e.attached import Attached, launched, shop
from tests.e2e.installation import Installation, installed

pytestmark = [pytest.mark.podman, pytest.mark.slow]


@pytest.fixture(scope="module")
def place() -> Iterator[Installation]:
    with shop(DEVAIPOD_MAX_TERMINALS="3") as made:
        yield made


def django(place: Installation, program: str) -> str:
    """Run a few lines of Python with that installation's Django and return what they print."""
    setup = "import os, django; os.environ['DJANGO_SETTINGS_MODULE'] = 'devaipod_web.settings'; django.setup()\n"
    return place.python(setup + program)


@pytest.fixture(scope="module")
def pod(place: Installation) -> str:
    return launched(place)[1]


def person(place: Installation, name: str, role: str | None) -> str:
    """A person of this role (None: a stranger) in that installation, and a token of theirs."""
    return django(
        place,
        "from django.contrib.auth.models import Group\n"
        "from devaipod_web.accounts import tokens\n"
        "from devaipod_web.accounts.models import User\n"
        f"user, _ = User.objects.get_or_create(username={name!r})\n"
        f"user.groups.set(Group.objects.filter(name={role!r}))\n"
        "print(tokens.create(user, 'test')[1])",
    ).strip()


def audit(place: Installation, pod: str) -> list[dict]:
    """What the audit log says of terminals in a pod, the oldest first."""
    text = django(
        place,
        "import json\n"
        "from devaipod_web.reviews.models import AuditEntry\n"
        f"rows = AuditEntry.objects.filter(action__startswith='terminal.', target='{pod}/agent').order_by('id')\n"
        "print(json.dumps([{'action': r.action, 'who': r.actor_name, **r.detail} for r in rows]))",
    )
    found: list[dict] = json.loads(text)
    return found


@pytest.fixture(autouse=True)
def settled(place: Installation, pod: str) -> None:
    """The terminals of the test before have ended to the last word."""

    def is_quiet() -> bool:
        actions = [entry["action"] for entry in audit(place, pod)]
        return actions.count("terminal.opened") == actions.count("terminal.closed")

    place.wait(is_quiet, 20, "the ends of all terminals")


def test_a_shell_of_the_agents_own_user_in_its_workspace_without_capabilities_or_secrets(
    place: Installation, pod: str
):
    with Attached(place, pod, size=(24, 80)) as shell:
        shell.until(b"$ ")
        shell.tells({"resize": [33, 101]})
        shell.types(b"PS1=; stty -echo\n")
        shell.types(b"id -u; pwd; stty size; echo $TERM; echo shell:$0\n")
        shell.types(b"grep -E 'CapEff|NoNewPrivs' /proc/self/status; env; echo en''d\n")
        said = shell.until(b"end").decode()
        shell.types(b"exit 5\n")
        assert shell.to_end() == (1000, "The program has ended.")
    assert shell.told == {"exit": 5}
    assert "1000\r\n/workspaces/shop\r\n33 101\r\nxterm-256color\r\n" in said
    assert "shell:bash" in said
    assert "CapEff:\t0000000000000000" in said
    assert "NoNewPrivs:\t1" in said
    tokens = place.home / "tokens"
    for secret in (path.read_text().strip() for path in tokens.rglob("*") if path.is_file()):
        assert secret not in said
    assert "dvp_" not in said
    last = audit(place, pod)[-2:]
    assert [entry["action"] for entry in last] == ["terminal.opened", "terminal.closed"]
    assert last[1]["exit_code"] == 5
    assert last[1]["bytes_in"] > 50
    assert last[1]["bytes_out"] >= len(shell.said)
    assert "stty" not in json.dumps(last)


@pytest.mark.parametrize(("asked", "seen"), [((31, 97), b"31 97"), ((0, 97), b"0 0")])
def test_a_terminal_begins_with_the_size_that_its_address_names(
    place: Installation, pod: str, asked: tuple[int, int], seen: bytes
):
    with Attached(place, pod, "stty", "size", size=asked) as shell:
        assert shell.to_end()[0] == 1000
    assert shell.said == seen + b"\r\n"


def test_a_program_without_a_terminal_is_a_clean_pipe(place: Installation, pod: str):
    data = bytes(range(256)) * 4000
    with Attached(place, pod, "sh", "-c", "cat; exit 3", tty=False) as pipe:
        for at in range(0, len(data), 30_000):
            pipe.types(data[at : at + 30_000])
        pipe.tells({"eof": True})
        pipe.to_end(40)
    assert pipe.said == data
    assert pipe.told == {"exit": 3}
    assert audit(place, pod)[-2]["command"] == "sh -c cat; exit 3"


def test_a_program_that_is_not_there_says_so_with_status_127(place: Installation, pod: str):
    with Attached(place, pod, "no-such-program") as shell:
        shell.to_end()
    assert b"not found" in shell.said
    assert shell.told == {"exit": 127}


@pytest.mark.parametrize(
    ("who", "status"),
    [("viewer", 403), (None, 404), ("operator", 101), ("reviewer", 101), ("manager", 101)],
)
def test_roles_get_in_by_the_permission_table(place: Installation, pod: str, who, status):
    token = person(place, f"{who}-of-test", who)
    if status == 101:
        with Attached(place, pod, "true", token=token) as shell:
            shell.to_end()
            assert shell.told == {"exit": 0}
        return
    with pytest.raises(InvalidStatus) as refused:
        Attached(place, pod, token=token)
    assert refused.value.response.status_code == status
    problem = json.loads(refused.value.response.body)
    assert problem["status"] == status
    assert problem["type"].startswith("urn:devaipod:problem:")


def test_nobody_gets_in_without_proof_or_with_another_pages_origin(place: Installation, pod: str):
    tried = [
        ({}, 403),  # no Origin: not a page of ours
        ({"Origin": place.url}, 401),
        ({"Authorization": "Bearer dvp_nonsense"}, 401),
        ({"Authorization": "Basic eDp5"}, 401),
        ({"Authorization": f"Bearer {place.token}", "Origin": "http://evil.example"}, 403),
    ]
    for headers, status in tried:
        with pytest.raises(InvalidStatus) as refused:
            Attached(place, pod, headers=headers)
        assert refused.value.response.status_code == status, headers


def test_a_pod_of_another_installation_is_not_found(place: Installation, pod: str):
    with (
        tempfile.TemporaryDirectory(prefix="devaipod-other-") as folder,
        installed(Path(folder) / "home") as other,
        pytest.raises(InvalidStatus) as refused,
    ):
        Attached(other, pod)
    assert refused.value.response.status_code == 404


def test_it_closes_when_the_role_ends_and_when_the_token_is_revoked(place: Installation, pod: str):
    token = person(place, "olga", "operator")
    with Attached(place, pod, token=token) as shell:
        shell.until(b"$")
        person(place, "olga", None)
        assert shell.to_end() == (4403, "Your session, token or role has ended.")
    token = person(place, "olga", "operator")
    with Attached(place, pod, token=token) as shell:
        shell.until(b"$")
        django(
            place,
            "from devaipod_web.accounts import tokens\n"
            f"row = tokens.live(tokens.digest({token!r})); tokens.revoke(row, row.user)",
        )
        assert shell.to_end()[0] == 4403


def test_a_pages_session_opens_it_and_its_end_closes_it(place: Installation, pod: str):
    session = cookie(place)
    headers = {"Cookie": session, "Origin": place.url}
    with Attached(place, pod, headers=headers) as shell:
        shell.until(b"$")
        django(
            place,
            "from django.contrib.sessions.models import Session\n"
            f"Session.objects.filter(session_key__in={re.findall('=([^;]+)', session)!r}).delete()",
        )
        assert shell.to_end()[0] == 4403
    # A cookie beside a token that does not count opens nothing.
    other = {"Cookie": cookie(place), "Authorization": "Bearer dvp_nonsense"}
    with pytest.raises(InvalidStatus) as refused:
        Attached(place, pod, headers=other)
    assert refused.value.response.status_code == 401


def test_the_program_and_its_children_end_with_the_connection(place: Installation, pod: str):
    with Attached(place, pod) as shell:
        shell.types(b"sleep 4242 & sleep 4243; echo never\n")
        shell.until(b"[1]")
        time.sleep(0.5)
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        listed = place.podman("exec", f"{pod}-agent", "ps", "-eo", "stat,args")
        if not [line for line in listed.splitlines() if "sleep 424" in line and line[0] != "Z"]:
            break
        time.sleep(0.3)
    else:
        raise AssertionError(listed)
    place.wait(lambda: audit(place, pod)[-1]["action"] == "terminal.closed", 10, "the audit log")


def test_one_more_than_are_allowed_is_told_so(place: Installation, pod: str):
    with Attached(place, pod) as one, Attached(place, pod) as two, Attached(place, pod) as three:
        for shell in (one, two, three):
            shell.until(b"$")
        with Attached(place, pod) as fourth:
            code, reason = fourth.to_end()
            assert code == 4409
            assert "3 terminals" in reason
    place.wait(lambda: audit(place, pod)[-1]["action"] == "terminal.closed", 10, "places again")
    with Attached(place, pod, "true") as again:
        assert again.to_end()[0] == 1000


def test_frames_that_are_too_big_or_not_understood_end_it(place: Installation, pod: str):
    with Attached(place, pod) as shell:
        shell.types(b"x" * (32 * 1024 + 1))
        assert shell.to_end()[0] == 1009
    place.wait(lambda: audit(place, pod)[-1]["action"] == "terminal.closed", 10, "its end")
    for frame in ('{"resize": [0, 10]}', '{"resize": "x"}', "[" * 900, '{"ack": -1}', "exit"):
        with Attached(place, pod, "cat") as shell:
            shell.socket.send(frame)
            assert shell.to_end()[0] == 4400, frame
        place.wait(lambda: audit(place, pod)[-1]["action"] == "terminal.closed", 10, "its end")


def test_endless_output_nobody_reads_costs_no_memory_and_slows_no_page(
    place: Installation, pod: str
):
    assert place.server is not None
    place.api("GET", "/status")
    before = resident(place.server.pid)
    with Attached(place, pod, "cat", "/dev/zero") as slow, Attached(place, pod, "yes") as acking:
        acking.tells({"ack": 0})
        acking.until(b"y\r\ny\r\n")
        took, peak = [], 0
        began = time.monotonic()
        # `slow` is never read: its connection is full after some hundred kilobytes, and the pod is read no further.
        while time.monotonic() - began < 8:
            asked = time.monotonic()
            place.api("GET", "/runs")
            took.append(time.monotonic() - asked)
            peak = max(peak, resident(place.server.pid))
            time.sleep(0.05)
        while True:
            try:
                acking.step(0.5)
            except TimeoutError:
                break
        assert len(acking.said) <= 512 * 1024 + 128 * 1024
        acking.tells({"ack": len(acking.said)})
        acking.until(acking.said[:0] + b"y", 5)
        assert acking.step(5)
    assert peak - before < 30e6, (before, peak)
    assert sorted(took)[len(took) // 2] < 0.5, took
    assert slow.code in (0, 1013)


def test_input_that_nobody_takes_ends_the_session_and_leaves_nothing_behind(
    place: Installation, pod: str
):
    with Attached(place, pod, "sleep", "4711") as shell:
        try:
            for _ in range(400):
                shell.types(b"x" * 99 + b"\n" * 29_000)
        except Exception:  # noqa: BLE001, S110 - the socket is closed under us, which is what is tested
            pass
        assert shell.to_end(40) == (1013, "The program takes no input.")
    place.wait(
        lambda: "sleep 4711" not in place.podman("exec", f"{pod}-agent", "ps", "-eo", "args"),
        15,
        "the program's end",
    )


def test_it_ends_with_its_pod_and_an_ended_pod_can_not_be_entered(place: Installation):
    key, pod = launched(place)
    with Attached(place, pod) as shell:
        shell.until(b"$")
        place.api("POST", f"/runs/{key}/stop", {})
        code, reason = shell.to_end(60)
        assert code in (1000, 4410), (code, reason)
    place.wait(lambda: place.api("GET", f"/pods/{pod}")["ended_at"], 60, "the pod's end")
    with Attached(place, pod) as late:
        code, reason = late.to_end()
        assert code == 4410
        assert "Prompt the run" in reason


def test_a_terminal_that_stands_idle_is_closed_and_one_in_use_is_not(place: Installation, pod: str):
    place.stop()
    place.environment["DEVAIPOD_TERMINAL_IDLE_SECONDS"] = "4"
    place.start()
    try:
        with Attached(place, pod) as idle, Attached(place, pod) as used:
            used.until(b"$")
            began = time.monotonic()
            while time.monotonic() - began < 8:
                used.types(b"\n")
                time.sleep(0.5)
            assert idle.to_end(5)[0] == 4408
            used.types(b"echo still''here\n")
            used.until(b"stillhere")
    finally:
        place.stop()
        del place.environment["DEVAIPOD_TERMINAL_IDLE_SECONDS"]
        place.start()
    # A server that ends has said so of the terminals that were open.
    assert audit(place, pod)[-1]["action"] == "terminal.closed"


def test_a_server_that_is_asked_to_end_closes_its_terminals_first(place: Installation, pod: str):
    with Attached(place, pod) as shell:
        shell.until(b"$")
        place.stop()
        assert shell.to_end()[0] in (1001, 1012, 1006, 0)
    place.start()
    last = audit(place, pod)[-1]
    assert (last["action"], last["reason"]) == ("terminal.closed", "The client left.")


def test_a_server_that_was_killed_says_at_its_next_start_that_its_terminals_ended(
    place: Installation, pod: str
):
    with Attached(place, pod, "sleep", "1000") as shell:
        place.wait(lambda: audit(place, pod)[-1]["action"] == "terminal.opened", 10, "its begin")
        place.kill9()
        shell.to_end()
    begin = audit(place, pod)[-1]
    place.start()
    last = audit(place, pod)[-1]
    assert (last["action"], last["reason"]) == ("terminal.closed", "The server was killed.")
    assert (last["who"], last["terminal"]) == (begin["who"], begin["terminal"])
    assert audit(place, pod)[-2] == begin
