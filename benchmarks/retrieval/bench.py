"""Whether the retrieval gate knows when to retrieve: accuracy against the share retrieved.

Reads answers of one expert to the same questions without retrieval, with one step and with several
steps of it, and multiple-choice answers of several experts; fits gates on `train` questions and
measures them on `dev` questions. Prints one JSON document, which says so where the data are absent.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from coe.kernels.gating import entropy
from coe.routers.calibration import reliability
from coe.routers.embed import Embedder, load_default
from coe.routers.folds import content_folds
from coe.routers.gate import Draft, RetrievalGate, decide, gate_features
from coe.routers.gate_training import fit_gate
from coe.routers.question import hedges

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

DATA = Path(__file__).parents[3] / "shared" / "data"
ONE_EXPERT = Path("retrieval", "retrieval_adarague.parquet")
SEVERAL_EXPERTS = Path("retrieval", "retrieval_realtimeqa.parquet")
CONDITIONS = {"one step": "one", "several steps": "multi"}
SHARES = tuple(k / 20 for k in range(21))
PRICES = (0.0, 0.02, 0.05)
N_RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Questions with one expert's answers. ``right`` and ``answers`` by condition."""

    texts: list[str]
    tasks: NDArray[np.str_]
    train: Bools
    right: Mapping[str, Floats]
    answers: Mapping[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> Questions:
        """The table in a Parquet file."""
        columns = pq.read_table(path).to_pydict()
        names = ("none", *CONDITIONS.values())
        return cls(
            columns["prompt"],
            np.array([task.partition(":")[2] for task in columns["source_task"]]),
            np.array(columns["split"]) == "train",
            {name: np.array(columns[f"acc_{name}"], dtype=float) for name in names},
            {name: [text or "" for text in columns[f"ans_{name}"]] for name in names},
        )


@dataclass(frozen=True, slots=True, eq=False)
class Dev:
    """Outcomes (n,) of the dev questions: without, with retrieval, with any retrieval."""

    without: Floats
    retrieved: Floats
    anyhow: Floats

    @property
    def best_constant(self) -> float:
        """Accuracy of the better of never and always."""
        return max(self.without.mean(), self.retrieved.mean())

    @property
    def oracle(self) -> float:
        """Accuracy when retrieval is used where only it is right."""
        return float(np.maximum(self.without, self.retrieved).mean())

    def at(self, rows: NDArray[np.int64]) -> Dev:
        """These questions."""
        return Dev(self.without[rows], self.retrieved[rows], self.anyhow[rows])


def accuracy(dev: Dev, chosen: Bools) -> float:
    """Share right when retrieval is used where ``chosen`` (n,)."""
    return float(np.where(chosen, dev.retrieved, dev.without).mean())


def gap_closed(dev: Dev, chosen: Bools) -> float:
    """Share of the way from the better constant policy to the oracle."""
    way = dev.oracle - dev.best_constant
    return (accuracy(dev, chosen) - dev.best_constant) / way if way > 0 else 0.0


def curve(dev: Dev, score: Floats) -> Floats:
    """(n + 1,) accuracy when the k questions of the highest score are retrieved for, k = 0..n."""
    order = np.argsort(-score, kind="stable")
    steps = np.cumsum((dev.retrieved - dev.without)[order]) / len(order)
    return dev.without.mean() + np.concatenate([[0.0], steps])


def area_over_chord(dev: Dev, score: Floats) -> float:
    """Mean height of the curve over the line from never to always, in points of accuracy."""
    chord = (dev.without.mean() + dev.retrieved.mean()) / 2
    return float(100 * (curve(dev, score).mean() - chord))


def need_auc(without: Floats, retrieved: Floats, score: Floats) -> float:
    """AUC of "wrong without, right with" among the questions that are right in some way."""
    others = np.sort(score[without > 0])
    need = score[(without == 0) & (retrieved > 0)]
    below = np.searchsorted(others, need, "left") + np.searchsorted(others, need, "right")
    return float(below.mean() / (2 * len(others)))


def interval(dev: Dev, score: Floats, figure: Callable[[Dev, Floats], float]) -> list[float]:
    """The figure and its 95 % bootstrap interval over questions."""
    rng, n = np.random.default_rng(SEED), len(score)
    draws = (rng.integers(0, n, n) for _ in range(N_RESAMPLES))
    values = [figure(dev.at(rows), score[rows]) for rows in draws]
    found = [figure(dev, score), *np.quantile(values, [0.025, 0.975])]
    return [round(float(value), 4) for value in found]


def ranking(dev: Dev, score: Floats, need: Floats | None = None) -> dict[str, Any]:
    """What a score is worth, whatever its threshold; ``need``: the one that the AUC is of.

    Hindsight picks the threshold on the very questions that are measured.
    """
    need = score if need is None else need
    heights = curve(dev, score)
    at = [round(float(heights[round(share * (len(heights) - 1))]), 4) for share in SHARES]
    way = dev.oracle - dev.best_constant
    reaches = np.flatnonzero(heights >= dev.retrieved.mean() - 1e-12) / (len(heights) - 1)
    return {
        "auc_needs_any_retrieval": interval(
            dev, need, lambda d, s: need_auc(d.without, d.anyhow, s)
        ),
        "auc_needs_this_retrieval": interval(
            dev, need, lambda d, s: need_auc(d.without, d.retrieved, s)
        ),
        "area_over_chord_points": interval(dev, score, area_over_chord),
        "hindsight_gap_closed": round(float(heights.max() - dev.best_constant) / way, 4),
        "hindsight_share_as_good_as_always": round(float(reaches.min()), 3),
        "curve": at,
    }


def decided(dev: Dev, chosen: Bools) -> dict[str, Any]:
    """What a policy that has decided comes to."""
    return {
        "share_retrieved": round(float(chosen.mean()), 3),
        "accuracy": round(accuracy(dev, chosen), 4),
        "gap_closed": interval(dev, chosen, gap_closed),
    }


def gate_arm(gate: RetrievalGate, features: Floats, dev: Dev) -> dict[str, Any]:
    """A gate by its ranking, by its decisions at fixed prices, and by its calibration."""
    unknown = [np.nan]
    without, retrieved = (p[:, 0] for p in gate.p_right(features, unknown))
    gain, need = gate.gain(features, unknown)[:, 0], gate.need(features, unknown)[:, 0]
    return {
        **ranking(dev, gain, need),
        "at_price": {str(price): decided(dev, decide(gain, price)) for price in PRICES},
        "ece": {
            "right_without": round(reliability(without, dev.without).error, 4),
            "right_retrieved": round(reliability(retrieved, dev.retrieved).error, 4),
        },
    }


def rarity(questions: Questions) -> Floats:
    """Mean rarity of a question's words among the training questions: popularity turned round."""
    words = [set(text.lower().split()) for text in questions.texts]
    held: dict[str, int] = {}
    for own, train in zip(words, questions.train, strict=True):
        for word in own if train else ():
            held[word] = held.get(word, 0) + 1
    n = int(questions.train.sum())
    return np.array(
        [np.mean([np.log((n + 1) / (held.get(w, 0) + 1)) for w in own]) for own in words]
    )


def with_router(questions: Questions, features: Floats, vectors: Floats) -> tuple[Floats, Floats]:
    """Log-probabilities of a router that guesses the source of a question, and their entropy.

    Of training questions they are out of fold.
    """
    inputs = np.nan_to_num(features[:, : features.shape[1] - vectors.shape[1]])
    inputs = np.hstack([inputs / np.maximum(inputs.std(axis=0), 1e-9), 8 * vectors])
    train, tasks = questions.train, questions.tasks
    router = LogisticRegression(C=0.1, max_iter=1000)
    p = np.zeros((len(tasks), len(set(tasks))))
    p[train] = cross_val_predict(router, inputs[train], tasks[train], cv=5, method="predict_proba")
    p[~train] = router.fit(inputs[train], tasks[train]).predict_proba(inputs[~train])
    return np.log(p + 0.01), entropy(p)


def feature_sets(questions: Questions, embedder: Embedder) -> dict[str, Floats]:
    """Inputs (n, d) of each learned gate. There is no index, so there is no evidence."""
    texts, n = questions.texts, len(questions.texts)
    vectors, blank, none = embedder.embed(texts), np.full(n, np.nan), [None] * n
    answers = questions.answers["none"]
    pairs = zip(answers, embedder.embed(answers), strict=True)
    drafts = [Draft(answer, vector) for answer, vector in pairs]
    plain = gate_features(texts, vectors, blank, none)
    logs, doubt = with_router(questions, plain, vectors)
    drafted = gate_features(texts, vectors, blank, none, drafts)
    source = (questions.tasks[:, None] == np.unique(questions.tasks)).astype(float)
    return {
        "gate": plain,
        "gate, router of sources": gate_features(texts, np.hstack([vectors, logs]), doubt, none),
        "gate, source given": np.hstack([plain, source]),
        "gate, draft": drafted,
        "gate, draft, source given": np.hstack([drafted, source]),
    }


def one_class(features: Floats, train: Bools, without: Floats, retrieved: Floats) -> Floats:
    """Scores of a single classifier of need against hurt and both, neither left out."""
    fit = train & ((without + retrieved) > 0)
    mean = np.nan_to_num(np.nanmean(np.where(np.isfinite(features), features, 0.0), axis=0))
    inputs = np.nan_to_num(features - mean) / np.maximum(np.nan_to_num(features).std(axis=0), 1 / 6)
    need = LogisticRegression(C=0.003, max_iter=1000, class_weight="balanced")
    return need.fit(inputs[fit], 1 - without[fit]).predict_proba(inputs)[:, 1]


def condition_arms(
    questions: Questions, condition: str, sets: Mapping[str, Floats]
) -> dict[str, Any]:
    """Every policy where retrieving means this condition."""
    train, held_out = questions.train, ~questions.train
    without, retrieved = questions.right["none"], questions.right[condition]
    anyhow = np.maximum.reduce([questions.right[name] for name in CONDITIONS.values()])
    dev = Dev(without[held_out], retrieved[held_out], anyhow[held_out])
    n = int(held_out.sum())
    never, always = np.zeros(n, dtype=bool), np.ones(n, dtype=bool)
    gates = {
        name: fit_gate(X[train], without[train, None], retrieved[train, None], [np.nan])
        for name, X in sets.items()
    }
    unknown = [np.nan]
    doubt = {
        name: 1 - gates[name].p_right(X[held_out], unknown)[0][:, 0] for name, X in sets.items()
    }
    arms: dict[str, Any] = {
        "never": decided(dev, never),
        "always": decided(dev, always),
        "random, half": {
            "share_retrieved": 0.5,
            "accuracy": round(float(dev.without.mean() + dev.retrieved.mean()) / 2, 4),
        },
        "oracle": decided(dev, dev.retrieved > dev.without),
        "rare words": ranking(dev, rarity(questions)[held_out]),
        "low P(right without)": ranking(dev, doubt["gate"]),
        "low P(right without), draft": ranking(dev, doubt["gate, draft"]),
        "need classifier, draft": ranking(
            dev, one_class(sets["gate, draft"], train, without, retrieved)[held_out]
        ),
    }
    for name, gate in gates.items():
        arms[name] = gate_arm(gate, sets[name][held_out], dev)
    arms.update(declining(questions, condition, dev, gates["gate, draft"], sets["gate, draft"]))
    chosen = decide(gates["gate, draft"].gain(sets["gate, draft"][held_out], unknown)[:, 0], 0.0)
    return {
        "n_dev": n,
        "need": round(float((dev.retrieved > dev.without).mean()), 4),
        "hurt": round(float((dev.retrieved < dev.without).mean()), 4),
        "arms": arms,
        "sources_gate_draft_price_0": by_source(questions.tasks[held_out], dev, chosen),
    }


def cross_validated(
    questions: Questions, condition: str, sets: Mapping[str, Floats]
) -> dict[str, Any]:
    """The gates on held-out folds of the training questions: 3.7 times as many as dev has."""
    rows = np.flatnonzero(questions.train)
    without, retrieved = questions.right["none"][rows], questions.right[condition][rows]
    anyhow = np.maximum.reduce([questions.right[name][rows] for name in CONDITIONS.values()])
    folds = content_folds([questions.texts[row] for row in rows], 5, SEED)
    dev, found = Dev(without, retrieved, anyhow), {}
    for name in ("gate", "gate, draft", "gate, draft, source given"):
        gain, need = np.zeros(len(rows)), np.zeros(len(rows))
        for fold in range(5):
            kept, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            gate = fit_gate(
                sets[name][rows[kept]], without[kept, None], retrieved[kept, None], [np.nan]
            )
            gain[out] = gate.gain(sets[name][rows[out]], [np.nan])[:, 0]
            need[out] = gate.need(sets[name][rows[out]], [np.nan])[:, 0]
        found[name] = {
            **ranking(dev, gain, need),
            "at_price": {str(price): decided(dev, decide(gain, price)) for price in PRICES},
        }
    return found


def declining(
    questions: Questions, condition: str, dev: Dev, gate: RetrievalGate, features: Floats
) -> dict[str, Any]:
    """As without, but an answer from passages that says it does not know gives way to the draft."""
    held_out = ~questions.train
    says_no = np.array([hedges(text) for text in questions.answers[condition]])[held_out]
    gains = gate.gain(features[held_out], [np.nan])[:, 0]
    return {
        name: {**decided(dev, chosen & ~says_no), "share_retrieved": round(float(chosen.mean()), 3)}
        for name, chosen in {
            "always, draft where it declines": np.ones_like(says_no),
            "gate, draft, price 0, draft where it declines": decide(gains, 0.0),
        }.items()
    }


def by_source(tasks: NDArray[np.str_], dev: Dev, chosen: Bools) -> dict[str, Any]:
    """The same source by source."""
    table = {}
    for task in np.unique(tasks):
        rows = np.flatnonzero(tasks == task)
        own = dev.at(rows)
        table[str(task)] = {
            "n": len(rows),
            "never": round(float(own.without.mean()), 3),
            "always": round(float(own.retrieved.mean()), 3),
            "gate": round(accuracy(own, chosen[rows]), 3),
            "oracle": round(own.oracle, 3),
            "share_retrieved": round(float(chosen[rows].mean()), 3),
        }
    return table


def several_experts(path: Path, embedder: Embedder) -> dict[str, Any]:
    """What it is worth to tell the gate the strength of the expert."""
    columns = pq.read_table(path).to_pydict()
    texts, train = columns["prompt"], np.array(columns["split"]) == "train"
    names = [name[8:] for name in columns if name.startswith("closed__")]
    without, retrieved = (
        np.column_stack([np.array(columns[f"{kind}__{name}"], dtype=float) for name in names])
        for kind in ("closed", "retrieval")
    )
    X = gate_features(
        texts, embedder.embed(texts), np.full(len(texts), np.nan), [None] * len(texts)
    )
    strength = np.nanmean(without[train], axis=0)
    cells = np.nonzero(~np.isnan(without[~train]) & ~np.isnan(retrieved[~train]))
    dev = Dev(*(scores[~train][cells] for scores in (without, retrieved, retrieved)))
    found: dict[str, Any] = {
        "n_experts": len(names),
        "n_dev_cells": len(dev.without),
        "never": round(float(dev.without.mean()), 4),
        "always": round(float(dev.retrieved.mean()), 4),
        "oracle": round(dev.oracle, 4),
    }
    for name, own in {"strength": strength, "no strength": np.full(len(names), np.nan)}.items():
        gate = fit_gate(X[train], without[train], retrieved[train], own)
        gain, need = (figures(X[~train], own)[cells] for figures in (gate.gain, gate.need))
        found[name] = {
            "auc_need": round(need_auc(dev.without, dev.retrieved, need), 4),
            "gap_closed_price_0": round(gap_closed(dev, decide(gain, 0.0)), 4),
            "area_over_chord_points": round(area_over_chord(dev, gain), 3),
        }
    return found


def plot(path: Path, conditions: Mapping[str, Any]) -> None:
    """Draw the curves of both conditions."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(conditions), figsize=(11, 4.4), layout="constrained")
    drawn = (
        *("rare words", "low P(right without)", "gate", "gate, draft"),
        "gate, draft, source given",
    )
    for axis, (title, found) in zip(axes, conditions.items(), strict=True):
        arms = found["arms"]
        ends = [arms[name]["accuracy"] for name in ("never", "always")]
        axis.plot([0, 1], ends, "--", color="grey", label="random")
        for name in drawn:
            axis.plot(SHARES, arms[name]["curve"], label=name)
        oracle = arms["oracle"]
        axis.plot(oracle["share_retrieved"], oracle["accuracy"], "k*", label="oracle")
        axis.set(title=title, xlabel="share retrieved", ylabel="accuracy (dev)")
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=110)


def gate_ms(questions: Questions, embedder: Embedder, gate: RetrievalGate) -> float:
    """Milliseconds of features and gain for one question, embedding and search apart."""
    vectors, times = embedder.embed(questions.texts[:300]), []
    for text, vector in zip(questions.texts, vectors, strict=False):
        started = time.perf_counter()
        gate.gain(gate_features([text], vector[None], [np.nan], [None]), [np.nan])
        times.append(time.perf_counter() - started)
    return round(1000 * float(np.median(times)), 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument(
        "--cross-validate", action="store_true", help="the gates on training questions too: slow"
    )
    parser.add_argument("--plot", type=Path, help="write the curves as a picture")
    arguments = parser.parse_args()
    absent = [str(f) for f in (ONE_EXPERT, SEVERAL_EXPERTS) if not (arguments.data / f).is_file()]
    if absent:
        print(json.dumps({"skipped": f"no {' and no '.join(absent)} under --data"}))
        return
    started = time.process_time()
    embedder = load_default()
    questions = Questions.read(arguments.data / ONE_EXPERT)
    sets = feature_sets(questions, embedder)
    conditions = {
        name: condition_arms(questions, condition, sets) for name, condition in CONDITIONS.items()
    }
    train = questions.train
    scores = (questions.right[name][train, None] for name in ("none", "one"))
    gate = fit_gate(sets["gate"][train], *scores, [np.nan], penalties=(0.003,))
    result = {
        "machine": calibration(),
        "seed": SEED,
        "n_resamples": N_RESAMPLES,
        "n_train": int(train.sum()),
        "gate_ms": gate_ms(questions, embedder, gate),
        "conditions": conditions,
        "several_experts": several_experts(arguments.data / SEVERAL_EXPERTS, embedder),
        "cpu_seconds": round(time.process_time() - started, 1),
    }
    if arguments.cross_validate:
        result["cross_validated_on_train"] = {
            name: cross_validated(questions, condition, sets)
            for name, condition in CONDITIONS.items()
        }
    if arguments.plot:
        plot(arguments.plot, conditions)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
