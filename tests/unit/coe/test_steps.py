"""Times taken in passing."""

from coe.steps import MOST_STEPS, Laps, Step, Steps


def test_laps_follow_each_other_without_a_gap_and_add_up():
    times = iter([1.0, 1.5, 1.75, 2.75])
    laps = Laps(lambda: next(times))
    laps("embed")
    laps("select")
    laps("embed")
    assert laps.took_ms == {"embed": 1500.0, "select": 250.0}
    assert laps.total_ms == sum(laps.took_ms.values()) == 1750.0


def test_steps_are_kept_in_the_order_in_which_they_ended_and_not_without_bound():
    steps = Steps()
    steps.note("decide", 0.0, 1.0)
    steps.note("dispatch", 1.0, 2.0, "small", "ExpertTimeoutError")
    assert steps.done[1] == Step("dispatch", 1.0, 2.0, "small", "ExpertTimeoutError")
    for k in range(2 * MOST_STEPS):
        steps.note("dispatch", float(k), float(k))
    assert len(steps.done) == MOST_STEPS
