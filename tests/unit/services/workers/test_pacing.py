"""Two pacers that hear of each other are one."""

import numpy as np

from coe.optimizer.pacing import Allowance, Pacer
from coe.services.workers.pacing import CommonPacer

DAY = Allowance("energy_j", 300, 1000, name="day")
QUALITY, USAGE = np.array([0.9, 0.5]), np.array([[10.0], [1.0]])


def pair():
    one, other = CommonPacer([DAY]), CommonPacer([DAY])
    one.publish = lambda kind, words: other.hear(kind, words)
    other.publish = lambda kind, words: one.hear(kind, words)
    return one, other


def test_both_spend_one_budget_and_ask_one_price():
    one, other = pair()
    alone = Pacer([DAY])
    for n in range(40):
        mine = (one, other)[n % 2]
        for pacer in (mine, alone):
            pacer.prices(float(n))
            pacer.observe(float(n), QUALITY, USAGE)
            pacer.settle(float(n), {"energy_j": 5.0})
    assert one.left(40.0) == other.left(40.0) == alone.left(40.0) == (100.0,)
    assert one.prices(40.0) == other.prices(40.0)
    assert one.prices(40.0)["energy_j"] > 0


def test_who_comes_later_begins_with_what_the_others_know():
    one, _ = pair()
    one.settle(1.0, {"energy_j": 50.0})
    late = CommonPacer.restored([DAY], one.state())
    assert late.left(2.0) == one.left(2.0)


def test_figures_of_other_resources_are_left_aside():
    one, _ = pair()
    one.hear("observed", [1.0, [0.5], [[1.0, 2.0]], None])
    assert one.prices(2.0) == {"energy_j": 0.0}
