"""Connections to experts: who shares them with whom."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from coe.addresses import Reach
from coe.http.dialling import trusting
from coe.http.pool import Pool


@dataclass(slots=True)
class Lines:
    """Pools of connections, as many as there are ways to connect.

    An expert's pool goes with the expert, once nothing is connected.

    Parameters
    ----------
    own : to engines of this installation, on this machine and on others, whose addresses a
        supervisor of ours has told.
    """

    own: Pool
    _others: WeakValueDictionary[tuple[str, Reach, Path | None], Pool] = field(
        default_factory=WeakValueDictionary
    )

    def to(self, expert_id: str, reach: Reach, ca: Path | None = None) -> Pool:
        """The pool of an expert.

        Parameters
        ----------
        ca : certificates (PEM) of those who may say who the expert is; ``None``: whom this
            machine believes.

        Raises
        ------
        OSError, ssl.SSLError
            The certificates cannot be read.
        """
        key = (expert_id, reach, ca)
        pool = self._others.get(key)
        if pool is None:
            pool = self._others[key] = Pool(reach, None if ca is None else trusting(ca))
        return pool

    async def close(self) -> None:
        """Close them all."""
        await asyncio.gather(*(pool.close() for pool in (self.own, *self._others.values())))


@asynccontextmanager
async def lines() -> AsyncIterator[Lines]:
    """Connections, closed with the context."""
    opened = Lines(Pool(Reach(loopback=True, private=True)))
    try:
        yield opened
    finally:
        await opened.close()
