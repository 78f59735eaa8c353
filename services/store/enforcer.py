"""The shared accounts of many gateways in Redis: scripts that it runs one at a time.

All keys of an epoch begin with its name, and an epoch ends when Redis is flushed, or is found to
have forgotten more than gateways can say again: what may be left of an older one is never read
again, and expires.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import NoScriptError, RedisError

from coe.errors.gateway import LedgerError, LedgerUnavailableError
from coe.ledger.amounts import Amounts
from coe.ledger.book import REMEMBERED_MS
from coe.ledger.events import Entry, Status
from coe.ledger.limits import Account, Limit, Payer

GRACE_MS = 2000
"""After a flush, reservations wait so long for every gateway to say what it had spent."""

# longer than any gateway's journal remembers, so that what is said again is still known here
_KEPT_MS = 6 * REMEMBERED_MS
_OUTLIVE_MS = 48 * 3_600_000
_BATCH = 128
_CONNECTIONS = 4
_MUTE = "the shared ledger cannot be asked"
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Redis says to a reservation: how the request stands, by its clock.

    ``status`` may also be ``"epoch"`` (it was flushed), ``"rebuilding"`` or ``"conflict"``.
    ``taken`` are the sums of the accounts, this hold included.
    """

    status: Status | str
    at_ms: int = 0
    until_ms: int = 0
    limit: str = ""
    resource: str = ""
    taken: Mapping[Account, Amounts] | None = None


@dataclass(frozen=True, slots=True)
class Pulse:
    """A sign of life: the epoch, the process that keeps it, and how far this gateway is in it.

    ``contributed`` is the row of its journal up to which all is known there, by its sums or since;
    ``None``: nothing is.
    """

    epoch: str
    run_id: str
    contributed: int | None


@asynccontextmanager
async def _reached() -> AsyncIterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise LedgerUnavailableError(f"{_MUTE}: {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise LedgerUnavailableError(f"{_MUTE}: it says what no Redis does: {error!r}") from error


_Asked = tuple[list[str], list[Any], asyncio.Future[list[str]]]


def _tell(answer: asyncio.Future[list[str]], words: Any) -> None:
    """Pass on what was said to a reservation, unless nobody waits for it any more."""
    if answer.done():
        return
    if isinstance(words, Exception):
        answer.set_exception(LedgerUnavailableError(f"{_MUTE}: {words}"))
    else:
        answer.set_result(words)


class Enforcer:
    """Scripts of one Redis, for one gateway.

    Reservations that come while others are under way go together, and who gives one up takes no
    part of the connection with him.

    Every method raises `LedgerUnavailableError` where Redis cannot be asked within its deadline.
    """

    def __init__(
        self, url: str, namespace: str, gateway: str, timeout_s: float, grace_ms: int = GRACE_MS
    ) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            decode_responses=True,
            # a connection of before a restart fails once; what is said twice changes nothing
            retry=Retry(NoBackoff(), 1, supported_errors=(Disconnected,)),
        )
        self._redis: Any = Redis.from_pool(pool)
        self._gateway = gateway
        self._grace_ms = grace_ms
        self._asked: list[_Asked] = []
        self._asking: asyncio.Task[None] | None = None
        # one hash tag: all keys are on one node of a cluster
        self._base = f"coe:{{{namespace}}}:"
        common = (_FOLDER / "common.lua").read_text()
        self._reserve, self._record, self._contribute, self._beat, self._end = (
            self._redis.register_script(common + (_FOLDER / f"{name}.lua").read_text())
            for name in ("reserve", "record", "contribute", "beat", "end")
        )

    async def close(self) -> None:
        """Close the connections, once who asks has his answer."""
        if self._asking is not None:
            await self._asking
        await self._redis.aclose()

    async def beat(self, epoch: str = "", run_id: str = "", heard: int = 0) -> Pulse:
        """The present epoch, begun if there is none; leases that are over end.

        Parameters
        ----------
        epoch, run_id, heard : up to this row all was said in this epoch, to this process.

        Raises
        ------
        LedgerError
            Redis may evict what it is given, so that it cannot keep accounts.
        """
        proposed = secrets.token_hex(8)
        arguments: list[Any] = [proposed, self._grace_ms, self._base, _KEPT_MS, self._gateway]
        arguments += [epoch, run_id, heard]
        async with _reached():
            epoch, run_id, contributed = await self._beat([self._base + "epoch"], arguments)
        await self.check()
        return Pulse(epoch, run_id, int(contributed) if contributed else None)

    async def check(self) -> None:
        """Look whether Redis is there, and keeps what it is given. Nothing there changes.

        Raises
        ------
        LedgerError
            As `beat`.
        """
        async with _reached():
            about = await self._redis.info()
        policy, limit = about.get("maxmemory_policy", "noeviction"), about.get("maxmemory", 0)
        if limit and policy != "noeviction":
            raise LedgerError(
                f"this Redis may evict keys (maxmemory-policy {policy}): give the ledger one of "
                "its own, with noeviction"
            )

    async def reserve(
        self,
        epoch: str,
        request_id: str,
        payer: Payer,
        hold: Amounts,
        limits: Sequence[Limit],
        lease_ms: int,
    ) -> Verdict:
        """Hold so much in every account of the payer, or in none."""
        charged = [limit for limit in limits if limit.account(payer, 0) is not None]
        terms: list[Any] = []
        for limit in charged:
            account = limit.account(payer, 0)
            assert account is not None
            terms += [quote(limit.name, ""), quote(account.holder, ""), account.window_ms]
            terms += ["" if ceiling is None else ceiling for ceiling in limit.ceilings()]
        keys = self._keys(epoch, request_id)
        arguments: list[Any] = [epoch, self._prefix(epoch), _KEPT_MS, _OUTLIVE_MS]
        arguments += [request_id, lease_ms]
        said = await self._answer(keys, [*arguments, *hold, *terms])
        if len(said) < 5:
            return Verdict(said[0])
        status, at_ms, until_ms, limit_name, resource, *sums = said
        taken = {
            account: Amounts(*map(int, sums[4 * n : 4 * n + 4]))
            for n, limit in enumerate(charged)
            if (account := limit.account(payer, int(at_ms))) is not None and sums
        }
        return Verdict(status, int(at_ms), int(until_ms), unquote(limit_name), resource, taken)

    async def record(self, epoch: str, entries: Mapping[str, Entry]) -> dict[str, str]:
        """Say how requests stand, as many as there are: ``done``, ``same``, or what is wrong."""
        names = list(entries)
        said: dict[str, Any] = {}
        for first in range(0, len(names), _BATCH):
            part = names[first : first + _BATCH]
            calls = [
                (self._keys(epoch, name), self._told(epoch, name, entries[name])) for name in part
            ]
            said |= zip(part, await self._run(self._record, calls), strict=True)
            for words in said.values():
                if isinstance(words, Exception):
                    raise LedgerUnavailableError(f"{_MUTE}: {words}") from words
        return said

    async def contribute(
        self, epoch: str, seq: int, spent: Mapping[Account, Amounts]
    ) -> int | None:
        """The row by which this gateway's sums went in: ``seq`` with these, or an earlier one.

        ``None``: the epoch is over.
        """
        arguments: list[Any] = [epoch, _OUTLIVE_MS, self._gateway, seq]
        for account, amounts in spent.items():
            arguments += [self._account(epoch, account), account.ends_ms, *amounts]
        keys = [self._base + "epoch", self._prefix(epoch) + "contributed"]
        async with _reached():
            said = await self._contribute(keys, arguments)
            return None if said == "epoch" else int(said)

    async def end(self, epoch: str) -> None:
        """End an epoch, if it is the present one; the next sign of life begins another."""
        prefix = self._prefix(epoch)
        keys = [self._base + "epoch", prefix + "leases", prefix + "contributed"]
        async with _reached():
            await self._end(keys, [epoch, prefix, _KEPT_MS])

    async def taken(self, epoch: str, account: Account) -> tuple[Amounts, Amounts]:
        """Held and spent of an account by all gateways."""
        async with _reached():
            found = await self._redis.hgetall(self._account(epoch, account))
        held, spent = (
            Amounts(*(int(found.get(f"{part}:{name}", 0)) for name in Amounts._fields))
            for part in ("held", "spent")
        )
        return held, spent

    async def _answer(self, keys: list[str], arguments: list[Any]) -> list[str]:
        """What Redis says to one reservation, asked with all others that wait."""
        answer: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._asked.append((keys, arguments, answer))
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await answer

    async def _ask(self) -> None:
        asked: list[_Asked] = []
        try:
            while self._asked:
                asked, self._asked = self._asked[:_BATCH], self._asked[_BATCH:]
                said: Sequence[Any]
                try:
                    said = await self._run(self._reserve, [(k, args) for k, args, _ in asked])
                except LedgerUnavailableError as error:
                    said = [error] * len(asked)
                for (_, _, answer), words in zip(asked, said, strict=True):
                    _tell(answer, words)
        finally:
            self._asking = None
            # whatever it was that nobody foresaw, nobody waits on
            for _, _, answer in (*asked, *self._asked):
                _tell(answer, LedgerUnavailableError(_MUTE))
            self._asked = []

    async def _run(self, script: Any, calls: Sequence[tuple[list[str], list[Any]]]) -> list[Any]:
        """What a script says to each call, or its error; one round trip, unless it must be sent."""
        async with _reached():
            said = await self._said("evalsha", script.sha, calls)
            if any(isinstance(words, NoScriptError) for words in said):
                # what was said to the others is said again: that changes nothing
                said = await self._said("eval", script.script, calls)
        return said

    async def _said(
        self, verb: str, script: str, calls: Sequence[tuple[list[str], list[Any]]]
    ) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as batch:
            for keys, arguments in calls:
                getattr(batch, verb)(script, len(keys), *keys, *arguments)
            said: list[Any] = await batch.execute(raise_on_error=False)
        return said

    def _told(self, epoch: str, name: str, entry: Entry) -> list[Any]:
        arguments: list[Any] = [epoch, self._prefix(epoch), _KEPT_MS, _OUTLIVE_MS, name]
        arguments += [entry.status, entry.at_ms, entry.until_ms, *entry.hold, *entry.booked]
        for account in entry.accounts:
            arguments += [self._account(epoch, account), account.ends_ms]
        return arguments

    def _prefix(self, epoch: str) -> str:
        return f"{self._base}{epoch}:"

    def _keys(self, epoch: str, request_id: str) -> list[str]:
        prefix = self._prefix(epoch)
        return [self._base + "epoch", prefix + "leases", f"{prefix}r:{request_id}"]

    def _account(self, epoch: str, account: Account) -> str:
        names = f"{quote(account.limit, '')}:{quote(account.holder, '')}"
        return f"{self._prefix(epoch)}a:{names}:{account.window_ms}:{account.started_ms}"
