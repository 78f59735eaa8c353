"""How requests stand, by id: many of them have finished, and are hardly ever asked for again."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, MutableMapping
from typing import Any

from coe.ledger.amounts import Amounts
from coe.ledger.events import Entry
from coe.ledger.limits import Account, Payer

_N_PARTS = len(Amounts._fields)
_N_ACCOUNT = len(Account._fields)
# where `_packed` puts it
_CHANGED = 7


class Entries(MutableMapping[str, Entry]):
    """Entries by request id; those that hold something come first, in the order they came in.

    The others are kept as flat tuples of texts and numbers, which Python's garbage collector passes
    by: as entries, a hundred thousand would be a million objects to be looked at.
    """

    def __init__(self) -> None:
        self._held: dict[str, Entry] = {}
        self._others: dict[str, tuple[Any, ...]] = {}

    @property
    def held(self) -> KeysView[str]:
        """Ids of those that hold something, oldest first."""
        return self._held.keys()

    def finished_ms(self, request_id: str) -> int | None:
        """When one that holds nothing any more ended; ``None`` of all others."""
        packed = self._others.get(request_id)
        return None if packed is None else packed[_CHANGED]

    def __getitem__(self, request_id: str) -> Entry:
        """The entry, made anew unless it holds something."""
        known = self._held.get(request_id)
        return known or _unpacked(self._others[request_id])

    def get(self, request_id: str, otherwise: Any = None) -> Any:
        """As of a dict: most requests that are asked for are new, and none raises."""
        known = self._held.get(request_id)
        if known is not None:
            return known
        packed = self._others.get(request_id)
        return otherwise if packed is None else _unpacked(packed)

    def __setitem__(self, request_id: str, entry: Entry) -> None:
        """Keep an entry in the place of what was known of the request."""
        if entry.status == "held":
            self._held[request_id] = entry
            self._others.pop(request_id, None)
        else:
            self._held.pop(request_id, None)
            self._others[request_id] = _packed(entry)

    def __delitem__(self, request_id: str) -> None:
        """Know nothing of the request any more."""
        if self._held.pop(request_id, None) is None:
            del self._others[request_id]

    def __contains__(self, request_id: object) -> bool:
        """Whether anything is known of the request."""
        return request_id in self._held or request_id in self._others

    def __iter__(self) -> Iterator[str]:
        """Ids, of those that hold something first."""
        yield from self._held
        yield from self._others

    def __len__(self) -> int:
        """Of how many requests something is known."""
        return len(self._held) + len(self._others)


def _packed(entry: Entry) -> tuple[Any, ...]:
    payer, accounts = entry.payer, entry.accounts
    times = (entry.at_ms, entry.until_ms, entry.limit, entry.resource, entry.changed_ms, entry.seq)
    flat = [part for account in accounts for part in account]
    return (entry.status, payer.tenant, payer.key, *times, *entry.hold, *entry.booked, *flat)


def _unpacked(packed: tuple[Any, ...]) -> Entry:
    status, tenant, key, at_ms, until_ms, limit, resource, changed_ms, seq, *rest = packed
    flat = rest[2 * _N_PARTS :]
    accounts = (flat[n : n + _N_ACCOUNT] for n in range(0, len(flat), _N_ACCOUNT))
    return Entry(
        status,
        Payer(tenant, key),
        Amounts(*rest[:_N_PARTS]),
        at_ms,
        until_ms,
        tuple(Account(*account) for account in accounts),
        Amounts(*rest[_N_PARTS : 2 * _N_PARTS]),
        limit,
        resource,
        changed_ms,
        seq,
    )
