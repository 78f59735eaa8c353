"""What a runtime gets its store, engines and pacer by: alone, or as one process of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from coe.ledger.limits import Limit
from coe.ledger.protocol import KeptStore
from coe.optimizer.pacing import Allowance, Pacer
from coe.services.host.experts import open_host
from coe.services.host.watched import WatchedHost
from coe.services.runnable import Say
from coe.services.store.opening import opened
from coe.store import RedisStoreSection, SqliteStoreSection
from coe.switches import Switch


@dataclass(frozen=True, slots=True)
class Means:
    """How what all processes of a gateway share is come by.

    Parameters
    ----------
    open_store : a store under these limits, as `opened`; ``None`` where there are none.
    open_host : the host of an engine, as `coe.services.host.experts.open_host`.
    pacer : of these allowances, from now on.
    meters : whether the machine's meter is this process's own.
    """

    open_store: Callable[
        [SqliteStoreSection | RedisStoreSection | None, Sequence[Limit], Say],
        AbstractAsyncContextManager[KeptStore | None],
    ] = opened
    open_host: Callable[..., WatchedHost] = open_host
    pacer: Callable[[Sequence[Allowance], float], Pacer] = Pacer
    meters: bool = True


ALONE = Means()
"""One process is the whole gateway."""


class Siblings(Protocol):
    """The other processes of a gateway."""

    def turned(self, expert_id: str, switch: Switch) -> None:
        """Have them turn a switch."""
        ...

    async def decision(self, decision_id: str, tenant: str | None) -> dict[str, Any] | None:
        """The decision that one of them has kept, as JSON; ``None``: none has.

        Parameters
        ----------
        tenant : whose it must be; ``None``: anybody's.
        """
        ...

    async def page(self) -> bytes:
        """The metrics of all, this one included."""
        ...
