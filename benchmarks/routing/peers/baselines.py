"""Small implementations of published routers, for the same splits as ours.

Every function takes what a router may see of a pool and a random generator, and returns (n_dev,)
columns of ``scores_train``. Embeddings are taken as unit vectors. An expert without a score in some
neighbourhood counts there with its mean over all training prompts; equal values go to the expert
with the best training mean. Reconstructions from papers and public descriptions; code ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from peers.exchange import Scores, Split, Vectors
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPRegressor
from sklearn.svm import LinearSVC

Picks = NDArray[np.int64]
Router = Callable[[Split, np.random.Generator], Picks]

NEIGHBOURS = (5, 10, 20, 40)
N_FOLDS = 5
ROWS_AT_ONCE = 1024


def best(values: Scores, scores_train: Scores) -> Picks:
    """(n,) the column of the largest value per row; ties go to the best training mean."""
    order = np.argsort(-np.nanmean(scores_train, axis=0), kind="stable")
    return order[np.argmax(values[:, order], axis=1)]


def filled(scores_train: Scores) -> Scores:
    """The scores, with every NaN replaced by the mean of its expert."""
    return np.where(np.isnan(scores_train), np.nanmean(scores_train, axis=0), scores_train)


def labels(scores_train: Scores) -> tuple[NDArray[np.intp], Picks]:
    """Rows with a score in which experts differ, and the best expert of each of these rows.

    An expert that was not asked takes part with its mean.
    """
    values = filled(scores_train)
    asked = ~np.isnan(scores_train).all(axis=1)
    rows = np.flatnonzero(asked & (values.max(axis=1) > values.min(axis=1)))
    return rows, best(values[rows], scores_train)


# ---- clusters -----------------------------------------------------------------------------------
def cluster_means(assigned: NDArray[np.int32], n_clusters: int, scores_train: Scores) -> Scores:
    """(n_clusters, n_experts) mean score; the mean over all prompts where a cluster knows none."""
    member = csr_matrix(
        (np.ones(len(assigned)), (assigned, np.arange(len(assigned)))),
        shape=(n_clusters, len(assigned)),
    )
    seen = member @ (~np.isnan(scores_train)).astype(float)
    total = member @ np.nan_to_num(scores_train)
    overall = np.nanmean(scores_train, axis=0)
    return np.where(seen > 0, total / np.maximum(seen, 1), overall)


def clustered(
    X_train: Vectors, n_clusters: int, rng: np.random.Generator, **settings: object
) -> KMeans:
    """K-means on the training prompts, with at most as many clusters as prompts."""
    seed = int(rng.integers(2**31))
    return KMeans(min(n_clusters, len(X_train)), random_state=seed, **settings).fit(X_train)


def avengers(split: Split, rng: np.random.Generator) -> Picks:
    """The best expert of the nearest of 64 clusters (Avengers, arXiv 2505.19797).

    Its repeated sampling and voting are left out: they are not routing.
    """
    means = clustered(split.X_train, 64, rng, n_init="auto", max_iter=1000, algorithm="elkan")
    per_cluster = cluster_means(means.labels_, means.n_clusters, split.scores_train)
    nearest = np.argmax(split.X_dev @ means.cluster_centers_.T, axis=1)
    return best(per_cluster[nearest], split.scores_train)


def avengers_pro(split: Split, rng: np.random.Generator) -> Picks:
    """Largest sum, over the 4 nearest of 60 clusters, of scores scaled to [0, 1] per cluster.

    Avengers-Pro (arXiv 2508.12631) with all weight on performance (alpha = 1).
    """
    means = clustered(split.X_train, 60, rng, n_init=10)
    per_cluster = cluster_means(means.labels_, means.n_clusters, split.scores_train)
    low = per_cluster.min(axis=1, keepdims=True)
    spread = per_cluster.max(axis=1, keepdims=True) - low
    scaled = np.where(spread > 0, (per_cluster - low) / np.where(spread > 0, spread, 1), 1.0)
    nearest = np.argsort(-(split.X_dev @ means.cluster_centers_.T), axis=1)[:, :4]
    return best(scaled[nearest].sum(axis=1), split.scores_train)


# ---- neighbours ---------------------------------------------------------------------------------
def neighbours(known: Vectors, asked: Vectors, k: int) -> NDArray[np.intp]:
    """(n_asked, k) rows of ``known`` by falling inner product, nearest first."""
    found = []
    for start in range(0, asked.shape[0], ROWS_AT_ONCE):
        near = asked[start : start + ROWS_AT_ONCE] @ known.T
        near = near.toarray() if hasattr(near, "toarray") else near
        top = np.argpartition(-near, k - 1, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(near, top, axis=1), axis=1, kind="stable")
        found.append(np.take_along_axis(top, order, axis=1))
    return np.vstack(found)


def neighbour_means(near: NDArray[np.intp], k: int, scores: Scores, overall: Scores) -> Scores:
    """(n, n_experts) mean of the k nearest rows' scores; ``overall`` where all are NaN."""
    taken = scores[near[:, :k]]
    seen = (~np.isnan(taken)).sum(axis=1)
    return np.where(seen > 0, np.nansum(taken, axis=1) / np.maximum(seen, 1), overall)


def folds(n: int, rng: np.random.Generator) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to learn from and rows to judge by, five times, each row judged once."""
    parts = np.array_split(rng.permutation(n), min(N_FOLDS, n))
    for part in parts:
        yield np.setdiff1d(np.arange(n), part), part


def knn_picks(
    X_train: Vectors, scores_train: Scores, X_dev: Vectors, rng: np.random.Generator
) -> Picks:
    """Picks by mean score of the k nearest prompts, k the best by cross-validation."""
    overall = np.nanmean(scores_train, axis=0)
    usable = [k for k in NEIGHBOURS if k <= X_train.shape[0] * (N_FOLDS - 1) // N_FOLDS] or [1]
    gained = np.zeros(len(usable))
    for learn, judge in folds(X_train.shape[0], rng):
        near = neighbours(X_train[learn], X_train[judge], max(usable))
        for i, k in enumerate(usable):
            guess = neighbour_means(near, k, scores_train[learn], overall)
            picked = best(guess, scores_train)
            gained[i] += np.nansum(scores_train[judge, picked])
    k = usable[int(np.argmax(gained))]
    near = neighbours(X_train, X_dev, k)
    return best(neighbour_means(near, k, scores_train, overall), scores_train)


def routerbench_knn(split: Split, rng: np.random.Generator) -> Picks:
    """Best mean score of the nearest prompts by cosine (RouterBench, arXiv 2403.12031).

    k is 5, 10, 20 or 40, whichever scores best in five folds of the training prompts.
    """
    return knn_picks(split.X_train, split.scores_train, split.X_dev, rng)


def tfidf_knn(split: Split, rng: np.random.Generator) -> Picks:
    """The same neighbours' rule on TF-IDF of words and pairs of words, without the embedding.

    Raises
    ------
    ValueError
        The texts are absent.
    """
    texts = (len(split.prompts_train), len(split.prompts_dev))
    if texts != (len(split.scores_train), len(split.X_dev)):
        rows = f"{len(split.scores_train)} and {len(split.X_dev)} rows"
        raise ValueError(f"tfidf_knn: {texts[0]} and {texts[1]} texts for {rows}")
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, dtype=np.float32)
    known, asked = words.fit_transform(split.prompts_train), words.transform(split.prompts_dev)
    return knn_picks(known, split.scores_train, asked, rng)


# ---- trained estimators -------------------------------------------------------------------------
def routerbench_mlp(split: Split, rng: np.random.Generator) -> Picks:
    """One regressor with 100 hidden units per expert (RouterBench, arXiv 2403.12031).

    Its settings: ReLU, Adam at 0.001, at most 200 epochs. Rows without a score are left out.
    """
    guess = np.empty((len(split.X_dev), split.scores_train.shape[1]))
    for column, scores in enumerate(split.scores_train.T):
        known = ~np.isnan(scores)
        net = MLPRegressor(hidden_layer_sizes=(100,), random_state=int(rng.integers(2**31)))
        guess[:, column] = net.fit(split.X_train[known], scores[known]).predict(split.X_dev)
    return best(guess, split.scores_train)


def logistic_best(split: Split, rng: np.random.Generator) -> Picks:
    """Logistic regression of the best expert's name, C = 1, on prompts where experts differ."""
    return classified(LogisticRegression(max_iter=300), split)


def linear_svm_best(split: Split, rng: np.random.Generator) -> Picks:
    """Linear support vectors for the best expert's name, C = 1, on prompts where experts differ."""
    machine = LinearSVC(random_state=int(rng.integers(2**31)))
    return classified(machine, split)


def classified(estimator: LogisticRegression | LinearSVC, split: Split) -> Picks:
    """Predictions of the best expert; the best training mean if one expert is always best."""
    rows, best_experts = labels(split.scores_train)
    if len(np.unique(best_experts)) < 2:
        return np.full(
            len(split.X_dev), np.argmax(np.nanmean(split.scores_train, axis=0)), dtype=np.int64
        )
    return estimator.fit(split.X_train[rows], best_experts).predict(split.X_dev)


def matrix_factorisation(split: Split, rng: np.random.Generator) -> Picks:
    """The expert that beats the others by a pairwise logistic loss that is bilinear in the prompt.

    RouteLLM (arXiv 2406.18665) scores expert m as ``w . (v_m * W x)``. With fewer experts than
    hidden dimensions that is any linear function of x per expert, so each expert gets a weight
    vector here and the loss ``log(1 + exp(x . (w_loser - w_winner)))`` over all pairs that differ
    is convex. An L2 penalty of 1e-4 per pair takes the place of its noise. A constant is added
    to x, as our vectors have none.
    """
    x = np.hstack([split.X_train, np.ones((len(split.X_train), 1), np.float32)]).astype(np.float64)
    n_experts = split.scores_train.shape[1]
    first, second = np.triu_indices(n_experts, 1)
    sign = np.sign(np.nan_to_num(split.scores_train[:, first] - split.scores_train[:, second]))
    n_pairs = max(int(np.abs(sign).sum()), 1)
    to_expert = np.zeros((len(first), n_experts))
    to_expert[np.arange(len(first)), first] = 1.0
    to_expert[np.arange(len(first)), second] = -1.0

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(x.shape[1], n_experts)
        margin = sign * (x @ weights @ to_expert.T)
        cost = np.logaddexp(0, -margin) * np.abs(sign)
        slope = -sign / (1 + np.exp(np.minimum(margin, 500)))
        penalty = 1e-4
        gradient = x.T @ (slope @ to_expert) / n_pairs + penalty * weights
        return cost.sum() / n_pairs + penalty / 2 * float(flat @ flat), gradient.ravel()

    start = np.zeros(x.shape[1] * n_experts)
    fit = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    weights = fit.x.reshape(x.shape[1], n_experts)
    return best(split.X_dev @ weights[:-1] + weights[-1], split.scores_train)


BASELINES: dict[str, Router] = {
    "avengers": avengers,
    "avengers_pro": avengers_pro,
    "routerbench_knn": routerbench_knn,
    "routerbench_mlp": routerbench_mlp,
    "tfidf_knn": tfidf_knn,
    "logistic_best": logistic_best,
    "linear_svm_best": linear_svm_best,
    "matrix_factorisation": matrix_factorisation,
}
