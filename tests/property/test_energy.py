"""Shares of a meter's joules: nothing is lost, nobody pays twice, lateness does not matter."""

import math
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.device import DeviceProfile
from coe.energy import EnergyAccount
from coe.meter import MeterReading, PowerIntegral, WrappingCounter

# no two alike in any figure: prompts of 0.25, 0 and 2 s, tokens of 0.5, 0.1 and (unknown watts) 1
PROFILES = [
    DeviceProfile("mixed", 0.0, 1.0, 50.0, 20.0, 30.0, 10.0),
    DeviceProfile("decode only", 0.0, 0.0, 0.0, 50.0, 0.0, 5.0),
    DeviceProfile("watts unknown", 0.0, 10.0, 0.0, 1.0, 0.0, 0.0),
]
PROMPT = 200
# binary fractions, so that moments which ought to coincide do
WAITS = st.integers(0, 8).map(lambda n: n / 8)
JOULES = st.integers(0, 80).map(lambda n: n / 4)
IDLE = st.sampled_from([0.0, 1.5, 40.0])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), WAITS),
        st.tuples(st.just("enter"), st.integers(0, 2)),
        st.tuples(st.just("tokens"), st.integers(0, 5), st.integers(1, 3)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("read"), JOULES),
    ),
    max_size=60,
)


@dataclass
class Stay:
    """What the slow twin knows of a request."""

    profile: DeviceProfile
    entered: float
    left: float = math.inf
    first: float = math.inf
    tokens: list = field(default_factory=list)

    def work(self, a, b):
        """Watts of the prompt's phase times its length, the rest of it at the first token."""
        watts, token_w = self.profile.prefill_w, self.profile.decode_w
        if watts == token_w == 0:
            watts = token_w = 1.0
        prompt = watts * self.profile.ttft_ms(PROMPT) / 1000
        busy = prompt / watts if watts else 0.0
        end = min(self.entered + busy, self.first, self.left)
        done = watts * max(0.0, min(b, end) - max(a, self.entered))
        if a < self.first <= b:
            done += prompt - watts * (end - self.entered)
        return done + sum(
            n * token_w / self.profile.decode_tokens_per_s for t, n in self.tokens if a < t <= b
        )

    def seconds(self, a, b):
        return max(0.0, min(b, self.left) - max(a, self.entered))


class Scene:
    """An account and its twin, told the same story by one clock.

    Parameters
    ----------
    delay : readings reach the account so much later.
    forced : the meter is also read whenever a request enters or ends.
    """

    def __init__(self, idle_w, delay=0.0, forced=False):
        self.now, self.delay, self.delivered = 0.0, delay, -1.0
        self.account = EnergyAccount(
            "board",
            idle_w=idle_w,
            longest_gap_s=1e9,
            refresh=(lambda: self.read(2.5)) if forced else None,
            now=lambda: self.now,
        )
        self.stays, self.claims, self.paid = [], [], {}
        self.readings, self.on_the_way, self.total = [], deque(), 0.0

    def play(self, steps):
        self.read(0.0)
        for verb, *arguments in steps:
            getattr(self, verb)(*arguments)
            self.deliver()
        self.wait(1.0)
        self.read(1.0)
        self.wait(self.delay)
        self.deliver()

    def wait(self, seconds):
        self.now += seconds

    def enter(self, k):
        self.claims.append(self.account.enter(PROFILES[k], PROMPT))
        self.stays.append(Stay(PROFILES[k], self.now))

    def tokens(self, k, n):
        if self.in_flight(k):
            self.claims[k].note(self.claims[k].n_tokens + n)
            # what comes at the moment of a reading, after it, belongs to the next
            at = self.now if self.now > self.delivered else math.nextafter(self.now, math.inf)
            self.stays[k].first = min(self.stays[k].first, at)
            self.stays[k].tokens.append((at, n))

    def leave(self, k):
        if self.in_flight(k):
            self.stays[k].left = self.now
            self.paid[k] = self.claims[k].leave()

    def in_flight(self, k):
        return k < len(self.stays) and self.stays[k].left == math.inf

    def read(self, joules):
        if not self.readings or self.now > self.readings[-1].at_s:
            self.total += joules
            self.readings.append(MeterReading(self.now, self.total))
            self.on_the_way.append(self.readings[-1])
            self.deliver()

    def deliver(self):
        while self.on_the_way and self.on_the_way[0].at_s + self.delay <= self.now:
            self.delivered = self.on_the_way[0].at_s
            self.account.note_reading(self.on_the_way.popleft())

    def expected(self):
        """Joules of idleness and of each request, interval by interval."""
        idle, shares = 0.0, [0.0] * len(self.stays)
        for before, after in pairwise(self.readings):
            a, b = before.at_s, after.at_s
            joules = after.energy_j - before.energy_j
            there = [k for k, stay in enumerate(self.stays) if stay.seconds(a, b) > 0]
            own = min(joules, self.account.idle_w * (b - a)) if there else joules
            idle += own
            weights = {k: self.stays[k].work(a, b) for k in there}
            if sum(weights.values()) < 1e-9:
                weights = {k: self.stays[k].seconds(a, b) for k in there}
            for k in there:
                shares[k] += (joules - own) * weights[k] / sum(weights.values())
        return idle, shares


@given(steps=STEPS, idle_w=IDLE)
def test_with_a_reading_at_each_end_all_shares_are_those_of_the_slow_twin(steps, idle_w):
    scene = Scene(idle_w, forced=True)
    scene.play(steps)
    account, (idle, shares) = scene.account, scene.expected()
    assert account.metered_j == pytest.approx(scene.total)
    assert account.idle_j + account.requests_j == pytest.approx(scene.total)
    assert account.carried_j == 0
    assert account.idle_j == pytest.approx(idle)
    assert [claim.share_j for claim in scene.claims] == pytest.approx(shares, abs=1e-9)
    assert all(share >= 0 for share in shares)
    assert scene.paid == {k: scene.claims[k].share_j for k in scene.paid}


@given(steps=STEPS, idle_w=IDLE, delay=st.sampled_from([0.0, 0.125, 1.0, 3.0]))
def test_however_late_readings_come_nothing_is_lost(steps, idle_w, delay):
    scene = Scene(idle_w, delay)
    scene.play(steps)
    account, (idle, shares) = scene.account, scene.expected()
    assert account.metered_j == pytest.approx(scene.total)
    assert account.idle_j == pytest.approx(idle)
    assert account.requests_j + account.carried_j == pytest.approx(sum(shares), abs=1e-6)
    # those that are still there get what they would have got on time
    for k, claim in enumerate(scene.claims):
        if scene.in_flight(k):
            assert claim.share_j == pytest.approx(shares[k], abs=1e-9)
    assert all(paid is None or paid >= 0 for paid in scene.paid.values())


@given(order=st.permutations(range(6)), idle_w=IDLE)
def test_the_order_of_requests_is_of_no_account(order, idle_w):
    def shares(order):
        scene = Scene(idle_w, forced=True)
        scene.read(0.0)
        scene.wait(1.0)
        for k in order:
            scene.enter(k % 3)
        scene.wait(0.5)
        for place, k in enumerate(order):
            scene.tokens(place, k)
        scene.wait(0.5)
        scene.read(20.0)
        return {k: scene.claims[place].share_j for place, k in enumerate(order)}

    assert shares(order) == pytest.approx(shares(range(6)))


@given(
    samples=st.lists(st.tuples(WAITS, st.integers(0, 100)), min_size=1, max_size=30),
    longest=st.sampled_from([0.25, 0.5, 1e9]),
)
def test_watts_become_the_area_under_them_where_it_is_known(samples, longest):
    integral, now, area, breaks = PowerIntegral(longest), 0.0, 0.0, 0
    last = None
    for wait, watts in samples:
        now += wait
        reading = integral.add(now, watts)
        if last is None or now > last[0]:
            if last is not None and now - last[0] <= longest:
                area += (now - last[0]) * (watts + last[1]) / 2
            else:
                breaks += last is not None
            last = (now, watts)
        assert (reading.at_s, reading.origin) == (last[0], breaks)
        assert reading.energy_j == pytest.approx(area)


@given(steps=st.lists(st.integers(0, 255), max_size=40), start=st.integers(0, 255))
def test_a_counter_that_turns_over_counts_on(steps, start):
    counter, count, total = WrappingCounter(255), start, 0
    assert counter.add(count) == 0
    for step in steps:
        count, total = (count + step) % 256, total + step
        assert counter.add(count) == total
