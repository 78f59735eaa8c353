"""One configuration after the other: read and checked beside what serves, then swapped in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from coe.budgets import Budgets, load_budgets
from coe.config import Config, load_config
from coe.errors import CoeError
from coe.ledger.limits import Limit
from coe.routers.folder import MALFORMED
from coe.services.draft import drafted
from coe.services.enduring import Enduring, alongside
from coe.services.host.watched import WatchedHost
from coe.services.live.experts import Change, changed
from coe.services.live.files import files_of, watched
from coe.services.live.staying import staying
from coe.services.reloading import Outcome
from coe.services.runnable import Say
from coe.services.runtime import Runtime

_DRAIN_S = 600.0
_BAD = (CoeError, OSError, *MALFORMED)


class Reloads:
    """Keeps a runtime at what its files say. A `Reloading`.

    Parameters
    ----------
    path : of ``coe.yaml``.
    runtime : what serves; it becomes another one in one step, between two requests.
    say : told once of everything that is refused, left, or swapped.
    """

    def __init__(self, path: Path, runtime: Runtime, say: Say) -> None:
        self._told: Callable[[Outcome], None] = lambda outcome: None
        self._path = path
        self._runtime = runtime
        self._say = say
        self._lock = asyncio.Lock()
        self._last = Outcome("unchanged", runtime.engine.config)
        self._said: tuple[str, tuple[str, ...]] = ("", ())
        self._wanted = runtime.config
        self._ending: set[asyncio.Task[None]] = set()
        self._asked = asyncio.Event()
        self._reading = Enduring("reading the configuration")
        self._leaving = Enduring("ending an engine")

    @property
    def last(self) -> Outcome:
        """As `Reloading.last`."""
        return self._last

    def tell(self, told: Callable[[Outcome], None]) -> None:
        """As `Reloading.tell`."""
        self._told = told

    def soon(self) -> None:
        """Have the files read again, whether they changed or not."""
        self._asked.set()

    async def reload(self) -> Outcome:
        """As `Reloading.reload`; one attempt at a time."""
        async with self._lock:
            outcome = self._last = await self._outcome()
            self._publish(outcome)
            return outcome

    def heard(self, outcome: Outcome) -> None:
        """Another process was told to read the same files, and refused them for all."""
        self._last = replace(outcome, config=self._runtime.engine.config)

    async def watch(self) -> None:
        """Reload whenever files have changed and stand still again, until cancelled."""
        await watched(self._paths, self._asked, self.reload)

    async def close(self) -> None:
        """Wait for nothing any more: engines that are leaving end with the fleet."""
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _paths(self) -> list[Path]:
        # those of a configuration that was refused, too: what was wrong may be put right in them
        wanted = {*files_of(self._path, self._runtime.config), *files_of(self._path, self._wanted)}
        return sorted(wanted)

    async def _outcome(self) -> Outcome:
        """As `_tried`, refused where that fails."""
        with self._reading:
            try:
                return await self._tried()
            except _BAD as error:
                message = str(error) if isinstance(error, CoeError) else repr(error)
                return Outcome("refused", self._runtime.engine.config, message)
        return Outcome("refused", self._runtime.engine.config, self._reading.why)

    async def _tried(self) -> Outcome:
        runtime, ground = self._runtime, self._runtime.ground
        assert ground is not None
        config, budgets, left = await asyncio.to_thread(self._read)
        change = await changed(runtime.fleet, config, runtime.engine.now, self._say, ground.means)
        try:
            fleet, present = change.fleet, runtime.embedder
            draft = await asyncio.to_thread(
                drafted, config, budgets, fleet.specs, ground.embedder, fleet.stocks, present
            )
            if draft.tag == runtime.engine.config and not (change.arriving or change.leaving):
                return Outcome("unchanged", draft.tag, "", left)
            await self._limit(budgets.as_limits())
        except BaseException:
            await change.give_up()
            raise
        # nothing is awaited from here on: no request sees half of it
        runtime.become(ground.runtime(draft, fleet, runtime.engine))
        for remark in (*change.gaps, *draft.remarks()):
            self._say(remark)
        self._end(change)
        return Outcome("swapped", draft.tag, "", left)

    def _read(self) -> tuple[Config, Budgets, tuple[str, ...]]:
        self._wanted = load_config(self._path)
        config, left = staying(self._runtime.config, self._wanted)
        return config, load_budgets(config.budgets, config.specs), left

    async def _limit(self, limits: Sequence[Limit]) -> None:
        """Have the ledger go by other hard limits; the first ones open it."""
        ground = self._runtime.ground
        assert ground is not None
        if ground.store is not None:
            ground.store.under(limits)
        elif limits:
            opening = ground.means.open_store(self._runtime.config.store, limits, self._say)
            ground.store = await ground.stack.enter_async_context(opening)

    def _end(self, change: Change) -> None:
        """End engines that nobody is sent to any more, once they have answered."""
        for host in change.leaving:
            task = asyncio.create_task(self._drained(host, change.fleet.engines))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _drained(self, host: WatchedHost, engines: set[WatchedHost]) -> None:
        with self._leaving:
            await host.drain(_DRAIN_S)
        with self._leaving:
            await host.stop()
        engines.discard(host)

    def _publish(self, outcome: Outcome) -> None:
        self._told(outcome)
        if outcome.status == "swapped":
            self._say(f"configuration {outcome.config} serves now")
        said = (outcome.message, outcome.left)
        if said != self._said:
            if self._said[0] and outcome.status == "unchanged":
                self._say(f"nothing is refused any more, {outcome.config} serves on")
            self._said = said
            if outcome.message:
                self._say(f"refused, {outcome.config} still serves: {outcome.message}")
            if outcome.left:
                self._say(f"left as it is until a restart: {', '.join(outcome.left)}")


@asynccontextmanager
async def kept_at(path: Path, runtime: Runtime, say: Say) -> AsyncIterator[Reloads]:
    """What keeps a runtime at what its files say, while the context lasts."""
    reloads = Reloads(path, runtime, say)
    runtime.reloads = reloads
    try:
        async with alongside(reloads.watch, "reloads"):
            yield reloads
    finally:
        await reloads.close()
