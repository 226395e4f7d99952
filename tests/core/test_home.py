from __future__ import annotations

import os
import stat
import threading

import pytest

from devaipod_web import home


@pytest.fixture
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEVAIPOD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "home"


def test_a_key_is_ten_base32_characters_and_not_repeated():
    keys = {home.new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(len(key) == 10 and set(key) <= set(home.KEY_ALPHABET) for key in keys)


def test_the_installation_id_stays_the_same(own_home):
    assert home.installation_id() == home.installation_id()
    assert stat.S_IMODE(own_home.stat().st_mode) == 0o700


def test_two_processes_that_start_at_once_agree_on_the_secret(own_home):
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(home.secret_file("secret.key")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert stat.S_IMODE((own_home / "secret.key").stat().st_mode) == 0o600
    assert [p.name for p in own_home.iterdir() if p.name.startswith(".")] == []


def test_the_runtime_folder_is_the_users_alone(own_home):
    folder = home.runtime_dir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="this user alone"):
        home.runtime_dir()


def test_socket_paths_fit_into_a_unix_address(own_home, monkeypatch):
    monkeypatch.setenv(
        "XDG_RUNTIME_DIR", "/run" if os.geteuid() == 0 else f"/run/user/{os.geteuid()}"
    )
    longest = home.pod_socket_dir(home.new_key()) / "gateway.sock"
    assert len(os.fsencode(longest)) <= home.MAX_SOCKET_PATH
    home.runtime_dir().rmdir()
