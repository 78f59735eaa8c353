"""The host of any expert: what runs it, on the machine that this is called on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial

from coe.config import EmbeddedSection, weights_home
from coe.services.host.process import EngineHost, Watch
from coe.services.host.standing import Standing
from coe.services.weights import Weights, embedded_weights, verified

LOOPBACK = "127.0.0.1"


def open_host(
    section: EmbeddedSection,
    *,
    bind: str = LOOPBACK,
    key: str | None = None,
    n_engines: int = 1,
    watch: Watch | None = None,
    on_change: Callable[[Standing], None] = lambda host: None,
) -> EngineHost:
    """The host of an expert, not yet started. Nothing is opened here.

    Paths and the weights manifest are those of this machine.

    Parameters
    ----------
    bind : address of this machine to listen on; others reach the engine by it.
    key : bearer token that the engine is to ask for.
    n_engines : engines that share this machine's cores.
    on_change : called with the host after every change of state.

    Raises
    ------
    ConfigError
        The weights manifest does not know the weights.
    """
    threads = section.threads or _share(n_engines)
    return EngineHost(
        section.id,
        partial(_llama, section, embedded_weights(section), threads, bind),
        environment={"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)},
        watch=watch,
        slots=_slots(section),
        key=key,
        first_request=_greeting(section.id),
        on_change=on_change,
    )


def _share(n_engines: int) -> int:
    # threads beyond an engine's share of cores wait for each other at barriers: with the gateway on
    # one of two cores, two threads that sleep at them measured 20 tokens/s where one gives 55
    return max(1, (len(os.sched_getaffinity(0)) - 1) // n_engines)


def _slots(section: EmbeddedSection) -> int:
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
        "--slots", str(_slots(section)), "--context", str(section.context_tokens),
        "--repeat-penalty", str(section.repeat_penalty),
    ]  # fmt: skip
