"""The fleet of another configuration: whoever is unchanged in it goes on as before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from coe.config import Config
from coe.errors.files import ConfigError
from coe.experts.protocol import Expert
from coe.experts.standing import StandingExpert
from coe.free import FreeSection, stock_of
from coe.kinds import EmbeddedSection, ExpertSection, ReplaySection, VllmSection
from coe.services.fleet import Fleet, adapter, remark
from coe.services.host.watched import WatchedHost
from coe.services.means import Means
from coe.services.mixable import served
from coe.services.runnable import Say, runnable


@dataclass(frozen=True, slots=True)
class Change:
    """A fleet that may take the place of another one, and what that began and ends.

    Parameters
    ----------
    arriving : engines that were started for it, and are ready.
    leaving : engines that it does not need; they still answer.
    gaps : a line for every expert that cannot run here.
    """

    fleet: Fleet
    arriving: tuple[WatchedHost, ...] = ()
    leaving: tuple[WatchedHost, ...] = ()
    gaps: tuple[str, ...] = ()

    async def give_up(self) -> None:
        """End what was begun: the fleet takes nobody's place."""
        for host in self.arriving:
            self.fleet.engines.discard(host)
            await host.stop()


async def changed(
    fleet: Fleet, config: Config, now: Callable[[], float], say: Say, means: Means
) -> Change:
    """The fleet of ``config``, its new engines ready; the present one is left as it is.

    An expert whose section and figures are the same is the same object, with all that it knows. An
    engine whose section changed is started anew beside the old one.

    Parameters
    ----------
    now : monotonic seconds, by which copies of answers grow old.

    Raises
    ------
    ConfigError
        No expert can run, an engine does not start; or those of a fleet, or those that take turns,
        are others than before: that takes a restart.
    """
    gaps: list[str] = []
    present = await asyncio.to_thread(runnable, config, gaps.append)
    free = [e for e in config.experts if isinstance(e, FreeSection)]
    _check_places(fleet, config, present)
    specs = {e.id: served(e, config) for e in present} | {e.id: config.spec(e) for e in free}
    same = {e.id for e in (*present, *free) if _is_same(fleet, e, specs)}
    hosts = {name: host for name, host in fleet.hosts.items() if name in same}
    arriving = _opened(config, present, same, fleet, say, means)
    try:
        await _started(arriving, fleet)
        hosts |= arriving
        made = await _made(fleet, config, present, same, hosts)
    except BaseException:
        for host in arriving.values():
            fleet.engines.discard(host)
            await host.stop()
        raise
    stocks = {e.id: fleet.stocks[e.id] if e.id in same else stock_of(e, now) for e in free}
    standing = {n: fleet.experts[n] if n in same else StandingExpert(n) for n in stocks}
    after = replace(
        fleet,
        specs=specs,
        experts=made | standing,
        hosts=hosts,
        stocks=stocks,
        sections={e.id: e for e in (*present, *free)},
    )
    leaving = tuple(host for name, host in fleet.hosts.items() if hosts.get(name) is not host)
    return Change(after, tuple(arriving.values()), leaving, tuple(gaps))


def _is_same(
    fleet: Fleet, section: ExpertSection | FreeSection, specs: Mapping[str, object]
) -> bool:
    name = section.id
    return fleet.sections.get(name) == section and fleet.specs.get(name) == specs[name]


def _check_places(fleet: Fleet, config: Config, present: list[ExpertSection]) -> None:
    """Refuse what cannot be started or ended by this gateway alone."""
    before = {name: fleet.sections[name] for name in fleet.away}
    if {e.id: e for e in present if config.on_fleet(e)} != before:
        raise ConfigError(
            "experts: those that run on the fleet are others than before: restart the gateway, "
            "or run `coe fleet up` and restart"
        )
    if fleet.turns is None:
        return
    taking = {e.id: e for e in present if isinstance(e, EmbeddedSection | VllmSection)}
    if taking != {name: fleet.sections[name] for name in fleet.hosts}:
        raise ConfigError(
            "experts: engines that take turns in memory (on_demand) are others than before: "
            "restart the gateway"
        )


def _opened(
    config: Config,
    present: list[ExpertSection],
    same: set[str],
    fleet: Fleet,
    say: Say,
    means: Means,
) -> dict[str, WatchedHost]:
    """Hosts of the engines that are new or changed, not yet started."""
    engines = [e for e in present if isinstance(e, EmbeddedSection | VllmSection)]
    noticed = partial(remark, say)
    return {
        e.id: means.open_host(e, config.spec(e), n_engines=len(engines), on_change=noticed)
        for e in engines
        if not config.on_fleet(e) and not (e.id in same and e.id in fleet.hosts)
    }


async def _started(arriving: Mapping[str, WatchedHost], fleet: Fleet) -> None:
    """Start engines, and wait until they are ready."""
    fleet.engines.update(arriving.values())
    for host in arriving.values():
        await host.start()
    for name, host in arriving.items():
        if await host.settled() != "ready":
            raise ConfigError(f"expert {name}: its engine does not start: {host.reason}")


async def _made(
    fleet: Fleet,
    config: Config,
    present: list[ExpertSection],
    same: set[str],
    hosts: Mapping[str, WatchedHost],
) -> dict[str, Expert]:
    """Experts that compute: the same ones where nothing changed."""
    wires = fleet.lines
    assert wires is not None
    made = {}
    for e in present:
        if e.id in same or config.on_fleet(e):
            made[e.id] = fleet.experts[e.id]
        elif isinstance(e, ReplaySection):
            # a recording takes its time to be read; connections belong to the loop
            made[e.id] = await asyncio.to_thread(adapter, e, config, wires, None)
        else:
            made[e.id] = adapter(e, config, wires, hosts.get(e.id))
    return made
