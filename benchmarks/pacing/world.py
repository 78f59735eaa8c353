"""Requests of a real arrival trace, each with a real prompt and the outcomes of every expert.

Trace and outcomes were not recorded together: a request of the trace gets the outcomes of a random
dev prompt, and each expert answers with as many tokens as the trace says.
"""

from __future__ import annotations

import csv
import gzip
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1] / "routing"))
import tables as public

Floats = NDArray[np.float64]

POOL = "openllm 18"
RESOURCES = ("energy_j", "cost_usd", "requests")
# joules per token and billion parameters: writing as in benchmarks/routing/tables.py; reading is
# bound by arithmetic and not by memory, and taken as a twentieth of it
DECODE_J, PREFILL_J = public.JOULES_PER_TOKEN_B, public.JOULES_PER_TOKEN_B / 20.0
TOKENS_PER_S = 30.0  # of every expert: how long an answer stays in flight
# what callers allow: no answer of the trace is longer
CAP_TOKENS = {"code": 1900.0, "conv": 1000.0}
FIRST_GUESS_TOKENS = 100.0
PSEUDO_COUNT = 20.0


@dataclass(frozen=True, slots=True)
class World:
    """T requests, n experts, resources as in `RESOURCES`.

    Parameters
    ----------
    at_s, ends_s : (T,) arrival from the first one, ascending, and end of the answer.
    tenant : (T,) ``code`` or ``conv``.
    quality : (T, n) what the selector expects: the category table of the train split.
    score : (T, n) what was recorded.
    expected, spent, upper : (T, n, 3) use that the selector expects, that an answer takes, and
        that it cannot exceed.
    """

    at_s: Floats
    ends_s: Floats
    tenant: NDArray[np.str_]
    quality: Floats
    score: Floats
    expected: Floats
    spent: Floats
    upper: Floats


def load(trace: Path, outcomes_folder: Path, seed: int) -> World:
    """The world of one seed: which request asks which dev prompt."""
    at_s, prompt_tokens, output_tokens, tenant = _trace(trace)
    ((_, outcomes, specs),) = public.tables(outcomes_folder, [POOL])
    categories, index = np.unique(outcomes.categories, return_inverse=True)
    train = outcomes.splits == "train"
    table = _table(outcomes.scores[train], index[train], categories.size)
    dev = np.flatnonzero(~train & ~np.isnan(outcomes.scores).any(axis=1))
    asked = np.random.default_rng(seed).choice(dev, at_s.size)
    params_b = np.array([specs[name].params_b for name in outcomes.expert_ids])
    price = np.array([specs[name].usd_per_mtok_out for name in outcomes.expert_ids])

    def usage(n_output: Floats) -> Floats:
        joules = (PREFILL_J * prompt_tokens + DECODE_J * n_output)[:, None] * params_b
        usd = (prompt_tokens + n_output)[:, None] * price / 1e6
        return np.stack([joules, usd, np.ones_like(usd)], axis=2)

    return World(
        at_s=at_s,
        ends_s=at_s + output_tokens / TOKENS_PER_S,
        tenant=tenant,
        quality=table[index[asked]],
        score=outcomes.scores[asked],
        expected=usage(_mean_so_far(output_tokens, tenant)),
        spent=usage(output_tokens),
        upper=usage(np.array([CAP_TOKENS[name] for name in tenant])),
    )


def _trace(path: Path) -> tuple[Floats, Floats, Floats, NDArray[np.str_]]:
    with gzip.open(path, "rt", newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["TIMESTAMP"])
    # the trace has seven digits of a second
    moments = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
    return (
        np.array([(moment - moments[0]).total_seconds() for moment in moments]),
        np.array([float(row["ContextTokens"]) for row in rows]),
        np.array([float(row["GeneratedTokens"]) for row in rows]),
        np.array([row["workload"] for row in rows]),
    )


def _table(scores: Floats, index: NDArray[np.int64], n_categories: int) -> Floats:
    """(n_categories, n_experts) mean scores, shrunk towards those over all prompts."""
    overall = np.nanmean(scores, axis=0)
    rows = [
        (np.nansum(scores[index == c], axis=0) + PSEUDO_COUNT * overall)
        / ((~np.isnan(scores[index == c])).sum(axis=0) + PSEUDO_COUNT)
        for c in range(n_categories)
    ]
    return np.array(rows)


def _mean_so_far(output_tokens: Floats, tenant: NDArray[np.str_]) -> Floats:
    """(T,) mean answer length of the tenant's requests before this one."""
    means = np.empty_like(output_tokens)
    for name in np.unique(tenant):
        own = output_tokens[tenant == name]
        before = np.concatenate([[0.0], np.cumsum(own)[:-1]])
        means[tenant == name] = (before + FIRST_GUESS_TOKENS) / (np.arange(own.size) + 1.0)
    return means
