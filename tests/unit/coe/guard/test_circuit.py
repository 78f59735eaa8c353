"""Ejection on a clock that obeys: when, for how long, how often, and how it ends."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.errors.experts import (
    ExpertOverloadedError,
    ExpertRejectedError,
    ExpertTimeoutError,
    ExpertUnavailableError,
)
from coe.guard.circuit import Circuit, Ejection
from coe.guard.verdict import verdict_on


class Middle(Random):
    """Draws the middle: no jitter."""

    def random(self):
        return 0.5


def circuit(rng=None, **rules):
    return Circuit(Ejection(**rules), rng or Middle())


def end(one, verdict, now_s, n=1):
    for _ in range(n):
        age, probe = one.age, one.sent(now_s)
        one.ended(age, probe, verdict, now_s)


def test_five_failures_in_a_row_eject_and_four_do_not():
    one = circuit()
    end(one, "bad", 1.0, 4)
    end(one, "good", 1.0)
    end(one, "bad", 1.0, 4)
    assert (one.phase(1.0), one.n_ejections) == ("closed", 0)
    end(one, "bad", 1.0)
    assert (one.phase(1.0), one.n_ejections, one.until_s) == ("ejected", 1, 31.0)


@pytest.mark.parametrize(("n_bad", "phase"), [(4, "closed"), (5, "ejected")])
def test_fewer_than_eight_in_ten_of_twenty_eject(n_bad, phase):
    one, n_good = circuit(), 20 - n_bad
    verdicts = ["good"] * n_good
    for k in range(n_bad):
        verdicts.insert(3 * k, "bad")
    for verdict in verdicts[:19]:
        end(one, verdict, 1.0)
    assert one.phase(1.0) == "closed"
    end(one, verdicts[19], 1.0)
    assert one.phase(1.0) == "closed"
    end(one, "busy" if n_bad == 5 else "good", 1.0)
    assert one.phase(1.0) == phase


def test_what_is_older_than_the_window_is_forgotten():
    one = circuit()
    for second in range(200):
        end(one, "bad" if second % 4 == 0 else "good", float(second))
    assert one.n_ejections > 0
    slow = circuit()
    for second in range(200):
        end(slow, "bad" if second % 4 == 0 else "good", 2.0 * second)
    assert slow.n_ejections == 0, "there are never twenty in thirty seconds"


def test_refusals_of_a_busy_one_count_in_the_window_alone():
    one = circuit()
    end(one, "busy", 1.0, 19)
    assert one.phase(1.0) == "closed"
    end(one, "busy", 1.0)
    assert one.phase(1.0) == "ejected"


def test_who_leaves_says_nothing():
    one = circuit()
    for _ in range(50):
        end(one, "bad", 1.0, 1)
        end(one, "nothing", 1.0, 3)
        end(one, "good", 1.0, 8)
    assert one.n_ejections == 0


@pytest.mark.parametrize("n", range(1, 14))
def test_the_nth_ejection_in_succession_lasts_n_times_as_long_up_to_a_cap(n):
    one, now_s = circuit(), 0.0
    for _ in range(n):
        end(one, "bad", now_s, 5 if not one.tripped else 1)
        lasts_s, now_s = one.until_s - now_s, one.until_s
    assert lasts_s == min(30.0 * n, 300.0)
    assert one.n_ejections == n


@given(st.integers(0, 10**6), st.integers(1, 20))
def test_jitter_is_a_fifth_at_most_and_never_beyond_the_cap(seed, n):
    one, now_s = circuit(Random(seed)), 0.0
    for k in range(1, n + 1):
        end(one, "bad", now_s, 5 if not one.tripped else 1)
        usual_s, lasts_s = min(30.0 * k, 300.0), one.until_s - now_s
        assert 0.8 * usual_s - 1e-9 <= lasts_s <= min(1.2 * usual_s, 300.0) + 1e-9
        now_s = one.until_s


def test_half_open_lets_one_probe_find_out():
    one = circuit()
    end(one, "bad", 0.0, 5)
    assert one.phase(29.9) == "ejected"
    assert one.phase(30.0) == "half-open"
    age, probe = one.age, one.sent(30.0)
    assert (probe, one.phase(30.0)) == (True, "probing")
    one.ended(age, probe, "good", 31.0)
    assert one.phase(31.0) == "closed"


@pytest.mark.parametrize("verdict", ["bad", "busy"])
def test_a_probe_that_fails_ejects_anew_and_longer(verdict):
    one = circuit()
    end(one, "bad", 0.0, 5)
    end(one, verdict, 30.0)
    assert (one.phase(30.0), one.until_s) == ("ejected", 90.0)


def test_a_probe_whose_caller_leaves_makes_room_for_another():
    one = circuit()
    end(one, "bad", 0.0, 5)
    end(one, "nothing", 30.0)
    assert one.phase(30.0) == "half-open"


def test_the_first_piece_of_a_probe_is_enough_and_its_failure_afterwards_counts_once():
    one = circuit()
    end(one, "bad", 0.0, 5)
    age, probe = one.age, one.sent(30.0)
    one.began(age, 30.5)
    assert one.phase(30.5) == "closed"
    one.ended(age, probe, "bad", 31.0)
    assert one.phase(31.0) == "closed"


def test_what_was_sent_before_the_ejection_says_nothing_after_it():
    one = circuit()
    age, probe = one.age, one.sent(0.0)
    end(one, "bad", 0.0, 5)
    one.ended(age, probe, "good", 1.0)
    assert one.phase(1.0) == "ejected"


def test_an_answer_to_one_who_insisted_ends_the_ejection():
    one = circuit()
    end(one, "bad", 0.0, 5)
    end(one, "good", 5.0)
    assert one.phase(5.0) == "closed"


def test_flapping_is_left_alone_longer_and_longer_with_one_probe_each_time():
    """T-F07: one second up, one second down, ten requests a second."""
    one, n_probes, lengths_s = circuit(Random(3)), 0, []
    for step in range(20_000):
        now_s = step / 10.0
        down = int(now_s) % 2 == 1
        phase = one.phase(now_s)
        if phase in ("closed", "half-open"):
            before = one.n_ejections
            n_probes += phase == "half-open"
            end(one, "bad" if down else "good", now_s)
            if one.n_ejections > before:
                lengths_s.append(one.until_s - now_s)
    assert len(lengths_s) > 5
    assert all(a * 0.8 <= 30.0 * n * 1.2 for n, a in enumerate(lengths_s, 1))
    assert all(300.0 >= a >= min(30.0 * n, 300.0) * 0.8 for n, a in enumerate(lengths_s, 1))
    assert n_probes <= len(lengths_s), "one for each ejection that has ended"


def test_a_long_time_well_is_remembered_in_its_favour():
    one = circuit()
    end(one, "bad", 0.0, 5)
    end(one, "good", 30.0)
    end(one, "bad", 31.0, 5)
    assert one.until_s == 31.0 + 60.0
    end(one, "good", 91.0)
    end(one, "bad", 1000.0, 5)
    assert one.until_s == 1000.0 + 30.0


# ---- what an end says


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (ExpertUnavailableError("e", "refused"), "bad"),
        (ExpertTimeoutError("e", "silent"), "bad"),
        (ExpertOverloadedError("e", "full"), "nothing"),
        *((ExpertRejectedError("e", "r", status), "bad") for status in (500, 502, 503, 529, 599)),
        *((ExpertRejectedError("e", "r", status), "bad") for status in (301, 401, 403, 408)),
        *((ExpertRejectedError("e", "r", s), "nothing") for s in (400, 404, 413, 415, 422)),
        (ExpertRejectedError("e", "r", 429), "busy"),
    ],
)
def test_what_an_end_says_of_a_replica(error, verdict):
    assert verdict_on(error, 60.0, 60.0) == verdict


def test_a_deadline_of_ours_that_was_nearly_over_says_nothing():
    silent = ExpertTimeoutError("e", "silent")
    assert verdict_on(silent, 0.99, 60.0) == "nothing"
    assert verdict_on(silent, 1.0, 60.0) == "bad"
    assert verdict_on(silent, 0.3, 0.3) == "bad", "its owner allows it no more"
