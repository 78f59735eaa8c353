"""Which experts of a configuration can run on this machine, and what the others lack."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from coe.config import Config, api_key
from coe.environment import weights_home
from coe.errors.files import ConfigError
from coe.kinds import EmbeddedSection, ExpertSection, HttpSection, ReplaySection, VllmSection
from coe.services.host.experts import environment, interpreter
from coe.services.weights import embedded_weights, locate

Say = Callable[[str], None]


def runnable(
    config: Config, say: Say = lambda line: None, only: Sequence[str] | None = None
) -> list[ExpertSection]:
    """The experts of ``config`` that can run here; each of the others is one line to ``say``.

    Those that compute nothing are none of them: they run nowhere, and are always there.

    Raises
    ------
    ConfigError
        As `running`.
    """
    unknown = sorted(set(only or ()) - {expert.id for expert in config.experts})
    if unknown:
        raise ConfigError(f"no expert is called {', '.join(unknown)}")
    wanted = [e for e in config.computing if only is None or e.id in only]
    present = [e for e in wanted if config.on_fleet(e) or _can_run(e, say)]
    if wanted and not present:
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
        done = subprocess.run(
            [program, "-c", look],
            capture_output=True,
            check=False,
            env={**os.environ, **environment(section)},
        )
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
