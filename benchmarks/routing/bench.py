"""The router against every plainer one, on public tables of real outcomes.

    python benchmarks/routing/bench.py [--tables FOLDER] [--only POOL ...]
        [--peers PYTHON [--installed ROUTER ...] [--picks FOLDER]]

Train on `train`, tune on held-out training prompts, report on `dev`. Prints one JSON document;
a pool's part goes to stderr as it comes. Without the tables, which are not part of this project,
only the experts that ship are reported. `--peers` names the Python of the environment that
`peers/environment.sh` makes: the routers of llmrouter-lib and RouteLLM (all, or those `--installed`
names) then run on the same splits and vectors; the peers of `peers/baselines.py` run always.
What the installed ones pick is kept in the folder `--picks`, so that it need not be computed again
for the same split: they take most of the time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import embedded
import numpy as np
import tables as public
from numpy.typing import NDArray
from peers import baselines, exchange

from coe.core import ExpertSpec, Policy, Prices
from coe.evaluation import Evaluation, evaluate
from coe.router import Router
from coe.routers.artefact import Artefact
from coe.routers.bootstrap import interval, resampled_means
from coe.routers.embed import MEANING_DIM, CachedEmbedder, Embedder, load_default
from coe.routers.frontier import Blend, Point, cheapest
from coe.routers.outcomes import Outcomes
from coe.routers.train import embed_all, train
from coe.services.cli.evaluate import document

DEFAULT_TABLES = Path(__file__).parents[3] / "shared" / "data" / "outcomes"
SHUFFLED = ("routerdc", "llmrouter_9", "openllm <=10B", "mmlupro chat")  # pools of the null test
POINTS_GIVEN_UP = 0.01
SLOW = ("routerbench_mlp",)  # a neural network per expert: minutes for the smallest table
SEED = 0
N_RESAMPLES = 2000

Floats = NDArray[np.float64]
Picks = NDArray[np.int64]


def compared(
    outcomes: Outcomes, picks: dict[str, Picks], single: int, ours: Floats
) -> dict[str, dict[str, Any]]:
    """Score of each pick and its difference to the best single expert and to arm ``coe``."""
    here = np.arange(len(outcomes.prompts))
    names = list(picks)
    scores = np.column_stack([outcomes.scores[here, picks[name]] for name in names])
    values = np.column_stack([scores, outcomes.scores[:, single], ours])
    means = resampled_means(values, N_RESAMPLES, np.random.default_rng(SEED))
    found = {}
    for k, name in enumerate(names):
        gain = interval(means[:, [k]] - means[:, [-2]])[0]
        behind = interval(means[:, [-1]] - means[:, [k]])[0]
        found[name] = {
            "score": round(float(values[:, k].mean()), 4),
            "delta_best_single": round(float((values[:, k] - values[:, -2]).mean()), 4),
            "delta_ci95": gain.round(4).tolist(),
            "coe_ahead_by": round(float((values[:, -1] - values[:, k]).mean()), 4),
            "coe_ahead_ci95": behind.round(4).tolist(),
        }
    return found


@dataclass(frozen=True, slots=True)
class Installed:
    """The routers of other packages.

    Parameters
    ----------
    python : the interpreter of their environment.
    routers : which of them; empty: all.
    kept : the folder that keeps splits and picks; ``None``: they are forgotten.
    """

    python: Path
    routers: tuple[str, ...] = ()
    kept: Path | None = None

    def answers(self, pool: str, split: exchange.Split) -> dict[str, Any]:
        """What `peers/run.py` says of each router."""
        with self._folder(pool) as folder:
            out = folder / "picks.json"
            if not exchange.holds(folder, split):
                out.unlink(missing_ok=True)
                exchange.write_split(folder, split)
            script = Path(__file__).parent / "peers" / "run.py"
            chosen = ["--routers", *self.routers] if self.routers else []
            command = [self.python, script, folder, "--out", out, *chosen]
            subprocess.run(command, check=True, stdout=sys.stderr)
            return dict(json.loads(out.read_text()))

    @contextlib.contextmanager
    def _folder(self, pool: str) -> Iterator[Path]:
        if self.kept is not None:
            yield self.kept / re.sub(r"\W+", "-", pool)
            return
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)


def peer_picks(
    pool: str, split: exchange.Split, installed: Installed | None
) -> tuple[dict[str, Picks], dict[str, Any]]:
    """What published routers pick, and what is to be said of those that are installed."""
    picks = {
        name: router(split, np.random.default_rng(SEED))
        for name, router in baselines.BASELINES.items()
        if name not in SLOW
    }
    answers = installed.answers(pool, split) if installed else {}
    ran = {name: np.array(answer["picks"]) for name, answer in answers.items() if "picks" in answer}
    hidden = ("picks", "strong_win_rate")  # a figure for each prompt
    said = {name: {k: v for k, v in a.items() if k not in hidden} for name, a in answers.items()}
    return picks | ran, said


def split_of(learnt: Outcomes, asked: Outcomes, embedder: Embedder) -> exchange.Split:
    """What a peer may see of a pool."""
    return exchange.Split(
        X_train=embed_all(embedder, learnt.prompts),
        scores_train=learnt.scores,
        X_dev=embed_all(embedder, asked.prompts),
        prompts_train=list(learnt.prompts),
        prompts_dev=list(asked.prompts),
        experts=list(learnt.expert_ids),
        seed=SEED,
        sizes_b={},
    )


def within_a_point(artefact: Artefact, learnt: Outcomes) -> Blend | None:
    """The cheapest blend of prices that gave up at most a point on held-out training prompts."""
    curve = artefact.training["held_out"]["curves"].get("cost_usd", [])
    least = float(np.nanmean(learnt.scores, axis=0).max()) - POINTS_GIVEN_UP
    return cheapest([Point(**point) for point in curve], least)


def priced(blend: Blend | None) -> dict[str, Policy]:
    """A policy for each price of a blend."""
    if blend is None:
        return {}
    points = {"dear": blend.first, "cheap": blend.second}
    return {name: Policy(name, prices=Prices(per_usd=at.price)) for name, at in points.items()}


def saved(blend: Blend | None, found: Evaluation) -> dict[str, Any] | None:
    """Score and share of the best single expert's dollars that the blend has on these prompts."""
    arms = {arm.name: arm for arm in found.arms}
    single = arms[f"always {found.best_single}"]
    if blend is None or single.cost_usd is None:
        return None
    dear, cheap = arms["coe dear"], arms["coe cheap"]
    assert dear.cost_usd is not None
    assert cheap.cost_usd is not None
    return {
        "prices_per_usd": [blend.first.price, blend.second.price],
        "share": round(blend.share, 4),
        "delta_best_single": round(blend.mean(dear.score, cheap.score) - single.score, 4),
        "cost_ratio": round(blend.mean(dear.cost_usd, cheap.cost_usd) / single.cost_usd, 4),
    }


def shuffled_gain(outcomes: Outcomes, embedder: Embedder, single: int) -> dict[str, Any]:
    """Null test: with the outcomes of training prompts shuffled, what routing seems to gain."""
    training = np.flatnonzero(outcomes.splits == "train")
    scores = outcomes.scores.copy()
    scores[training] = scores[np.random.default_rng(SEED).permutation(training)]
    artefact = train(replace(outcomes, scores=scores), embedder, features=MEANING_DIM)
    asked = outcomes.rows(outcomes.splits == "test")
    X = embed_all(embedder, asked.prompts)
    quality = artefact.expectation.of(X, artefact.category.assess(X)).quality
    gains = asked.scores[np.arange(len(X)), quality.argmax(axis=1)] - asked.scores[:, single]
    gains = gains[~np.isnan(gains)]
    half = 1.96 * gains.std() / np.sqrt(gains.size)
    return {
        "gain": round(float(gains.mean()), 4),
        "ci95": [round(float(gains.mean() - half), 4), round(float(gains.mean() + half), 4)],
        "declined": artefact.training["held_out"]["declined"],
    }


def measured(
    pool: public.Pool,
    outcomes: Outcomes,
    specs: dict[str, ExpertSpec],
    installed: Installed | None,
) -> dict[str, Any]:
    """Everything about one pool."""
    embedder = CachedEmbedder(load_default(), n_entries=50_000)
    embed_all(embedder, outcomes.prompts)
    started = time.monotonic()
    artefact = train(outcomes, embedder, specs, MEANING_DIM)
    train_s = time.monotonic() - started
    learnt = outcomes.rows(outcomes.splits == "train")
    router = Router(embedder, artefact, specs)
    blend = within_a_point(artefact, learnt)
    found = evaluate(router, outcomes, pool.name, policies=priced(blend), n_resamples=N_RESAMPLES)
    asked = outcomes.rows(outcomes.splits == "test")
    asked = asked.rows(np.all(~np.isnan(asked.scores), axis=1))
    single = outcomes.expert_ids.index(found.best_single)
    X = embed_all(embedder, asked.prompts)
    quality = artefact.expectation.of(X, artefact.category.assess(X)).quality
    ours = asked.scores[np.arange(len(X)), quality.argmax(axis=1)]
    picks, said = peer_picks(pool.name, split_of(learnt, asked, embedder), installed)
    held_out = {k: v for k, v in artefact.training["held_out"].items() if k != "curves"}
    report = document(found)
    del report["curves"]
    return {
        "n_train": len(learnt.prompts),
        "n_experts": len(outcomes.expert_ids),
        "train_s": round(train_s, 1),
        "held_out": held_out,
        "evaluation": report,
        "within_a_point": saved(blend, found),
        "peers": compared(asked, picks, single, ours),
        "installed_peers": said,
        "shuffled": shuffled_gain(outcomes, embedder, single) if pool.name in SHUFFLED else None,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tables", type=Path, default=DEFAULT_TABLES)
    parser.add_argument("--only", nargs="+", default=[], metavar="POOL")
    parser.add_argument("--peers", type=Path, metavar="PYTHON")
    parser.add_argument("--installed", nargs="+", default=[], metavar="ROUTER")
    parser.add_argument("--picks", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    installed = options.peers and Installed(options.peers, tuple(options.installed), options.picks)
    pools: dict[str, Any] = {}
    if options.tables.is_dir():
        for pool, outcomes, specs in public.tables(options.tables, options.only):
            pools[pool.name] = measured(pool, outcomes, specs, installed)
            print(pool.name, json.dumps(pools[pool.name]), file=sys.stderr, flush=True)
    found = {
        "seed": SEED,
        "n_resamples": N_RESAMPLES,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "embedded": embedded.measured(["test"]),
        "pools": pools or f"no tables in {options.tables.name}: skipped",
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
