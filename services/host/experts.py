"""The host of any expert: what runs it, on the machine that this is called on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from coe.config import api_key
from coe.core import ExpertSpec
from coe.environment import weights_home
from coe.kinds import EmbeddedSection, ExpertSection, HttpSection, ReplaySection, VllmSection
from coe.services.host.external import WATCH as EXTERNAL_WATCH
from coe.services.host.external import ExternalHost
from coe.services.host.process import EngineHost
from coe.services.host.watched import Watch, WatchedHost
from coe.services.weights import Weights, embedded_weights, verified

LOOPBACK = "127.0.0.1"


def open_host(
    section: ExpertSection,
    spec: ExpertSpec,
    *,
    bind: str = LOOPBACK,
    key: str | None = None,
    n_engines: int = 1,
    watch: Watch | None = None,
    on_change: Callable[[WatchedHost], None] = lambda host: None,
) -> EngineHost | ExternalHost:
    """The host of an expert, not yet started. Nothing is opened here.

    Paths, the weights manifest and environment variables are those of this machine.

    Parameters
    ----------
    spec : the section's, by `coe.config.Config.spec`.
    bind : address of this machine to listen on; others reach the engine by it. Without effect
        on an expert that is an address.
    key : bearer token that the engine is to ask for; an expert that is an address has its own.
    n_engines : engines that share this machine's cores.
    watch : periods and limits; by default those of the expert's kind.
    on_change : called with the host after every change of state.

    Raises
    ------
    ConfigError
        The weights manifest does not know the weights, or the key of an address is not set.
    """
    if isinstance(section, HttpSection):
        return ExternalHost(
            section.id,
            section.base_url,
            slots=section.slots,
            key=api_key(section),
            watch=watch or EXTERNAL_WATCH,
            on_change=on_change,
        )
    engine = partial(EngineHost, section.id, key=key, on_change=on_change)
    if isinstance(section, ReplaySection):
        return engine(partial(_replay, section, spec, bind), watch=watch, slots=section.slots)
    if isinstance(section, VllmSection):
        return engine(
            partial(_vllm, section, bind),
            environment=environment(section),
            watch=watch or Watch(start_timeout_s=section.start_timeout_s),
            slots=section.slots,
            first_request=_greeting(section.id),
        )
    threads = section.threads or _share(n_engines)
    return engine(
        partial(_llama, section, embedded_weights(section), threads, bind),
        environment={"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)},
        watch=watch,
        slots=engine_slots(section),
        first_request=_greeting(section.id),
    )


def interpreter(section: VllmSection) -> str:
    """The Python that runs a vLLM engine."""
    return sys.executable if section.python is None else str(section.python.absolute())


def environment(section: VllmSection) -> dict[str, str]:
    """Variables added for a vLLM engine; another interpreter does not look where this one does."""
    apart = {} if section.python is None else {"PYTHONPATH": ""}
    return {**apart, **section.environment}


def _share(n_engines: int) -> int:
    # threads beyond an engine's share of cores wait for each other at barriers: with the gateway on
    # one of two cores, two threads that sleep at them measured 20 tokens/s where one gives 55
    return max(1, (len(os.sched_getaffinity(0)) - 1) // n_engines)


def engine_slots(section: EmbeddedSection) -> int:
    """Requests that the engine of an embedded expert answers at once."""
    return max(4, section.slots)


def _greeting(upstream_model: str) -> dict[str, object]:
    messages = [{"role": "user", "content": "Hi"}]
    return {"model": upstream_model, "messages": messages, "max_tokens": 1}


def _llama(section: EmbeddedSection, weights: Weights, threads: int, bind: str) -> list[str]:
    """Command line of a llama.cpp engine; the weights are verified at every start.

    Raises
    ------
    WeightsError
        The weights are absent or altered.
    """
    path = verified(weights, weights_home())
    return [
        sys.executable, "-m", "coe.services.host.llama", "--bind", bind,
        "--weights", str(path), "--alias", section.id, "--threads", str(threads),
        "--slots", str(engine_slots(section)), "--context", str(section.context_tokens),
        "--repeat-penalty", str(section.repeat_penalty),
    ]  # fmt: skip


def _vllm(section: VllmSection, bind: str) -> list[str]:
    """Command line of a vLLM engine, for an interpreter that need not know this package."""
    return [
        interpreter(section), str(Path(__file__).with_name("vllm.py")), "--bind", bind,
        "--weights", section.weights, "--alias", section.id, "--slots", str(section.slots),
        "--context", str(section.context_tokens), "--", *section.arguments,
    ]  # fmt: skip


def _replay(section: ReplaySection, spec: ExpertSpec, bind: str) -> list[str]:
    """Command line of a process that repeats a recording."""
    return [
        sys.executable, "-m", "coe.services.host.replay", "--bind", bind,
        "--spec", TypeAdapter(ExpertSpec).dump_json(spec).decode(),
        "--recording", str(section.recording), "--recorded-as", section.recorded_as or section.id,
        "--time-scale", str(section.time_scale),
    ]  # fmt: skip
