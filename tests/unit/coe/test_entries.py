"""What is remembered of requests is what was kept, and is no work for the garbage collector."""

import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.ledger.amounts import Amounts
from coe.ledger.entries import Entries
from coe.ledger.events import Entry
from coe.ledger.limits import Account, Payer

WHOLE = st.integers(0, 2**53)
AMOUNTS = st.builds(Amounts, WHOLE, WHOLE, WHOLE, WHOLE)
ACCOUNTS = st.builds(Account, st.text(), st.text(), WHOLE, WHOLE)
STATUSES = ("held", "refused", "settled", "estimated", "released", "expired")
ENTRIES = st.builds(
    Entry,
    st.sampled_from(STATUSES),
    st.builds(Payer, st.text(), st.text()),
    AMOUNTS,
    WHOLE,
    WHOLE,
    st.lists(ACCOUNTS, max_size=3).map(tuple),
    AMOUNTS,
    st.text(),
    st.text(),
    WHOLE,
    WHOLE,
)
NAMES = st.sampled_from("abcde")
STEPS = st.lists(st.one_of(st.tuples(NAMES, ENTRIES), st.tuples(NAMES, st.none())))


@given(STEPS)
def test_they_are_a_dict_of_entries(steps):
    found, plain = Entries(), {}
    for name, entry in steps:
        if entry is not None:
            found[name] = plain[name] = entry
        elif name in plain:
            del found[name], plain[name]
        assert dict(found) == plain
        assert len(found) == len(plain)
        assert [*found.held] == [n for n in found if plain[n].status == "held"]
        assert found.expired == {n: e for n, e in plain.items() if e.status == "expired"}
        for seq in (0, 7):
            assert found.since(seq) == {n: e for n, e in plain.items() if e.seq > seq}
        for other in "abcde":
            assert found.get(other) == plain.get(other)
            assert (other in found) == (other in plain)
            ended = other in plain and plain[other].status not in ("held", "expired")
            assert found.finished_seq(other) == (plain[other].seq if ended else None)
            if other in plain:
                # as those who took them apart expect them
                entry = found[other]
                assert type(entry) is Entry
                assert type(entry.payer) is Payer
                assert {type(entry.hold), type(entry.booked)} == {Amounts}
                assert {type(account) for account in entry.accounts} <= {Account}


def test_who_holds_something_stays_in_its_place():
    found = Entries()
    one = Entry("held", Payer("a", ""), Amounts(), 1, 2)
    for name in "abc":
        found[name] = one
    found["a"] = one._replace(until_ms=3)
    found["b"] = one._replace(status="settled")
    assert [*found.held] == ["a", "c"]
    with pytest.raises(KeyError):
        found["absent"]
    with pytest.raises(KeyError):
        del found["absent"]


def test_the_garbage_collector_passes_by_what_has_finished():
    found = Entries()
    account = Account("tenants", "alice", 0, 60_000)
    for n in range(100):
        whose = Payer(f"tenant {n}", "")
        found[str(n)] = Entry("settled", whose, Amounts(n, n, n, 1), n, n, (account, account))
    gc.collect()
    assert not any(map(gc.is_tracked, found._others.values()))
