"""Time, memory and quality of the prompt embedders, as one JSON document.

    python benchmarks/embedder/bench.py [--prompts FILE.jsonl] [--parquet FILE --scheme NAME ...]

Labelled prompts come from a JSONL file (``prompt``, ``category``) or from a Parquet file
(``scheme``, ``label``, ``prompt``). Quality is the accuracy of five-fold cross-validation.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import sklearn
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer

from coe.routers.embed import (
    CachedEmbedder,
    Embedder,
    JointEmbedder,
    default_embedder_path,
)
from coe.routers.lexical import LexicalEmbedder
from coe.routers.static import StaticEmbedder

N_FOLDS, MIN_ROWS_PER_LABEL, N_REPEATS = 5, 10, 1000
TEXT = (
    "Please write a short report for the board about the customers of the bank: sort them by "
    "balance, explain the three largest changes since last year, and solve for the interest rate "
    "at which the total would have stayed constant. Show every step, then give a Python function. "
)


def percentiles_ms(call: Callable[[], Any]) -> dict[str, float]:
    """Median and 99th percentile of the time of a call, ms."""
    times = []
    for _ in range(N_REPEATS):
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    return {f"p{q}": round(float(np.percentile(times, q)), 4) for q in (50, 99)}


def rss_mib() -> float:
    """Resident memory of this process, MiB (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def calibration_ms() -> dict[str, float]:
    """Best and worst of ten times of a fixed pure-Python loop, ms: how quiet the machine was."""
    times = []
    for _ in range(10):
        start = time.perf_counter()
        sum(i * i for i in range(300_000))
        times.append((time.perf_counter() - start) * 1e3)
    return {"best": round(min(times), 1), "worst": round(max(times), 1)}


def prompt_of(embedder: StaticEmbedder, n_tokens: int) -> str:
    """English prompt of about ``n_tokens`` tokens."""
    words, text = (TEXT * 20).split(), ""
    while len(embedder.tokenizer.encode(text).ids) < n_tokens:
        text = f"{text} {words.pop(0)}".strip()
    return text


def latencies(embedder: Embedder, prompts: dict[str, str]) -> dict[str, dict[str, float]]:
    """Times of an embedder per prompt, and of the second prompt out of the cache, ms."""
    cached, repeated = CachedEmbedder(embedder), [prompts["200 tokens"]]
    cached.embed(repeated)
    times = {
        name: percentiles_ms(lambda text=text: embedder.embed([text]))
        for name, text in prompts.items()
    }
    return times | {"200 tokens, cached": percentiles_ms(lambda: cached.embed(repeated))}


def measure_speed() -> tuple[dict[str, Embedder], dict[str, Any]]:
    """The shipped embedders, their load time, memory and latencies."""
    before, start = rss_mib(), time.perf_counter()
    static = StaticEmbedder.load(default_embedder_path())
    load_ms, rss = (time.perf_counter() - start) * 1e3, rss_mib() - before
    lexical = LexicalEmbedder()
    embedders = {
        "static": static,
        "lexical": lexical,
        "static and lexical": JointEmbedder((static, lexical)),
    }
    prompts = {f"{n} tokens": prompt_of(static, n) for n in (20, 200, 300)}
    prompts["100,000 characters"] = (TEXT * 400)[:100_000]
    files = {f.name: f.stat().st_size for f in sorted(default_embedder_path().iterdir())}
    return embedders, {
        "bytes": files,
        "load_ms": round(load_ms, 1),
        "rss_mib": {"static": round(rss, 1), "its table": round(static.rows.nbytes / 2**20, 1)},
        "latency_ms": {name: latencies(each, prompts) for name, each in embedders.items()},
    }


def contenders(embedders: dict[str, Embedder]) -> dict[str, Pipeline]:
    """Classifiers to compare; one regularisation for all, chosen beforehand."""

    def regression() -> LogisticRegression:
        return LogisticRegression(C=10, max_iter=500)

    def tfidf() -> TfidfVectorizer:
        return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)

    def vectors(name: str) -> FunctionTransformer:
        return FunctionTransformer(lambda texts: embedders[name].embed(list(texts)))

    compared = {
        "TF-IDF": make_pipeline(tfidf(), regression()),
        "hashing": make_pipeline(
            HashingVectorizer(n_features=4096, ngram_range=(1, 2)), regression()
        ),
        "static and TF-IDF": make_pipeline(make_union(vectors("static"), tfidf()), regression()),
    }
    for name in embedders:
        nearest = KNeighborsClassifier(10, metric="cosine", weights="distance")
        compared[name] = make_pipeline(vectors(name), regression())
        compared[f"{name}, 10-NN"] = make_pipeline(vectors(name), nearest)
    return compared


def measure_quality(
    embedders: dict[str, Embedder], prompts: list[str], labels: list[str], limit: int
) -> dict[str, Any]:
    """Accuracy of every contender: mean and standard deviation over the folds."""
    chosen = np.random.default_rng(0).permutation(len(prompts))[:limit]
    count = Counter(labels[i] for i in chosen)
    chosen = [i for i in chosen if count[labels[i]] >= MIN_ROWS_PER_LABEL]
    X, y = [prompts[i] for i in chosen], [labels[i] for i in chosen]
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    accuracy = {}
    for name, classifier in contenders(embedders).items():
        scores = cross_val_score(classifier, X, y, cv=folds)
        accuracy[name] = {"mean": round(scores.mean(), 3), "sd": round(scores.std(), 3)}
    majority = max(Counter(y).values()) / len(y)
    counts = {"n_prompts": len(y), "n_labels": len(set(y))}
    return {**counts, "majority": round(majority, 3), "accuracy": accuracy}


def labelled(options: argparse.Namespace) -> dict[str, tuple[list[str], list[str]]]:
    """Prompts and labels per data set."""
    sets = {}
    if options.prompts:
        rows = [json.loads(line) for line in options.prompts.read_text().splitlines() if line]
        sets[options.prompts.stem] = [r["prompt"] for r in rows], [r["category"] for r in rows]
    if options.parquet:
        table = pq.read_table(options.parquet, columns=["scheme", "label", "prompt"]).to_pylist()
        for scheme in options.scheme:
            rows = [row for row in table if row["scheme"] == scheme]
            sets[scheme] = [r["prompt"] for r in rows], [r["label"] for r in rows]
    return sets


def main() -> None:
    """Print the document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=Path, help="JSONL of prompt and category")
    parser.add_argument("--parquet", type=Path, help="Parquet of scheme, label and prompt")
    parser.add_argument("--scheme", action="append", default=[], help="may be repeated")
    parser.add_argument("--limit", type=int, default=4000, help="most prompts per data set")
    options = parser.parse_args()
    calibration = calibration_ms()
    embedders, speed = measure_speed()
    quality = {
        name: measure_quality(embedders, prompts, labels, options.limit)
        for name, (prompts, labels) in labelled(options).items()
    }
    versions = {"python": platform.python_version(), "scikit-learn": sklearn.__version__}
    document = {"calibration_ms": calibration, "versions": versions, **speed, "quality": quality}
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
