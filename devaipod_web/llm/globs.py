"""Globs over model names: `*` is any characters, `?` is one, and letters count in either case. Nothing else is special."""

from __future__ import annotations

import re
from functools import lru_cache


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *parts = (re.escape(part).replace(r"\?", ".") for part in re.split(r"\*+", pattern))
    # Atomic, as in Python's own fnmatch: what stands between two stars is found where it comes first, and never sought again.
    middle = "".join(f"(?>(.*?){part})" for part in parts[:-1])
    last = f"(.*){parts[-1]}" if parts else ""
    return re.compile(first + middle + last, re.IGNORECASE | re.DOTALL)


def matches(pattern: str, name: str) -> bool:
    """Whether the whole name matches."""
    return _compiled(pattern).fullmatch(name) is not None


def rewritten(pattern: str, rewrite: str, name: str) -> str:
    """The name that `rewrite` makes of a matching name: empty keeps it, `*` stands for what the first `*` matched."""
    if not rewrite:
        return name
    found = _compiled(pattern).fullmatch(name)
    star = found.group(1) if found and found.groups() else name
    return rewrite.replace("*", star, 1)


def is_wild(pattern: str) -> bool:
    """Whether it is a glob and not a plain name."""
    return "*" in pattern or "?" in pattern


def by_precision(pattern: str) -> tuple[bool, int, str]:
    """A sort key: plain names first, then the longer pattern."""
    return is_wild(pattern), -len(pattern), pattern
