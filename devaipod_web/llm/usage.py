"""Token counts of one request."""

from __future__ import annotations

from dataclasses import dataclass

#: Characters that count as one token when the provider does not say how many there were.
CHARACTERS_PER_TOKEN = 4


@dataclass(slots=True)
class Tokens:
    """What a request used.

    `sent` is all input; `cached`, `written` and `written_hour` are the parts of it that the provider read from its cache,
    wrote into it, and wrote into it for an hour. `received` is all output, `reasoning` the part that the model thought.
    """

    sent: int = 0
    cached: int = 0
    written: int = 0
    written_hour: int = 0
    received: int = 0
    reasoning: int = 0
    #: The counts are ours, not the provider's.
    estimated: bool = True
    #: The tier that the provider says it served, where it does.
    tier: str = ""

    @property
    def total(self) -> int:
        """All tokens that a budget in tokens counts."""
        return self.sent + self.received

    def bounded(self) -> Tokens:
        """The same with parts that are not larger than their whole, whatever the provider said."""
        self.cached = min(self.cached, self.sent)
        self.written = min(self.written, self.sent - self.cached)
        self.written_hour = min(self.written_hour, self.sent - self.cached - self.written)
        self.reasoning = min(self.reasoning, self.received)
        return self


def estimate(size: int) -> int:
    """Tokens of so many characters, roughly, and at least one."""
    return size // CHARACTERS_PER_TOKEN + 1
