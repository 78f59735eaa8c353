"""Four histories of the same requests, held against each other.

What callers saw, what experts attest, what ledgers kept, and the limits that they kept to are
joined by the request's tag, which stands in the prompt and is the tenant that is charged.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from coe.ledger.limits import Limit
from harness.account import FINAL, Account, Told, in_order
from harness.client import Seen
from harness.dump import Book
from harness.expert import Attested

METERED = frozenset({"/v1/chat/completions", "/v1/completions"})
"""Paths at which a request may make an expert work."""

SWEEP_MS = 3000
"""How long after its lease a hold may still stand."""

_TOKENS, _REQUESTS = 2, 3


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that was broken: ``I1`` to ``I12``, or ``W`` for truth on the wire."""

    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.text}"


@dataclass(frozen=True)
class History:
    """All that is known of some requests.

    Parameters
    ----------
    alone : share of every ceiling that each gateway may have granted by itself.
    quiet : everybody has ended, so nothing may be held any more.
    paths : where callers asked, by tag; chats where it is not said.
    skewed : clocks of gateways differ, so that sums of all of them are looked at when all is over.
    copies : experts may be asked several times under one hold, as copies of one.
    """

    seen: Sequence[Seen]
    attested: Sequence[Attested]
    books: Sequence[Book]
    limits: Sequence[Limit]
    now_ms: int
    lease_ms: int = 60_000
    alone: float = 0.0
    quiet: bool = True
    paths: dict[str, str] = field(default_factory=dict)
    copies: bool = False
    skewed: bool = False

    @cached_property
    def accounts(self) -> list[Account]:
        """Of every book, from its rows."""
        found = []
        for book in self.books:
            account = Account(self.limits)
            for row in book.rows:
                list(account.take(row))
            found.append(account)
        return found

    @cached_property
    def holds(self) -> dict[str, list[Told]]:
        """By tag, those that were granted, oldest first."""
        by_tag: dict[str, list[Told]] = defaultdict(list)
        for account in self.accounts:
            for told in account.holds.values():
                if told.status != "refused":
                    by_tag[told.tenant].append(told)
        for told_of_tag in by_tag.values():
            told_of_tag.sort(key=lambda told: (told.at_ms, told.request_id))
        return by_tag

    @cached_property
    def pairs(self) -> list[tuple[Attested, Told | None]]:
        """Every attempt with the hold that it was made under; each hold is for one."""
        attempts: dict[str, list[Attested]] = defaultdict(list)
        for entry in sorted(self.attested, key=lambda entry: entry.at_s):
            attempts[entry.tag].append(entry)
        return [
            pair
            for tag, entries in attempts.items()
            for pair in _paired(entries, self.holds.get(tag, []), self.copies)
        ]

    @cached_property
    def by_tag(self) -> dict[str, Seen]:
        """What callers saw."""
        return {seen.tag: seen for seen in self.seen}


def _paired(
    entries: Sequence[Attested], holds: Sequence[Told], copies: bool
) -> Iterator[tuple[Attested, Told | None]]:
    """Each attempt with its hold: the youngest of before that no later attempt was made under.

    A hold under which nobody was reached has no attempt.
    """
    left = list(holds)
    for entry in reversed(entries):
        before = [told for told in left if told.at_ms <= entry.at_ms]
        yield entry, before[-1] if before else None
        if before and not copies:
            left = before[:-1]


def violations(history: History) -> list[Violation]:
    """What is wrong, in the order of the rules; empty where nothing is."""
    rules = [_sums, _ceilings, _terminal, _held_before, _tokens, _leases, _once, _clocks]
    rules += [_refunds, _usage, _metered, _replayed, _wire]
    names = [*(f"I{n}" for n in range(1, 13)), "W"]
    return [
        Violation(name, text)
        for name, rule in zip(names, rules, strict=True)
        for text in rule(history)
    ]


def _sums(history: History) -> Iterator[str]:
    """Conservation: balances are the sums of what requests hold and took."""
    for book, account in zip(history.books, history.accounts, strict=True):
        yield from (f"{book.name}: {fault}" for fault in book.faults)
        mine = {key: (held, spent) for key, (held, spent, _) in account.sums.items()}
        for key in mine.keys() | book.balances.keys():
            if _none(mine.get(key)) and _none(book.balances.get(key)):
                continue
            if mine.get(key) != book.balances.get(key):
                yield f"{book.name}: {key}: rows {mine.get(key)}, balance {book.balances.get(key)}"


def _none(sums: tuple[Sequence[int], Sequence[int]] | None) -> bool:
    return sums is None or not any(map(any, sums))


def _ceilings(history: History) -> Iterator[str]:
    """Spent and held together never exceed a ceiling, of all gateways together."""
    account = Account(history.limits)
    allowed, told = history.alone * len(history.books), set()
    for row in in_order([book.rows for book in history.books]):
        for key in account.take(row):
            if key not in told and not history.skewed and account.over(key, allowed):
                told.add(key)
                yield f"{key} at {row.at_ms} ms ({row.request_id}): {account.sums[key]}"
    for key in account.sums.keys() - told:
        if account.over(key, allowed):
            yield f"{key} in the end: {account.sums[key]}"


def _terminal(history: History) -> Iterator[str]:
    """One end of every hold, and the request counts once."""
    for account in history.accounts:
        for told in account.holds.values():
            kinds = [kind for kind in told.kinds if kind != "renewed"]
            ends = [kind for kind in kinds if kind in FINAL]
            if kinds[0] not in ("reserved", "refused") or len(ends) > 1:
                yield f"{told.request_id}: {', '.join(told.kinds)}"
            elif history.quiet and told.status == "reserved":
                yield f"{told.request_id} of {told.tenant!r}: holds {told.hold} for ever"
            elif kinds[0] == "refused" and len(kinds) > 1:
                yield f"{told.request_id}: {', '.join(told.kinds)} after a refusal"
    for seen in history.seen:
        counted = sum(told.booked[_REQUESTS] for told in history.holds.get(seen.tag, ()))
        answered = history.quiet and (seen.numbers or seen.end in ("done", "whole"))
        if history.books and (counted > 1 or (answered and counted != 1)):
            yield f"{seen.tag}: counted as {counted} requests"


def _held_before(history: History) -> Iterator[str]:
    """No expert is asked without a hold of before."""
    if not history.books:
        return
    for entry, told in history.pairs:
        if told is None:
            yield f"{entry.tag}: {entry.expert} was asked, and nothing held for it"


def _tokens(history: History) -> Iterator[str]:
    """Stated figures are those attested; others lie between what was seen and the hold."""
    for entry, told in history.pairs:
        if told is None or history.copies:
            continue
        booked, seen = told.booked[_TOKENS], history.by_tag.get(entry.tag)
        if told.status == "settled" and entry.stated and entry.end == "done":
            if booked != entry.prompt_tokens + entry.generated and _sane(entry):
                yield (
                    f"{told.request_id}: settled at {booked} tokens, attested are "
                    f"{entry.prompt_tokens} + {entry.generated}"
                )
        elif told.status in ("estimated", "expired"):
            of_this = seen is not None and seen.numbers and entry.written
            least = len(seen.numbers) if seen is not None and of_this else 0
            if entry.cap is not None and entry.generated > entry.cap:
                continue  # who writes beyond its cap takes more than was held
            if not least <= booked <= told.hold[_TOKENS]:
                yield f"{told.request_id}: {booked} tokens, seen {least}, held {told.hold}"
            most = entry.prompt_estimate + entry.written + 1
            if told.status == "estimated" and booked < told.hold[_TOKENS] and booked > most:
                yield f"{told.request_id}: {booked} tokens, attested at most {most}"


def _sane(entry: Attested) -> bool:
    """Whether an expert stated what it attests."""
    stated = entry.stated or {}
    return (stated.get("prompt_tokens"), stated.get("completion_tokens")) == (
        entry.prompt_tokens,
        entry.generated,
    )


def _leases(history: History) -> Iterator[str]:
    """No hold is older than its lease."""
    for account in history.accounts:
        for told in account.holds.values():
            over_ms = history.now_ms - told.until_ms
            if told.status == "reserved" and over_ms > SWEEP_MS:
                yield f"{told.request_id}: its lease ended {over_ms} ms ago"


def _once(history: History) -> Iterator[str]:
    """What is said twice is kept once."""
    owners = Counter(
        row.request_id
        for book in history.books
        for row in book.rows
        if row.kind in ("reserved", "refused")
    )
    for request_id, n in owners.items():
        if n > 1:
            yield f"{request_id}: reserved {n} times"
    for book in history.books:
        numbers = [row.seq for row in book.rows]
        if len(set(numbers)) != len(numbers) or numbers != sorted(numbers):
            yield f"{book.name}: rows twice, or out of their order"


def _clocks(history: History) -> Iterator[str]:
    """Time passes forwards."""
    for account in history.accounts:
        for told in account.holds.values():
            if told.times_ms != sorted(told.times_ms):
                yield f"{told.request_id}: at {told.times_ms} ms"


def _refunds(history: History) -> Iterator[str]:
    """Less than the hold is booked exactly only where the expert said how much it was."""
    for entry, told in history.pairs:
        if told is None or history.copies or entry.end in ("open", "killed"):
            continue
        if entry.status != 200:
            continue  # who refuses has taken nothing
        if told.status == "released":
            yield f"{told.request_id}: released, but {entry.expert} was asked"
        silent = entry.generated == 0 and entry.end in ("stall", "beat")
        if told.status == "settled" and told.booked[_TOKENS] and entry.stated is None:
            yield f"{told.request_id}: settled as exact, but {entry.expert} stated nothing"
        seen = history.by_tag.get(entry.tag)
        left = seen is not None and seen.end == "left"
        worked = entry.generated > 0 and entry.stated is None and not told.booked[_TOKENS]
        if (silent or worked) and not left and told.status == "settled":
            yield f"{told.request_id}: given back, though nobody knows what {entry.expert} did"


def _usage(history: History) -> Iterator[str]:
    """No usage is not a usage of nothing, and nothing is a usage."""
    for entry, told in history.pairs:
        seen = history.by_tag.get(entry.tag)
        if told is None or seen is None or history.copies:
            continue
        if entry.end != "done" or entry.status != 200:
            continue
        n_output = told.booked[_TOKENS] - entry.prompt_tokens
        if entry.stated is not None and entry.stated.get("completion_tokens") == 0:
            if told.status == "settled" and n_output != 0:
                yield f"{told.request_id}: 0 tokens stated, {n_output} booked"
        elif entry.stated is None and entry.stream and seen.end == "done":
            if told.booked[_TOKENS] < len(seen.numbers):
                yield f"{told.request_id}: no usage stated, booked {told.booked}"


def _metered(history: History) -> Iterator[str]:
    """Experts are asked on paths that are metered, and on no other."""
    for entry in history.attested:
        path = history.paths.get(entry.tag, "/v1/chat/completions")
        if path not in METERED:
            yield f"{entry.tag}: {path} made {entry.expert} work"


def _replayed(history: History) -> Iterator[str]:
    """The rows, replayed on an empty ledger, lead to the same state."""
    for book in history.books:
        if book.kept != book.replayed:
            yield f"{book.name}: replayed, its state is another"


def _wire(history: History) -> Iterator[str]:
    """A stream is complete and in order, or has visibly failed."""
    generated = {
        e.tag: e.generated for e in history.attested if e.end == "done" and e.status == 200
    }
    for seen in history.seen:
        if seen.end in ("silent", "odd", "open") or (seen.odd and seen.end != "broken"):
            yield f"{seen.tag}: {seen.end} {seen.odd}"
        elif not seen.in_order:
            yield f"{seen.tag}: tokens {seen.numbers}"
        elif seen.end in ("done", "whole") and seen.finish != "length":
            if len(seen.numbers) != generated.get(seen.tag, -1):
                yield f"{seen.tag}: {len(seen.numbers)} of {generated.get(seen.tag)} tokens"
