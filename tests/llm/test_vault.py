from __future__ import annotations

import stat

import pytest

from devaipod_web import home
from devaipod_web.llm import vault


def test_what_is_sealed_is_not_readable_and_comes_back():
    sealed = vault.seal(b"sk-real-key")
    assert b"sk-real-key" not in sealed
    assert vault.unseal(sealed) == b"sk-real-key"


def test_the_key_file_is_the_users_alone():
    vault.seal(b"x")
    assert stat.S_IMODE((home.home() / "encryption.key").stat().st_mode) == 0o600


def test_a_key_of_the_environment_goes_before_the_file(monkeypatch):
    sealed = vault.seal(b"x")
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "from the environment")
    with pytest.raises(vault.CannotUnseal, match="Enter it again"):
        vault.unseal(sealed)


def test_a_new_key_before_the_old_one_still_reads_the_old_ones_secrets(monkeypatch):
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "old")
    sealed = vault.seal(b"x")
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "new,old")
    assert vault.unseal(sealed) == b"x"
    again = vault.seal(b"y")
    monkeypatch.setenv("DEVAIPOD_ENCRYPTION_KEY", "new")
    assert vault.unseal(again) == b"y"


def test_a_changed_secret_is_refused():
    sealed = bytearray(vault.seal(b"x"))
    sealed[-1] ^= 1
    with pytest.raises(vault.CannotUnseal):
        vault.unseal(bytes(sealed))
