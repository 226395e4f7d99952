"""The root of what people and programs are told when something could not be done."""

from __future__ import annotations

from collections.abc import Mapping


class DevaipodError(Exception):
    """Something could not be done. `message` is a sentence, `next_step` another; both are shown.

    `code` is the stable word that programs look at, `status` the HTTP status of the answer. Each room has its own tree below this.
    """

    code = "error"
    status = 409

    def __init__(self, message: str, *, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    @property
    def sentence(self) -> str:
        """What went wrong and what to do."""
        return f"{self.message} {self.next_step}".strip()


class InvalidFields(DevaipodError):
    """Fields that cannot be as they were given: `errors` has a sentence for each by its name."""

    code = "invalid"
    status = 400

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__(
            " ".join(errors.values()), next_step="Change what is named and send it again."
        )
        self.errors = dict(errors)
