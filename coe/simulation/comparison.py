"""Policies side by side on the same requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from coe.simulation.arms import check, replayed
from coe.simulation.figures import Figures, figures
from coe.simulation.setting import Setting

Progress = Callable[[str, int], None]
"""Told which policy is at work, and of so many requests more that have arrived."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How every policy did, in the order in which they were asked for."""

    setting: Setting
    arms: tuple[Figures, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What must be known to read the figures rightly, a sentence each."""
        found = []
        for arm in self.arms:
            for expert_id, load in arm.overloaded.items():
                found.append(
                    f"{arm.policy}: {expert_id} is overloaded, with {load:.0%} of the work that it "
                    "can do: its queue grows as long as requests come, so latencies hang on how "
                    "many are simulated"
                )
        return tuple(found)


def compare(
    setting: Setting,
    names: Sequence[str],
    seed: int = 0,
    progress: Progress = lambda name, n: None,
) -> Comparison:
    """What every policy makes of the same requests, with the same draws.

    Parameters
    ----------
    names : as for `coe.simulation.arms.replayed`.
    seed : of the intervals.

    Raises
    ------
    UnknownExpertError, SimulationError, InfeasibleError
        As `coe.simulation.arms.check`, before anything is simulated.
    """
    for name in names:
        check(name, setting)
    found = []
    for name in names:
        run = replayed(name, setting, lambda n, name=name: progress(name, n))  # type: ignore[misc]
        found.append(figures(name, setting, run, np.random.default_rng(seed)))
    return Comparison(setting, tuple(found))
