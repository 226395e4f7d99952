"""What people see while the host is set up: one line a step, with times, live when there is a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

#: A step quicker than this says nothing but its result (issue 2: progress for everything slower than two seconds).
QUIET_SECONDS = 1.5
#: Without a terminal a long step repeats itself this often, so that a CI log shows that it lives.
BEAT_SECONDS = 15.0
#: Of a command's last line this much is shown beside a running step.
TAIL_CHARACTERS = 60


def seconds(value: float) -> str:
    """A duration for people: `0.4 s`, `12 s`, `3 min 05 s`."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 100:
        return f"{value:.0f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


@dataclass
class Step:
    """One step that runs now. Whoever drives it sets `tail` and `downloading`, and may change `title`."""

    title: str
    started: float = field(default_factory=time.monotonic)
    tail: str = ""
    download_seconds: float = 0.0
    _download_since: float | None = None

    def downloading(self, now_downloading: bool) -> None:
        """Say whether the time from here on goes to a download, which is counted apart."""
        now = time.monotonic()
        if self._download_since is not None:
            self.download_seconds += now - self._download_since
        self._download_since = now if now_downloading else None

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.started


class Terminal:
    """Prints steps and sentences to `out`; thread-safe, since the clock of a step runs beside it."""

    def __init__(self, out: TextIO | None = None) -> None:
        self.out = out or sys.stdout
        self.live = self.out.isatty()
        self.started = time.monotonic()
        self.download_seconds = 0.0
        self._lock = threading.Lock()
        self._drawn = False

    def say(self, text: str) -> None:
        """One sentence on a line of its own."""
        with self._lock:
            self._clear()
            print(text, file=self.out, flush=True)

    __call__ = say

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Run a block as a step: its line lives while it runs and ends with its time, or with what broke it."""
        step = Step(title)
        done = threading.Event()
        clock = threading.Thread(target=self._tick, args=(step, done), daemon=True)
        clock.start()
        mark = "✗"
        try:
            yield step
            mark = "✓"
        finally:
            step.downloading(False)
            self.download_seconds += step.download_seconds
            done.set()
            clock.join()
            spent = seconds(step.elapsed)
            if step.download_seconds >= 0.1:
                spent += f", of it downloads {seconds(step.download_seconds)}"
            self.say(f"{mark} {step.title}  ({spent})")

    def total(self) -> str:
        """How long everything took, and how much of it was downloads."""
        spent = time.monotonic() - self.started
        own = max(spent - self.download_seconds, 0.0)
        if self.download_seconds < 0.1:
            return f"{seconds(spent)} in all"
        return f"{seconds(spent)} in all: downloads {seconds(self.download_seconds)}, the rest {seconds(own)}"

    def _tick(self, step: Step, done: threading.Event) -> None:
        if done.wait(QUIET_SECONDS):
            return
        if not self.live:
            self.say(f"… {step.title}")
        while not done.wait(1.0 if self.live else BEAT_SECONDS):
            tail = f"  {step.tail[:TAIL_CHARACTERS]}" if step.tail else ""
            if self.live:
                self._draw(f"… {step.title}  {seconds(step.elapsed)}{tail}")
            else:
                self.say(f"  still {step.title}  {seconds(step.elapsed)}{tail}")

    def _draw(self, text: str) -> None:
        with self._lock:
            self._clear()
            print(text[:118], end="", file=self.out, flush=True)
            self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            print("\r\x1b[K", end="", file=self.out)
            self._drawn = False
