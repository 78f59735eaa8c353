"""Metrics of several processes as those of one."""

from prometheus_client.parser import text_string_to_metric_families

from coe.services.observing.metrics import Metrics
from coe.services.reloading import Outcome
from coe.services.workers.pages import departed, merged


def page(n_swapped, n_in_flight=0):
    metrics = Metrics()
    for _ in range(n_swapped):
        metrics.reloaded(Outcome("swapped", "x"))
        metrics.loop_lag.observe(0.002)
    metrics.n_in_flight = n_in_flight
    return metrics.page({}).decode()


def values(text):
    # those of the process that tests change from moment to moment
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("coe_")
    }


def test_a_page_of_one_says_the_same():
    one = page(3, 2)
    assert values(merged([one])) == values(one)


def test_a_label_may_hold_what_else_ends_lines():
    metrics = Metrics()
    metrics.refusals.of("a\u2028b\x85c\x0bd").add()
    text = metrics.page({}).decode()
    assert values(merged([text])) == values(text)
    assert (
        values(merged([text, departed(text)]))["coe_refusals_total", ("code", "a\u2028b\x85c\x0bd")]
        == 2
    )


def test_counts_and_what_is_under_way_are_summed():
    found = values(merged([page(3, 2), page(4, 1), page(0)]))
    assert found["coe_reloads_total", ("outcome", "swapped")] == 7
    assert found["coe_loop_lag_seconds_count",] == 7
    assert found["coe_loop_lag_seconds_bucket", ("le", "+Inf")] == 7
    assert found["coe_in_flight",] == 3
    heads = [line for line in merged([page(1), page(1)]).splitlines() if line.startswith("#")]
    assert len(heads) == len(set(heads))


def test_what_a_process_counted_outlives_it():
    found = values(merged([page(1, 1), departed(page(4, 9))]))
    assert found["coe_reloads_total", ("outcome", "swapped")] == 5
    assert found["coe_in_flight",] == 1


def test_a_file_that_is_refused_is_refused_once():
    metrics = Metrics()
    metrics.reloaded(Outcome("refused", "x", "no"))
    text = metrics.page({}).decode()
    assert values(merged([text, text]))["coe_config_refused",] == 1
