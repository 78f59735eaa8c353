"""Sampling: quick meters at both ends of a request, slow ones only now and then."""

import asyncio
from dataclasses import dataclass, field

import pytest

from coe.device import DeviceProfile
from coe.energy import EnergyAccount
from coe.errors.gateway import MeterError
from coe.meter import MeterReading
from coe.services.metering.sampling import Sampler, sampled

PROFILE = DeviceProfile("ten watts", 0.0, 0.0, 0.0, 10.0, 0.0, 10.0)


@dataclass
class TwentyWatts:
    """A meter of a machine that draws twenty watts, and how often it was read."""

    clock: object
    failing: bool = False
    n_reads: int = 0

    def read(self):
        self.n_reads += 1
        if self.failing:
            raise MeterError("rapl", "stopped giving figures")
        return MeterReading(self.clock(), 20.0 * self.clock())


@dataclass
class Bench:
    """A sampler whose periods end when told, and what it said."""

    clock: object
    read_s: float
    lines: list = field(default_factory=list)

    def __post_init__(self):
        self.meter = TwentyWatts(self.clock)
        self.account = EnergyAccount("rail", now=self.clock)
        self.timed = 0.0
        self.ticks = asyncio.Semaphore(0)
        self.asleep = asyncio.Event()
        self.sampler = Sampler(
            self.meter, self.account, self.lines.append, sleep=self.sleep, timer=self.timer
        )

    def timer(self):
        """Two calls of it lie ``read_s`` apart."""
        self.timed += self.read_s
        return self.timed

    async def sleep(self, seconds):
        self.clock.seconds += seconds
        self.asleep.set()
        await self.ticks.acquire()

    async def period(self):
        """Until the next read is done."""
        self.asleep.clear()
        self.ticks.release()
        async with asyncio.timeout(5.0):
            await self.asleep.wait()


@pytest.fixture
def bench(clock):
    return lambda read_s: Bench(clock, read_s)


async def test_a_quick_meter_is_read_at_both_ends_of_a_request(bench, clock):
    b = bench(20e-6)
    async with sampled(b.sampler):
        await b.asleep.wait()
        claim = b.account.enter(PROFILE, 0)
        clock.seconds += 0.05
        assert claim.leave() == pytest.approx(1.0)


async def test_a_slow_meter_is_read_every_period_only(bench, clock):
    b = bench(2e-3)
    async with sampled(b.sampler):
        await b.asleep.wait()
        n_reads = b.meter.n_reads
        claim = b.account.enter(PROFILE, 0)
        for _ in range(10):
            await b.period()
        assert b.meter.n_reads == n_reads + 10
        clock.seconds += 0.05
        joules = claim.leave()
        assert b.meter.n_reads == n_reads + 10
    # two seconds at twenty watts, and what the tail of a quarter second was estimated to take
    assert joules == pytest.approx(20.0 * (clock() - claim.entered_s))


async def test_a_quick_meter_is_found_to_be_one_when_the_process_is_less_busy(bench, clock):
    b = bench(2e-3)
    async with sampled(b.sampler):
        await b.asleep.wait()
        b.read_s = 20e-6
        await b.period()
        claim = b.account.enter(PROFILE, 0)
        clock.seconds += 0.05
        assert claim.leave() == pytest.approx(1.0)


async def test_a_meter_that_fails_is_said_once_and_costs_nothing_but_the_measurement(bench, clock):
    b = bench(20e-6)
    async with sampled(b.sampler):
        await b.asleep.wait()
        b.meter.failing = True
        for _ in range(5):
            await b.period()
        assert b.lines == ["energy: rapl: stopped giving figures: modelled meanwhile"]
        claim = b.account.enter(PROFILE, 0)
        clock.seconds += 1.0
        assert claim.leave() is None
        b.meter.failing = False
        await b.period()
        assert b.lines[1:] == ["energy: measured again"]
        claim = b.account.enter(PROFILE, 0)
        clock.seconds += 1.0
        assert claim.leave() == pytest.approx(20.0)


async def test_afterwards_nobody_reads_it_any_more(bench):
    b = bench(20e-6)
    async with sampled(b.sampler):
        await b.asleep.wait()
    n_reads = b.meter.n_reads
    b.account.enter(PROFILE, 0).leave()
    assert b.meter.n_reads == n_reads


async def test_a_meter_that_fails_as_nobody_foresaw_costs_nothing_but_the_measurement(bench, clock):
    b = bench(20e-6)
    async with sampled(b.sampler):
        await b.asleep.wait()
        reading, b.meter.read = b.meter.read, None
        for _ in range(3):
            await b.period()
        assert b.lines == ["energy: meter: nobody foresaw TypeError: modelled meanwhile"]
        claim = b.account.enter(PROFILE, 0)
        clock.seconds += 1.0
        assert claim.leave() is None
        b.meter.read = reading
        await b.period()
        assert b.lines[1:] == ["energy: measured again"]


async def test_sampling_goes_on_where_nobody_can_be_told(bench, clock):
    b = bench(2e-3)
    async with sampled(b.sampler):
        await b.asleep.wait()
        b.meter.failing, b.sampler.say = True, None
        for _ in range(3):
            await b.period()
        b.meter.failing, b.sampler.say = False, b.lines.append
        claim = b.account.enter(PROFILE, 0)
        for _ in range(10):
            await b.period()
        assert claim.leave() == pytest.approx(20.0 * (clock() - claim.entered_s))
