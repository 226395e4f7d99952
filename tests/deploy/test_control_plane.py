"""The control plane on a real cluster: it comes up by `kubectl apply -k`, keeps its state, and may do what it must and no more."""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.deploy.access import AGENT, AGENTS, CONTROL_PLANE, INFRA, REFUSED, attributes, granted
from tests.deploy.kubectl import kubectl
from tests.deploy.place import DEPLOYMENT, Place, wait
from tests.deploy.restricted import violations

pytestmark = [pytest.mark.kube, pytest.mark.slow]


def container(pod: dict[str, Any], name: str) -> dict[str, Any]:
    """The state of one of a pod's containers."""
    status = pod["status"]
    both = [*status["initContainerStatuses"], *status["containerStatuses"]]
    (found,) = [one for one in both if one["name"] == name]
    assert isinstance(found, dict)
    return found


def asked(path: str, ip: str) -> tuple[int, str]:
    with urllib.request.urlopen(f"http://{ip}:8000{path}", timeout=10) as answer:
        return answer.status, answer.read().decode()


def test_it_becomes_ready_after_its_migrations_ran(place: Place):
    pod = place.pod()
    assert container(pod, "migrate")["state"]["terminated"]["exitCode"] == 0
    assert container(pod, "control-plane")["ready"] is True
    assert container(pod, "control-plane")["restartCount"] == 0
    said = kubectl("logs", DEPLOYMENT, "-n", INFRA, "-c", "migrate")
    assert re.search(r"Applied \d+ migrations", said)
    assert "The first manager is" in said


def test_its_probes_answer_at_the_pods_address(place: Place):
    ip = place.pod()["status"]["podIP"]
    assert asked("/healthz", ip) == (200, "ok\n")
    assert asked("/readyz", ip) == (200, "ok\n")


def test_what_runs_keeps_the_rules_of_restricted(place: Place):
    spec = place.pod()["spec"]
    # The one thing that the server adds to it is the account's token.
    assert violations(spec) == []


def test_it_runs_as_nobody_in_particular_on_a_root_that_it_cannot_write(place: Place):
    assert place.exec("id", "-u").strip() == "1000"
    said = place.exec("sh", "-c", "touch /opt/devaipod/x /etc/x 2>&1; true")
    assert said.count("Read-only file system") == 2
    status = place.exec("cat", "/proc/1/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)


def test_the_command_inside_speaks_with_the_server(place: Place):
    found = json.loads(place.exec("devaipod", "services", "--json"))
    health = {one["name"]: one["health"] for one in found}
    assert {health[name] for name in ("web", "gateway", "database", "staging")} == {"ok"}


def test_the_doctor_finds_nothing_that_a_cluster_need_not_have(place: Place):
    found = json.loads(place.exec("devaipod", "doctor", "--json", check=False))
    # This cluster's network plugin enforces nothing, and that is said until it is known.
    about = {one["code"] for one in found}
    assert about <= {"policies-not-enforced", "policies-unknown", "target-down", "disk-low"}


def test_a_person_signs_in_by_the_link_and_the_page_opens(place: Place, chromium: Browser):
    page = chromium.new_context(base_url=place.url).new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.goto(place.sign_in_link())
    page.get_by_role("button", name=re.compile("Sign in as")).click()
    page.wait_for_url(f"{place.url}/")
    expect(page.get_by_role("link", name="Projects").first).to_be_visible()
    # A page of the room that looks after the parts, with its own script and styles.
    page.goto("/services/")
    expect(page.locator("#service-gateway")).to_contain_text("ok")
    page.context.close()
    assert troubles == []


def reviewed(kind: str, specs: list[dict[str, Any]], *words: str) -> list[bool]:
    """What the API server answers to access reviews, in their order."""
    documents = [
        json.dumps({"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec})
        for spec in specs
    ]
    shown = ["-o", "jsonpath={.status.allowed}{'\\n'}"]
    answer = kubectl("create", "-f", "-", *shown, *words, stdin="\n".join(documents))
    found = [line == "true" for line in answer.splitlines()]
    assert len(found) == len(specs)
    return found


def allowed(user: str, wanted: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Which of (verb, resource, namespace) the server lets an account do, asked about it."""
    groups = ["serviceaccounts", f"serviceaccounts:{user.split(':')[2]}", "authenticated"]
    specs = [
        {
            "user": user,
            "groups": [f"system:{group}" for group in groups],
            "resourceAttributes": attributes(*one),
        }
        for one in wanted
    ]
    answers = reviewed("SubjectAccessReview", specs)
    return [one for one, answer in zip(wanted, answers, strict=True) if answer]


NEEDED = sorted((verb, resource, AGENTS) for verb, resource in granted())


def test_the_control_plane_may_do_everything_that_it_needs(place: Place):
    assert allowed(CONTROL_PLANE, NEEDED) == NEEDED


def test_the_control_plane_is_refused_everything_else(place: Place):
    assert allowed(CONTROL_PLANE, REFUSED) == []


def test_the_account_of_agents_may_do_nothing(place: Place):
    assert allowed(AGENT, [*NEEDED, *REFUSED]) == []


def test_the_account_itself_is_told_the_same_about_itself(place: Place):
    """SelfSubjectAccessReview, asked as the account: nothing but the server's own word on who it is."""
    specs = [{"resourceAttributes": attributes(*one)} for one in [*NEEDED, *REFUSED]]
    found = reviewed("SelfSubjectAccessReview", specs, f"--as={CONTROL_PLANE}")
    assert found == [True] * len(NEEDED) + [False] * len(REFUSED)


def test_its_token_lets_it_list_pods_from_inside_and_no_secrets(place: Place):
    """From inside of the pod, by the token that it was given, with the server's certificate checked."""
    program = (
        "import os, ssl, sys, urllib.error, urllib.request as u\n"
        "d = '/var/run/secrets/kubernetes.io/serviceaccount/'\n"
        "host = os.environ['KUBERNETES_SERVICE_HOST'] + ':' + os.environ['KUBERNETES_SERVICE_PORT']\n"
        "url = f'https://{host}/api/v1/namespaces/devaipod-agents/{sys.argv[1]}'\n"
        "asks = u.Request(url, headers={'Authorization': 'Bearer ' + open(d + 'token').read()})\n"
        "try:\n"
        "    print(u.urlopen(asks, context=ssl.create_default_context(cafile=d + 'ca.crt'), timeout=10).status)\n"
        "except urllib.error.HTTPError as error:\n"
        "    print(error.code)\n"
    )
    assert place.exec("python3", "-c", program, "pods").strip() == "200"
    assert place.exec("python3", "-c", program, "secrets").strip() == "403"


def test_a_new_pod_takes_up_the_state_of_the_old_one(place: Place):
    before = place.pod()["metadata"]["name"]
    identity = json.loads(place.exec("cat", "/var/lib/devaipod/home/installation.json"))["id"]
    kubectl("delete", "pod", before, "-n", INFRA, timeout=90)
    wait(lambda: place.pod()["metadata"]["name"] != before, 60, "another pod")
    place.wait_until_ready()
    place.forward()
    assert (
        json.loads(place.exec("cat", "/var/lib/devaipod/home/installation.json"))["id"] == identity
    )
    said = kubectl("logs", DEPLOYMENT, "-n", INFRA, "-c", "migrate")
    assert "Applied" not in said
