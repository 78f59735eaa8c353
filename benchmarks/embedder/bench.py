"""Time, memory and quality of prompt embedders, as one JSON document.

    python benchmarks/embedder/bench.py [--outcomes FOLDER] [--minilm FOLDER [--vectors FOLDER]]
        [--endpoint URL --model NAME] [--prompts FILE.jsonl] [--parquet FILE --scheme NAME ...]

Labelled prompts come from a JSONL file (``prompt``, ``category``) or from a Parquet file
(``scheme``, ``label``, ``prompt``); their measure is the accuracy of five-fold cross-validation.
Outcome tables, if their folder is given, show what a better embedder is worth in routing.
Everything runs in one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import sklearn
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from sklearn.feature_extraction.text import HashingVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline, make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer
from threadpoolctl import threadpool_limits
from tokenizers import Tokenizer

from coe.embedders import EndpointSection
from coe.routers.embed import (
    CachedEmbedder,
    Embedder,
    JointEmbedder,
    default_embedder_path,
    stacked,
)
from coe.routers.lexical import LexicalEmbedder
from coe.routers.static import StaticEmbedder
from coe.services.embedding import HttpEmbedder

ROOT = Path(__file__).resolve().parents[2]
N_FOLDS, MIN_ROWS_PER_LABEL, N_REPEATS, MAX_REPEATING_S = 5, 10, 1000, 4.0
TABLES = ("routerdc_7models", "llmrouter_9models", "openllm_v2_18models")
SHRINKAGE = 20  # prompts that the mean over all categories counts for
MINILM_TOKENS = 128
TEXT = (
    "Please write a short report for the board about the customers of the bank: sort them by "
    "balance, explain the three largest changes since last year, and solve for the interest rate "
    "at which the total would have stayed constant. Show every step, then give a Python function. "
)


@dataclass(frozen=True)
class MiniLM:
    """The encoder that the static table was distilled from, in numpy; reads 128 tokens."""

    tokenizer: Tokenizer
    weights: dict[str, NDArray[np.float32]]
    forward: Callable[..., NDArray[np.float32]]
    name: str = "minilm"
    dim: int = 384

    @classmethod
    def load(cls, folder: Path) -> MiniLM:
        """Of upstream's files, by the forward pass of ``data/embedder/distil.py``."""
        spec = importlib.util.spec_from_file_location("distil", ROOT / "data/embedder/distil.py")
        assert spec
        assert spec.loader
        distil = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(distil)
        tokenizer = Tokenizer.from_buffer(distil.read_verified(folder, "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(MINILM_TOKENS)
        weights = load_tensors(distil.read_verified(folder, "model.safetensors"))
        return cls(tokenizer, weights, distil.minilm)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors; equally long texts in batches of 32."""
        ids = [self.tokenizer.encode(text).ids for text in texts]
        lengths = np.array([len(row) for row in ids])
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for length in np.unique(lengths):
            same = np.flatnonzero(lengths == length)
            for rows in np.split(same, range(32, len(same), 32)):
                vectors[rows] = self.forward(np.array([ids[k] for k in rows]), self.weights)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class Endpoint:
    """An endpoint as serving asks it: over connections that stay open."""

    def __init__(self, inner: HttpEmbedder) -> None:
        self.inner, self.name, self.dim = inner, inner.name, inner.dim
        self.runner = asyncio.Runner()
        self.client = httpx.AsyncClient(trust_env=False)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors, by 32 texts a call."""
        known: dict[str, Any] = {}
        for start in range(0, len(texts), 32):
            batch = texts[start : start + 32]
            known |= self.runner.run(self.inner.fetch(self.client, batch))
        return stacked(texts, known, self.dim)

    def close(self) -> None:
        """Close the connections."""
        self.runner.run(self.client.aclose())
        self.runner.close()


def percentiles_ms(call: Callable[[], Any]) -> dict[str, float]:
    """Best, median and 99th percentile of the time of a call, ms; a slow call is repeated less.

    The best says what a call takes on a machine that has nothing else to do.
    """
    times: list[float] = []
    while len(times) < N_REPEATS and sum(times) < MAX_REPEATING_S * 1e3:
        start = time.perf_counter()
        call()
        times.append((time.perf_counter() - start) * 1e3)
    quantiles = {"best": 0, "p50": 50, "p99": 99}
    return {name: round(float(np.percentile(times, q)), 4) for name, q in quantiles.items()}


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


def measure_speed(more: dict[str, Embedder]) -> tuple[dict[str, Embedder], dict[str, Any]]:
    """The shipped embedders and ``more``; load time, memory and latencies."""
    before, start = rss_mib(), time.perf_counter()
    static = StaticEmbedder.load(default_embedder_path())
    load_ms, rss = (time.perf_counter() - start) * 1e3, rss_mib() - before
    lexical = LexicalEmbedder()
    embedders: dict[str, Embedder] = {
        "lexical": lexical,
        "static": static,
        "default": JointEmbedder((static, lexical)),
        **more,
    }
    prompts = {f"{n} tokens": prompt_of(static, n) for n in (20, 200, 300)}
    prompts["100,000 characters"] = (TEXT * 400)[:100_000]
    files = {f.name: f.stat().st_size for f in sorted(default_embedder_path().iterdir())}
    times = {name: latencies(each, prompts) for name, each in embedders.items()}
    return embedders, {
        "bytes": files,
        "load_ms": round(load_ms, 1),
        "rss_mib": {"static": round(rss, 1), "its table": round(static.rows.nbytes / 2**20, 1)},
        "latency_ms": times | {"TF-IDF": tfidf_latencies(prompts)},
    }


def tfidf_latencies(prompts: dict[str, str]) -> dict[str, dict[str, float]]:
    """Times of the TF-IDF baseline, whose vocabulary is that of this repository's prompts, ms."""
    texts = [json.loads(line)["prompt"] for line in default_prompts().read_text().splitlines()]
    vectoriser = tfidf().fit(texts)
    return {
        name: percentiles_ms(lambda text=text: vectoriser.transform([text]))
        for name, text in prompts.items()
    }


def regression() -> LogisticRegression:
    """One regularisation for all, chosen beforehand."""
    return LogisticRegression(C=10, max_iter=500)


def tfidf() -> TfidfVectorizer:
    """The baseline: words and pairs, the 20,000 most frequent."""
    return TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2, max_features=20_000)


def contenders(embedders: dict[str, Embedder]) -> dict[str, Pipeline]:
    """Classifiers to compare."""

    def vectors(name: str) -> FunctionTransformer:
        # a cache: every fold asks for the same prompts
        cached = CachedEmbedder(embedders[name], n_entries=100_000)
        return FunctionTransformer(lambda texts: cached.embed(list(texts)))

    compared = {
        "TF-IDF": make_pipeline(tfidf(), regression()),
        "hashing": make_pipeline(
            HashingVectorizer(n_features=4096, ngram_range=(1, 2)), regression()
        ),
        "static and TF-IDF": make_pipeline(make_union(vectors("static"), tfidf()), regression()),
    }
    for name in embedders:
        nearest = KNeighborsClassifier(10, metric="cosine", weights="distance")
        transformer = vectors(name)
        compared[name] = make_pipeline(transformer, regression())
        compared[f"{name}, 10-NN"] = make_pipeline(transformer, nearest)
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


@dataclass(frozen=True)
class Table:
    """Prompts with their categories and the scores of every expert; NaN where there is none."""

    name: str
    prompts: NDArray[np.object_]
    categories: NDArray[np.str_]
    scores: NDArray[np.float64]
    is_train: NDArray[np.bool_]

    @classmethod
    def read(cls, path: Path) -> Table:
        """The outcome table in a Parquet file; its other split is ``dev``."""
        table = pq.read_table(path)
        scores = [name for name in table.column_names if name.startswith("score__")]
        return cls(
            name=path.stem,
            prompts=np.array(table["prompt"].to_pylist(), dtype=object),
            categories=np.array(table["category"].to_pylist()),
            scores=np.column_stack([table[name].to_numpy() for name in scores]).astype(float),
            is_train=np.array(table["split"].to_pylist()) == "train",
        )


def measure_routing(
    table: Table, embedders: dict[str, Embedder], vectors: Path | None
) -> dict[str, Any]:
    """Gain of a fixed simple router over the best single expert of train, on dev, per embedder.

    A regression on ``train`` gives P(category | prompt), which weighs the rows of a shrunk table
    of mean scores; the expert of the largest mixed score answers. Every difference is a mean over
    the same prompts, with its standard error.
    """
    fit, dev = table.is_train, ~table.is_train
    names = np.unique(table.categories[fit])
    means = shrunk_means(table.scores[fit], table.categories[fit], names)
    best = int(np.nanmean(table.scores[fit], axis=0).argmax())
    scores = table.scores[dev]
    scores = np.where(np.isnan(scores), np.nanmean(table.scores[fit], axis=0), scores)

    def routed(expected: NDArray[np.float64]) -> NDArray[np.float64]:
        return scores[np.arange(len(scores)), expected.argmax(axis=1)]

    rows: dict[str, Any] = {}
    answers: dict[str, NDArray[np.float64]] = {}
    for name, X_all in features(table, embedders, vectors):
        X, X_dev = X_all[fit], X_all[dev]
        classifier = regression().fit(X, table.categories[fit])
        right = classifier.predict(X_dev) == table.categories[dev]
        answers[name] = routed(classifier.predict_proba(X_dev) @ means)
        rows[name] = {
            "category_accuracy": round(float(right.mean()), 4),
            "gain": difference(answers[name], scores[:, best]),
        }
    for name, row in rows.items():
        row["minus_default"] = difference(answers[name], answers["default"])
    known = np.searchsorted(names, table.categories[dev]) % names.size
    return {
        "n_train": int(fit.sum()),
        "n_dev": int(dev.sum()),
        "n_categories": int(names.size),
        "best_single": round(float(scores[:, best].mean()), 4),
        "best_of_each_prompt": round(float(scores.max(axis=1).mean()), 4),
        "gain_of_known_categories": difference(routed(means[known]), scores[:, best]),
        "embedders": rows,
    }


def difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, float]:
    """Mean of ``a - b`` and its standard error."""
    error = (a - b).std() / np.sqrt(a.size)
    return {"mean": round(float((a - b).mean()), 4), "standard_error": round(float(error), 4)}


def shrunk_means(
    scores: NDArray[np.float64], categories: NDArray[np.str_], names: NDArray[np.str_]
) -> NDArray[np.float64]:
    """(n_categories, n_experts): mean scores, drawn towards the mean over all categories."""
    overall = np.nanmean(scores, axis=0)
    sums = np.array([np.nansum(scores[categories == name], axis=0) for name in names])
    counts = np.array([(~np.isnan(scores[categories == name])).sum(axis=0) for name in names])
    return (sums + SHRINKAGE * overall) / (counts + SHRINKAGE)


def features(
    table: Table, embedders: dict[str, Embedder], vectors: Path | None
) -> Iterator[tuple[str, Any]]:
    """Name and features of all prompts of every contender; TF-IDF is fitted on train."""
    texts = list(table.prompts)
    yield "TF-IDF", tfidf().fit(table.prompts[table.is_train]).transform(texts)
    found: dict[str, Any] = {}
    for name, embedder in embedders.items():
        kept = vectors / f"mini_{table.name}.npy" if name == "minilm" and vectors else None
        if kept and kept.exists():
            found[name] = np.load(kept)
        elif name == "default":
            found[name] = np.hstack([found["static"], found["lexical"]]) / np.sqrt(2)
        else:
            found[name] = embedder.embed(texts)
        if kept:
            np.save(kept, found[name])
        yield name, found[name]


def default_prompts() -> Path:
    """The prompts of this repository."""
    return ROOT / "data" / "prompts" / "prompts.jsonl"


def labelled(options: argparse.Namespace) -> dict[str, tuple[list[str], list[str]]]:
    """Prompts and labels per data set."""
    rows = [json.loads(line) for line in options.prompts.read_text().splitlines() if line]
    sets = {options.prompts.stem: ([r["prompt"] for r in rows], [r["category"] for r in rows])}
    if options.parquet:
        table = pq.read_table(options.parquet, columns=["scheme", "label", "prompt"]).to_pylist()
        for scheme in options.scheme:
            rows = [row for row in table if row["scheme"] == scheme]
            sets[scheme] = [r["prompt"] for r in rows], [r["label"] for r in rows]
    return sets


def optional_embedders(options: argparse.Namespace) -> dict[str, Any]:
    """Those that are measured only when asked for."""
    more: dict[str, Any] = {}
    if options.minilm:
        more["minilm"] = MiniLM.load(options.minilm)
    if options.endpoint:
        section = EndpointSection(
            kind="endpoint",
            base_url=options.endpoint,
            model=options.model,
            api_key_env=options.api_key_env,
            timeout_s=60,
        )
        more["endpoint"] = Endpoint(HttpEmbedder.connect(section))
    return more


def parsed() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=Path, default=default_prompts(), help="JSONL")
    parser.add_argument("--parquet", type=Path, help="Parquet of scheme, label and prompt")
    parser.add_argument("--scheme", action="append", default=[], help="may be repeated")
    parser.add_argument("--limit", type=int, default=4000, help="most prompts per data set")
    parser.add_argument("--outcomes", type=Path, help=f"folder of {', '.join(TABLES)}")
    parser.add_argument("--minilm", type=Path, help="folder of the files of all-MiniLM-L6-v2")
    parser.add_argument("--vectors", type=Path, help="folder that keeps its vectors of the tables")
    parser.add_argument("--endpoint", help="OpenAI-compatible address, up to and including /v1")
    parser.add_argument("--model", default="default", help="the model to ask the endpoint for")
    parser.add_argument("--api-key-env", help="variable that holds the endpoint's key")
    return parser.parse_args()


def main() -> None:
    """Print the document."""
    options = parsed()
    threadpool_limits(1)
    calibration = calibration_ms()
    optional = optional_embedders(options)
    embedders, speed = measure_speed(optional)
    quality = {
        name: measure_quality(embedders, prompts, labels, options.limit)
        for name, (prompts, labels) in labelled(options).items()
    }
    paths = [options.outcomes / f"{name}.parquet" for name in TABLES] if options.outcomes else []
    routing = {
        path.stem: measure_routing(Table.read(path), embedders, options.vectors)
        for path in paths
        if path.exists()
    }
    versions = {"python": platform.python_version(), "scikit-learn": sklearn.__version__}
    document = {"calibration_ms": calibration, "versions": versions, **speed, "quality": quality}
    print(json.dumps(document | {"routing": routing}, indent=2))
    if "endpoint" in optional:
        optional["endpoint"].close()


if __name__ == "__main__":
    main()
