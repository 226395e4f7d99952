"""The machinery of the tables of what a request may reach beyond the model; each form's own table stands in its module.

The model is a network too (DESIGN §7.7): a provider that searches the web, fetches an address or keeps a conversation for
the agent gives the agent what its pod's `network: none` denies. A field of a table is refused, or, where agents send it
unasked, taken out and noted on the run. A field whose cost is not known is refused as well. Every other field passes.

Servers differ in whether `Store` is `store` (Go's parser says yes). So a name that differs from one that counts in
nothing but its case or its underscores is refused, whatever its value, or taken out as that one is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from devaipod_web.llm.errors import RequestRefused
from devaipod_web.llm.forms.body import Body, Key

#: Fields that name another way out, in whatever form they come: gateways and SDKs know them.
ELSEWHERE = {
    "api_base": "names another upstream",
    "base_url": "names another upstream",
    "api_key": "names another credential",
    "api_version": "names another upstream",
    "extra_headers": "sets headers of the provider's request",
    "extra_query": "sets the query of the provider's request",
    "extra_body": "hides fields from this table",
    "proxy": "names another way out",
    "mock_response": "replaces the model",
    "mcp_servers": "lets the provider call servers of the agent's choice",
    "plugins": "runs the provider's plugins (web search, file fetching)",
    "preset": "names a configuration that is stored with the provider",
    "background": "leaves a job with the provider",
    "deferred": "leaves a job with the provider",
    "fallbacks": "names other models and upstreams",
    "web_search_options": "searches the web from the provider's side",
    "search_parameters": "searches the web from the provider's side",
    "enable_search": "searches the web from the provider's side",
    "enable_code_interpreter": "runs code on the provider's side",
}
#: Where routers send a request. Agents send some of it unasked.
ROUTERS = {
    "provider": "routes to another upstream",
    "models": "routes to other models",
    "route": "routes to other models",
    "transforms": "lets the provider rewrite the prompt",
}
#: Fields that multiply what a request costs in ways that this gateway does not understand.
MULTIPLIES = {
    "num_completions": "asks for several answers",
    "num_return_sequences": "asks for several answers",
    "num_generations": "asks for several answers",
    "n_best": "asks for several answers",
    "samples": "asks for several answers",
    "use_beam_search": "computes several answers",
    "num_beams": "computes several answers",
    "requests": "is a batch",
    "performance": "chooses another price",
    "priority_tier": "chooses another price",
}
#: A letter or digit that is escaped for no reason but to be hidden.
PLAIN_ESCAPED = re.compile(rb"\\u00[3-7]")
EMPTY: tuple[Any, ...] = (None, False, [], {}, "")


@dataclass(frozen=True)
class Table:
    """What counts in the top of a form's requests. `reads` are the names that decide where a request goes and what it costs."""

    reads: frozenset[str]
    refused: Mapping[str, str] = field(default_factory=dict)
    taken_out: Mapping[str, str] = field(default_factory=dict)
    costly: Mapping[str, str] = field(default_factory=lambda: MULTIPLIES)
    #: Two spellings of one name (Gemini takes `max_output_tokens` for `maxOutputTokens`): both are read as the table's.
    either_spelling: bool = False


@lru_cache(maxsize=4096)
def folded(name: str) -> str:
    """The name without what parsers may not tell apart. Go's takes `ſ` (U+017F) for an s, as folding of cases does."""
    return name.replace("_", "").casefold()


def restrict_top(body: Body, table: Table) -> list[str]:
    """Apply the table to the top of a request: what was taken out is returned. Raises `RequestRefused`."""
    notes = []
    counts = _counting(table)
    for name, value in body.value.items():
        meant = counts.get(folded(name))
        if meant is None:
            continue
        if meant != name and not table.either_spelling and meant not in table.taken_out:
            raise RequestRefused(
                f"The field {name[:60]!r} differs from {meant} in its spelling alone, and servers read that differently. "
                "Spell it plainly."
            )
        if meant in table.refused or meant in table.costly:
            if value in EMPTY:
                body.drop((name,))
                continue
            raise RequestRefused(_why(table, meant))
        if meant in table.taken_out:
            body.drop((name,))
            if value not in EMPTY:
                # Agents send `promptCacheKey` as well: what is taken out does no harm in whatever spelling.
                notes.append(f"{meant}: {table.taken_out[meant]}")
    return notes


def _why(table: Table, name: str) -> str:
    if name in table.costly:
        return f"The field {name} {table.costly[name]}, and what that costs is not known here. Send the request without it."
    return f"The field {name} {table.refused[name]}, and this run may reach the model alone. Send the request without it."


_counted: dict[int, dict[str, str]] = {}


def _counting(table: Table) -> dict[str, str]:
    """Every name of the table by its folded form."""
    known = _counted.get(id(table))
    if known is None:
        names = [*table.reads, *table.refused, *table.taken_out, *table.costly]
        known = _counted[id(table)] = {folded(name): name for name in names}
    return known


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object inside a value, itself included, however deep."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if type(each) is dict:
            yield each
            waiting += [v for v in each.values() if type(v) is dict or type(v) is list]
        elif type(each) is list:
            waiting += [v for v in each if type(v) is dict or type(v) is list]


def drop_tools(
    body: Body,
    path: tuple[Key, ...],
    tools: object,
    own: Callable[[dict[str, Any]], bool],
    *,
    beside: tuple[str, ...] = (),
) -> list[str]:
    """Take the tools that run on the provider's side out of the list at `path`, and `beside` with the last one. Returns what was."""
    if not isinstance(tools, list):
        return []
    dropped: dict[int, str] = {}
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or not own(tool):
            kind = tool.get("type") if isinstance(tool, dict) else tool
            dropped[index] = str(kind)[:60]
    if len(dropped) == len(tools):
        # An empty list is refused by some providers, and so is a choice among nothing.
        for name in (path[-1], *beside):
            body.drop((*path[:-1], name))
    else:
        for index in dropped:
            body.drop((*path, index))
        _drop_choice(body, dropped)
    return [f"tool of type {kind}: runs on the provider's side" for kind in dropped.values()]


def _drop_choice(body: Body, dropped: Mapping[int, str]) -> None:
    """A choice of a tool that is gone is refused by providers."""
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and dropped:
        tools = body.get("tools")
        gone = {
            str(tools[index].get("name")) for index in dropped if isinstance(tools[index], dict)
        }
        named = {str(choice.get("type")), str(choice.get("name"))}
        if named & (gone - {"None"} | set(dropped.values())):
            body.drop(("tool_choice",))


def asks_for_an_hour(body: Body) -> bool:
    """Whether a cache is asked to keep anything for longer than the usual five minutes, however that is escaped."""
    raw = body.raw
    if b'"ttl"' not in raw and not (b"\\" in raw and PLAIN_ESCAPED.search(raw)):
        return False
    marks = (each.get("cache_control") for each in objects(body.value))
    return any(isinstance(mark, dict) and mark.get("ttl") not in (None, "5m") for mark in marks)


def is_data_address(value: object) -> bool:
    """Whether content is here, and not to be fetched from elsewhere."""
    return isinstance(value, str) and value[:5].lower() == "data:"


def refuse_address() -> RequestRefused:
    """Content that the provider would fetch."""
    return RequestRefused(
        "An image or other content is given by an address that the provider would fetch. Send its data (a data: address)."
    )


def refuse_stored(what: str) -> RequestRefused:
    """Content that lies with the provider."""
    return RequestRefused(
        f"{what} is given by an id, which reaches the provider's storage. Send its data."
    )
