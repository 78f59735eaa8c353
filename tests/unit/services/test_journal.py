from types import SimpleNamespace

from coe.services.journal import DecisionJournal


def decision(name):
    return SimpleNamespace(decision_id=name)


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
