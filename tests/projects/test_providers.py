"""Providers: their keys stay inside, and the test button really asks."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from devaipod_web.llm import provider_test, providers, vault
from devaipod_web.llm.models import Provider
from devaipod_web.reviews.models import AuditEntry

pytestmark = pytest.mark.django_db(transaction=True)

KEY = "sk-test-0123456789abcdef"


class Handler(BaseHTTPRequestHandler):
    """A provider at the world's edge; what it answers is set by the path."""

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))  # type: ignore[attr-defined]
        case = self.path.split("/")[1]
        if case == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/v1/models")
            self.end_headers()
            return
        if case == "html":
            self.answer(200, b"<html>hello</html>")
        elif case == "echo":
            self.answer(400, f"bad key {KEY}".encode())
        elif self.headers.get("Authorization") != f"Bearer {KEY}":
            self.answer(401, b"{}")
        else:
            self.answer(200, json.dumps({"data": [{"id": "b"}, {"id": "a"}]}).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def upstream(settings):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def address(server: ThreadingHTTPServer, case: str = "ok") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/{case}/v1"


def test_a_key_is_sealed_and_in_no_audit_entry(manager):
    row = providers.save(
        manager, None, name="Acme", base_url="https://models.example/v1", credential=KEY
    )
    row.refresh_from_db()
    assert KEY.encode() not in bytes(row.credential)
    assert vault.unseal(bytes(row.credential)) == KEY.encode()
    assert KEY not in str(list(AuditEntry.objects.values()))


def test_an_empty_key_keeps_the_one_that_is_set_and_a_tick_forgets_it(manager):
    row = providers.save(
        manager, None, name="Acme", base_url="https://models.example/v1", credential=KEY
    )
    providers.save(manager, row, name="Acme 2", base_url=row.base_url)
    assert vault.unseal(bytes(row.credential)) == KEY.encode()
    providers.save(manager, row, name="Acme 2", base_url=row.base_url, forget_credential=True)
    assert not row.credential


def test_a_stored_key_is_not_sent_to_a_new_address(manager):
    row = providers.save(
        manager, None, name="Acme", base_url="https://models.example/v1", credential=KEY
    )
    with pytest.raises(providers.InvalidProvider, match="enter its key again"):
        providers.save(manager, row, name="Acme", base_url="https://other.example/v1")
    assert Provider.objects.get().base_url == "https://models.example/v1"


@pytest.mark.parametrize(
    ("name", "base_url", "credential", "field"),
    [
        ("", "https://models.example/v1", "", "name"),
        ("x", "ftp://models.example", "", "base_url"),
        ("x", "https://user:pw@models.example/v1", "", "base_url"),
        ("x", "https://models.example/v1?key=1", "", "base_url"),
        ("x", "https://models.example/v1", "two words", "credential"),
        ("x", "https://models.example/v1", "line\nbreak", "credential"),
    ],
)
def test_what_cannot_be_is_refused_at_its_field(manager, name, base_url, credential, field):
    with pytest.raises(providers.InvalidProvider) as caught:
        providers.save(manager, None, name=name, base_url=base_url, credential=credential)
    assert set(caught.value.errors) == {field}


def test_the_test_asks_for_the_models_with_the_key(manager, upstream):
    row = providers.save(manager, None, name="A", base_url=address(upstream), credential=KEY)
    result = provider_test.test(row)
    assert result.ok
    assert result.models == ["a", "b"]
    assert upstream.seen == [("/ok/v1/models", f"Bearer {KEY}")]


@pytest.mark.parametrize(
    ("case", "credential", "says"),
    [
        ("ok", "wrong", "refuses the key"),
        ("html", KEY, "not as a provider of the kind OpenAI-compatible"),
        ("redirect", KEY, "redirects are not followed"),
    ],
)
def test_what_went_wrong_is_said_with_the_next_step(manager, upstream, case, credential, says):
    row = providers.save(
        manager, None, name="A", base_url=address(upstream, case), credential=credential
    )
    result = provider_test.test(row)
    assert not result.ok
    assert says in result.message
    assert result.next_step


def test_a_providers_own_words_never_show_the_key(manager, upstream):
    row = providers.save(
        manager, None, name="A", base_url=address(upstream, "echo"), credential=KEY
    )
    assert KEY not in provider_test.test(row).message


def test_a_private_address_is_refused_unless_a_manager_listed_it(manager, upstream, settings):
    settings.ALLOWED_PRIVATE_NETWORKS = []
    row = providers.save(manager, None, name="A", base_url=address(upstream), credential=KEY)
    result = provider_test.test(row)
    assert not result.ok
    assert upstream.seen == []


def test_nobody_answers_is_said(manager, settings):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    row = providers.save(manager, None, name="A", base_url="http://127.0.0.1:9/v1")
    assert "does not answer" in provider_test.test(row).message


def test_a_provider_in_use_stays(manager, project):
    row = providers.save(manager, None, name="A", base_url="https://models.example/v1")
    project.provider = row
    project.save()
    with pytest.raises(providers.ProviderInUse, match="Payments"):
        providers.remove(manager, row)
    project.provider = None
    project.save()
    providers.remove(manager, row)
    assert not Provider.objects.exists()
