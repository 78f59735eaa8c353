"""Requests of a real arrival trace on one node that loads experts on demand.

Trace and outcomes were not recorded together: a request of the trace gets the category of a random
dev prompt, its expert is the one with the best mean score of that category on the train split, and
its answer is as long as the trace says.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coe.optimizer.rehearsal import Call
from coe.optimizer.residency import Loadable

sys.path.append(str(Path(__file__).parents[1] / "routing"))
import tables as public

Floats = NDArray[np.float64]

POOL = "llmrouter_9"
GB_PER_B = 0.6  # a billion parameters in about 4.5 bits
LOAD_GB_PER_S = 3.0  # an NVMe drive
READ_GB_PER_S = 900.0  # memory bandwidth of the device: what bounds writing
READ_FASTER = 30.0  # tokens read in the time of one written
SLOTS = 4


@dataclass(frozen=True, slots=True)
class World:
    """The experts of the category map, and the calls in the order of their arrival."""

    experts: Mapping[str, Loadable]
    calls: tuple[Call, ...]

    @property
    def total_gb(self) -> float:
        """Memory that all experts take together."""
        return sum(one.memory_gb for one in self.experts.values())

    def unforeseen(self) -> World:
        """The same without expected use."""
        blind = {name: replace(one, rate_per_s=0.0) for name, one in self.experts.items()}
        return replace(self, experts=blind)


def load(trace: Path, outcomes_folder: Path, every: int, seed: int) -> World:
    """The world of every so many-th request of the trace."""
    at_s, n_prompt, n_output = (column[::every] for column in _trace(trace))
    ((_, outcomes, specs),) = public.tables(outcomes_folder, [POOL])
    categories, index = np.unique(outcomes.categories, return_inverse=True)
    train = outcomes.splits == "train"
    own = [train & (index == c) for c in range(categories.size)]
    best = np.array([np.nanmean(outcomes.scores[rows], axis=0).argmax() for rows in own])
    asked = np.random.default_rng(seed).choice(np.flatnonzero(~train), at_s.size)
    expert, foreseen = best[index[asked]], best[index[train]]
    experts = {}
    for column in np.unique(best).tolist():
        size_gb = GB_PER_B * specs[outcomes.expert_ids[column]].params_b
        experts[outcomes.expert_ids[column]] = Loadable(
            memory_gb=size_gb,
            load_s=size_gb / LOAD_GB_PER_S,
            rate_per_s=float(np.mean(foreseen == column)) * at_s.size / float(at_s[-1]),
            slots=SLOTS,
        )
    calls = []
    for at, n_in, n_out, column in zip(at_s, n_prompt, n_output, expert, strict=True):
        name = outcomes.expert_ids[column]
        token_s = experts[name].memory_gb / READ_GB_PER_S
        calls.append(Call(float(at), name, float(token_s * (n_out + n_in / READ_FASTER))))
    return World(experts, tuple(calls))


def _trace(path: Path) -> tuple[Floats, Floats, Floats]:
    """Arrivals from the first one, ascending; tokens read and written."""
    with gzip.open(path, "rt", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["TIMESTAMP"])
    # the trace has seven digits of a second
    moments = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
    return (
        np.array([(moment - moments[0]).total_seconds() for moment in moments]),
        np.array([float(row["ContextTokens"]) for row in rows]),
        np.array([float(row["GeneratedTokens"]) for row in rows]),
    )
