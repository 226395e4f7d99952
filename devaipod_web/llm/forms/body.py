"""A request's JSON, understood and changed without being written anew.

The gateway must know what a request asks for, and change a few places in it: the model's name, a missing output limit, a
field that reaches too far. Everything else goes on byte for byte. So the text is parsed once by the standard library's
scanner, the places of members are kept, and changes are spliced between the original pieces.

What two parsers could read in two ways is refused: a name that stands twice in one object, at any depth (RFC 8259 §4), bytes
that are not UTF-8, `NaN` and `Infinity`, and nesting deeper than `MAX_DEPTH`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, NamedTuple

MAX_DEPTH = 128
WHITESPACE = frozenset(" \t\n\r")

Key = str | int


class NotPlain(ValueError):
    """The bytes are not JSON that every parser reads alike. The message is a sentence."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise NotPlain(f"The name {name[:60]!r} stands twice in one object of the request.")
            seen.add(name)
    return made


def _no_constant(name: str) -> Any:
    raise NotPlain(f"The request's body is not JSON: {name} is not a value.")


#: The standard library's scanner in C: the value that begins at an index, and where it ends.
_scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_no_constant
).scan_once  # type: ignore[attr-defined]


class _Item(NamedTuple):
    """A member of an object or an element of an array: where it begins, and where its value does and ends."""

    key: Key
    start: int
    value_start: int
    value_end: int
    value: Any


@dataclass
class _Node:
    """An object or array of the text, and what is to be changed in it."""

    start: int
    end: int
    items: dict[Key, _Item]
    dropped: set[Key] = field(default_factory=set)
    replaced: dict[Key, str] = field(default_factory=dict)
    inserted: dict[Key, str] = field(default_factory=dict)
    children: dict[Key, _Node] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.dropped or self.replaced or self.inserted) or any(
            child.changed for child in self.children.values()
        )


class Body:
    """The JSON object of a request. `value` is what was read and is never changed; `data` is what is to be sent.

    Paths are names and indexes from the top. Raises `NotPlain` for what is not one plain JSON object.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        try:
            self._text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise NotPlain("The request's body is not UTF-8.") from None
        try:
            self._top = _node(self._text, _skip(self._text, 0))
        except NotPlain:
            raise
        except (ValueError, StopIteration, IndexError, RecursionError):
            raise NotPlain("The request's body is not JSON, or is nested too deeply.") from None
        text = self._text
        if text[self._top.start] != "{" or _skip(text, self._top.end) != len(text):
            raise NotPlain("The request's body must be one JSON object.")
        self.value: dict[str, Any] = {str(k): item.value for k, item in self._top.items.items()}
        if text.count("{") + text.count("[") > MAX_DEPTH and _deeper(self.value, MAX_DEPTH):
            raise NotPlain(f"The request's body is nested deeper than {MAX_DEPTH} levels.")

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a member of the top, as it was sent."""
        return self.value.get(name, default)

    def size_of(self, name: str) -> int:
        """How many characters the value of a member of the top takes; 0 without it."""
        item = self._top.items.get(name)
        return item.value_end - item.value_start if item else 0

    def set(self, path: tuple[Key, ...], value: Any) -> None:
        """Give the place at `path` this value. Missing objects on the way are made; what is no object there is replaced."""
        *way, last = path
        node = self._top
        for depth, key in enumerate(way):
            child = self._child(node, key)
            if child is None:
                for name in reversed(path[depth + 1 :]):
                    value = {name: value}
                self._put(node, key, value)
                return
            node = child
        self._put(node, last, value)

    def drop(self, path: tuple[Key, ...]) -> None:
        """Take the member or element at `path` out; nothing happens when it is not there."""
        *way, last = path
        node: _Node | None = self._top
        for key in way:
            node = self._child(node, key) if node else None
        if node is None:
            return
        node.inserted.pop(last, None)
        if last in node.items:
            node.dropped.add(last)

    def data(self) -> bytes:
        """The bytes to send: the original ones where nothing was changed."""
        if not self._top.changed:
            return self.raw
        text = self._text
        body = _rendered(text, self._top)
        return (text[: self._top.start] + body + text[self._top.end :]).encode()

    def forget(self) -> None:
        """Let go of the text and of what was read from it, when it was sent."""
        self.raw, self._text, self.value = b"", "", {}
        self._top = _Node(0, 0, {})

    def _put(self, node: _Node, key: Key, value: Any) -> None:
        node.children.pop(key, None)
        node.dropped.discard(key)
        item = node.items.get(key)
        if item is not None and item.value == value and type(item.value) is type(value):
            node.replaced.pop(key, None)
            return
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        (node.inserted if item is None else node.replaced)[key] = written

    def _child(self, node: _Node, key: Key) -> _Node | None:
        if key in node.children:
            return node.children[key]
        item = node.items.get(key)
        if item is None or key in node.replaced or key in node.dropped:
            return None
        if self._text[item.value_start] not in "{[":
            return None
        node.children[key] = _node(self._text, item.value_start)
        return node.children[key]


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in WHITESPACE:
        at += 1
    return at


def _node(text: str, at: int) -> _Node:
    """The object or array that begins at `at`, with the places of its items. Raises ValueError, StopIteration, IndexError."""
    opening, start = text[at], at
    if opening not in "{[":
        raise ValueError("neither object nor array")
    closing = "}" if opening == "{" else "]"
    items: dict[Key, _Item] = {}
    at = _skip(text, at + 1)
    while text[at] != closing:
        begin, key = at, len(items)
        name: Key = key
        if opening == "{":
            if text[at] != '"':
                raise ValueError("a name is missing")
            name, at = scanstring(text, at + 1, True)
            at = _skip(text, at)
            if text[at] != ":":
                raise ValueError("a colon is missing")
            at = _skip(text, at + 1)
        if name in items:
            raise NotPlain(
                f"The name {str(name)[:60]!r} stands twice in one object of the request."
            )
        value, end = _scan(text, at)
        items[name] = _Item(name, begin, at, end, value)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
            if text[at] == closing:
                raise ValueError("a comma too many")
        elif text[at] != closing:
            raise ValueError("a comma is missing")
    return _Node(start, at + 1, items)


def _rendered(text: str, node: _Node) -> str:
    """The node's text with its changes."""
    items = list(node.items.values())
    kept = [item for item in items if item.key not in node.dropped]
    out = [text[node.start]]
    named = [f"{json.dumps(key)}:{value}" for key, value in node.inserted.items()]
    out.append(",".join(named) + ("," if named and kept else ""))
    cursor = node.start + 1
    last_kept = kept[-1].start if kept else -1
    for index, item in enumerate(items):
        if item.key in node.dropped:
            # Up to the next member while one follows that stays, else from the end of the one before.
            if item.start < last_kept:
                out.append(text[cursor : item.start])
                cursor = items[index + 1].start
            else:
                before = items[index - 1].value_end if index else item.start
                out.append(text[cursor:before])
                cursor = item.value_end
            continue
        child = node.children.get(item.key)
        if item.key in node.replaced:
            out += [text[cursor : item.value_start], node.replaced[item.key]]
            cursor = item.value_end
        elif child is not None and child.changed:
            out += [text[cursor : item.value_start], _rendered(text, child)]
            cursor = item.value_end
    out.append(text[cursor : node.end])
    return "".join(out)


def _deeper(value: Any, limit: int) -> bool:
    """Whether containers are nested deeper than `limit`; the value itself is the first."""
    level: list[Any] = [value]
    for _ in range(limit):
        below: list[Any] = []
        for container in level:
            inside: Iterable[Any] = container.values() if type(container) is dict else container
            below += [each for each in inside if type(each) is dict or type(each) is list]
        if not below:
            return False
        level = below
    return True
