"""Our histograms are Prometheus' own."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from coe.services.observing.spread import Spreads

BOUNDS = (0.0, 0.1, 1.0, 10.0)


@given(st.lists(st.floats(0, 20) | st.sampled_from(BOUNDS)))
def test_a_page_is_as_prometheus_makes_it(values):
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("x", "About.", ("a", "b"), buckets=BOUNDS, registry=theirs)
    spreads = Spreads("x", "About.", ("a", "b"), BOUNDS, ours)
    for value in values:
        histogram.labels("1", "2").observe(value)
        spreads.of("1", "2").observe(value)
    page = [
        line for line in generate_latest(theirs).decode().splitlines() if "_created" not in line
    ]
    assert generate_latest(ours).decode().splitlines() == page


def test_where_a_bound_is_negative_there_is_a_sum_all_the_same():
    registry = CollectorRegistry()
    spread = Spreads("x", "About.", (), (-1.0, 0.0), registry).of()
    for value in (-2.0, -1.0, -0.5, 3.0):
        spread.observe(value)
    found = registry.get_sample_value
    assert [found("x_bucket", {"le": le}) for le in ("-1.0", "0.0", "+Inf")] == [2, 3, 4]
    assert (found("x_count"), found("x_sum")) == (4, -0.5)
