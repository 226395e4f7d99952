"""Text from elsewhere made harmless for a terminal or a plain file."""

from __future__ import annotations

import unicodedata


def clean(value: object, *, keep_newlines: bool = False) -> str:
    """Text from elsewhere, with control and bidirectional characters shown instead of obeyed.

    An escape sequence in a log line could otherwise move the cursor, change the title or answer for the reader.
    """
    out = []
    for char in str(value):
        if char == "\t" or (char == "\n" and keep_newlines):
            out.append(char)
        elif char == "\n":
            out.append("⏎")
        elif ord(char) < 32:
            out.append(chr(0x2400 + ord(char)))
        elif char == "\x7f":
            out.append("␡")
        elif unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co"):
            out.append(f"<U+{ord(char):04X}>")
        else:
            out.append(char)
    return "".join(out)
