from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from devaipod_web import home
from devaipod_web.gateway import sockets


@pytest.fixture
def short_home(tmp_path_factory, monkeypatch):
    """A runtime folder whose path leaves room for a socket's name."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="dp-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        yield folder


def listen() -> socket.socket:
    path = home.gateway_socket()
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    return server


def dial(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_pods_folder_holds_the_gateways_socket_alone(short_home):
    with listen():
        folder = sockets.link_pod("abcdefghij")
        sockets.link_pod("abcdefghij")
        assert os.listdir(folder) == ["gateway.sock"]
        dial(folder / "gateway.sock")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o755
        assert stat.S_IMODE(home.runtime_dir().stat().st_mode) == 0o700
        assert sorted(os.listdir(home.runtime_dir())) == ["abcdefghij", "gateway.sock"]


def test_after_a_restart_the_same_folder_leads_to_the_new_socket(short_home):
    with listen():
        folder = sockets.link_pod("abcdefghij")
    with pytest.raises(ConnectionRefusedError):
        dial(folder / "gateway.sock")
    with listen():
        sockets.relink_all(["abcdefghij"])
        dial(folder / "gateway.sock")


def test_a_pod_may_be_linked_before_the_gateway_listens(short_home):
    home.gateway_socket().unlink(missing_ok=True)
    folder = sockets.link_pod("abcdefghij")
    assert os.listdir(folder) == []
    with listen():
        sockets.relink_all(["abcdefghij"])
        dial(folder / "gateway.sock")


def test_unlinking_takes_the_folder_and_nothing_else(short_home):
    with listen():
        sockets.link_pod("abcdefghij")
        sockets.unlink_pod("abcdefghij")
        sockets.unlink_pod("abcdefghij")
        dial(home.gateway_socket())


def test_a_path_that_is_too_long_is_said_before_anything_is_made(monkeypatch, tmp_path):
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with pytest.raises(OSError, match="XDG_RUNTIME_DIR"):
        sockets.link_pod("abcdefghij")
