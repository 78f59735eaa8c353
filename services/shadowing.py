"""A second router that decides beside the first, on a thread of its own, and asks nobody."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from coe.core import Request
from coe.decision import Decision
from coe.dispatch import among_present
from coe.engine import Engine
from coe.errors import CoeError
from coe.load import Load
from coe.router import Router
from coe.services.enduring import Enduring
from coe.shadow import Comparison, Shade

_MOST_WAITING = 64


@dataclass(frozen=True, slots=True)
class Glimpse:
    """A request as the engine saw it just before it was decided."""

    request: Request
    loads: Mapping[str, Load]
    absent: Mapping[str, str]


@dataclass(slots=True)
class Shadow:
    """Compares a second router with the first. For one event loop.

    What comes while ``most_waiting`` decisions wait is dropped and counted; nothing waits for it.

    Parameters
    ----------
    router : the second one.
    share : of all requests that it decides, spread evenly.
    kept : so many comparisons can be looked up by the id of the live decision.
    """

    router: Router
    share: float
    thread: ThreadPoolExecutor
    kept: int = 1000
    most_waiting: int = _MOST_WAITING
    comparison: Comparison = field(default_factory=Comparison)
    _due: float = 0.0
    _n_waiting: int = 0
    _shades: OrderedDict[str, tuple[Decision, Shade]] = field(default_factory=OrderedDict)
    _comparing: Enduring = field(default_factory=lambda: Enduring("comparing a second router"))

    def glimpse(self, engine: Engine, request: Request) -> Glimpse | None:
        """What is to be remembered of a request before it is decided; ``None``: it is left out.

        Who names an expert has decided already.

        Raises
        ------
        InfeasibleError
            As the engine itself.
        """
        if request.pinned:
            return None
        self._due += self.share
        if self._due < 1.0:
            return None
        self._due -= 1.0
        priced, loads, absent = engine.seen(request)
        return Glimpse(replace(priced, steps=None), loads, absent)

    def note(self, glimpse: Glimpse, live: Decision) -> None:
        """Have the second router decide what the first one decided; returns at once."""
        if live.expert_id not in self.router.specs:
            return
        if self._n_waiting >= self.most_waiting:
            self.comparison.counts["dropped"] += 1
            return
        self._n_waiting += 1
        loop = asyncio.get_running_loop()
        deciding = loop.run_in_executor(self.thread, self._decide, glimpse)
        deciding.add_done_callback(lambda done: self._decided(live, done))

    def find(self, decision_id: str) -> tuple[Decision, Shade] | None:
        """The live decision and what the second router made of it; ``None``: it is not kept."""
        return self._shades.get(decision_id)

    def _decide(self, glimpse: Glimpse) -> Shade:
        absent = {name: why for name, why in glimpse.absent.items() if name in self.router.specs}
        given = (None, glimpse.loads, absent, frozenset[str]())
        try:
            decision, _ = among_present(self.router.dispatch, glimpse.request, *given)
        except CoeError as error:
            return Shade(None, str(error))
        return Shade(decision)

    def _decided(self, live: Decision, done: asyncio.Future[Shade]) -> None:
        self._n_waiting -= 1
        if not done.cancelled():
            with self._comparing:
                self._keep(live, done.result())
                return
        self.comparison.counts["failed"] += 1

    def _keep(self, live: Decision, shade: Shade) -> None:
        self.comparison.add(live, shade)
        self._shades[live.decision_id] = (live, shade)
        if len(self._shades) > self.kept:
            self._shades.popitem(last=False)

    def successor(self, router: Router, share: float) -> Shadow:
        """A comparison that begins anew, and remembers what was compared before."""
        return replace(
            self, router=router, share=share, comparison=Comparison(), _due=0.0, _n_waiting=0
        )
