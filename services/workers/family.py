"""The process that starts workers: it keeps the ledger and the engines, and starts who dies."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import starmap
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from coe.config import Config, load_config
from coe.errors.files import ConfigError
from coe.errors.gateway import GatewayError
from coe.kinds import EmbeddedSection, VllmSection
from coe.ledger.limits import Limit
from coe.ledger.protocol import KeptStore
from coe.services.enduring import UNFORESEEN, Enduring
from coe.services.fleet import remark
from coe.services.host.experts import open_host
from coe.services.host.watched import Watch, WatchedHost
from coe.services.live.files import files_of, watched
from coe.services.observing.ledger import LedgerCollector, balances_of
from coe.services.runnable import Say, runnable
from coe.services.sockets.server import beside
from coe.services.store.opening import opened
from coe.services.workers.desk import Desk
from coe.services.workers.engines import state_of, told_of
from coe.services.workers.line import Line
from coe.services.workers.pages import departed, merged
from coe.services.workers.pulse import PULSE_S, stops

_ASKED_S = 2.0
_RESTARTS = Watch()


@dataclass(slots=True)
class Seat:
    """The place of one worker, whoever takes it.

    ``page`` are the metrics that it said last; ``ready``: it answers; ``n_reloads``: how often all
    had been told to read the files when it began to; ``watching``: whether it goes on to answer.
    """

    index: int
    process: asyncio.subprocess.Process | None = None
    line: Line | None = None
    ready: bool = False
    page: str = ""
    n_reloads: int = 0
    watching: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Family:
    """Workers of one gateway, and what they have in common.

    Parameters
    ----------
    address : a `reserved` socket; every worker gets one beside it.
    command : of a worker, but for its place and what it inherits.
    hosts : of the engines, by expert; they are started and ended by others.
    stack : ends after all workers.
    reads_s : how long a worker may read the files; nobody else waits longer for one that hangs.
    pulse_s : as in `coe.services.workers.pulse.stops`; a worker whose pulse stops is killed.
    """

    config: Config
    address: socket.socket
    command: Sequence[str]
    seats: Sequence[Seat]
    stack: AsyncExitStack
    say: Say
    reads_s: float = 60.0
    pulse_s: float = PULSE_S
    hosts: dict[str, WatchedHost] = field(default_factory=dict)
    all_ready: asyncio.Event = field(default_factory=asyncio.Event)
    _started_s: float = field(default_factory=time.monotonic)
    _switches: dict[str, str] = field(default_factory=dict)
    _store: KeptStore | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)
    _gone: str = ""
    _n_reloads: int = 0
    _ending: asyncio.Event = field(default_factory=asyncio.Event)
    _keeping: Enduring = field(default_factory=lambda: Enduring("keeping a worker"))

    async def run(self) -> None:
        """Keep every seat taken until the end is asked for and all have ended.

        Raises
        ------
        ConfigError
            A worker has ended before it was ever ready; it has said why.
        """
        kept = await asyncio.gather(*map(self._keep, self.seats), return_exceptions=True)
        for error in kept:
            if error is not None:
                raise error

    def end(self, number: signal.Signals) -> None:
        """Have all workers end, as one gateway would on this signal."""
        self._ending.set()
        for seat in self.seats:
            if seat.process is not None and seat.process.returncode is None:
                seat.process.send_signal(number)

    def noticed(self, host: WatchedHost) -> None:
        """Tell all workers of an engine."""
        self._tell(None, "engine", *told_of(host))

    async def watch(self, path: Path, asked: asyncio.Event) -> None:
        """Have all workers read the files of a configuration whenever they change.

        Parameters
        ----------
        asked : set: they are to be read anyway.
        """
        wanted = self.config

        def paths() -> list[Path]:
            nonlocal wanted
            with suppress(ConfigError):
                wanted = load_config(path)
            return sorted({*files_of(path, self.config), *files_of(path, wanted)})

        async def read() -> None:
            with suppress(GatewayError):
                await self.reload()

        await self.all_ready.wait()
        await watched(paths, asked, read)

    async def reload(self) -> dict[str, Any]:
        """What comes of having all workers read the files again, the first one first.

        Where it refuses, nobody else is asked.
        """
        async with self._reloading:
            self._n_reloads += 1
            outcome: dict[str, Any] = {}
            for seat in self.seats:
                if seat.line is None or not seat.ready:
                    continue
                try:
                    async with asyncio.timeout(self.reads_s):
                        outcome = await seat.line.ask("reload")
                except TimeoutError:
                    self.say(f"worker {seat.index} does not say what it made of the files")
                except GatewayError:
                    continue
                if outcome.get("status") == "refused":
                    self._tell(seat, "refused", outcome)
                    break
            if not outcome:
                raise GatewayError("no worker is ready")
            return outcome

    async def _keep(self, seat: Seat) -> None:
        crashes, was_ready = 0, False
        while not self._ending.is_set():
            began = time.monotonic()
            code = await self._once(seat)
            was_ready = was_ready or seat.ready
            seat.ready = False
            if self._ending.is_set():
                return
            if not was_ready:
                self.end(signal.SIGTERM)
                raise ConfigError(f"worker {seat.index} did not start ({code})")
            settled = time.monotonic() - began >= _RESTARTS.settled_s
            crashes = 1 if settled else crashes + 1
            self.say(f"worker {seat.index} ended ({code}), and is started again")
            with suppress(TimeoutError):
                async with asyncio.timeout(_RESTARTS.delay_s(crashes)):
                    await self._ending.wait()

    async def _once(self, seat: Seat) -> str:
        """Start a worker, and wait for its end; how it ended."""
        desk, ended = Desk(self._office), ""
        seat.n_reloads, seat.process = self._n_reloads, None
        with self._keeping:
            ended = f"exit code {await self._run_one(seat, desk)}"
        ended = ended or self._keeping.why
        if seat.watching is not None:
            seat.watching.cancel()
            seat.watching = None
        seat.line = None
        with self._keeping:
            self._gone, seat.page = merged([self._gone, departed(seat.page)]), ""
        with self._keeping:
            if n_held := desk.close():
                what = "1 request is" if n_held == 1 else f"{n_held} requests are"
                self.say(f"worker {seat.index}: {what} under way, and booked whole")
        return ended

    async def _run_one(self, seat: Seat, desk: Desk) -> int:
        """Its exit code; one that cannot be talked to is killed."""
        ours, theirs = socket.socketpair()
        async with AsyncExitStack() as failing:
            failing.callback(ours.close)
            process = seat.process = await self._spawned(seat, theirs)
            failing.push_async_callback(process.wait)
            failing.callback(process.kill)
            if self._ending.is_set():
                process.terminate()
            seat.line = await Line.on(ours, self._verbs(seat, desk))
            failing.pop_all()
        listening = asyncio.create_task(seat.line.run())
        code = await process.wait()
        await listening
        return code

    async def _spawned(self, seat: Seat, theirs: socket.socket) -> asyncio.subprocess.Process:
        with theirs, beside(self.address) as listener:
            # a session of its own: Ctrl-C reaches it through this process, once
            return await asyncio.create_subprocess_exec(
                *self.command,
                *("--index", str(seat.index)),
                *("--listener", str(listener.fileno()), "--line", str(theirs.fileno())),
                pass_fds=(listener.fileno(), theirs.fileno()),
                start_new_session=True,
            )

    def _verbs(self, seat: Seat, desk: Desk) -> dict[str, Callable[..., Any]]:
        return {
            "hello": lambda: self._welcome(seat),
            "ready": lambda: self._is_ready(seat),
            "under": desk.under,
            "reserve": desk.reserve,
            "settle": desk.settle,
            "release": desk.release,
            "switch": lambda *words: self._switch(seat, *words),
            "paced": lambda *words: self._tell(seat, "paced", *words),
            "reload": self.reload,
            "page": lambda page: self._page(seat, page),
            "decision": lambda *words: self._decision(seat, *words),
        }

    async def _welcome(self, seat: Seat) -> dict[str, Any]:
        said = await self._asked(seat, lambda _, line: line.ask("pacer"))
        return {
            "config": self.config.model_dump(mode="json"),
            "engines": state_of(self.hosts),
            "switches": self._switches,
            "started_s": self._started_s,
            "pacer": next((pacer for pacer in said.values() if pacer), None),
        }

    def _is_ready(self, seat: Seat) -> None:
        seat.ready = True
        seat.watching = asyncio.create_task(self._watch_over(seat))
        self._catch_up(seat)
        if all(one.ready for one in self.seats):
            self.all_ready.set()

    async def _watch_over(self, seat: Seat) -> None:
        """Kill a worker that hangs, so that another takes its place."""
        assert seat.line is not None
        if await stops(seat.line, self.pulse_s) and seat.process is not None:
            self.say(f"worker {seat.index} does not answer any more, and is killed")
            seat.process.kill()

    def _catch_up(self, seat: Seat) -> None:
        """Tell a worker what was told the others while it was getting ready."""
        assert seat.line is not None
        for host in self.hosts.values():
            seat.line.tell("engine", *told_of(host))
        for expert_id, switch in self._switches.items():
            seat.line.tell("switch", expert_id, switch)
        if seat.n_reloads != self._n_reloads:
            seat.line.tell("reload")

    def _switch(self, seat: Seat, expert_id: str, switch: str) -> None:
        self._switches[expert_id] = switch
        self._tell(seat, "switch", expert_id, switch)

    async def _page(self, seat: Seat, page: str) -> str:
        async def paged(other: Seat, line: Line) -> None:
            found = await line.ask("page")
            if other.line is line:  # else it has ended, and what it counted is kept
                other.page = found

        seat.page = page
        await self._asked(seat, paged)
        pages = [one.page for one in self.seats if one.page]
        return merged([*pages, self._gone, self._own_page()])

    def _own_page(self) -> str:
        """The balances of hard limits, which no worker has, and what failed in this process."""
        registry = CollectorRegistry()
        registry.register(UNFORESEEN)
        registry.register(LedgerCollector(lambda: balances_of(self._store)))
        return generate_latest(registry).decode()

    async def _decision(self, seat: Seat, decision_id: str, tenant: str | None) -> Any:
        said = await self._asked(seat, lambda _, line: line.ask("decision", decision_id, tenant))
        return next((found for found in said.values() if found is not None), None)

    async def _office(self, limits: Sequence[Limit]) -> KeptStore | None:
        async with self._opening:
            if self._store is not None:
                self._store.under(limits)
            elif limits:
                opening = opened(self.config.store, limits, self.say)
                self._store = await self.stack.enter_async_context(opening)
        return self._store

    def _tell(self, but: Seat | None, verb: str, *words: Any) -> None:
        for seat in self.seats:
            if seat is not but and seat.line is not None and seat.ready:
                seat.line.tell(verb, *words)

    async def _asked(
        self, but: Seat, ask: Callable[[Seat, Line], Coroutine[Any, Any, Any]]
    ) -> dict[int, Any]:
        """What other workers answer, by their places; who does not in time is left out."""

        async def asked(seat: Seat, line: Line) -> Any:
            async with asyncio.timeout(_ASKED_S):
                return await ask(seat, line)

        there = [(s, s.line) for s in self.seats if s is not but and s.ready and s.line]
        said = await asyncio.gather(*starmap(asked, there), return_exceptions=True)
        pairs = zip(there, said, strict=True)
        return {s.index: found for (s, _), found in pairs if not isinstance(found, BaseException)}


@asynccontextmanager
async def raised(
    config: Config, address: socket.socket, command: Sequence[str], n_workers: int, say: Say
) -> AsyncIterator[Family]:
    """A family whose engines are starting, and end with the context.

    Raises
    ------
    ConfigError
        As `runnable`; or engines are to take turns in memory, which is one process's business.
    """
    if config.on_demand is not None:
        raise ConfigError("on_demand: engines that take turns need one worker: leave out --workers")
    here = [e for e in runnable(config, _unsaid) if not config.on_fleet(e)]
    engines = [e for e in here if isinstance(e, EmbeddedSection | VllmSection)]
    seats = [Seat(index) for index in range(n_workers)]
    async with AsyncExitStack() as stack:
        family = Family(config, address, command, seats, stack, say)

        def noticed(host: WatchedHost) -> None:
            remark(say, host)
            family.noticed(host)

        for e in engines:
            host = open_host(e, config.spec(e), n_engines=len(engines), on_change=noticed)
            family.hosts[e.id] = host
            stack.push_async_callback(host.stop)
            await host.start()
        yield family


def _unsaid(line: str) -> None:
    """What the first worker says, too."""
