"""The checker finds what it is there for: every rule is broken once, and nothing else is said."""

from dataclasses import replace

import pytest

from coe.ledger.limits import Limit
from harness.checker import History, violations
from harness.client import Seen
from harness.dump import Book, Row
from harness.expert import Attested

LIMITS = (Limit("house", "global", 10**9, tokens=200, requests=3),)
HOUSE = ("house", "", 0)
HOLD = (50, 5, 90, 1)
TOOK = (20, 2, 14, 1)


def row(seq, kind, request_id="d1/1", at_ms=1000, tenant="r1", amounts=HOLD, until_ms=0):
    return Row(seq, kind, request_id, at_ms, tenant, amounts, until_ms)


def seen(**fields):
    usual = {"status": 200, "end": "done", "finish": "stop", "numbers": [0, 1, 2, 3]}
    return Seen("r1", True, 0.0, **(usual | fields))


def attested(**fields):
    usual = {"end": "done", "generated": 4, "written": 4, "at_s": 0.0, "at_ms": 1001}
    usual |= {"stated": {"prompt_tokens": 10, "completion_tokens": 4}}
    named = {"authorization": None, "stream": True, "cap": None}
    named |= {"prompt_tokens": 10, "prompt_estimate": 20}
    return Attested("r1", "a", **(named | usual | fields))


def book(rows, held=(0, 0, 0, 0), spent=TOOK, **fields):
    return Book("one", rows, {HOUSE: (held, spent)}, **fields)


RESERVED = row(1, "reserved", until_ms=3000)
SETTLED = row(2, "settled", at_ms=1010, amounts=TOOK)


def history(rows=(RESERVED, SETTLED), said=(), attests=(), **fields):
    more = {"books": [book(list(rows))], "now_ms": 10_000} | fields
    return History([seen(), *said], [attested(), *attests], limits=LIMITS, **more)


def broken(told):
    return {found.rule for found in violations(told)}


def test_a_good_history_breaks_no_rule():
    assert violations(history()) == []


def estimated(n_tokens):
    return row(2, "estimated", at_ms=1010, amounts=(20, 2, n_tokens, 1))


def of(rows, spent=TOOK, held=(0, 0, 0, 0), **fields):
    return replace(history(), books=[book(rows, held, spent, **fields)])


PLANTED = {
    "a balance that rows do not lead to": ("I1", of([RESERVED, SETTLED], spent=(20, 2, 13, 1))),
    "a fault that the gateway's own code finds": ("I1", of([RESERVED, SETTLED], faults=["odd"])),
    "more held than there is": (
        "I2",
        of(
            [
                RESERVED,
                *(row(n, "reserved", f"o{n}/1", tenant=f"o{n}", until_ms=3000) for n in (3, 4)),
                SETTLED._replace(seq=5),
                *(
                    row(n, "settled", f"o{n - 3}/1", 1020, f"o{n - 3}", amounts=(0, 0, 0, 0))
                    for n in (6, 7)
                ),
            ]
        ),
    ),
    "a hold without an end": ("I3", of([RESERVED], (0, 0, 0, 0), HOLD)),
    "two ends": ("I3", of([RESERVED, SETTLED, SETTLED._replace(seq=3, kind="estimated")])),
    "an answer that counts as no request": (
        "I3",
        of([RESERVED, SETTLED._replace(amounts=(20, 2, 14, 0))], (20, 2, 14, 0)),
    ),
    "an expert asked without a hold": ("I4", history(attests=[attested(at_s=1.0)])),
    "asked before its hold": ("I4", replace(history(), attested=[replace(attested(), at_ms=900)])),
    "fewer tokens than the expert stated": (
        "I5",
        of([RESERVED, SETTLED._replace(amounts=(20, 2, 13, 1))], (20, 2, 13, 1)),
    ),
    "an estimate beyond the hold": ("I5", of([RESERVED, estimated(91)], (20, 2, 91, 1))),
    "an estimate of more than was written": ("I5", of([RESERVED, estimated(40)], (20, 2, 40, 1))),
    "an estimate of less than was seen": ("I5", of([RESERVED, estimated(3)], (20, 2, 3, 1))),
    "a hold beyond its lease": (
        "I6",
        replace(of([RESERVED], (0, 0, 0, 0), HOLD), quiet=False, seen=[], attested=[]),
    ),
    "a reservation kept by two gateways": (
        "I7",
        replace(
            history(),
            books=[
                book([RESERVED, SETTLED]),
                book([RESERVED, row(2, "released", amounts=(0, 0, 0, 0))], spent=(0, 0, 0, 0)),
            ],
        ),
    ),
    "a row twice": ("I7", of([RESERVED, SETTLED, row(2, "renewed", at_ms=1011)])),
    "an end before the beginning": ("I8", of([RESERVED, SETTLED._replace(at_ms=990)])),
    "a refund that nobody vouches for": (
        "I9",
        replace(history(), attested=[replace(attested(), stated=None)]),
    ),
    "a release after the expert was asked": (
        "I9",
        of([RESERVED, row(2, "released", at_ms=1010, amounts=(0, 0, 0, 0))], (0, 0, 0, 0)),
    ),
    "nothing booked for what broke off": (
        "I9",
        replace(
            of([RESERVED, SETTLED._replace(amounts=(0, 0, 0, 1))], (0, 0, 0, 1)),
            attested=[replace(attested(), stated=None, end="rst")],
            seen=[seen(numbers=[], end="error")],
        ),
    ),
    "nothing stated, and something booked": (
        "I10",
        replace(
            history(),
            seen=[seen(numbers=[])],
            attested=[
                attested(
                    generated=0, written=0, stated={"prompt_tokens": 10, "completion_tokens": 0}
                )
            ],
        ),
    ),
    "a route that spends and is not metered": ("I11", history(paths={"r1": "/v1/route"})),
    "another state when replayed": ("I12", of([RESERVED, SETTLED], kept="1", replayed="2")),
    "a stream that ends without a word": ("W", replace(history(), seen=[seen(end="silent")])),
    "a token twice": ("W", replace(history(), seen=[seen(numbers=[0, 1, 1, 2])])),
    "a truncated success": ("W", replace(history(), seen=[seen(numbers=[0, 1, 2])])),
}
# what cannot be broken alone: an end that is missing or wrong is also an untrue balance
ALSO = {"I3": {"I6", "I9"}, "I10": {"I5"}, "I9": {"I3"}, "I6": set(), "I7": {"I3", "I9"}}


@pytest.mark.parametrize("name", PLANTED)
def test_it_finds_what_was_planted(name):
    rule, told = PLANTED[name]
    found = broken(told)
    assert rule in found
    assert found - {rule} <= ALSO.get(rule, set())


def test_every_rule_is_broken_once():
    assert {rule for rule, _ in PLANTED.values()} == {*(f"I{n}" for n in range(1, 13)), "W"}
