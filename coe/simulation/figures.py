"""How a policy did: quality, latencies, joules, dollars, violations, utilisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coe.optimizer.options import AXES, ceilings_of
from coe.optimizer.pacing import Allowance
from coe.routers.bootstrap import interval, resampled_means
from coe.simulation.deciding import REFUSED
from coe.simulation.foreseen import N_TIMES, usage_of
from coe.simulation.replaying import Replayed
from coe.simulation.setting import Setting

Floats = NDArray[np.float64]

_RESAMPLES = 1000
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True, slots=True)
class Spent:
    """An allowance and the windows of the run that it has, by the arrivals of requests.

    ``fullest`` is the most that a window spent of it, as a share.
    """

    name: str
    resource: str
    n_windows: int
    n_over: int
    fullest: float


@dataclass(frozen=True, slots=True)
class Figures:
    """How a policy did over all requests. Means and quantiles are over those answered.

    Parameters
    ----------
    quality, quality_ci95 : mean recorded score, 0 where refused, and its interval over prompts.
    n_refused, n_cut : without an answer; with one that a ceiling on joules or dollars ended.
    latency_ms, ttft_ms : ``mean``, ``p50``, ``p95`` and ``p99``, from arrival; the wait is in both.
    wait_ms : mean wait for a slot.
    n_violations : answers that took more than a ceiling of the budget; ``violated`` by ceiling.
    asked : share of the requests that each expert answered.
    utilisation : by expert, busy share of its slots, from the first arrival to the last end.
    offered : by expert, work that arrived over what its slots can do until the last arrival; its
        queue grows without end where this stays above 1. ``None`` of a single moment.
    periods : of each budget over time.
    n_events, elapsed_s : how fast the simulation itself was.
    """

    policy: str
    quality: float
    quality_ci95: tuple[float, float]
    n_requests: int
    n_refused: int
    n_cut: int
    latency_ms: Mapping[str, float | None]
    ttft_ms: Mapping[str, float | None]
    wait_ms: float | None
    energy_j: float | None
    cost_usd: float | None
    n_violations: int
    violated: Mapping[str, int]
    asked: Mapping[str, float]
    utilisation: Mapping[str, float | None]
    offered: Mapping[str, float | None]
    periods: tuple[Spent, ...]
    span_s: float
    n_events: int
    elapsed_s: float

    @property
    def overloaded(self) -> dict[str, float]:
        """Experts that got more work than they can do, and how much of that."""
        return {name: load for name, load in self.offered.items() if load is not None and load > 1}

    @property
    def busiest(self) -> str:
        """The expert whose slots are busy most."""
        return max(self.utilisation, key=lambda name: self.utilisation[name] or 0.0)

    @property
    def events_per_s(self) -> float:
        """Events that the simulation went through in a second of this machine's time."""
        return self.n_events / self.elapsed_s

    @property
    def times_real_time(self) -> float:
        """How much faster than the simulated fleet the simulation was."""
        return self.span_s / self.elapsed_s


def figures(name: str, setting: Setting, run: Replayed, rng: np.random.Generator) -> Figures:
    """The figures of a policy; of what nobody answered, means are ``None``."""
    outlook, workload = setting.outlook, setting.workload
    answered = run.expert != REFUSED
    usage = _usage(setting, run)
    score = np.zeros(run.expert.size)
    score[answered] = outlook.scores[workload.prompt[answered], run.expert[answered]]
    ceilings = ceilings_of(setting.budgeting.policy.budget)
    over = usage[answered] > ceilings
    given = [axis for axis, ceiling in zip(AXES, ceilings, strict=True) if np.isfinite(ceiling)]
    asked = np.bincount(run.expert[answered], minlength=len(outlook.specs)) / run.expert.size
    busy_s = run.end_s - run.start_s
    span_s = float(np.nanmax(run.end_s, initial=workload.at_s[-1]))
    wait_ms = 1000.0 * (run.start_s - workload.at_s)[answered]
    means = usage[answered].mean(axis=0) if answered.any() else np.full(len(AXES), np.nan)
    return Figures(
        policy=name,
        quality=float(score.mean()),
        quality_ci95=_between_prompts(score, workload.prompt, rng),
        n_requests=run.expert.size,
        n_refused=int((~answered).sum()),
        n_cut=int(run.cut.sum()),
        latency_ms=_distribution(usage[answered, 0]),
        ttft_ms=_distribution(usage[answered, 1]),
        wait_ms=_known(wait_ms.mean()) if wait_ms.size else None,
        energy_j=_known(means[2]),
        cost_usd=_known(means[3]),
        n_violations=int(over.any(axis=1).sum()),
        violated=dict(zip(given, over.sum(axis=0)[np.isfinite(ceilings)].tolist(), strict=True)),
        asked=dict(zip(setting.expert_ids, asked.tolist(), strict=True)),
        utilisation=_per_slot(setting, run, busy_s, span_s),
        offered=_per_slot(setting, run, busy_s, float(workload.at_s[-1])),
        periods=tuple(
            _spent(one, workload.at_s, usage, answered) for one in setting.budgeting.allowances
        ),
        span_s=span_s,
        n_events=run.n_events,
        elapsed_s=run.elapsed_s,
    )


def _usage(setting: Setting, run: Replayed) -> Floats:
    """(n_requests, 4) what answers took, columns as in `AXES`; NaN where there is none."""
    workload = setting.workload
    usage = np.full((run.expert.size, len(AXES)), np.nan)
    for k, spec in enumerate(setting.outlook.specs):
        mine = run.expert == k
        usage[mine] = usage_of(spec, workload.prompt_tokens[mine], run.output_tokens[mine])
    usage[:, :N_TIMES] += 1000.0 * (run.start_s - workload.at_s)[:, None]
    return usage


def _per_slot(
    setting: Setting, run: Replayed, busy_s: Floats, span_s: float
) -> dict[str, float | None]:
    """By expert, seconds of work for each second that its slots have."""
    outlook = setting.outlook
    answered = run.expert != REFUSED
    work_s = np.bincount(run.expert[answered], busy_s[answered], minlength=len(outlook.specs))
    slots = [spec.slots for spec in outlook.specs]
    return {
        name: _known(work / (n * span_s)) if span_s > 0 else None
        for name, work, n in zip(setting.expert_ids, work_s.tolist(), slots, strict=True)
    }


def _spent(allowance: Allowance, at_s: Floats, usage: Floats, answered: NDArray[np.bool_]) -> Spent:
    window = (at_s // allowance.window_s).astype(np.int64)
    taken = usage[answered, AXES.index(allowance.resource)]
    share = np.bincount(window[answered], taken, minlength=int(window[-1]) + 1) / allowance.amount
    n_over = int((share > 1).sum())
    return Spent(allowance.name, allowance.resource, share.size, n_over, float(share.max()))


def _distribution(values: Floats) -> dict[str, float | None]:
    if not values.size:
        return dict.fromkeys(("mean", *QUANTILES))
    found = np.quantile(values, list(QUANTILES.values()))
    return {"mean": float(values.mean()), **dict(zip(QUANTILES, found.tolist(), strict=True))}


def _between_prompts(
    score: Floats, prompt: NDArray[np.int64], rng: np.random.Generator
) -> tuple[float, float]:
    """The 95 % interval of the mean score when other prompts might have been asked.

    Requests that ask one prompt say one thing: the bootstrap draws prompts, and the ratio of
    scores to requests is taken to first order.
    """
    _, row, asked = np.unique(prompt, return_inverse=True, return_counts=True)
    mean = float(score.mean())
    excess = np.bincount(row, score) - mean * asked
    values = mean + excess / asked.mean()
    low, high = interval(resampled_means(values[:, None], _RESAMPLES, rng))[0]
    return float(low), float(high)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
