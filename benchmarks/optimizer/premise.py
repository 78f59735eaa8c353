"""Is what the selection of sets rests on true? Preservation, monotonicity, submodularity.

    python benchmarks/optimizer/premise.py [--tables FOLDER] > benchmarks/optimizer/premise.json

MoE2 (arXiv 2501.09410; reconstruction) trains one gate for all experts, freezes it, and expects
its restriction to any set to be as good as a gate trained for the set. Here the gate is trained
anew for random sets and compared; and the value of all sets is searched for steps that lower it
and for gains that grow. Simulated experts always; public outcomes where the tables are at hand.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gates
import numpy as np
from gates import Floats, Loss
from numpy.typing import NDArray

sys.path.append(str(Path(__file__).parents[1]))
sys.path.append(str(Path(__file__).parents[1] / "routing"))
import tables as public
from calibration import calibration

from coe.kernels.staircase import closure
from coe.optimizer.premise import examine
from coe.optimizer.problem import Prompts
from coe.optimizer.value import Mixture
from coe.routers.embed import MEANING_DIM, load_default
from coe.routers.outcomes import Outcomes
from coe.routers.train import embed_all

DEFAULT_TABLES = Path(__file__).parents[3] / "shared" / "data" / "outcomes"
POOLS = ("openllm 18", "routerdc", "mmlupro chat")
EPS = 0.05  # probability of a right answer where the score is 0, of a wrong one where it is 1
OTHER_EPS, OTHER_EPS_POOL = (0.01, 0.2), "routerdc"
SEED, N_SUBSETS = 0, 24
MOST_TRAIN, MOST_EXAMINED = 4000, 1000
AGGREGATIONS = {
    "likelihood": (None, True),
    "mixture": (None, False),
    "choose": (1, False),
    "likelihood, top 2": (2, True),
    "mixture, top 2": (2, False),
}
GATES: dict[str, Loss] = {
    "constant": gates.mixture_loss,
    "linear": gates.mixture_loss,
    "per expert": gates.expert_loss,
}

Experts = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Rows:
    """Prompts: (n_prompts, n_features) features, (n_prompts, n_experts) outcomes in (0, 1)."""

    features: Floats
    outcome: Floats

    def value(self, weights: Floats, k: int | None, log: bool) -> float:
        """What the gate of these weights makes of all experts."""
        prompts = _prompts(self.features @ weights, self.outcome)
        everyone = np.ones((1, self.outcome.shape[1]), dtype=bool)
        return float(Mixture(prompts, 1, k, log).of(everyone)[0, 0])

    def among(self, experts: Experts) -> Rows:
        """The same prompts for some experts."""
        return Rows(self.features, self.outcome[:, experts])


def simulated(rng: np.random.Generator, n: int = 4000, n_experts: int = 8) -> tuple[Rows, Rows]:
    """Training and held-out prompts whose experts' probabilities are logistic in 8 features."""
    ability, taste = rng.normal(0, 0.5, n_experts), rng.normal(0, 0.7, (8, n_experts))
    Z = rng.normal(size=(2 * n, 8))
    outcome = 1 / (1 + np.exp(-(ability + Z @ taste)))
    rows = Rows(gates.with_ones(Z), np.clip(outcome, 1e-3, 1 - 1e-3))
    return Rows(rows.features[:n], rows.outcome[:n]), Rows(rows.features[n:], rows.outcome[n:])


def informed(outcome: Floats, rng: np.random.Generator) -> dict[str, Floats]:
    """Logits of gates that know the experts' probabilities, more or less."""
    truth = np.log(outcome)
    return {
        "uniform": np.zeros_like(truth),
        "softmax of the truth": truth,
        "sharp: 4 times the truth": 4 * truth,
        "noisy: 4 times the truth and noise": 4 * (truth + rng.normal(0, 0.5, truth.shape)),
    }


def recorded(outcomes: Outcomes, eps: float) -> tuple[Rows, Rows]:
    """Training and held-out prompts of a public table."""
    outcomes = outcomes.rows(np.all(~np.isnan(outcomes.scores), axis=1))
    training = np.flatnonzero(outcomes.splits == "train")
    drawn = np.random.default_rng(SEED).permutation(training)[:MOST_TRAIN]
    kept = np.isin(np.arange(len(outcomes.prompts)), drawn)
    reduction, halves = None, []
    for rows in (kept, outcomes.splits == "test"):
        part = outcomes.rows(rows)
        X = embed_all(load_default(), part.prompts)[:, :MEANING_DIM].astype(float)
        reduction = reduction or gates.Reduction.of(X)
        halves.append(Rows(reduction.features(X), np.clip(part.scores, eps, 1 - eps)))
    return halves[0], halves[1]


def preservation(train: Rows, held_out: Rows, rng: np.random.Generator) -> dict[str, Any]:
    """Per gate its weights, and what training it anew for a set gains over restricting it."""
    n_experts = train.outcome.shape[1]
    subsets = [
        np.sort(rng.choice(n_experts, rng.integers(2, n_experts), replace=False))
        for _ in range(N_SUBSETS)
    ]
    found: dict[str, Any] = {}
    anew: dict[str, list[Floats]] = {}
    for name, loss in GATES.items():
        rows = _without_features(train) if name == "constant" else train
        penalty = 0.0
        if name != "constant":
            penalty = gates.best_penalty(loss, rows.features, rows.outcome, rng)
        full = gates.trained(loss, rows.features, rows.outcome, penalty)
        anew[name] = []
        gaps = []
        for subset in subsets:
            Z, outcome, kept = rows.features, rows.outcome[:, subset], full[:, subset]
            refit = gates.trained(loss, Z, outcome, penalty, (kept,))
            anew[name].append(refit)
            before, after = (
                gates.objective(loss, Z, outcome, weights, penalty) for weights in (kept, refit)
            )
            gaps.append(before - after)
        held = _without_features(held_out) if name == "constant" else held_out
        found[name] = {
            "penalty": penalty,
            "weights": full,
            "training objective": _spread(gaps),
            "held out": _gains(held, subsets, full, anew[name]),
        }
    found["per expert"]["held out, linear gate trained anew"] = _gains(
        held_out, subsets, found["per expert"]["weights"], anew["linear"]
    )
    return found


def _without_features(rows: Rows) -> Rows:
    return Rows(rows.features[:, -1:], rows.outcome)


def _gains(
    rows: Rows, subsets: list[Experts], full: Floats, anew: list[Floats]
) -> dict[str, dict[str, float]]:
    """How much more sets are worth with gates trained anew than with the full gate restricted."""
    measures = {
        "nats": (None, True),
        "points, mixture": (None, False),
        "points, choose": (1, False),
    }
    gained: dict[str, dict[str, float]] = {}
    for measure, (k, log) in measures.items():
        gaps = [
            rows.among(subset).value(refit, k, log)
            - rows.among(subset).value(full[:, subset], k, log)
            for subset, refit in zip(subsets, anew, strict=True)
        ]
        gained[measure] = _spread(gaps if log else [100 * gap for gap in gaps])
    return gained


def properties(logits: Floats, outcome: Floats) -> dict[str, dict[str, float]]:
    """Per aggregation how often the value of sets breaks the two properties, closed and not."""
    prompts = _prompts(logits, outcome)
    found = {}
    for name, (k, log) in AGGREGATIONS.items():
        values = Mixture(prompts, 1, k, log).totals(np.ones(1))
        found[name] = asdict(examine(values)) | {
            "falls_closed": examine(closure(values)[0]).falls,
            "range": float(np.ptp(values[1:])),
        }
    return found


def counterexample() -> dict[str, Any]:
    """A constant gate, three kinds of prompts: the best for all is not the best for two."""
    outcome = np.array([[0.9, 0.2, 0.3], [0.5, 0.9, 0.2], [0.1, 0.3, 0.9]])
    ones = np.ones((3, 1))
    full = gates.trained(gates.mixture_loss, ones, outcome, 0.0)
    pair = gates.trained(gates.mixture_loss, ones, outcome[:, :2], 0.0)
    found = {}
    for name, weights in (("all", full), ("pair anew", pair), ("pair restricted", full[:, :2])):
        gate = np.exp(weights[0]) / np.exp(weights[0]).sum()
        loss = gates.mixture_loss(ones @ weights, outcome[:, : weights.shape[1]])[0]
        found[name] = {"gate": gate.round(4).tolist(), "loss": round(loss, 4)}
    return found


def measured(train: Rows, held_out: Rows, known: dict[str, Floats]) -> dict[str, Any]:
    """Everything about one pool."""
    started = time.monotonic()
    preserved = preservation(train, held_out, np.random.default_rng(SEED))
    # tables are in the order of their sources
    drawn = np.random.default_rng(SEED).permutation(len(held_out.outcome))[:MOST_EXAMINED]
    seen = Rows(held_out.features[drawn], held_out.outcome[drawn])
    logits = {name: values[drawn] for name, values in known.items()}
    for name, gate in preserved.items():
        rows = _without_features(seen) if name == "constant" else seen
        logits[f"trained: {name}"] = rows.features @ gate.pop("weights")
    return {
        "n_experts": train.outcome.shape[1],
        "n_train": len(train.outcome),
        "n_held_out": len(held_out.outcome),
        "n_examined": len(seen.outcome),
        "preservation": preserved,
        "properties": {name: properties(h, seen.outcome) for name, h in logits.items()},
        "took_s": round(time.monotonic() - started, 1),
    }


def preserved_only(train: Rows, held_out: Rows) -> dict[str, Any]:
    """`preservation` without the weights."""
    found = preservation(train, held_out, np.random.default_rng(SEED))
    return {name: {k: v for k, v in gate.items() if k != "weights"} for name, gate in found.items()}


def _prompts(logits: Floats, outcome: Floats) -> Prompts:
    return Prompts(logits, outcome, np.zeros(len(logits), dtype=np.intp))


def _spread(gaps: list[float]) -> dict[str, float]:
    return {
        "mean": float(np.mean(gaps)),
        "most": float(np.max(gaps)),
        "least": float(np.min(gaps)),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", type=Path, default=DEFAULT_TABLES)
    parser.add_argument("--only", nargs="+", default=list(POOLS), metavar="POOL")
    options = parser.parse_args()
    rng = np.random.default_rng(SEED)
    train, held_out = simulated(rng)
    pools = {"simulated": measured(train, held_out, informed(held_out.outcome, rng))}
    if options.tables.is_dir():
        for pool, outcomes, _ in public.tables(options.tables, options.only):
            pools[pool.name] = measured(*recorded(outcomes, EPS), {})
            if pool.name == OTHER_EPS_POOL:
                pools[pool.name]["other eps"] = {
                    str(eps): preserved_only(*recorded(outcomes, eps)) for eps in OTHER_EPS
                }
            print(pool.name, pools[pool.name]["took_s"], "s", file=sys.stderr, flush=True)
    found = {
        "machine": calibration(),
        "seed": SEED,
        "eps": EPS,
        "n_subsets": N_SUBSETS,
        "counterexample": counterexample(),
        "pools": pools,
    }
    rounded = json.loads(json.dumps(found), parse_float=lambda figure: round(float(figure), 6))
    print(json.dumps(rounded, indent=2))


if __name__ == "__main__":
    main()
