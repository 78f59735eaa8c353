"""What answers take that several experts make, asked stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.mode import Mode
from coe.optimizer.options import AXES

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

LATENCY, TTFT = AXES.index("latency_ms"), AXES.index("ttft_ms")


@dataclass(frozen=True, slots=True)
class Stages:
    """Who is asked when, under each of many modes.

    Experts come first in all arrays: then NumPy is fastest.

    Parameters
    ----------
    asked : (n_experts, n_stages, n_modes) 1 or 0; nobody in the stages that a mode does not have.
    last : (n_modes,) number of the last stage of each.
    live : (n_modes,) whether what its last stage writes is the answer, token by token; else
        nothing of it is known before all of it is.
    usage, reach : (n_experts, n_modes) and (n_stages, n_modes), as `taken` wants them, where every
        stage is always asked.
    """

    asked: Floats
    last: NDArray[np.int64]
    live: Bools
    usage: Floats
    reach: Floats

    @classmethod
    def of(cls, modes: Sequence[Mode], expert_ids: Sequence[str]) -> Stages:
        """The stages of ``modes``, whose members are all in ``expert_ids``."""
        column = {name: k for k, name in enumerate(expert_ids)}
        n_stages = max((len(mode.stages) for mode in modes), default=1)
        asked = np.zeros((len(column), n_stages, len(modes)))
        for m, mode in enumerate(modes):
            for s, stage in enumerate(mode.stages):
                asked[[column[name] for name in stage], s, m] = 1.0
        return cls(
            asked,
            np.array([len(mode.stages) - 1 for mode in modes], dtype=np.int64),
            np.array([mode.kind in ("single", "fuse", "mixture") for mode in modes], dtype=bool),
            asked.sum(axis=1),
            asked.max(axis=0, initial=0.0),
        )

    def rows(self, kept: slice | NDArray[np.int64]) -> Stages:
        """These modes only, in this order."""
        return Stages(
            self.asked[:, :, kept],
            self.last[kept],
            self.live[kept],
            self.usage[:, kept],
            self.reach[:, kept],
        )

    def taken(self, each: Floats, usage: Floats, reach: Floats) -> Floats:
        """(n_modes, n_figures) what answers take.

        A stage is as slow as its slowest expert, and begins when that before has ended.

        Parameters
        ----------
        each : (n_experts, n_figures) what each expert's own answer takes: `AXES`, and whatever
            else adds up.
        usage : (n_experts, n_modes) how often each is paid for; 0 for who is not a member.
        reach : (n_stages, n_modes) how often each stage is reached.
        """
        found: Floats = usage.T @ each
        stage_ms = self._slowest(each[:, LATENCY]) * reach
        found[:, LATENCY] = found[:, TTFT] = stage_ms.sum(axis=0)
        if self.live.any():
            ttft_ms = self._slowest(each[:, TTFT]) * reach
            final = self.last, np.arange(self.last.size)
            found[:, TTFT] += np.where(self.live, ttft_ms[final] - stage_ms[final], 0.0)
        return found

    def _slowest(self, each_ms: Floats) -> Floats:
        """(n_stages, n_modes) of those that are asked."""
        slowest: Floats = np.max(self.asked * each_ms[:, None, None], axis=0)
        return slowest
