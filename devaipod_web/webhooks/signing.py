"""Secrets and signatures as Standard Webhooks 1.0 defines them (symmetric: HMAC-SHA256, `v1`)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
#: The specification asks for 24 to 64 bytes.
SECRET_BYTES = 32


def new_secret() -> str:
    """A new signing secret: `whsec_` and 32 random bytes in base64."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def headers(
    message_id: str, *, timestamp: int, body: str, secrets: Sequence[str]
) -> dict[str, str]:
    """The three headers of an attempt made at `timestamp` (Unix seconds), signed with each of the secrets."""
    content = f"{message_id}.{timestamp}.{body}".encode()
    signatures = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix(PREFIX))
        digest = hmac.new(key, content, hashlib.sha256).digest()
        signatures.append(f"v1,{base64.b64encode(digest).decode()}")
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
