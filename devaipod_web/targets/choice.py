"""Which run goes where: pure functions of what runs ask for and how much room there is.

A run's *order* names the targets that it may go to, the first choice first. A target that is closed (switched off, not well, or it
refused lately for want of room) or full is passed over. One where many runs are starting just now is waited for: their turn takes
seconds, and all at once they would take the processors from each other until none starts in its time. The queue is first come,
first served at each target: a run that waits for a full one holds up nobody who may go elsewhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

#: So many runs start at one target at once; the next one starts when one of them is at work or has ended.
STARTING_AT_ONCE = 10


@dataclass(frozen=True)
class Room:
    """How much a target takes. `most` is None without a bound; `closed` says why it takes nothing now, empty when it does.

    Of the runs `taken`, `starting` are not at work yet.
    """

    target: int
    name: str
    taken: int = 0
    most: int | None = None
    closed: str = ""
    starting: int = 0

    @property
    def has_room(self) -> bool:
        """Whether one more run has a place there, now or when its turn to start comes."""
        return not self.closed and (self.most is None or self.taken < self.most)

    @property
    def is_open(self) -> bool:
        """Whether one more run may go there now."""
        return self.has_room and self.starting < STARTING_AT_ONCE

    def with_one_more(self) -> Room:
        """The same after one more run went there."""
        return replace(self, taken=self.taken + 1, starting=self.starting + 1)


@dataclass(frozen=True)
class Asking:
    """A run that waits, and the targets that it may go to."""

    run: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Place:
    """Where a waiting run stands in the queue of one target, from 1."""

    room: Room
    place: int


def give(waiting: Iterable[Asking], rooms: Mapping[int, Room]) -> Iterator[tuple[int, int]]:
    """(run, target) for each waiting run that gets a place, in the order in which they wait. Stops when nothing is open."""
    left = dict(rooms)
    for asking in waiting:
        if not any(room.is_open for room in left.values()):
            return
        target = first_open(asking.order, left)
        if target is None:
            continue
        left[target] = left[target].with_one_more()
        yield asking.run, target


def first_open(order: Iterable[int], rooms: Mapping[int, Room]) -> int | None:
    """The first of these targets that has room, when it takes one more now; else None."""
    found = next((one for one in order if one in rooms and rooms[one].has_room), None)
    return found if found is not None and rooms[found].is_open else None


def all_places(waiting: Iterable[Asking], rooms: Mapping[int, Room]) -> dict[int, list[Place]]:
    """Where each waiting run stands at each target of its order, the first choice first. `waiting` is in the order of the queue."""
    before: Counter[int] = Counter()
    found: dict[int, list[Place]] = {}
    for asking in waiting:
        before.update(asking.order)
        found[asking.run] = [
            Place(rooms[target], before[target]) for target in asking.order if target in rooms
        ]
    return found
