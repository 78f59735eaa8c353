from types import SimpleNamespace

from coe.services.journal import DecisionJournal


def decision(name, expert="small"):
    selection = SimpleNamespace(expert_ids=(expert,))
    return SimpleNamespace(decision_id=name, selection=selection)


def names(kept):
    return [one.decision.decision_id for one in kept]


def test_the_oldest_decision_is_forgotten_first():
    journal = DecisionJournal(capacity=2)
    for name in "abc":
        journal.note(decision(name))
    assert journal.find("a") is None
    assert journal.find("b")[0].decision_id == "b"


def test_a_receipt_joins_its_decision_without_displacing_another():
    journal = DecisionJournal(capacity=2)
    journal.note(decision("a"))
    journal.note(decision("b"))
    journal.note(decision("a"), "receipt")
    assert journal.find("a")[1] == "receipt"
    assert journal.find("b")[1] is None


def test_what_is_too_old_is_forgotten_and_a_clock_that_steps_back_stands_still(clock):
    journal = DecisionJournal(100, kept_for_s=10.0, now=clock)
    start = clock()
    for k, name in enumerate("abc"):
        clock.seconds = start + 4.0 * k
        journal.note(decision(name))
    clock.seconds = start - 50.0
    journal.note(decision("d"))
    assert names(journal.newest(10)) == ["d", "c", "b", "a"]
    clock.seconds = start + 10.0
    assert journal.find("a") is None
    assert names(journal.newest(10)) == ["d", "c", "b"]
    clock.seconds = start + 100.0
    assert journal.newest(10) == []


def test_the_newest_come_first_by_time_expert_and_number(clock):
    journal = DecisionJournal(100, now=clock)
    start = clock()
    for k in range(6):
        clock.seconds = start + k
        journal.note(decision(str(k), "small" if k % 2 else "large"))
    assert names(journal.newest(2)) == ["5", "4"]
    assert names(journal.newest(9, expert_id="large")) == ["4", "2", "0"]
    assert names(journal.newest(9, since_s=start + 4)) == ["5", "4"]
