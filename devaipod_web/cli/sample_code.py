"""The demo's code base: a small, real Python package with tests, as a history of three commits.

It is data: file by file, commit by commit. `python -m unittest` passes in it at each commit.
"""

from __future__ import annotations

README = """# courier

Delivers webhooks: one HTTP POST for each event, tried again with exponential back-off when the other side is down.

    from courier import Courier, Delivery

    courier = Courier(send=my_http_post)
    courier.deliver(Delivery(url="https://example.org/hook", body=b"{}"))

Run the tests with `python3 -m unittest`. There is nothing to install.
"""

INIT = '''"""Delivers webhooks."""

from courier.delivery import Courier, Delivery, Outcome

__all__ = ["Courier", "Delivery", "Outcome"]
'''

DELIVERY_FIRST = '''"""One delivery, from the first try to its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """How a delivery ended."""

    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True)
class Delivery:
    """What is sent, and where."""

    url: str
    body: bytes


class Courier:
    """Sends deliveries. `send` posts a body to an address and returns the status code."""

    def __init__(self, send: Callable[[str, bytes], int]) -> None:
        self._send = send

    def deliver(self, delivery: Delivery) -> Outcome:
        """Try once."""
        status = self._send(delivery.url, delivery.body)
        return Outcome.DELIVERED if 200 <= status < 300 else Outcome.FAILED
'''

BACKOFF = '''"""How long to wait before the next try."""

from __future__ import annotations

import random
from collections.abc import Iterator

BASE_SECONDS = 0.5
CEILING_SECONDS = 60.0


def delays(tries: int, *, rng: random.Random | None = None) -> Iterator[float]:
    """Yield the waits between `tries` tries: doubling, with full jitter, at most CEILING_SECONDS each."""
    source = rng or random.Random()
    for number in range(tries - 1):
        yield source.uniform(0, min(CEILING_SECONDS, BASE_SECONDS * 2**number))
'''

DELIVERY_SECOND = '''"""One delivery, from the first try to its outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from courier.backoff import delays

MAX_TRIES = 5


class Outcome(Enum):
    """How a delivery ended."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    FAILED = "failed"


@dataclass(frozen=True)
class Delivery:
    """What is sent, and where."""

    url: str
    body: bytes


class Courier:
    """Sends deliveries. `send` posts a body to an address and returns the status code, or raises OSError."""

    def __init__(
        self, send: Callable[[str, bytes], int], *, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._send = send
        self._sleep = sleep

    def deliver(self, delivery: Delivery) -> Outcome:
        """Try until it is taken, refused for good, or MAX_TRIES are used up."""
        waits = delays(MAX_TRIES)
        while True:
            outcome = self._try(delivery)
            if outcome is not Outcome.FAILED:
                return outcome
            wait = next(waits, None)
            if wait is None:
                return Outcome.FAILED
            self._sleep(wait)

    def _try(self, delivery: Delivery) -> Outcome:
        try:
            status = self._send(delivery.url, delivery.body)
        except OSError:
            return Outcome.FAILED
        if 200 <= status < 300:
            return Outcome.DELIVERED
        # 408 and 429 ask for another try; every other 4xx will not change its mind.
        if 400 <= status < 500 and status not in (408, 429):
            return Outcome.REFUSED
        return Outcome.FAILED
'''

TESTS_FIRST = """from __future__ import annotations

import unittest

from courier import Courier, Delivery, Outcome

HOOK = Delivery(url="https://example.org/hook", body=b"{}")


class DeliveryTest(unittest.TestCase):
    def test_it_is_delivered_when_the_other_side_takes_it(self) -> None:
        self.assertIs(Courier(lambda url, body: 204).deliver(HOOK), Outcome.DELIVERED)


if __name__ == "__main__":
    unittest.main()
"""

TESTS_SECOND = """from __future__ import annotations

import unittest

from courier import Courier, Delivery, Outcome
from courier.delivery import MAX_TRIES

HOOK = Delivery(url="https://example.org/hook", body=b"{}")


class DeliveryTest(unittest.TestCase):
    def setUp(self) -> None:
        self.waits: list[float] = []

    def courier(self, *answers: int) -> Courier:
        left = list(answers)
        return Courier(lambda url, body: left.pop(0), sleep=self.waits.append)

    def test_it_is_delivered_when_the_other_side_takes_it(self) -> None:
        self.assertIs(self.courier(204).deliver(HOOK), Outcome.DELIVERED)
        self.assertEqual(self.waits, [])

    def test_it_is_tried_again_when_the_other_side_is_down(self) -> None:
        self.assertIs(self.courier(503, 503, 200).deliver(HOOK), Outcome.DELIVERED)
        self.assertEqual(len(self.waits), 2)

    def test_it_is_not_tried_again_when_it_is_refused(self) -> None:
        self.assertIs(self.courier(410).deliver(HOOK), Outcome.REFUSED)

    def test_it_fails_after_the_last_try(self) -> None:
        self.assertIs(self.courier(*[500] * MAX_TRIES).deliver(HOOK), Outcome.FAILED)
        self.assertEqual(len(self.waits), MAX_TRIES - 1)


if __name__ == "__main__":
    unittest.main()
"""

#: The history: (subject, {path: text}), oldest first.
HISTORY: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "Deliver a webhook once",
        {
            "README.md": README.replace(
                ", tried again with exponential back-off when the other side is down", ""
            ),
            "courier/__init__.py": INIT,
            "courier/delivery.py": DELIVERY_FIRST,
            "tests/__init__.py": "",
            "tests/test_delivery.py": TESTS_FIRST,
            ".gitignore": "__pycache__/\n",
        },
    ),
    (
        "Try again with back-off when the other side is down",
        {
            "courier/backoff.py": BACKOFF,
            "courier/delivery.py": DELIVERY_SECOND,
            "tests/test_delivery.py": TESTS_SECOND,
        },
    ),
    ("Say in the README that deliveries are tried again", {"README.md": README}),
)

AUTHOR = "Ada Example <ada@courier.example>"
#: When the first commit was made (seconds since 1970); each later one a day after.
FIRST_AT = 1_767_261_600


def fast_import() -> bytes:
    """The history as a stream for git-fast-import(1), on `refs/heads/main`."""
    out = bytearray()
    for number, (subject, files) in enumerate(HISTORY):
        at = FIRST_AT + number * 86_400
        message = f"{subject}\n".encode()
        out += f"commit refs/heads/main\ncommitter {AUTHOR} {at} +0000\n".encode()
        out += b"data %d\n%s" % (len(message), message)
        for path, text in files.items():
            data = text.encode()
            out += b"M 100644 inline %s\ndata %d\n%s\n" % (path.encode(), len(data), data)
    return bytes(out + b"done\n")
