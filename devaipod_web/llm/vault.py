"""Secrets at rest: sealed with Fernet (AES-128-CBC and HMAC-SHA256) under the installation's encryption key.

The key is `DEVAIPOD_ENCRYPTION_KEY` or, without it, the file `encryption.key` (mode 0600) of the installation. To
change it, name the new and then the old one, separated by a comma: the first seals, all unseal. `devaipod provider reseal` seals
every credential anew, and then the old one can go.
"""

from __future__ import annotations

import base64
import hashlib
import os

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from devaipod_web import home

#: Binds the derived key to its use: another use of the same secret gets another key.
PURPOSE = b"devaipod credentials v1"


class CannotUnseal(Exception):
    """A secret was sealed with a key that this installation does not have any more."""

    def __init__(self) -> None:
        super().__init__(
            "The stored credential cannot be read with the present encryption key. Enter it again, or put the key back that "
            "sealed it (DEVAIPOD_ENCRYPTION_KEY or the file encryption.key)."
        )


def seal(secret: bytes, *, context: bytes = b"") -> bytes:
    """Encrypt a secret for the database. With a `context` nobody opens it who does not know that too."""
    return _fernet(context).encrypt(secret)


def unseal(sealed: bytes, *, context: bytes = b"") -> bytes:
    """Decrypt what `seal` made with the same context. Raises `CannotUnseal`."""
    try:
        return _fernet(context).decrypt(bytes(sealed))
    except InvalidToken as error:
        raise CannotUnseal from error


def reseal(sealed: bytes, *, context: bytes = b"") -> bytes:
    """The same secret, sealed with the first key. Raises `CannotUnseal`."""
    try:
        return _fernet(context).rotate(bytes(sealed))
    except InvalidToken as error:
        raise CannotUnseal from error


def fingerprint() -> str:
    """Changes with the keys; says nothing about them."""
    return hashlib.sha256(b"fingerprint\0" + b"\0".join(_secrets())).hexdigest()


def _fernet(context: bytes) -> MultiFernet:
    return MultiFernet([_derive(secret, context) for secret in _secrets()])


def _secrets() -> list[bytes]:
    named = os.environ.get("DEVAIPOD_ENCRYPTION_KEY", "")
    secrets = [part.strip().encode() for part in named.split(",") if part.strip()]
    return secrets or [home.secret_file("encryption.key")]


def _derive(secret: bytes, context: bytes) -> Fernet:
    # The context is the salt (RFC 5869 §2.2): none gives the same keys as before there were contexts.
    kdf = HKDF(algorithm=hashes.SHA256(), length=32, salt=context or None, info=PURPOSE)
    return Fernet(base64.urlsafe_b64encode(kdf.derive(secret)))
