"""The ledger by hand: what a request holds, takes, and may not take."""

import json
from typing import Any

import pytest

from coe.errors.gateway import LedgerConflictError
from coe.ledger.amounts import MOST, NOTHING, Amounts
from coe.ledger.book import MOST_REMEMBERED, REMEMBERED_MS, Ledger
from coe.ledger.events import Event
from coe.ledger.limits import Account, Limit, Payer
from coe.ledger.replay import faults, replay, restored, state

HOUR_MS = 3_600_000
LEASE_MS = 60_000
ALICE, BOB = Payer("alice", "k1"), Payer("bob", "k2")
TEN = Amounts(tokens=10, requests=1)


def ledger(*limits: Limit) -> Ledger:
    return Ledger(limits or [Limit("hour", "global", 3600, tokens=100)])


def taken(book: Ledger) -> dict[str, Amounts]:
    return {account.holder: balance.taken for account, balance in book.accounts.items()}


def test_figures_become_whole_millionths_never_less_than_they_were() -> None:
    amounts = Amounts.of(0.1, 0.0000001, 3, 1)
    assert amounts == Amounts(energy_uj=100_000, cost_uusd=1, tokens=3, requests=1)


@pytest.mark.parametrize(
    "figures",
    [(-1e-6,), (float("nan"),), (float("inf"),), (0.0, -1.0), (1e300,), (0.0, 0.0, -1)],
)
def test_a_figure_that_is_no_amount_is_refused(figures: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Amounts.of(*figures)


@pytest.mark.parametrize("amount", [-1, MOST + 1, 2**63 - 1, 1.0, True])
def test_a_hold_that_is_no_amount_is_refused_before_anything_happens(amount: Any) -> None:
    book = ledger()
    with pytest.raises(ValueError, match="tokens must be a whole number"):
        book.reserve("a", ALICE, Amounts(tokens=amount), 0, LEASE_MS)
    book.reserve("b", ALICE, TEN, 0, LEASE_MS)
    with pytest.raises(ValueError, match="tokens must be a whole number"):
        book.settle("b", Amounts(tokens=amount), 0)
    assert book.held == ("b",)


def test_room_for_five_lets_five_of_ten_in() -> None:
    book = ledger(Limit("hour", "global", 3600, tokens=50))
    kinds = [book.reserve(f"r{n}", ALICE, TEN, 0, LEASE_MS) for n in range(10)]
    assert [event.kind for event in kinds if event] == ["reserved"] * 5 + ["refused"] * 5


def test_the_largest_ceiling_is_kept_exactly() -> None:
    book = ledger(Limit("hour", "global", 3600, tokens=MOST))
    assert book.reserve("a", ALICE, Amounts(tokens=MOST - 1), 0, LEASE_MS)
    kinds = [book.reserve(name, ALICE, Amounts(tokens=1), 0, LEASE_MS) for name in ("b", "c")]
    assert [event.kind for event in kinds if event] == ["reserved", "refused"]


def test_all_accounts_of_a_payer_or_none() -> None:
    book = ledger(
        Limit("house", "global", 3600, tokens=100),
        Limit("tenants", "tenant", 3600, tokens=15),
        Limit("k2", "key", 3600, requests=1, of="k2"),
    )
    for name, payer in [("a", ALICE), ("b", ALICE), ("c", BOB), ("d", BOB)]:
        book.reserve(name, payer, TEN, 0, LEASE_MS)
    assert {name: entry.status for name, entry in book.entries.items()} == {
        "a": "held",
        "b": "refused",
        "c": "held",
        "d": "refused",
    }
    assert taken(book) == {"": TEN.plus(TEN), "alice": TEN, "bob": TEN, "k2": TEN}


def test_the_limit_that_refuses_for_longest_is_named() -> None:
    book = ledger(Limit("minute", "global", 60, tokens=5), Limit("hour", "global", 3600, tokens=5))
    event = book.reserve("a", ALICE, TEN, 1000, LEASE_MS)
    assert event is not None
    assert (event.limit, event.resource, event.until_ms) == ("hour", "tokens", HOUR_MS)


def test_requests_without_a_tenant_share_an_account() -> None:
    book = ledger(Limit("tenants", "tenant", 3600, tokens=15))
    book.reserve("a", Payer(), TEN, 0, LEASE_MS)
    book.reserve("b", Payer(key="k"), TEN, 0, LEASE_MS)
    assert book.entries["b"].status == "refused"


def test_what_is_said_again_changes_nothing() -> None:
    book = ledger()
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    assert book.reserve("a", ALICE, TEN, 5, LEASE_MS) is None
    book.settle("a", Amounts(tokens=7), 10)
    before = state(book)
    assert book.settle("a", Amounts(tokens=7), 11) is None
    assert book.reserve("a", ALICE, TEN, 12, LEASE_MS) is None
    assert state(book) == before


def test_a_refused_request_stays_refused() -> None:
    book = ledger(Limit("hour", "global", 3600, tokens=15))
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    book.reserve("b", ALICE, TEN, 0, LEASE_MS)
    book.release("a", 1)
    assert book.reserve("b", ALICE, TEN, 2, LEASE_MS) is None
    assert book.entries["b"].status == "refused"
    with pytest.raises(LedgerConflictError, match="was refused before"):
        book.settle("b", TEN, 3)


def test_what_contradicts_is_an_error_and_changes_nothing() -> None:
    book = ledger()
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    book.settle("a", Amounts(tokens=7), 10)
    before = state(book)
    for call in (
        lambda: book.settle("a", Amounts(tokens=8), 11),
        lambda: book.settle("a", Amounts(tokens=7), 11, estimated=True),
        lambda: book.release("a", 11),
        lambda: book.reserve("a", BOB, TEN, 11, LEASE_MS),
        lambda: book.reserve("a", ALICE, NOTHING, 11, LEASE_MS),
        lambda: book.settle("unheard of", TEN, 11),
    ):
        with pytest.raises(LedgerConflictError):
            call()
    assert state(book) == before


def test_more_than_the_hold_is_booked_and_shown_as_overrun() -> None:
    book = ledger(Limit("hour", "global", 3600, tokens=10))
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    book.settle("a", Amounts(tokens=12, requests=1), 1)
    (balance,) = book.accounts.values()
    assert (balance.spent.tokens, balance.overrun.tokens) == (12, 2)
    refused = book.reserve("b", ALICE, NOTHING, 2, LEASE_MS)
    assert refused is not None
    assert refused.kind == "refused"


def test_a_request_that_was_given_up_is_booked_whole_until_the_truth_is_known() -> None:
    book = ledger()
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    book.reserve("b", ALICE, TEN, 0, LEASE_MS)
    book.renew("b", 30_000, LEASE_MS)
    assert book.expire(LEASE_MS - 1) == []
    assert [event.request_id for event in book.expire(LEASE_MS)] == ["a"]
    assert taken(book) == {"": TEN.plus(TEN)}
    book.settle("a", Amounts(tokens=3, requests=1), LEASE_MS + 1)
    assert taken(book) == {"": TEN.plus(Amounts(tokens=3, requests=1))}
    assert book.expire(90_000)[0].request_id == "b"


def test_a_hold_that_crosses_a_boundary_belongs_to_its_own_window() -> None:
    book = ledger(Limit("hour", "global", 3600, tokens=15))
    book.reserve("a", ALICE, TEN, HOUR_MS - 1, LEASE_MS)
    book.reserve("b", ALICE, TEN, HOUR_MS, LEASE_MS)
    book.settle("a", TEN, HOUR_MS + 1)
    first, second = (Account("hour", "", start, HOUR_MS) for start in (0, HOUR_MS))
    assert book.accounts[first].spent == TEN
    assert (book.accounts[second].held, book.accounts[second].spent) == (TEN, NOTHING)


def test_a_clock_that_steps_back_opens_no_window_again() -> None:
    book = ledger(Limit("hour", "global", 3600, tokens=15))
    book.reserve("a", ALICE, TEN, HOUR_MS, LEASE_MS)
    back = book.reserve("b", ALICE, TEN, HOUR_MS - 5, LEASE_MS)
    assert back is not None
    assert (back.kind, back.at_ms) == ("refused", HOUR_MS)


def test_a_lower_ceiling_lets_what_runs_finish_and_nothing_in() -> None:
    book = ledger()
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    book.limits = (Limit("hour", "global", 3600, tokens=5),)
    book.reserve("b", ALICE, Amounts(tokens=1), 1, LEASE_MS)
    book.settle("a", TEN, 2)
    assert book.entries["b"].status == "refused"
    assert taken(book) == {"": TEN}
    assert faults(book) == []


def test_finished_requests_and_closed_windows_are_forgotten() -> None:
    book = ledger(Limit("minute", "global", 60, tokens=100))
    for n in range(1000):
        book.reserve(f"r{n}", ALICE, TEN, n * 10_000, LEASE_MS)
        book.settle(f"r{n}", TEN, n * 10_000)
    end_ms = 999 * 10_000
    assert len(book.entries) <= REMEMBERED_MS // 10_000 + 1
    closed = book.retire(end_ms)
    assert sum(b.spent.tokens for b in [*closed.values(), *book.accounts.values()]) == 10_000
    assert all(account.ends_ms + REMEMBERED_MS > end_ms for account in book.accounts)


def test_of_many_that_finish_at_once_the_youngest_are_remembered() -> None:
    book = ledger(Limit("day", "global", 86_400, requests=10**9))
    book.reserve("held", ALICE, TEN, 0, LEASE_MS)
    for n in range(MOST_REMEMBERED + 1000):
        # each on behalf of somebody else
        book.reserve(f"r{n}", Payer(f"t{n}"), Amounts(requests=1), 0, LEASE_MS)
        book.release(f"r{n}", 0)
    assert len(book.entries) == MOST_REMEMBERED + 1
    assert "r999" not in book.entries
    assert book.entries["held"].status == "held"
    assert book.release("r1000", 0) is None
    assert faults(book) == []


def test_what_expired_is_corrected_after_its_window_was_closed_and_the_ledger_restored() -> None:
    book = ledger(Limit("minute", "global", 60, tokens=100))
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    book.reserve("b", ALICE, TEN, 0, LEASE_MS)
    expired_ms = 2 * REMEMBERED_MS
    assert len(book.expire(expired_ms)) == 2
    assert book.retire(expired_ms) == {}
    again = restored(json.loads(json.dumps(state(book))))
    for one in (book, again):
        event = one.settle("a", Amounts(tokens=3, requests=1), expired_ms + REMEMBERED_MS - 1)
        assert event is not None
        assert faults(one) == []
        with pytest.raises(LedgerConflictError, match="no longer"):
            one.settle("b", Amounts(tokens=3, requests=1), expired_ms + REMEMBERED_MS)
        ((_, closed),) = one.retire(expired_ms + REMEMBERED_MS).items()
        assert closed.spent.tokens == 13
    assert state(again) == state(book)


def test_a_state_of_before_expired_requests_were_kept_is_restored() -> None:
    book = ledger()
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    kept = state(book)
    del kept["expired"]
    assert state(restored(kept)) == state(book)


def test_an_account_that_holds_something_is_not_closed() -> None:
    book = ledger()
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    assert book.retire(10 * HOUR_MS) == {}


def test_what_could_not_be_kept_never_was() -> None:
    book = ledger()
    before = state(book)["accounts"]
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    book.void("a")
    assert book.held == ()
    assert taken(book) in ({}, {"": NOTHING})
    assert before == []
    assert book.reserve("a", ALICE, TEN, 0, LEASE_MS) is not None


def test_a_kept_ledger_goes_on_where_it_was() -> None:
    book = ledger(
        Limit("hour", "tenant", 3600, tokens=25), Limit("day", "global", 86400, requests=9)
    )
    for name, payer in [("a", ALICE), ("b", BOB), ("c", ALICE)]:
        book.reserve(name, payer, TEN, 5, LEASE_MS)
    book.settle("a", Amounts(tokens=1), 6)
    again = restored(json.loads(json.dumps(state(book))))
    assert state(again) == state(book)
    for one in (book, again):
        one.settle("b", TEN, 7)
        one.expire(LEASE_MS + 5)
    assert state(again) == state(book)


def test_events_that_cannot_be_are_said() -> None:
    rows = [
        (1, Event("reserved", "a", 0, ALICE, TEN, 9)),
        (2, Event("reserved", "a", 0, ALICE, TEN, 9)),
        (3, Event("settled", "b", 0, amounts=TEN)),
        (4, Event("settled", "a", 0, amounts=TEN)),
        (5, Event("expired", "a", 0, amounts=TEN)),
        (6, Event("renewed", "a", 0, until_ms=9)),
        (6, Event("reserved", "c", 0, ALICE, TEN, 9)),
        (7, Event("reserved", "d", 0, ALICE, Amounts(tokens=91), 9)),
    ]
    found = replay(ledger(), rows)
    assert [line.split(":")[0] for line in found] == [f"row {n}" for n in (2, 3, 5, 6, 6, 7)]


def test_a_balance_that_is_off_is_said() -> None:
    book = ledger()
    book.reserve("a", ALICE, TEN, 0, LEASE_MS)
    (account,) = book.accounts
    del book.accounts[account]
    assert "holds" in faults(book)[0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window_s": 0, "tokens": 1}, "window_s"),
        ({"window_s": 1}, "a ceiling"),
        ({"window_s": 1, "tokens": -1}, "tokens"),
        ({"window_s": 1, "energy_uj": MOST + 1}, "energy_uj"),
    ],
)
def test_a_limit_that_is_none_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Limit("l", "global", **fields)


def test_other_limits_hold_for_what_comes_after_and_are_replayed() -> None:
    before, after = (
        Limit("hour", "global", 3600, tokens=10),
        Limit("day", "global", 86400, tokens=5),
    )
    ledger, again = Ledger([before]), Ledger([before])
    events = [
        ledger.reserve("a", Payer(), Amounts(tokens=10), 0, 1000),
        ledger.limit([after], 0),
        ledger.reserve("b", Payer(), Amounts(tokens=5), 0, 1000),
    ]
    assert ledger.limit([after], 0) is None
    assert {a.limit: sums.held.tokens for a, sums in ledger.accounts.items()} == {
        "hour": 10,
        "day": 5,
    }
    rows = [(n, event) for n, event in enumerate(events, 1) if event is not None]
    assert replay(again, rows) == []
    assert state(again) == state(ledger)
    altered = rows[1][1]._replace(limit="nonsense")
    assert replay(Ledger([before]), [rows[0], (2, altered)])[0].startswith("row 2")
