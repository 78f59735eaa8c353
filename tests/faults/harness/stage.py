"""Experts, a gateway over them and callers, put up for one fault and checked at its end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.checker import History, violations
from harness.client import Caller, Seen
from harness.dump import Book, Row, rows_after
from harness.expert import Attested, FakeExpert
from harness.gateway import LARGE, SMALL, Process, Setup, Threaded, process, threaded, written


@dataclass(slots=True)
class Stage:
    """What stands while a fault is caused."""

    small: FakeExpert
    large: FakeExpert
    setup: Setup
    gateway: Threaded | Process
    caller: Caller
    others: list[FakeExpert] = field(default_factory=list)
    _rows: dict[int, Row] = field(default_factory=dict)

    @property
    def attested(self) -> list[Attested]:
        """What all experts attest, in the order that they were asked in."""
        entries = [e for x in (self.small, self.large, *self.others) for e in x.log]
        return sorted(entries, key=lambda entry: entry.at_s)

    def attempts(self, tag: str) -> list[Attested]:
        """Who was asked on behalf of a request."""
        return [entry for entry in self.attested if entry.tag == tag]

    def read(self) -> Book:
        """The ledger by now, with the rows that were read before and have been dropped since."""
        book = self.setup.book()
        self._rows |= {row.seq: row for row in book.rows}
        return replace(book, rows=[self._rows[seq] for seq in sorted(self._rows)])

    def tail(self) -> None:
        """Read what is new in the ledger, for `read`, before it is dropped."""
        found = rows_after(self.setup.journal, max(self._rows, default=0))
        self._rows |= {row.seq: row for row in found}

    def history(self, **more: Any) -> History:
        """What everybody says so far."""
        book, now_ms = self.read(), time.time_ns() // 1_000_000
        return History(self.caller.seen, self.attested, [book], self.setup.limits, now_ms, **more)

    async def checked(self, **more: Any) -> History:
        """The history so far, of which nothing is wrong."""
        if isinstance(self.gateway, Threaded):
            await self.gateway.flushed()
        elif self.gateway.running is not None:
            await self.settled()
        history = self.history(**more)
        if found := violations(history):
            raise AssertionError("\n".join(map(str, found)))
        return history

    async def settled(self, within_s: float = 10.0) -> None:
        """Returns when the file says that nothing is held any more."""
        deadline = time.monotonic() + within_s
        while any(any(held) for held, _ in self.setup.book().balances.values()):
            assert time.monotonic() < deadline, "something is held for ever"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def stage(folder: Path, own_process: bool = False, **given: Any) -> AsyncIterator[Stage]:
    """Two experts and a gateway.

    ``given`` is for `written` or, as ``run``, for `process`; ``tls`` is of both experts, and
    ``urls`` are where experts are said to be, by name, if that is not where they are.
    """
    run, tls, urls = given.pop("run", {}), given.pop("tls", None), given.pop("urls", {})
    small, large = FakeExpert(SMALL, tls=tls), FakeExpert(LARGE, tls=tls)
    await small.start()
    await large.start()
    said = {x.name: urls.get(x.name, "{}").format(x.url, port=x.port) for x in (small, large)}
    setup = written(folder / "gateway", said, **given)
    try:
        async with process(setup, **run) if own_process else threaded(setup) as gateway:
            caller = Caller(gateway.port)
            try:
                yield Stage(small, large, setup, gateway, caller)
            finally:
                caller.close()
    finally:
        await small.die()
        await large.die()


def ends(seen: Sequence[Seen]) -> dict[str, int]:
    """How many requests ended in which way."""
    found: dict[str, int] = {}
    for one in seen:
        name = f"{one.end} {one.code}" if one.code else one.end
        found[name] = found.get(name, 0) + 1
    return found


async def eventually(condition: Any, what: str, within_s: float = 10.0) -> Any:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + within_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {within_s:g} s"
        await asyncio.sleep(0.02)
    return found


def supervised(copies: dict[str, Sequence[FakeExpert]]) -> str:
    """What a fleet's supervisor says of these copies of experts."""
    return json.dumps({"epoch": "e", "version": 1, "replicas": dict(_replicas(copies))})


def _replicas(copies: dict[str, Sequence[FakeExpert]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, running in copies.items():
        for expert in running:
            report = {"state": "ready", "address": expert.url.removesuffix("/v1"), "slots": 64}
            replica_id = f"{name}-{expert.port}"
            yield (
                replica_id,
                {"replica_id": replica_id, "expert_id": name, "node": "here", "report": report},
            )
