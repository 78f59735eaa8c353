"""Routers of RouteLLM: its classes and training loop on battles made from the scores.

It embeds prompts with an OpenAI service at training and at routing time; its client object is
replaced by a table of our vectors. It reads weights and data sets from a hub; it is given local
folders, which the same functions accept. It chooses between a strong and a weak expert; on tables
with more experts the best of its own scores decides, which is our extension.
"""

from __future__ import annotations

import json
import time
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import routellm.routers.matrix_factorization.model as mf_model
import routellm.routers.routers as peers
import torch
from datasets import Dataset
from exchange import Split
from from_llmrouter import seed_everything
from numpy.typing import NDArray
from routellm.routers.matrix_factorization import train_matrix_factorization as mf_train
from routellm.routers.similarity_weighted import utils as sw_utils
from torch.utils.data import DataLoader

PACKAGE = "routellm"
THRESHOLD = 0.5
MIN_CHARACTERS = 16
MAX_BATTLES = 40_000
"""Battles on which 100 epochs take under five minutes on one core at 1,280 dimensions."""

HIDDEN, BATCH, EPOCHS, NOISE, RATE, DECAY = 128, 64, 100, 0.1, 3e-4, 1e-5

Pair = namedtuple("Pair", "strong weak")


def embedding_client(split: Split) -> SimpleNamespace:
    """What RouteLLM calls as its OpenAI client: the vector of dev row ``input[0]``."""

    def create(input: list[str], model: str) -> SimpleNamespace:
        vector = split.X_dev[int(input[0])].tolist()
        return SimpleNamespace(data=[SimpleNamespace(embedding=vector)])

    return SimpleNamespace(embeddings=SimpleNamespace(create=create))


def all_battles(split: Split, rng: np.random.Generator) -> list[dict[str, object]]:
    """Every pair of experts whose scores of a prompt differ, at most MAX_BATTLES at random."""
    first, second = np.triu_indices(len(split.experts), 1)
    margin = np.nan_to_num(split.scores_train[:, first] - split.scores_train[:, second])
    rows, pairs = np.nonzero(margin)
    if len(rows) > MAX_BATTLES:
        chosen = np.sort(rng.choice(len(rows), MAX_BATTLES, replace=False))
        rows, pairs = rows[chosen], pairs[chosen]
    return [
        {
            "idx": int(row),
            "model_a": split.experts[first[pair]],
            "model_b": split.experts[second[pair]],
            "winner": "model_a" if margin[row, pair] > 0 else "model_b",
        }
        for row, pair in zip(rows, pairs, strict=True)
    ]


# ---- mf -----------------------------------------------------------------------------------------
def matrix_factorization(split: Split, folder: Path) -> dict[str, object]:
    """Its `mf`, trained by its own loop with the settings of its training script."""
    rng = np.random.default_rng(split.seed)
    battles = all_battles(split, rng)
    mf_model.MODEL_IDS.clear()
    mf_model.MODEL_IDS.update({name: i for i, name in enumerate(split.experts)})
    started = time.process_time()
    train_mf(split, battles, folder)
    fitted = time.process_time()
    picks, win_rates = mf_picks(split, folder)
    done = time.process_time()
    return {
        "picks": picks,
        "fit_s": round(fitted - started, 2),
        "predict_ms": round(1000 * (done - fitted) / len(picks), 3),
        "n_fit": len({battle["idx"] for battle in battles}),
        "n_battles": len(battles),
        **({"strong_win_rate": win_rates} if win_rates else {}),
        "version": f"{PACKAGE} {version(PACKAGE)}",
        "how": f"MFModel_Train, train_loops, MatrixFactorizationRouter; dim {HIDDEN}, {EPOCHS} "
        f"epochs, batch {BATCH}, noise {NOISE}, lr {RATE}, weight decay {DECAY}; our embedding "
        "in place of text-embedding-3-small; " + choice(split),
    }


def choice(split: Split) -> str:
    """How an expert is chosen from its scores, in words."""
    if len(split.experts) == 2:
        return f"strong expert if its win rate >= {THRESHOLD}"
    return f"best score of {len(split.experts)} experts (our extension: it chooses between two)"


def train_mf(split: Split, battles: list[dict[str, object]], folder: Path) -> None:
    """Train on 95 % of the battles, watch the others, and save what its router loads."""
    seed_everything(split.seed)
    np.save(folder / "embeddings.npy", split.X_train)
    shuffled = [battles[i] for i in np.random.default_rng(split.seed).permutation(len(battles))]
    cut = int(len(shuffled) * 0.95)
    n_experts, dim = len(split.experts), split.X_train.shape[1]
    net = mf_train.MFModel_Train(
        dim=HIDDEN,
        num_models=n_experts,
        num_prompts=len(split.X_train),
        text_dim=dim,
        npy_path=folder / "embeddings.npy",
    )
    mf_train.train_loops(
        net,
        mf_train.PairwiseDataset(shuffled[:cut]).get_dataloaders(BATCH),
        watched(shuffled[cut:]),
        lr=RATE,
        weight_decay=DECAY,
        alpha=NOISE,
        num_epochs=EPOCHS,
        device="cpu",
    )
    served = mf_model.MFModel(HIDDEN, n_experts, dim, 1, True)
    served.load_state_dict(
        {
            "P.weight": net.P.weight.detach(),
            "text_proj.0.weight": net.text_proj.weight.detach(),
            "classifier.0.weight": net.classifier.weight.detach(),
        }
    )
    served.save_pretrained(folder / "mf")


def watched(battles: list[dict[str, object]]) -> DataLoader:
    """Held-out battles in the batches of its training script."""
    return mf_train.PairwiseDataset(battles).get_dataloaders(1024, shuffle=False)


def mf_picks(split: Split, folder: Path) -> tuple[list[int], list[float]]:
    """Picks of every dev prompt, and for two experts how likely the strong one wins."""
    order = split.by_training_mean()
    mf_model.OPENAI_CLIENT = embedding_client(split)
    router = peers.MatrixFactorizationRouter(
        str(folder / "mf"),
        strong_model=split.experts[order[0]],
        weak_model=split.experts[order[1]],
        hidden_size=HIDDEN,
        num_models=len(split.experts),
        text_dim=split.X_train.shape[1],
    )
    dev = [str(row) for row in range(len(split.X_dev))]
    if len(order) == 2:
        pair = Pair(order[0], order[1])
        rates = [router.calculate_strong_win_rate(row) for row in dev]
        return [router.route(row, THRESHOLD, pair) for row in dev], rates
    with torch.no_grad():
        scores = [router.model.forward(order, row).tolist() for row in dev]
    return [order[int(np.argmax(row))] for row in scores], []


# ---- sw_ranking ---------------------------------------------------------------------------------
def similarity_weighted(split: Split, folder: Path) -> dict[str, object]:
    """Its `sw_ranking`: Elo of battles, weighted by their likeness to the prompt."""
    started = time.process_time()
    n_fit = write_battles(split, folder)
    order = split.by_training_mean()
    peers.OPENAI_CLIENT = embedding_client(split)
    router = peers.SWRankingRouter(
        [str(folder / "battles")],
        [str(folder / "vectors")],
        strong_model=split.experts[order[0]],
        weak_model=split.experts[order[1]],
    )
    fitted = time.process_time()
    dev = [str(row) for row in range(len(split.X_dev))]
    extra: dict[str, object] = {}
    if len(order) == 2:
        rates = [router.calculate_strong_win_rate(row) for row in dev]
        picks = [order[0] if rate >= THRESHOLD else order[1] for rate in rates]
        extra["strong_win_rate"] = rates
    else:
        picks = [best_rated(router, split, vector) for vector in split.X_dev]
    done = time.process_time()
    return {
        "picks": picks,
        "fit_s": round(fitted - started, 2),
        "predict_ms": round(1000 * (done - fitted) / len(picks), 3),
        "n_fit": n_fit,
        **extra,
        "version": f"{PACKAGE} {version(PACKAGE)}",
        "how": "SWRankingRouter, 10 tiers, one battle per prompt; our embedding in place of "
        "text-embedding-3-small; " + choice(split),
    }


def write_battles(split: Split, folder: Path) -> int:
    """One battle per training prompt as its data sets on the hub have them; how many there are.

    The two experts are drawn at random among those with a score. It drops prompts of fewer than
    16 characters itself, so their vectors are left out too.
    """
    rng = np.random.default_rng(split.seed)
    battles: list[dict[str, object]] = []
    kept: list[int] = []
    for row, scores in enumerate(split.scores_train):
        known = np.flatnonzero(~np.isnan(scores))
        if len(known) < 2 or len(split.prompts_train[row].strip()) < MIN_CHARACTERS:
            continue
        a, b = rng.choice(known, 2, replace=False)
        battles.append(
            {
                "prompt": json.dumps([split.prompts_train[row]]),
                "model_a": split.experts[a],
                "model_b": split.experts[b],
                "winner_model_a": int(scores[a] > scores[b]),
                "winner_model_b": int(scores[b] > scores[a]),
            }
        )
        kept.append(row)
    for name, table in (
        ("battles", Dataset.from_list(battles)),
        ("vectors", Dataset.from_dict({"embeddings": split.X_train[kept]})),
    ):
        (folder / name).mkdir()
        table.to_parquet(folder / name / "train.parquet")
    return len(kept)


def best_rated(router: peers.SWRankingRouter, split: Split, vector: NDArray[np.float32]) -> int:
    """The expert whose tier has the highest weighted Elo; in one tier the best training mean."""
    known = router.arena_conv_embedding
    likeness = known @ vector / (np.linalg.norm(known, axis=1) * np.linalg.norm(vector))
    elo = sw_utils.compute_elo_mle_with_tie(
        router.arena_df, sample_weight=router.get_weightings(likeness)
    )
    order = split.by_training_mean()
    return max(order, key=lambda column: elo[router.model2tier[split.experts[column]]])
