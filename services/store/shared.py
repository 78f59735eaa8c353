"""The ledger of several gateways: Redis decides, the journal of each remembers what it did.

Whatever is lost in Redis is said again from the journals. While Redis cannot be asked, a gateway
grants a small share of every limit on its own, and then nothing more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from coe.errors.gateway import LedgerConflictError, LedgerError, LedgerUnavailableError
from coe.ledger.amounts import NOTHING, Amounts
from coe.ledger.book import Ledger
from coe.ledger.events import Entry, Event
from coe.ledger.limits import Account, Limit, Payer
from coe.services.enduring import Enduring
from coe.services.store.books import TICK_S, Books
from coe.services.store.enforcer import Enforcer, Verdict
from coe.services.store.refusal import exhausted
from coe.services.store.trouble import Say, Trouble

RETRY_S = 0.2
"""How often a Redis that cannot be asked is looked for."""


class SharedStore:
    """A `Store` whose limits hold for all gateways of one Redis.

    Parameters
    ----------
    share : of every ceiling that this gateway may grant, per window, while Redis cannot be asked.
    say : told when that begins, and when it ends.
    """

    def __init__(
        self, books: Books, enforcer: Enforcer, share: float, say: Say = lambda line: None
    ) -> None:
        self.books = books
        self.reachable = False
        self._enforcer = enforcer
        self._share = share
        alone = f"until it can be, at most {share:.0%} of every limit is granted here"
        self._told = Trouble(say, alone, "Redis answers again", patience=3)
        self._ration = Ledger(self._shares())
        self._seen: dict[Account, Amounts] = {}
        self._epoch = self._run_id = ""
        self._unsaid: dict[str, Entry] = {}
        self._withdrawn: dict[str, Entry] = {}
        self._wake = asyncio.Event()
        self._due_s = 0.0
        self._running: asyncio.Task[None] | None = None
        self._closing = False
        self._rounds = Enduring("keeping the shared ledger")

    async def reserve(self, request_id: str, payer: Payer, hold: Amounts) -> None:
        """As `Store.reserve`; costs one round trip and one commit."""
        known = self.books.ledger.entries.get(request_id)
        if known is not None:
            await self._again(request_id, known, payer, hold)
            return
        asked, terms = self.reachable, self._terms
        verdict = await self._asked(request_id, payer, hold.checked())
        known = self.books.ledger.entries.get(request_id)
        if known is not None:
            self._say(request_id)
            await self._again(request_id, known, payer, hold)
            return
        event = self.books.ledger.apply(self._decided(request_id, payer, hold, verdict))
        if verdict is None or terms != self._terms or request_id in self._withdrawn:
            # granted alone, or otherwise than Redis would by now
            self._say(request_id)
        try:
            await self.books.admit(event)
        except LedgerUnavailableError:
            unsaid = self._unsaid.pop(request_id, None)
            if request_id in self._ration.entries.held:
                self._ration.void(request_id)
            if asked or unsaid is None:
                self._withdraw(request_id, payer, hold)
            raise

    def settle(self, request_id: str, actual: Amounts, estimated: bool = False) -> None:
        """As `Store.settle`; Redis hears of it soon, and later if it cannot be asked."""
        self.books.settle(request_id, actual, estimated)
        self._say(request_id)

    def release(self, request_id: str) -> None:
        """As `Store.release`, and as soon as `settle`."""
        self.books.release(request_id)
        self._say(request_id)

    def under(self, limits: Sequence[Limit]) -> None:
        """As `KeptStore.under`; the other gateways of this Redis need the same limits."""
        self.books.under(limits)
        self._ration.limits = self._shares()

    @property
    def _terms(self) -> tuple[str, tuple[Limit, ...]]:
        """The epoch and the limits that Redis is asked under."""
        return self._epoch, self.books.ledger.limits

    def _shares(self) -> tuple[Limit, ...]:
        """What this gateway may grant alone, of every limit."""
        return tuple(_scaled(limit, self._share) for limit in self.books.ledger.limits)

    async def start(self) -> None:
        """Meet Redis, and from now on keep it and the journal at one.

        Raises
        ------
        LedgerError
            As `beat`.
        """
        await self.beat()
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Say what is left to be said, and let go of journal and connections."""
        self._closing = True
        self._wake.set()
        try:
            if self._running is not None:
                await self._running
            with self._rounds:
                await self.deliver()
                if self.reachable:
                    await self.beat()
            await self._enforcer.close()
        finally:
            await self.books.close()

    async def _run(self) -> None:
        while not self._closing:
            with self._rounds:
                await self._round()
                continue
            await asyncio.sleep(RETRY_S)

    async def _round(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._due_s:
            with self._rounds:
                self.tick()
            await self.beat()
            self._due_s = loop.time() + (TICK_S if self.reachable else RETRY_S)
        await self.deliver()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._due_s):
                await self._wake.wait()

    def tick(self) -> None:
        """As `Books.tick`; Redis hears of what changed."""
        self._ration.retire(self.books.now_ms())
        for name in self.books.tick():
            self._say(name)

    async def beat(self) -> None:
        """Look after Redis: whether it is there, and knows what this gateway did.

        Raises
        ------
        LedgerError
            As `Enforcer.beat`, but not where Redis is merely out of reach.
        """
        try:
            heard = self._all_heard() if self.reachable else 0
            pulse = await self._enforcer.beat(self._epoch, self._run_id, heard)
            if (pulse.epoch, pulse.run_id) != (self._epoch, self._run_id):
                await self._catch_up(pulse.epoch, pulse.contributed)
                self._epoch, self._run_id = pulse.epoch, pulse.run_id
            self.reachable = True
            self._told.end()
        except LedgerError as error:
            self.reachable = False
            self._told.note(error)
            if not isinstance(error, LedgerUnavailableError):
                raise

    async def deliver(self) -> None:
        """Say to Redis what it has not heard; what it does not hear stays to be said.

        What happens meanwhile is said the next time.
        """
        self._wake.clear()
        if not self.reachable or not (self._unsaid or self._withdrawn):
            return
        unsaid, self._unsaid = self._unsaid, {}
        entries = self._withdrawn | unsaid
        said = dict.fromkeys(entries, "epoch")
        try:
            with suppress(LedgerUnavailableError):
                said = await self._enforcer.record(self._epoch, entries)
        finally:
            self._heard(said, entries, unsaid)

    def _heard(
        self,
        said: Mapping[str, str],
        entries: Mapping[str, Entry],
        unsaid: Mapping[str, Entry],
    ) -> None:
        """Keep to be said what Redis did not take; it is in another epoch, or out of reach."""
        for name, answer in said.items():
            if answer == "epoch":
                self._lost_touch()
                if name in unsaid:
                    # what was said of it in the meantime is newer
                    self._unsaid.setdefault(name, unsaid[name])
            elif self._withdrawn.get(name) is entries[name]:
                del self._withdrawn[name]

    async def _asked(self, request_id: str, payer: Payer, hold: Amounts) -> Verdict | None:
        """What Redis says; ``None`` where it cannot be asked, or does not know all yet."""
        if not self.reachable:
            return None
        epoch, limits = self._terms
        try:
            verdict = await self._enforcer.reserve(
                epoch, request_id, payer, hold, limits, self.books.lease_ms
            )
        except LedgerUnavailableError:
            self._withdraw(request_id, payer, hold)
            self._lost_touch()
            return None
        except asyncio.CancelledError:
            self._withdraw(request_id, payer, hold)
            raise
        if verdict.status == "epoch":
            self._lost_touch()
        if verdict.status in ("epoch", "rebuilding"):
            return None
        return verdict

    def _decided(
        self, request_id: str, payer: Payer, hold: Amounts, verdict: Verdict | None
    ) -> Event:
        """The reservation that was granted, by Redis or alone."""
        if verdict is None:
            return self._granted_alone(request_id, payer, hold)
        verdict = self._checked(request_id, payer, hold, verdict)
        if verdict.status == "refused":
            self._refuse(request_id, payer, hold, verdict)
        if verdict.status != "held":
            raise LedgerConflictError(request_id, f"was {verdict.status} before")
        self._see(verdict.taken or {})
        return Event("reserved", request_id, verdict.at_ms, payer, hold, verdict.until_ms)

    def _checked(self, request_id: str, payer: Payer, hold: Amounts, verdict: Verdict) -> Verdict:
        """What Redis says, but a refusal where it has not heard yet of what was taken here.

        So it is, too, where limits have changed since it was asked.
        """
        if verdict.status != "held":
            return verdict
        over = self.books.ledger.refused_by(payer, hold, verdict.at_ms)
        if over is None:
            return verdict
        self._withdraw(request_id, payer, hold)
        account, resource = over
        return replace(
            verdict,
            status="refused",
            until_ms=account.ends_ms,
            limit=account.limit,
            resource=resource,
        )

    def _granted_alone(self, request_id: str, payer: Payer, hold: Amounts) -> Event:
        """The reservation of a request within this gateway's own share.

        Raises
        ------
        LedgerUnavailableError
            The share does not leave so much, or a limit may not, by what was last seen of it.
        """
        books, now_ms = self.books, self.books.now_ms()
        event = self._ration.reserve(request_id, payer, hold, now_ms, books.lease_ms)
        at_ms = now_ms if event is None else event.at_ms
        if event is None or event.kind == "refused" or self._may_exceed(payer, hold, at_ms):
            if event is not None and event.kind == "reserved":
                self._ration.void(request_id)
            raise LedgerUnavailableError(
                "the shared ledger cannot be asked, and what this gateway may grant alone is used "
                "up: ask again in a few seconds"
            )
        return event

    def _may_exceed(self, payer: Payer, hold: Amounts, at_ms: int) -> bool:
        """Whether a limit, by what was last seen and granted alone, does not leave so much."""
        for limit in self.books.ledger.limits:
            account = limit.account(payer, at_ms)
            if account is None:
                continue
            alone = self._ration.accounts.get(account)
            taken = self._seen.get(account, NOTHING).plus(alone.taken if alone else hold)
            if limit.exceeded_by(taken) is not None:
                return True
        return self.books.ledger.refused_by(payer, hold, at_ms) is not None

    def _refuse(self, request_id: str, payer: Payer, hold: Amounts, verdict: Verdict) -> None:
        ledger = self.books.ledger
        event = Event(
            "refused",
            request_id,
            verdict.at_ms,
            payer,
            hold,
            verdict.until_ms,
            verdict.limit,
            verdict.resource,
        )
        self.books.note(ledger.apply(event))
        limits = {limit.name: limit for limit in ledger.limits}
        raise exhausted(ledger.entries[request_id], limits, verdict.at_ms)

    async def _again(self, request_id: str, known: Entry, payer: Payer, hold: Amounts) -> None:
        """A reservation that was heard of before."""
        if (known.payer, known.hold) != (payer, hold):
            raise LedgerConflictError(request_id, "was reserved before, with other figures")
        if known.status == "refused":
            limits = {limit.name: limit for limit in self.books.ledger.limits}
            raise exhausted(known, limits, self.books.now_ms())
        if known.status != "held":
            raise LedgerConflictError(request_id, f"was {known.status} before")
        await self.books.flush()

    def _withdraw(self, request_id: str, payer: Payer, hold: Amounts) -> None:
        """Have Redis give back what it may have granted, but nobody here heard of or kept."""
        if request_id in self.books.ledger.entries:
            # it was asked for twice at once, and the other one has it
            return
        self._withdrawn[request_id] = Entry("released", payer, hold, self.books.now_ms(), 0)
        self._wake.set()

    def _lost_touch(self) -> None:
        """Redis did not answer, or was flushed: look after it at once."""
        self.reachable = False
        self._due_s = 0.0
        self._wake.set()

    def _all_heard(self) -> int:
        """The row of the journal up to which Redis has heard all."""
        unsaid = (entry.seq for entry in self._unsaid.values())
        return min(unsaid, default=self.books.ledger.seq + 1) - 1

    async def _catch_up(self, epoch: str, contributed: int | None) -> None:
        """Bring Redis to what the journal says, in an epoch or a process that may know less."""
        ledger = self.books.ledger
        lost = epoch == self._epoch if contributed is None else contributed < ledger.forgotten
        if lost:
            # the sums, or more than can be said again request by request: all say their sums anew
            await self._enforcer.end(epoch)
            raise LedgerUnavailableError("the shared ledger has forgotten too much")
        expired = ledger.expired(ledger.clock_ms)
        if contributed is None:
            # taken at one moment: what happens from here on is said request by request, and so is
            # what may still be corrected
            seq = ledger.seq
            spent = {a: balance.spent for a, balance in ledger.accounts.items()}
            for entry in expired.values():
                for account in entry.accounts:
                    spent[account] = spent[account].minus(entry.booked)
            contributed = await self._enforcer.contribute(epoch, seq, spent)
            if contributed is None:
                raise LedgerUnavailableError("the shared ledger was flushed again")
        held = {name: ledger.entries[name] for name in ledger.held}
        young = ledger.entries.since(contributed)
        told = {name: entry for name, entry in young.items() if entry.status != "refused"}
        self._unsaid = expired | held | told

    def _see(self, taken: Mapping[Account, Amounts]) -> None:
        """Remember what was last seen of accounts; of the newest windows only."""
        self._seen |= taken
        if len(self._seen) > 2 * len(self.books.ledger.accounts) + 100:
            now_ms = self.books.now_ms()
            self._seen = {a: sums for a, sums in self._seen.items() if a.ends_ms > now_ms}

    def _say(self, request_id: str) -> None:
        """Have Redis hear how a request stands now, however late."""
        entry = self.books.ledger.entries[request_id]
        if entry.status != "held" and request_id in self._ration.entries.held:
            self._ration.settle(request_id, entry.booked, self.books.now_ms())
        self._withdrawn.pop(request_id, None)
        self._unsaid[request_id] = entry
        self._wake.set()


def _scaled(limit: Limit, share: float) -> Limit:
    """The limit with a share of its ceilings, rounded down."""
    parts = [None if c is None else int(c * share) for c in limit.ceilings()]
    energy_uj, cost_uusd, tokens, requests = parts
    return replace(
        limit, energy_uj=energy_uj, cost_uusd=cost_uusd, tokens=tokens, requests=requests
    )
