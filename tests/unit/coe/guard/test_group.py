"""Replicas together: half of them stay in, the last always; those who wait get their turn."""

import heapq
import itertools
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.errors.experts import ExpertOverloadedError
from coe.guard.group import Group
from coe.guard.guards import Guards
from coe.guard.line import Waiting

NAMES = ("a", "b", "c", "d", "e")


def group(n=1, slots=None, **fields):
    one = Group("expert", slots=slots, rng=Random(1), **fields)
    one.know(NAMES[:n])
    return one


def fail(one, name, now_s, n=5, verdict="bad"):
    for _ in range(n):
        one.leave(one.sit(name, now_s), verdict, now_s)


def asked(one, now_s, insists=False):
    """All that a request may go to now."""
    found = []
    try:
        one.choose(now_s, one.members, insists, lambda names: found.extend(names) or names[0])
    except ExpertOverloadedError:
        return set()
    return set(found) or {one.choose(now_s, one.members, insists)}


class Queue:
    """Who has come to wait, and who has got a seat, in that order."""

    def __init__(self, one):
        self.group, self.seated, self.waiting = one, [], {}

    def join(self, name, now_s=0.0):
        one = Waiting(
            frozenset(self.group.members), min, lambda: self.seated.append(name), came_s=now_s
        )
        self.waiting[name] = one
        self.group.wait(now_s, one)


# ---- ejection


@pytest.mark.parametrize("n", range(1, 6))
def test_at_most_half_are_out_and_never_the_last(n):
    one = group(n)
    for k in range(n):
        fail(one, NAMES[k], float(k))
        left = asked(one, 10.0, insists=True)
        assert len(left) == max(n - (k + 1), n - n // 2)
        assert set(NAMES[k + 1 : n]) <= left
    assert len(asked(one, 10.0, insists=True)) == n - n // 2 >= 1


def test_counts_and_times_of_ejections_are_exact():
    """T-P01: three replicas, one of which fails for two minutes."""
    one, now_s, spans = group(3), 0.0, []
    one.rng = Random(5)
    while now_s < 120.0:
        for name in sorted(asked(one, now_s)):
            before = one.n_ejections
            fail(one, name, now_s, 1, "bad" if name == "b" else "good")
            if one.n_ejections > before:
                spans.append((now_s, one.members["b"].circuit.until_s - now_s))
        now_s += 1.0
    starts = [start for start, _ in spans]
    assert starts[0] == 4.0, "the fifth in a row"
    assert one.n_ejections == len(spans) == 3
    for n, (start_s, lasts_s) in enumerate(spans, 1):
        assert 0.8 * 30.0 * n <= lasts_s <= 1.2 * 30.0 * n
        if n < len(spans):
            # the probe is the first whole second afterwards
            assert start_s + lasts_s <= starts[n] < start_s + lasts_s + 1.0
    assert [one.members[name].circuit.n_ejections for name in "abc"] == [0, 3, 0]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from(["good", "bad", "busy", "nothing"]),
            st.floats(0, 40),
        ),
        max_size=200,
    ),
    st.integers(1, 5),
)
def test_whatever_fails_somebody_is_asked(script, n):
    """T-P02: random scripts of faults."""
    one, now_s = group(n), 0.0
    for k, verdict, pause_s in script:
        now_s += pause_s
        fail(one, NAMES[k % n], now_s, 2, verdict)
        left = asked(one, now_s, insists=True)
        assert len(left) >= n - n // 2 >= 1


def test_an_expert_all_of_whose_replicas_fail_is_left_to_those_who_insist():
    """T-F08, and how it comes back: by one probe."""
    one = group(2)
    fail(one, "a", 0.0)
    assert one.failing(0.0) is None
    fail(one, "b", 0.0)
    assert one.failing(0.0) == "failing"
    assert asked(one, 0.0) == set()
    assert len(asked(one, 0.0, insists=True)) == 1
    until_s = min(m.circuit.until_s for m in one.members.values())
    assert one.failing(until_s) is None
    name = one.choose(until_s, one.members, insists=False)
    probe = one.sit(name, until_s)
    assert one.failing(until_s) == "failing", "one probe is out"
    one.began(probe, until_s + 0.1, None)
    assert one.failing(until_s + 0.1) is None
    one.leave(probe, "good", until_s + 1.0)


def test_an_expert_that_serves_those_who_insist_is_back_at_once():
    one = group(1)
    fail(one, "a", 0.0)
    fail(one, "a", 3.0, 1, "good")
    assert one.failing(3.0) is None


def test_who_asks_to_be_left_alone_is_for_so_long_and_no_longer_than_the_cap():
    one = group(2)
    one.leave(one.sit("a", 0.0), "busy", 0.0, held_s=10.0)
    assert asked(one, 9.9) == {"b"}
    assert asked(one, 10.0) == {"a", "b"}
    one.leave(one.sit("b", 0.0), "busy", 0.0, held_s=1e9)
    assert asked(one, 5.0, insists=True) == set(), "its word holds for whoever insists"
    assert one.failing(5.0) == "asked to be left alone"
    with pytest.raises(ExpertOverloadedError) as raised:
        one.choose(4.0, one.members, True)
    assert raised.value.retry_after_s == 6.0
    assert one.members["b"].held_until_s == 300.0


def test_one_that_has_too_much_to_do_is_left_alone_for_a_second_by_who_has_another():
    one = group(1)
    one.leave(one.sit("a", 0.0), "busy", 0.0)
    assert one.failing(0.9) == "busy"
    assert (asked(one, 0.9), asked(one, 0.9, insists=True)) == (set(), {"a"})
    assert one.failing(1.0) is None


def test_a_replica_that_left_is_forgotten_but_its_ejections_are_counted():
    one = group(2)
    fail(one, "a", 0.0)
    one.know(("b", "c"))
    assert (set(one.members), one.n_ejections) == ({"b", "c"}, 1)
    one.know(("a", "b", "c"))
    assert asked(one, 0.0) == {"a", "b", "c"}


# ---- room


def test_without_slots_there_is_always_room():
    one = group(1)
    for _ in range(1000):
        assert one.choose(0.0, one.members, False) == "a"
        one.sit("a", 0.0)


def test_no_more_than_the_limit_are_in_flight_and_twice_that_wait():
    one, n_seats = group(1, slots=2), 0
    while one.choose(0.0, one.members, False) is not None:
        one.sit("a", 0.0)
        n_seats += 1
    queue = Queue(one)
    for k in range(4):
        queue.join(k)
    with pytest.raises(ExpertOverloadedError) as raised:
        queue.join(4)
    assert (n_seats, len(one.line), one.line.n_full) == (2, 4, 1)
    assert 1.0 <= raised.value.retry_after_s <= 5.0


def test_the_first_is_served_first_up_to_half_and_the_last_beyond():
    one = group(1, slots=2)
    seats = [one.sit("a", 0.0), one.sit("a", 0.0)]
    queue = Queue(one)
    for k in range(4):
        queue.join(k)
    while len(queue.seated) < 4:
        one.leave(seats.pop(0), "nothing", 1.0)
        seats.append(queue.waiting[queue.seated[-1]].seat)
    assert queue.seated == [3, 2, 0, 1]
    assert (one.line.n_waited, one.line.waited_s) == (4, 4.0)


def test_nobody_passes_those_who_wait():
    one = group(1, slots=1)
    seat = one.sit("a", 0.0)
    queue = Queue(one)
    queue.join("first")
    assert one.choose(0.0, one.members, False) is None
    one.leave(seat, "nothing", 1.0)
    assert queue.seated == ["first"]
    assert one.choose(1.0, one.members, False) is None


@pytest.mark.parametrize("seated", [False, True])
def test_who_gives_up_leaves_room_whether_or_not_it_has_just_got_a_seat(seated):
    one = group(1, slots=1)
    seat = one.sit("a", 0.0)
    queue = Queue(one)
    queue.join("first")
    if seated:
        one.leave(seat, "good", 1.0)
    one.give_up(queue.waiting["first"], 1.0)
    assert len(one.line) == 0
    assert one.members["a"].n_in_flight == (0 if seated else 1)


def test_a_seat_given_back_goes_to_the_next():
    one = group(1, slots=1)
    seat = one.sit("a", 0.0)
    queue = Queue(one)
    queue.join("first")
    queue.join("second")
    one.leave(seat, "nothing", 1.0)
    first = queue.seated[0]
    one.give_up(queue.waiting[first], 1.0)
    assert len(queue.seated) == 2
    assert one.members["a"].n_in_flight == 1


@given(st.lists(st.sampled_from(["come", "end", "leave", "fail"]), max_size=200))
def test_seats_are_neither_lost_nor_made(script):
    one, out = group(2, slots=2), []
    queue = Queue(one)
    for k, step in enumerate(script):
        waiting = [w for w in queue.waiting.values() if w.seat is None]
        if step == "come":
            try:
                name = one.choose(0.0, one.members, True)
                if name is None:
                    queue.join(k)
                else:
                    out.append(one.sit(name, 0.0))
            except ExpertOverloadedError:
                queue.waiting.pop(k, None)
        elif step == "leave" and waiting:
            one.give_up(waiting[-1], 0.0)
            queue.waiting = {n: w for n, w in queue.waiting.items() if w is not waiting[-1]}
        elif out:
            one.leave(out.pop(0), "good" if step == "end" else "bad", 0.0)
        for n in [n for n, w in queue.waiting.items() if w.seat is not None]:
            out.append(queue.waiting.pop(n).seat)
        assert sum(m.n_in_flight for m in one.members.values()) == len(out)
        assert len(one.line) == len(queue.waiting)
        assert all(m.n_in_flight >= 0 for m in one.members.values())
    while out:
        one.leave(out.pop(0), "good", 0.0)
        for n in [n for n, w in queue.waiting.items() if w.seat is not None]:
            out.append(queue.waiting.pop(n).seat)
    assert len(one.line) == 0
    assert sum(m.n_in_flight for m in one.members.values()) == 0


# ---- figures


def test_figures_say_who_is_out_and_for_how_long():
    one, other = group(1), group(2, slots=3)
    guards = Guards({"expert": one, "other": other})
    fail(one, "a", 0.0)
    other.leave(other.sit("b", 0.0), "busy", 0.0, held_s=7.0)
    other.sit("a", 0.0)
    assert guards.absent(1.0) == {"expert": "failing"}
    figures = guards.figures(1.0)
    (a,) = figures.experts["expert"].replicas
    assert (a.phase, a.limit, a.n_in_flight) == ("ejected", None, 0)
    assert a.out_s == one.members["a"].circuit.until_s - 1.0
    assert figures.experts["expert"].n_ejections == 1
    first, second = figures.experts["other"].replicas
    assert (first.phase, first.out_s, first.limit, first.n_in_flight) == ("closed", 0.0, 3, 1)
    assert (second.phase, second.out_s) == ("held", 6.0)
    assert (figures.n_retries, figures.n_retries_refused) == (0, 0)


# ---- all experts at once


class Town:
    """Two experts behind one router, on a clock that obeys: who comes is asked for, or refused.

    Parameters
    ----------
    takes_s : for an answer, and for a refusal of an expert that is down.
    """

    def __init__(self, slots, takes_s):
        self.groups = [group(slots=slots) for _ in range(2)]
        self.takes_s, self.events, self.n_asked, self.refused_s = takes_s, [], 0, []
        self.down_s, self.numbers = range(0), itertools.count()

    def run(self, per_s, until_s):
        for n in range(per_s * until_s):
            self.at(n / per_s, self.come)
        while self.events:
            now_s, _, what = heapq.heappop(self.events)
            what(now_s)

    def at(self, at_s, what):
        heapq.heappush(self.events, (at_s, next(self.numbers), what))

    def come(self, now_s):
        there = [one for one in self.groups if one.failing(now_s) is None]
        one = (there or self.groups)[0]
        waiting = Waiting(frozenset("a"), min, lambda: self.seated(one, waiting), came_s=now_s)
        try:
            name = one.choose(now_s, one.members, not there)
            if name is not None:
                self.ask(one, one.sit(name, now_s), now_s)
                return
            one.wait(now_s, waiting)
        except ExpertOverloadedError:
            self.refused_s.append(now_s)
            return
        self.at(now_s + one.wait_s, lambda late_s: self.give_up(one, waiting, late_s))

    def seated(self, one, waiting):
        seat, waiting.seat = waiting.seat, None
        self.ask(one, seat, seat.sent_s)

    def give_up(self, one, waiting, now_s):
        if waiting in one.line._waiting:
            self.refused_s.append(now_s)
        one.give_up(waiting, now_s, late=True)

    def ask(self, one, seat, now_s):
        self.n_asked += int(now_s) in self.down_s
        if int(now_s) in self.down_s:
            self.refused_s.append(now_s)
            self.at(now_s + self.takes_s[1], lambda end_s: one.leave(seat, "bad", end_s))
            return
        self.at(now_s + self.takes_s[0] / 2, lambda first_s: one.began(seat, first_s, 0.1))
        self.at(now_s + self.takes_s[0], lambda end_s: one.leave(seat, "good", end_s, True))


@pytest.mark.parametrize("slots", [None, 1, 8, 256])
@pytest.mark.parametrize("outage_s", [5, 30, 300])
@pytest.mark.parametrize("takes_s", [(0.05, 0.0), (0.05, 0.5), (0.009, 2.0)])
def test_an_outage_of_all_is_over_when_it_is_over(slots, outage_s, takes_s):
    """T-L4: no more is asked than comes, and all are answered soon afterwards."""
    town = Town(slots, takes_s)
    town.down_s = range(10, 10 + outage_s)
    per_s = 10 if slots == 1 else 100
    town.run(per_s, 10 + outage_s + 60)
    assert 0 < town.n_asked <= per_s * outage_s
    assert not [at_s for at_s in town.refused_s if at_s < 10]
    healed_s = max(town.refused_s) - (10 + outage_s)
    assert healed_s <= 5.0
