"""How requests stand, by id: many of them have finished, and are hardly ever asked for again."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Mapping, MutableMapping
from itertools import chain
from typing import Any

from coe.ledger.amounts import Amounts
from coe.ledger.events import Entry
from coe.ledger.limits import Account, Payer

_N_PARTS = len(Amounts._fields)
_N_ACCOUNT = len(Account._fields)
# where `_packed` puts it
_SEQ = 8


class Entries(MutableMapping[str, Entry]):
    """Entries by request id; those that hold something come first, in the order they came in.

    Those whose lease ran out follow, as they may still be corrected. The others are kept as flat
    tuples of texts and numbers, which Python's garbage collector passes by: as entries, a hundred
    thousand would be a million objects to be looked at.
    """

    def __init__(self) -> None:
        self._held: dict[str, Entry] = {}
        self._expired: dict[str, Entry] = {}
        self._others: dict[str, tuple[Any, ...]] = {}
        self._open: dict[str, dict[str, Any]] = {"held": self._held, "expired": self._expired}
        self._parts: tuple[dict[str, Any], ...] = (*self._open.values(), self._others)

    @property
    def held(self) -> KeysView[str]:
        """Ids of those that hold something, oldest first."""
        return self._held.keys()

    @property
    def expired(self) -> Mapping[str, Entry]:
        """Those whose lease ran out, in the order in which that happened."""
        return self._expired

    def finished_seq(self, request_id: str) -> int | None:
        """Number of the last event of one that cannot change any more; ``None`` of all others."""
        packed = self._others.get(request_id)
        return None if packed is None else packed[_SEQ]

    def since(self, seq: int) -> dict[str, Entry]:
        """Those whose last event has a higher number; the others are not made anew."""
        open_ones = {**self._held, **self._expired}
        found = {name: entry for name, entry in open_ones.items() if entry.seq > seq}
        others = self._others.items()
        return found | {name: _unpacked(packed) for name, packed in others if packed[_SEQ] > seq}

    def __getitem__(self, request_id: str) -> Entry:
        """The entry, made anew where it cannot change any more."""
        known = self._held.get(request_id) or self._expired.get(request_id)
        return known or _unpacked(self._others[request_id])

    def get(self, request_id: str, otherwise: Any = None) -> Any:
        """As of a dict: most requests that are asked for are new, and none raises."""
        known = self._held.get(request_id) or self._expired.get(request_id)
        if known is not None:
            return known
        packed = self._others.get(request_id)
        return otherwise if packed is None else _unpacked(packed)

    def __setitem__(self, request_id: str, entry: Entry) -> None:
        """Keep an entry in the place of what was known of the request."""
        place = self._open.get(entry.status, self._others)
        for part in self._parts:
            if part is not place:
                part.pop(request_id, None)
        place[request_id] = _packed(entry) if place is self._others else entry

    def __delitem__(self, request_id: str) -> None:
        """Know nothing of the request any more."""
        if request_id not in self:
            raise KeyError(request_id)
        for part in self._parts:
            part.pop(request_id, None)

    def __contains__(self, request_id: object) -> bool:
        """Whether anything is known of the request."""
        return any(request_id in part for part in self._parts)

    def __iter__(self) -> Iterator[str]:
        """Ids, of those that hold something first."""
        yield from chain(*self._parts)

    def __len__(self) -> int:
        """Of how many requests something is known."""
        return sum(map(len, self._parts))


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
