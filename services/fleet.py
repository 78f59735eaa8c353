"""The experts of a configuration on this machine: engine processes and adapters."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import httpx
from httpx_aiohttp import AiohttpTransport

from coe.config import (
    Config,
    EmbeddedSection,
    ExpertSection,
    HttpSection,
    ReplaySection,
    VllmSection,
    api_key,
    weights_home,
)
from coe.core import ExpertSpec, Presence
from coe.errors import ConfigError, WeightsError
from coe.experts.http import HttpExpert
from coe.experts.protocol import Expert
from coe.experts.replay import ReplayExpert
from coe.services.adapters import hosted
from coe.services.cluster.experts import expert_on_fleet, following_fleet
from coe.services.cluster.follower import Follower
from coe.services.host.experts import interpreter, open_host
from coe.services.host.watched import WatchedHost
from coe.services.weights import embedded_weights, locate

Say = Callable[[str], None]

# a slow expert that holds many connections must not keep the others waiting for one
_LIMITS = httpx.Limits(max_connections=10_000)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Experts by id, and what is behind them: processes of this machine, copies on a cluster.

    Parameters
    ----------
    hosts : of the engines on this machine, by expert.
    copies : what a gateway knows of the cluster; ``None`` where nothing runs on one.
    away : experts that run on the cluster.
    """

    specs: Mapping[str, ExpertSpec]
    experts: Mapping[str, Expert]
    hosts: Mapping[str, WatchedHost]
    copies: Follower | None = None
    away: frozenset[str] = frozenset()

    def states(self) -> dict[str, str]:
        """Every expert's state: its engine's, its best copy's (or ``absent``), else ready."""
        states: dict[str, str] = dict.fromkeys(self.experts, "ready")
        states |= {name: host.state for name, host in self.hosts.items()}
        return states | {name: self.copies.state(name) for name in self.away if self.copies}

    def presence(self) -> dict[str, Presence]:
        """Of the experts on the cluster: copies that can answer, and requests in all of them."""
        if self.copies is None:
            return {}
        return {name: self.copies.presence(name) for name in self.away}

    async def started(self) -> None:
        """As `settled`, whatever became of them."""
        for host in self.hosts.values():
            await host.settled()

    async def settled(self) -> None:
        """Wait until no engine of this machine is starting.

        Raises
        ------
        WeightsError
            Every engine failed and there is no other expert.
        """
        states = [await host.settled() for host in self.hosts.values()]
        if len(self.experts) == len(states) and all(state == "failed" for state in states):
            reasons = "; ".join(f"{host.name}: {host.reason}" for host in self.hosts.values())
            raise WeightsError(f"no expert started: {reasons}")


@asynccontextmanager
async def running(
    config: Config, say: Say = lambda line: None, only: Sequence[str] | None = None
) -> AsyncIterator[Fleet]:
    """The fleet of ``config``; its engine processes start now and end with the context.

    Does not wait for the engines: `Fleet.settled` does. An expert that cannot run here is left
    out with one line to ``say``.

    Parameters
    ----------
    only : ids of the experts to run; all by default.

    Raises
    ------
    ConfigError
        No expert can run, ``only`` names an unknown one, or a file is wrong.
    """
    present = runnable(config, say, only)
    away = [e for e in present if config.on_fleet(e)]
    here = [e for e in present if not config.on_fleet(e)]
    engines = [e for e in here if isinstance(e, EmbeddedSection | VllmSection)]
    remark = partial(_remark, say)
    hosts = {
        e.id: open_host(e, config.spec(e), n_engines=len(engines), on_change=remark)
        for e in engines
    }
    async with (
        httpx.AsyncClient(transport=AiohttpTransport(limits=_LIMITS)) as client,
        AsyncExitStack() as stack,
    ):
        experts = {e.id: _expert(e, config, client, hosts) for e in here}
        copies = None
        if config.fleet is not None and away:
            copies = await stack.enter_async_context(following_fleet(config.fleet, client, say))
            experts |= {e.id: expert_on_fleet(e, config.spec(e), client, copies) for e in away}
        specs = {e.id: config.spec(e) for e in present}
        try:
            for host in hosts.values():
                await host.start()
            yield Fleet(specs, experts, hosts, copies, frozenset(e.id for e in away))
        finally:
            for host in hosts.values():
                await host.stop()


def runnable(
    config: Config, say: Say = lambda line: None, only: Sequence[str] | None = None
) -> list[ExpertSection]:
    """The experts of ``config`` that can run here; each of the others is one line to ``say``.

    Raises
    ------
    ConfigError
        As `running`.
    """
    unknown = sorted(set(only or ()) - {expert.id for expert in config.experts})
    if unknown:
        raise ConfigError(f"no expert is called {', '.join(unknown)}")
    wanted = [e for e in config.experts if only is None or e.id in only]
    present = [e for e in wanted if config.on_fleet(e) or _can_run(e, say)]
    if not present:
        raise ConfigError("no expert can run: `coe doctor` says what is missing")
    return present


@dataclass(frozen=True, slots=True)
class Gap:
    """Why an expert cannot run here, and what to do about it."""

    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.reason}: {self.remedy}"


def missing(section: ExpertSection) -> Gap | None:
    """What this expert lacks to run here; ``None`` when it lacks nothing.

    Raises
    ------
    ConfigError
        As `embedded_weights`.
    """
    if isinstance(section, EmbeddedSection):
        if importlib.util.find_spec("xllamacpp") is None:
            return Gap("llama.cpp is not installed", "pip install 'coe-router[embedded]'")
        if locate(embedded_weights(section), weights_home()) is None:
            return Gap(f"weights {section.weights!r} are not here", "coe weights fetch")
    if isinstance(section, VllmSection):
        return _missing_vllm(section)
    if isinstance(section, ReplaySection) and not section.recording.exists():
        return Gap(f"recording {section.recording} does not exist", "correct its path")
    if isinstance(section, HttpSection):
        try:
            api_key(section)
        except ConfigError:
            return Gap(
                f"environment variable {section.api_key_env} is not set",
                "export it, or remove api_key_env",
            )
    return None


def _missing_vllm(section: VllmSection) -> Gap | None:
    program = interpreter(section)
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        done = subprocess.run([program, "-c", look], capture_output=True, check=False)
    except OSError as error:
        return Gap(f"{program} cannot be run: {error.strerror}", "correct `python`")
    if done.returncode:
        remedy = "install it there, or name in `python` the interpreter of an environment with it"
        return Gap(f"vLLM is not installed beside {program}", remedy)
    return None


def _can_run(section: ExpertSection, say: Say) -> bool:
    gap = missing(section)
    if gap:
        say(f"expert {section.id} is left out: {gap}")
    return gap is None


def _remark(say: Say, host: WatchedHost) -> None:
    if host.state == "ready":
        again = "" if host.n_starts == 1 else f" again (start {host.n_starts})"
        say(f"expert {host.name}: ready{again}")
    elif host.reason:
        say(f"expert {host.name}: {host.state}: {host.reason}")


def _expert(
    section: ExpertSection,
    config: Config,
    client: httpx.AsyncClient,
    hosts: Mapping[str, WatchedHost],
) -> Expert:
    if isinstance(section, EmbeddedSection | VllmSection):
        return hosted(section, client, lambda: hosts[section.id].address)
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
        client=client,
        base_url=section.base_url,
        upstream_model=section.upstream_model,
        api_key=api_key(section),
        connect_timeout_s=section.connect_timeout_s,
        first_token_timeout_s=section.first_token_timeout_s,
        idle_timeout_s=section.idle_timeout_s,
        answer_timeout_s=section.answer_timeout_s,
    )
