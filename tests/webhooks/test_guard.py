"""Where a webhook may lead: https to the public, or what a manager listed; checked when the connection is made."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone

from devaipod_web import db
from devaipod_web.webhooks import queue, services
from devaipod_web.webhooks.errors import InvalidWebhook
from devaipod_web.webhooks.models import Delivery, Webhook
from devaipod_web.webhooks.post import Poster
from tests.webhooks.receiver import receiving


@pytest.mark.django_db
@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://receiver.example/",
        "file:///etc/passwd",
        "unix:///run/x.sock",
        "gopher://receiver.example/",
        "https://user:password@receiver.example/",
        "https://receiver.example/#part",
        "https://receiver.example/a b",
        "https://receiver.example:99999/",
        "https:///path",
        "receiver.example/hook",
    ],
)
def test_what_is_no_receivers_address_is_refused_at_its_field(manager, url):
    with pytest.raises(InvalidWebhook) as refused:
        services.create(manager, name="Ops", url=url, events=["run.state"])
    assert set(refused.value.errors) == {"url"}
    assert not Webhook.objects.exists()


@pytest.mark.django_db
def test_an_address_may_have_a_query_which_the_audit_log_leaves_out(manager):
    from devaipod_web.reviews.models import AuditEntry

    url = "https://receiver.example/hook?code=s3cr3t"
    row, _ = services.create(manager, name="Ops", url=url, events=["run.state"])
    assert row.url == url
    assert "s3cr3t" not in str(list(AuditEntry.objects.values()))


async def attempt(webhook: Webhook) -> queue.Outcome:
    """One attempt as the sender makes it, and what came of it."""
    lookups = ThreadPoolExecutor(2)
    poster = Poster(lookups)
    try:
        (job,) = await db.write(
            queue.claim, "here:1:1", now=timezone.now(), room=1, busy={webhook.pk: 0}
        )
        return await poster.post(job)
    finally:
        await poster.close()
        lookups.shutdown()
        await db.close_connections()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "2130706433",
        "127.1",
        "0x7f.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "10.0.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.0",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_spelling_of_a_private_address_is_connected_to(manager, host, scheme):
    with receiving() as receiver:
        webhook, _ = await db.write(
            services.create,
            manager,
            name="Ops",
            url=f"{scheme}://{host}:{receiver.port}/",
            events=["run.state"],
        )
        await db.write(services.test, webhook, manager)
        outcome = await attempt(webhook)
    assert outcome.status is None
    assert outcome.error
    assert receiver.got == []
    assert receiver.refused == []


@pytest.mark.django_db(transaction=True)
async def test_a_name_that_turns_private_between_two_lookups_is_refused_as_it_is_dialled(
    manager, monkeypatch
):
    """A name server that answers differently a second later (DNS rebinding)."""
    import socket

    answers = iter(["93.184.215.14", "127.0.0.1", "127.0.0.1"])
    real = socket.getaddrinfo

    def rebind(host, port, *args, **kwargs):
        if host != "rebind.example":
            return real(host, port, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    with receiving() as receiver:
        monkeypatch.setattr(socket, "getaddrinfo", rebind)
        webhook, _ = await db.write(
            services.create,
            manager,
            name="Ops",
            url=f"https://rebind.example:{receiver.port}/",
            events=["run.state"],
        )
        await db.write(services.test, webhook, manager)
        outcome = await attempt(webhook)
    assert "private network" in outcome.error
    assert next(answers) == "127.0.0.1"  # two were asked for


def certificate(folder) -> tuple[ssl.SSLContext, str]:
    """A server's TLS context with a certificate that only its own file vouches for, and that file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context, str(path)


@pytest.mark.django_db(transaction=True)
async def test_certificates_are_verified(manager, settings, tmp_path, monkeypatch):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    tls, bundle = certificate(tmp_path)
    with receiving(tls) as receiver:
        webhook, secret = await db.write(
            services.create, manager, name="Ops", url=receiver.url, events=["run.state"]
        )
        receiver.secrets.append(secret)
        await db.write(services.test, webhook, manager)
        outcome = await attempt(webhook)
        assert "certificate is not trusted" in outcome.error
        assert receiver.got == []
        monkeypatch.setenv("SSL_CERT_FILE", bundle)
        await db.write(lambda: Delivery.objects.update(lease_owner="", lease_until=None))
        outcome = await attempt(webhook)
    assert outcome.ok, outcome
    assert len(receiver.got) == 1


@pytest.mark.django_db(transaction=True)
async def test_what_does_not_answer_is_said(manager, settings):
    settings.ALLOWED_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    webhook, _ = await db.write(
        services.create, manager, name="Ops", url="http://127.0.0.1:9/", events=["run.state"]
    )
    await db.write(services.test, webhook, manager)
    outcome = await attempt(webhook)
    assert "No connection came about" in outcome.error
