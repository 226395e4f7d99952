"""What every wire form has: the contract of the modules beside this one.

A *form* is a language that agents speak with models. It says which routes of the gateway are its own, how a request of it is
read and what may pass, where it goes at a provider, how an answer is read along, and how an error is told in it. Requests
are never translated from one form into another: a form goes to a provider whose kind speaks it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from devaipod_web.llm.errors import ModelError, RequestRefused
from devaipod_web.llm.forms.body import Body
from devaipod_web.llm.forms.reader import AnswerReader, Marks
from devaipod_web.llm.forms.table import Table
from devaipod_web.llm.usage import Tokens

MAX_MODEL_NAME = 200
MAX_CHOICES = 128
#: A header that goes on; Claude Code's list of betas has some four hundred characters.
MAX_HEADER = 4096
MAX_OUTPUT_TOKENS = 10_000_000
#: The most tokens that an answer may say it used; the largest that may be asked for are some hundred millions.
MAX_COUNT = 10**9
#: Service tiers whose prices a price list can have; a tier that nobody knows is refused.
TIERS = frozenset({"auto", "default", "standard", "standard_only", "flex", "priority", "fast"})


class Action(StrEnum):
    """What a route asks for."""

    GENERATE = "generate"
    COUNT = "count"
    MODELS = "models"


@dataclass(frozen=True)
class Door:
    """One route of the gateway: the whole undecoded path must match `path`. `model` is a group of it where the path names one."""

    method: str
    path: re.Pattern[str]
    action: Action
    #: Whether answers of this route are always streams; None where the body says so.
    streamed: bool | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, as far as its cost and its way depend on it."""

    action: Action
    model: str
    streamed: bool = False
    #: The most tokens of one answer; None when the request does not say.
    output_limit: int | None = None
    #: Answers that are paid for: `n`, `best_of`, `candidateCount`.
    choices: int = 1
    #: Output tokens beyond the limit that may be paid for, such as a rejected prediction.
    output_beyond: int = 0
    #: What selects another price: {"service_tier": "priority"}, {"speed": "fast"}.
    price_context: tuple[tuple[str, str], ...] = ()
    #: Characters of pictures in the request, and how many there are: their tokens don't follow from their size.
    picture_characters: int = 0
    pictures: int = 0
    #: Documents, sound or film in the request; sound, pictures or film asked for in the answer.
    media_in: bool = False
    media_out: bool = False
    #: Whether a cache is asked to keep the prompt for an hour, which costs more to write.
    cache_hour: bool = False
    #: Tools with a schema that only the provider knows; each adds to the input.
    built_in_tools: int = 0
    #: A stream that comes as one long JSON array (Gemini's, when it is not asked for events); it passes whole.
    array: bool = False


class Form(ABC):
    """One wire form. Instances hold no state; `forms.FORMS` has one of each."""

    #: Its name in rows, logs and pages.
    name: ClassVar[str]
    label: ClassVar[str]
    doors: ClassVar[tuple[Door, ...]]
    #: Kinds of providers that speak it (`ProviderKind` values).
    kinds: ClassVar[frozenset[str]]
    table: ClassVar[Table]
    marks: ClassVar[Marks]
    #: Headers of the agent's request that go on to the provider, when they are printable and short.
    passed_headers: ClassVar[tuple[str, ...]] = ()

    # --- the request

    @abstractmethod
    def asked(self, door: Door, match: re.Match[str], query: str, body: Body) -> Asked:
        """Read a request. Raises `RequestRefused` for values that make no sense, `NotPlain` never."""

    @abstractmethod
    def restrict(self, body: Body) -> list[str]:
        """Take out of the body what agents send unasked and return what was; raises `RequestRefused` for what reaches too far."""

    @abstractmethod
    def prepare(
        self, body: Body, asked: Asked, *, model: str, limit: int, kind: str, base: str
    ) -> None:
        """Put the model, a missing output limit (tokens) and the wish for token counts into the body."""

    @abstractmethod
    def address(self, asked: Asked, *, model: str, kind: str, base: str) -> str:
        """Where the request goes at a provider of this kind and base address (without a slash at its end)."""

    def headers(self, sent: Mapping[str, str]) -> dict[str, str]:
        """Headers for the provider, beside content type and credential."""
        return {
            name: sent[name]
            for name in self.passed_headers
            if name in sent
            and len(sent[name]) <= MAX_HEADER
            and sent[name].isprintable()
            and sent[name].isascii()
        }

    # --- the answer

    def reader(self, asked: Asked, *, size: int) -> AnswerReader:
        """What reads along an answer to a request of `size` bytes."""
        return AnswerReader(self, asked.streamed, counted=asked.action is Action.COUNT, size=size)

    @abstractmethod
    def usage(self, value: Mapping[str, Any], tokens: Tokens) -> None:
        """Put the counts of an answer or event that has a usage block into `tokens`; what is malformed is passed over."""

    @abstractmethod
    def is_answer(self, value: Mapping[str, Any], *, counted: bool) -> bool:
        """Whether a whole answer has this form."""

    # --- errors and lists

    @abstractmethod
    def error(self, status: int, message: str, code: str) -> dict[str, Any]:
        """The body of an error."""

    def error_of(self, error: ModelError) -> dict[str, Any]:
        """The body of this error."""
        return self.error(error.status, error.sentence, error.code)

    @abstractmethod
    def error_event(self, error: ModelError) -> bytes:
        """The event that ends a stream whose status has left already."""

    @abstractmethod
    def models(self, names: Iterable[str]) -> dict[str, Any]:
        """A list of models."""


# --- Reading values that decide what a request costs --------------------------------------------------------------


def model_name(value: object) -> str:
    """A model's name as a request gives it; empty without one, and then the run's counts. Raises `RequestRefused`."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > MAX_MODEL_NAME:
        raise RequestRefused("The request names its model in a way that no model is named.")
    if not value.isprintable() or " " in value:
        raise RequestRefused("The model's name has characters that no name has.")
    return value


def count(name: str, value: object, most: int) -> int | None:
    """A number from 1 to `most`, or None where it is null or missing. Raises `RequestRefused`: its cost could not be known."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise RequestRefused(f"The field {name} must be a whole number from 1 to {most:,}.")
    return value


def flag(name: str, value: object) -> bool:
    """A boolean; null and missing are False. Raises `RequestRefused`."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise RequestRefused(f"The field {name} must be true or false.")
    return value


def tier(name: str, value: object) -> str:
    """A service tier by its known name, or nothing. Raises `RequestRefused`: what an unknown tier costs is not known."""
    if value is None:
        return ""
    known = value.lower() if isinstance(value, str) else ""
    if known not in TIERS:
        raise RequestRefused(
            f"What the field {name} = {str(value)[:40]!r} costs is not known. Send the request without it."
        )
    return "" if known in ("auto", "default", "standard", "standard_only") else known


def whole(value: object) -> int:
    """A count in an answer: never negative, 0 for what is no number, and never more than the ledger's columns can take."""
    if not isinstance(value, int) or isinstance(value, bool):
        return 0
    return min(max(value, 0), MAX_COUNT)


def mapping(value: object) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
