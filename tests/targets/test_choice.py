"""Which run goes where, as properties of every queue."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from devaipod_web.targets.choice import (
    STARTING_AT_ONCE,
    Asking,
    Room,
    all_places,
    first_open,
    give,
)

TARGETS = st.integers(min_value=1, max_value=4)
ROOMS = st.dictionaries(
    TARGETS,
    st.tuples(
        st.integers(0, 4),
        st.one_of(st.none(), st.integers(0, 4)),
        st.sampled_from(["", "", "down"]),
        st.sampled_from([0, 0, STARTING_AT_ONCE - 2, STARTING_AT_ONCE]),
    ),
    max_size=4,
).map(
    lambda found: {
        target: Room(target, f"t{target}", taken + starting, most, closed, starting)
        for target, (taken, most, closed, starting) in found.items()
    }
)
QUEUES = st.lists(st.lists(TARGETS, max_size=4, unique=True), max_size=12).map(
    lambda orders: [Asking(run, tuple(order)) for run, order in enumerate(orders, 1)]
)


@given(QUEUES, ROOMS)
def test_nothing_goes_where_it_may_not_and_no_target_gets_more_than_it_takes(queue, rooms):
    given_ = list(give(queue, rooms))
    orders = {asking.run: asking.order for asking in queue}
    assert len({run for run, _ in given_}) == len(given_)
    for run, target in given_:
        assert target in orders[run]
        assert not rooms[target].closed
    for target, room in rooms.items():
        more = sum(1 for _, at in given_ if at == target)
        assert more == 0 or room.most is None or room.taken + more <= room.most
        assert more == 0 or room.starting + more <= STARTING_AT_ONCE


@given(QUEUES, ROOMS)
def test_who_waits_on_finds_no_room_or_awaits_its_turn_to_start(queue, rooms):
    """The first target of its order with room has as many runs starting as it may; there may be none with room."""
    given_ = list(give(queue, rooms))
    served = {run for run, _ in given_}
    more = Counter(target for _, target in given_)
    for asking in queue:
        if asking.run in served:
            continue
        for target in asking.order:
            room = rooms.get(target)
            if room is None or room.closed:
                continue
            if room.most is None or room.taken + more[target] < room.most:
                assert room.starting + more[target] >= STARTING_AT_ONCE
                break


@given(QUEUES, ROOMS)
def test_at_one_target_nobody_overtakes(queue, rooms):
    """Of two runs with the same order the earlier has its place first."""
    served = {run for run, _ in give(queue, rooms)}
    for early in queue:
        for late in queue:
            if early.run < late.run and early.order == late.order and late.run in served:
                assert early.run in served


@given(QUEUES, ROOMS)
def test_a_run_goes_to_the_first_of_its_targets_that_has_room(queue, rooms):
    left = dict(rooms)
    for run, target in give(queue, rooms):
        order = next(asking.order for asking in queue if asking.run == run)
        assert target == first_open(order, left)
        room = left[target]
        left[target] = room.with_one_more()


@given(QUEUES, ROOMS)
def test_the_place_counts_those_before_who_may_go_to_the_same_target(queue, rooms):
    for asking in queue:
        shown = all_places(queue, rooms)[asking.run]
        assert [one.room.target for one in shown] == [t for t in asking.order if t in rooms]
        for one in shown:
            before = [a for a in queue if a.run < asking.run and one.room.target in a.order]
            assert one.place == len(before) + 1


def test_a_run_that_waits_for_a_full_target_holds_up_nobody_who_may_go_elsewhere():
    rooms = {1: Room(1, "podman", taken=2, most=2), 2: Room(2, "cluster")}
    queue = [Asking(1, (1,)), Asking(2, (1, 2)), Asking(3, (1,))]
    assert list(give(queue, rooms)) == [(2, 2)]


def test_a_hundred_runs_start_a_few_at_a_time_and_none_of_them_goes_elsewhere_for_that():
    rooms = {1: Room(1, "cluster", most=200), 2: Room(2, "podman")}
    queue = [Asking(run, (1, 2)) for run in range(100)]
    assert list(give(queue, rooms)) == [(run, 1) for run in range(STARTING_AT_ONCE)]
    busy = Room(1, "cluster", taken=99, most=200, starting=STARTING_AT_ONCE - 1)
    assert list(give(queue[:2], {**rooms, 1: busy})) == [(0, 1)]
