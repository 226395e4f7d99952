"""Where a sidecar looks for the gateway."""

from __future__ import annotations

import pytest

from pods.sidecar import gateway
from pods.sidecar.link import gateway_address


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_GATEWAY_DIR", str(tmp_path))
    monkeypatch.delenv("DEVAIPOD_GATEWAY", raising=False)
    return tmp_path


def test_the_mounted_socket_is_it_where_nothing_else_is_said(folder):
    assert gateway_address() == ("/run/devaipod/gateway.sock", "http://gateway")


def test_a_relay_that_moved_is_found_at_the_next_dial(folder, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_GATEWAY", "http://10.1.2.3:8401")
    assert gateway_address() == ("", "http://10.1.2.3:8401")
    (folder / "url").write_text("http://10.1.2.9:8401\n")
    assert gateway_address() == ("", "http://10.1.2.9:8401")


@pytest.mark.parametrize("said", [b"", b"\xff\xfe", b"file:///etc/passwd", b"nonsense"])
def test_what_is_no_address_is_not_believed(folder, monkeypatch, said):
    monkeypatch.setenv("DEVAIPOD_GATEWAY", "http://10.1.2.3:8401")
    (folder / "url").write_bytes(said)
    assert gateway.url() == "http://10.1.2.3:8401"
