"""A host that says what its machine draws: the meter, or why there is none."""

import asyncio

import pytest

from coe.errors.gateway import MeterError
from coe.meter import MeterReading
from coe.replica import HostReport
from coe.services.host.metered import MeteredHost, NodeMeter
from coe.services.metering.found import FoundMeter

REPORT = HostReport("ready", address="http://127.0.0.1:1", n_running=1)


class Host:
    """Notes what it is asked."""

    def __init__(self):
        self.asked = []

    async def start(self):
        self.asked.append("start")

    async def report(self):
        return REPORT

    async def changed(self):
        self.asked.append("changed")

    async def drain(self, timeout_s):
        self.asked.append(timeout_s)
        return True

    async def stop(self):
        self.asked.append("stop")


class TenWatts:
    """A meter of a machine that draws ten watts."""

    def __init__(self, clock):
        self.clock = clock

    def read(self):
        return MeterReading(self.clock(), 10.0 * self.clock())


async def reported(host, condition):
    """The first report of which a condition holds; the meter is looked for in a thread."""
    async with asyncio.timeout(5):
        while not condition(report := await host.report()):  # noqa: ASYNC110
            await asyncio.sleep(0)
    return report


def found(meter=None):
    return FoundMeter("rapl", "rail", "package-0", meter)


@pytest.fixture
def meter(clock):
    return NodeMeter(found(), origin=7, now=clock)


def told(meter, clock, *seconds, watts=10.0, origin=0):
    """Readings after so many seconds each."""
    for wait_s in seconds:
        clock.seconds += wait_s
        meter.note_reading(MeterReading(clock(), watts * clock(), origin))


def test_a_reading_tells_its_age_and_no_moment(meter, clock):
    assert meter.reading() is None
    told(meter, clock, 0.0)
    clock.seconds += 0.25
    reading = meter.reading()
    assert (reading.energy_j, reading.age_s) == (10.0 * (clock() - 0.25), 0.25)
    assert (reading.scope, reading.meter, reading.power_w) == ("rail", "rapl", None)


def test_power_is_the_mean_of_the_last_second(meter, clock):
    told(meter, clock, *[0.2] * 20)
    assert meter.reading().power_w == pytest.approx(10.0)
    before_j = meter.reading().energy_j
    for n in range(1, 8):
        clock.seconds += 0.2
        meter.note_reading(MeterReading(clock(), before_j + 6.0 * n))
    assert meter.reading().power_w == pytest.approx(30.0)


def test_a_meter_that_began_anew_is_another_beginning(meter, clock):
    told(meter, clock, *[0.2] * 20)
    first = meter.reading()
    told(meter, clock, 0.2, origin=1)
    assert meter.reading().origin != first.origin
    assert meter.reading().power_w is None


def test_what_was_read_long_ago_says_nothing_of_now(meter, clock):
    told(meter, clock, *[0.2] * 20)
    clock.seconds += 60.0
    assert meter.reading() is None


def test_two_watches_over_one_meter_have_two_beginnings(clock):
    one, other = (NodeMeter(found(), now=clock) for _ in range(2))
    for meter in (one, other):
        told(meter, clock, 0.0)
    assert one.reading().origin != other.reading().origin


async def test_a_report_holds_what_the_meter_says_when_it_is_made(clock):
    meter = TenWatts(clock)
    host = MeteredHost(Host(), lambda: (found(meter), []), clock)
    assert await host.report() == REPORT
    await host.start()
    report = await reported(host, lambda report: report.meter)
    reading = report.meter
    assert reading.energy_j == 10.0 * (clock() - reading.age_s)
    assert report.unmetered == ""
    assert report.n_running == 1
    await host.stop()


async def test_without_a_meter_reports_say_why():
    missing = MeterError("rapl", "may only be read by root")
    host = MeteredHost(Host(), lambda: (None, [missing]))
    await host.start()
    report = await reported(host, lambda report: report.unmetered)
    assert report.meter is None
    assert report.unmetered == "rapl: may only be read by root"
    await host.stop()


async def test_everything_else_is_the_host_s(clock):
    inner = Host()
    host = MeteredHost(inner, lambda: (None, []), clock)
    await host.start()
    await host.start()
    await host.changed()
    assert await host.drain(3.0)
    await host.stop()
    assert inner.asked == ["start", "start", "changed", 3.0, "stop"]


async def test_a_search_for_a_meter_that_nobody_foresaw_would_fail_says_so():
    host = MeteredHost(Host(), lambda: 1 / 0)
    await host.start()
    report = await reported(host, lambda report: report.unmetered)
    assert report.unmetered == "nobody foresaw ZeroDivisionError"
    await host.stop()
