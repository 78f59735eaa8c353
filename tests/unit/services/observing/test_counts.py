"""Our counters are Prometheus' own."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, generate_latest

from coe.services.observing.counts import Counts
from coe.services.observing.labels import OTHER


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 1e9) | st.integers(0, 10))))
def test_a_page_is_as_prometheus_makes_it(amounts):
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counter = Counter("x_joules", "About.", ("a", "b"), registry=theirs)
    counts = Counts("x_joules", "About.", ("a", "b"), ours)
    for name, amount in amounts:
        counter.labels(name, "2").inc(amount)
        counts.of(name, "2").add(amount)
    assert _timeless(generate_latest(ours)) == _timeless(generate_latest(theirs))


def test_what_has_no_labels_is_there_from_the_start():
    registry = CollectorRegistry()
    Counts("x", "About.", (), registry).of()
    assert registry.get_sample_value("x_total") == 0.0


def test_values_that_become_too_many_share_a_count():
    registry = CollectorRegistry()
    counts = Counts("x", "About.", ("a",), registry)
    for n in range(1100):
        counts.of(str(n)).add()
    found = registry.get_sample_value
    assert (found("x_total", {"a": "999"}), found("x_total", {"a": OTHER})) == (1, 100)


def _timeless(page):
    """A page without the times at which counting began."""
    lines = page.decode().splitlines()
    return [
        line.rpartition(" ")[0] if line.startswith("x_joules_created") else line for line in lines
    ]
