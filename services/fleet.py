"""The experts of a configuration on this machine: engine processes and adapters."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import httpx
from httpx_aiohttp import AiohttpTransport

from coe.config import (
    DATA,
    Config,
    EmbeddedSection,
    ExpertSection,
    HttpSection,
    ReplaySection,
    api_key,
    weights_home,
)
from coe.core import ExpertSpec
from coe.errors import ConfigError, WeightsError
from coe.experts.http import EmbeddedExpert, HttpExpert
from coe.experts.protocol import Expert
from coe.experts.replay import ReplayExpert
from coe.services.host.process import EngineHost
from coe.services.weights import Weights, locate, read_manifest, verified

Say = Callable[[str], None]

# a slow expert that holds many connections must not keep the others waiting for one
_LIMITS = httpx.Limits(max_connections=10_000)


@dataclass(frozen=True, slots=True)
class Fleet:
    """Experts that can run here, by id, and the processes behind the embedded ones."""

    specs: Mapping[str, ExpertSpec]
    experts: Mapping[str, Expert]
    hosts: Mapping[str, EngineHost]

    async def settled(self) -> None:
        """Wait until no engine is starting.

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
    embedded = [e for e in present if isinstance(e, EmbeddedSection)]
    hosts = {e.id: _host(e, len(embedded), say) for e in embedded}
    async with httpx.AsyncClient(transport=AiohttpTransport(limits=_LIMITS)) as client:
        experts = {e.id: _expert(e, config, client, hosts) for e in present}
        try:
            for host in hosts.values():
                await host.start()
            yield Fleet({e.id: config.spec(e) for e in present}, experts, hosts)
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
    present = [e for e in wanted if _can_run(e, say)]
    if not present:
        raise ConfigError("no expert can run: `coe doctor` says what is missing")
    return present


def embedded_weights(section: EmbeddedSection) -> Weights:
    """The manifest entry of an embedded expert's weights.

    Raises
    ------
    ConfigError
        The manifest has no such entry.
    """
    manifest = read_manifest(DATA / "weights.json")
    if section.weights not in manifest:
        raise ConfigError(
            f"expert {section.id!r}: unknown weights {section.weights!r}; "
            f"`coe weights list` knows {', '.join(manifest)}"
        )
    return manifest[section.weights]


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


def _can_run(section: ExpertSection, say: Say) -> bool:
    gap = missing(section)
    if gap:
        say(f"expert {section.id} is left out: {gap}")
    return gap is None


def _host(section: EmbeddedSection, n_engines: int, say: Say) -> EngineHost:
    # threads beyond an engine's share of cores wait for each other at barriers: with the gateway on
    # one of two cores, two threads that sleep at them measured 20 tokens/s where one gives 55
    threads = section.threads or max(1, (len(os.sched_getaffinity(0)) - 1) // n_engines)

    def on_change(host: EngineHost) -> None:
        if host.state == "ready":
            again = "" if host.n_starts == 1 else f" again (start {host.n_starts})"
            say(f"expert {host.name}: ready{again}")
        elif host.reason:
            say(f"expert {host.name}: {host.state}: {host.reason}")

    return EngineHost(
        section.id,
        partial(_command, section, embedded_weights(section), threads),
        environment={"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)},
        on_change=on_change,
    )


def _command(section: EmbeddedSection, weights: Weights, threads: int) -> list[str]:
    """Command line of the engine; the weights are verified at every start.

    Raises
    ------
    WeightsError
        The weights are absent or altered.
    """
    path = verified(weights, weights_home())
    return [
        sys.executable, "-m", "coe.services.host.llama",
        "--weights", str(path), "--alias", section.id, "--threads", str(threads),
        "--slots", str(max(4, section.slots)), "--context", str(section.context_tokens),
        "--repeat-penalty", str(section.repeat_penalty),
    ]  # fmt: skip


def _expert(
    section: ExpertSection,
    config: Config,
    client: httpx.AsyncClient,
    hosts: Mapping[str, EngineHost],
) -> Expert:
    if isinstance(section, EmbeddedSection):
        host = hosts[section.id]
        return EmbeddedExpert(
            expert_id=section.id,
            client=client,
            address=lambda: host.address,
            first_token_timeout_s=section.first_token_timeout_s,
            idle_timeout_s=section.idle_timeout_s,
        )
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
