"""The state of a ledger in words, which a thread of its own finds a few at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import orjson

from coe.ledger.book import Ledger
from coe.ledger.replay import state

_AT_ONCE = 250
# long enough for whoever waits for the interpreter to get it
_REST_S = 0.001


def worded(ledger: Ledger) -> str:
    """The `state` of a ledger that nobody changes meanwhile, as JSON for `Journal.keep`.

    Others may work in between: it rests after every 250 accounts, and leaves no heap of lists to
    the garbage collector.
    """
    return orjson.dumps(state(ledger, _in_words)).decode()


def _in_words(rows: Iterable[list[Any]]) -> list[orjson.Fragment]:
    found = []
    for n, row in enumerate(rows, 1):
        found.append(orjson.Fragment(orjson.dumps(row)))
        if n % _AT_ONCE == 0:
            time.sleep(_REST_S)
    return found
