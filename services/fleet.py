"""The experts of a configuration on this machine: engine processes and adapters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import httpx

from coe.config import Config, api_key
from coe.core import ExpertSpec
from coe.errors.files import ConfigError, WeightsError
from coe.experts.http import HttpExpert
from coe.experts.lines import Lines, lines
from coe.experts.protocol import Expert
from coe.experts.replay import ReplayExpert
from coe.experts.standing import StandingExpert
from coe.free import FreeSection, stock_of
from coe.guard.guards import Guards
from coe.http.pool import Pool
from coe.kinds import (
    AnyExpert,
    EmbeddedSection,
    ExpertSection,
    HttpSection,
    ReplaySection,
    VllmSection,
)
from coe.load import Presence
from coe.optimizer.residency import Loadable
from coe.services.adapters import hosted
from coe.services.cluster.accounts import NodeAccounts
from coe.services.cluster.experts import expert_on_fleet, following_fleet
from coe.services.cluster.follower import Follower
from coe.services.host.experts import engine_slots
from coe.services.host.watched import WatchedHost
from coe.services.means import ALONE, Means
from coe.services.mixable import served
from coe.services.runnable import Say, runnable
from coe.services.turns import ExpertByTurns, Turns, working
from coe.stock import Stock

_ANSWERING = frozenset({"ready", "on demand"})
# what loading is taken to last before it has been measured
_FIRST_LOAD_S = 5.0
_AWAY = Presence(0, 0)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Experts by id, and what is behind them: processes of this machine, copies on a cluster.

    Parameters
    ----------
    hosts : of the engines on this machine, by expert.
    copies : what a gateway knows of the cluster; ``None`` where nothing runs on one.
    away : experts that run on the cluster.
    accounts : of the cluster's nodes.
    turns : who of the embedded ones is in memory; ``None`` where all are, always.
    stocks : of the experts that compute nothing.
    sections : what each expert was made of.
    engines : every engine process of this gateway, those that are only ending included.
    lines : the connections to experts; ``None`` where nobody is asked over any.
    """

    specs: Mapping[str, ExpertSpec]
    experts: Mapping[str, Expert]
    hosts: Mapping[str, WatchedHost]
    copies: Follower | None = None
    away: frozenset[str] = frozenset()
    turns: Turns | None = None
    accounts: NodeAccounts = field(default_factory=NodeAccounts)
    stocks: Mapping[str, Stock] = field(default_factory=dict)
    sections: Mapping[str, AnyExpert] = field(default_factory=dict)
    engines: set[WatchedHost] = field(default_factory=set)
    lines: Lines | None = None

    def states(self) -> dict[str, str]:
        """Every expert's state: its engine's, its best copy's (or ``absent``), else ready.

        ``on demand``: it is loaded when it is asked for.
        """
        states: dict[str, str] = dict.fromkeys(self.experts, "ready")
        states |= {name: host.state for name, host in self.hosts.items()}
        if self.turns is not None:
            out = {name for name in self.turns.expert_ids if states[name] == "stopped"}
            states |= dict.fromkeys(out, "on demand")
        return states | {name: self.copies.state(name) for name in self.away if self.copies}

    @property
    def can_answer(self) -> bool:
        """Whether some expert is ready, or is loaded when it is asked for.

        One that computes nothing counts where there are no others.
        """
        states = self.states()
        counting = states.keys() - self.stocks.keys() or states.keys()
        return any(states[name] in _ANSWERING for name in counting)

    @property
    def has_failed(self) -> bool:
        """Whether every expert that computes has failed."""
        computing = self.experts.keys() - self.stocks.keys()
        states = self.states()
        return bool(computing) and all(states[name] == "failed" for name in computing)

    def presence(self) -> dict[str, Presence]:
        """Of the experts that come and go: copies, their requests, and how long they load.

        Of an engine of this machine only while it cannot be asked.
        """
        there = {name: _AWAY for name, host in self.hosts.items() if host.state != "ready"}
        if self.copies is not None:
            there |= {name: self.copies.presence(name) for name in self.away}
        if self.turns is not None:
            there |= {name: self.turns.presence(name) for name in self.turns.expert_ids}
        return there

    async def started(self) -> None:
        """As `settled`, whatever became of them."""
        for host in self.hosts.values():
            await host.settled()

    async def settled(self) -> None:
        """Wait until no engine of this machine is starting.

        Raises
        ------
        WeightsError
            Every engine failed, and there is no other expert that computes.
        """
        await self.started()
        if self.has_failed and self.hosts.keys() == self.experts.keys() - self.stocks.keys():
            reasons = "; ".join(f"{host.name}: {host.reason}" for host in self.hosts.values())
            raise WeightsError(f"no expert started: {reasons}")


@asynccontextmanager
async def running(
    config: Config,
    say: Say = lambda line: None,
    only: Sequence[str] | None = None,
    now: Callable[[], float] = time.monotonic,
    guards: Guards | None = None,
    means: Means = ALONE,
) -> AsyncIterator[Fleet]:
    """The fleet of ``config``; its engine processes start now and end with the context.

    Does not wait for the engines: `Fleet.settled` does. An expert that cannot run here is left
    out with one line to ``say``.

    Parameters
    ----------
    only : ids of the experts to run; all by default.
    now : monotonic seconds, by which copies of answers grow old.
    guards : of the copies of experts; ``None``: each has its own, and no limits.

    Raises
    ------
    ConfigError
        No expert can run, ``only`` names an unknown one, or a file is wrong.
    """
    present = runnable(config, say, only)
    away = [e for e in present if config.on_fleet(e)]
    here = [e for e in present if e not in away]
    engines = [e for e in here if isinstance(e, EmbeddedSection | VllmSection)]
    turns: Turns | None = None

    def noticed(host: WatchedHost) -> None:
        remark(say, host)
        if turns is not None:
            turns.noticed(host)

    hosts = {
        e.id: means.open_host(e, config.spec(e), n_engines=len(engines), on_change=noticed)
        for e in engines
    }
    async with lines() as wires, AsyncExitStack() as stack:
        experts = {e.id: adapter(e, config, wires, hosts.get(e.id)) for e in here}
        turns = await _turns(config, hosts, stack)
        if turns is not None:
            experts |= {n: ExpertByTurns(n, experts[n], turns) for n in turns.expert_ids}
        copies = None
        accounts = NodeAccounts({n: node.metering.idle_w for n, node in config.nodes.items()}, say)
        if config.fleet is not None and away:
            # the fleet may still be as another coe.yaml had it: what is local is asked there only
            kept_on = {e.id: e.node for e in away if e.node and config.is_local(e)}
            asking = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
            following = following_fleet(config.fleet, asking, say, accounts.note, kept_on)
            copies = await stack.enter_async_context(following)
            by, own = guards or Guards(), wires.own
            experts |= {e.id: expert_on_fleet(e, config.spec(e), own, copies, by) for e in away}
        wanted = only or [e.id for e in config.experts]
        free = [e for e in config.experts if isinstance(e, FreeSection) and e.id in wanted]
        stocks = {e.id: stock_of(e, now) for e in free}
        specs = {e.id: served(e, config) for e in present} | {e.id: config.spec(e) for e in free}
        experts |= {name: StandingExpert(name) for name in stocks}
        running_here: set[WatchedHost] = {*hosts.values()}
        by_turns = frozenset(turns.expert_ids) if turns is not None else frozenset[str]()
        try:
            for name in hosts.keys() - by_turns:
                await hosts[name].start()
            yield Fleet(
                specs, experts, hosts, copies, frozenset(e.id for e in away), turns, accounts,
                stocks, {e.id: e for e in (*present, *free)}, running_here, wires,
            )  # fmt: skip
        finally:
            await stack.aclose()
            await asyncio.gather(*(host.stop() for host in running_here))


async def _turns(
    config: Config, hosts: Mapping[str, WatchedHost], stack: AsyncExitStack
) -> Turns | None:
    """What lets the embedded experts take turns, at work until the stack ends."""
    room = config.on_demand
    embedded = {e.id: e for e in config.experts if isinstance(e, EmbeddedSection)}
    loadables = {
        name: Loadable(embedded[name].memory_gb, _FIRST_LOAD_S, 0.0, engine_slots(embedded[name]))
        for name in hosts
        if name in embedded
    }
    if room is None or not loadables:
        return None
    turns = Turns(hosts, loadables, room.memory_gb, room.max_wait_s)
    await stack.enter_async_context(working(turns))
    return turns


def remark(say: Say, host: WatchedHost) -> None:
    """Say what became of an engine, if anything did."""
    if host.state == "ready":
        again = "" if host.n_starts == 1 else f" again (start {host.n_starts})"
        say(f"expert {host.name}: ready{again}")
    elif host.reason:
        say(f"expert {host.name}: {host.state}: {host.reason}")


def adapter(
    section: ExpertSection,
    config: Config,
    wires: Lines,
    host: WatchedHost | None,
) -> Expert:
    """The expert of a section, with the host of its engine where it has one.

    Raises
    ------
    ConfigError
        The key of an address is not set, or its certificates or a recording cannot be read.
    """
    if isinstance(section, EmbeddedSection | VllmSection):
        assert host is not None
        return hosted(section, wires.own, lambda: host.address)
    if isinstance(section, ReplaySection):
        # reads Parquet: 40 MB of memory that a gateway without replay does not need
        from coe.services.recording import read_recording

        return ReplayExpert(
            spec=config.spec(section),
            answers=read_recording(section.recording, section.recorded_as or section.id),
            time_scale=section.time_scale,
        )
    return HttpExpert(
        expert_id=section.id,
        client=_pool(section, wires),
        base_url=section.base_url,
        upstream_model=section.upstream_model,
        api_key=api_key(section),
        connect_timeout_s=section.connect_timeout_s,
        first_token_timeout_s=section.first_token_timeout_s,
        idle_timeout_s=section.idle_timeout_s,
        answer_timeout_s=section.answer_timeout_s,
        max_answer_bytes=section.max_answer_bytes,
    )


def _pool(section: HttpSection, wires: Lines) -> Pool:
    try:
        return wires.to(section.id, section.reach, section.ca)
    except OSError as error:
        raise ConfigError(
            f"expert {section.id!r}: ca: {section.ca} holds no certificates: {error}"
        ) from error
