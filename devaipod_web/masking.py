"""The one mask: what is left of a text when everything that looks like a secret is taken out.

Logs, diagnoses and bug reports pass it. It knows tokens by their form, and values by the name that stands before them.
"""

from __future__ import annotations

import re

MASK = "[masked]"
_NAMES = (
    r"token|tokens|authorization|password|passwd|passphrase|secret|secrets|credential|credentials|api[_-]?key|access[_-]?key|"
    r"cookie|set-cookie|sessionid|private[_-]?key|encryption[_-]?key|bearer"
)
#: Names whose values are never shown.
SECRET_NAMES = re.compile(rf"(?:^|[_-])(?:{_NAMES})$", re.IGNORECASE)
#: Text that is a secret wherever it stands → what is left of it.
SECRET_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A whole block, or one whose end was cut off (RFC 7468).
    (
        re.compile(
            r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        MASK,
    ),
    (re.compile(r"\b(Bearer|Basic)\s+[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    (re.compile(r"(/sign-in/)[A-Za-z0-9_~.-]{8,}"), rf"\1{MASK}"),
    (
        re.compile(r"([?&](?:token|key|api_key|access_token|code)=)[^&\s\"']+", re.IGNORECASE),
        rf"\1{MASK}",
    ),
    (re.compile(r"(://[^/\s:@]+:)[^/\s@]+@"), rf"\1{MASK}@"),
    # As environments, configurations, JSON and headers have them: OPENAI_API_KEY=…, "password": "…", X-Api-Key: …
    (
        re.compile(
            rf"""((?:\b|[_-])(?:{_NAMES})["']?\s{{0,3}}[=:]\s{{0,3}})(?!(?:Bearer|Basic)\s)"""
            r"""(?:"(?:[^"\\\n]|\\.)*"?|'[^'\n]*'?|[^\s"',;}\]&]+)""",
            re.IGNORECASE,
        ),
        rf"\1{MASK}",
    ),
    (
        re.compile(
            r"\b(?:sk|pk|rk|gsk|xai|ghp|gho|ghs|ghu|glpat|github_pat|AIza|dvp)[-_][A-Za-z0-9_-]{12,}"
        ),
        MASK,
    ),
    (re.compile(r"\bAIza[A-Za-z0-9_-]{20,}"), MASK),
    # A JSON web token (RFC 7519): three parts, of which the first is an object.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"), MASK),
    # The run tokens: 256 bits in base64url. Object ids (40 hex) and digests (64 hex) have other lengths.
    (re.compile(r"(?<![A-Za-z0-9_-])[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])"), MASK),
)


def mask_text(text: str) -> str:
    """The same text without what looks like a secret."""
    for pattern, replacement in SECRET_TEXTS:
        text = pattern.sub(replacement, text)
    return text


def mask_lines(lines: list[str]) -> list[str]:
    """The same lines without what looks like a secret, one that goes over several lines too."""
    return mask_text("\n".join(lines)).split("\n") if lines else []
