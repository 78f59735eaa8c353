"""Routers of `llmrouter-lib`: its classes, its trainers, its inference, our embedding.

Its data loader reads files, so the split is written as the files it wants into a temporary folder.
Two functions of its router modules are replaced: the one that embeds a text with Longformer looks
our vector up, and the one that asks the chosen expert over the network says nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import llmrouter.models as peers
import numpy as np
import torch
import yaml
from exchange import Split

PACKAGE = "llmrouter-lib"

# As in the configuration files of its source repository (configs/model_config_train).
SETTINGS: dict[str, dict[str, object]] = {
    "knn": {"n_neighbors": 5, "weights": "uniform", "algorithm": "auto", "leaf_size": 30}
    | {"p": 2, "metric": "minkowski", "n_jobs": 1},
    "svm": {"kernel": "rbf", "C": 1.0, "gamma": "scale", "probability": False},
    "mlp": {"hidden_layer_sizes": [128, 64], "activation": "relu", "lr": 0.001, "epochs": 100}
    | {"batch_size": 32, "alpha": 0.0001},
    "mf": {"latent_dim": 128, "lr": 0.001, "epochs": 5, "noise_alpha": 0.0},
    "elo": {},
    "graph": {"hidden_dim": 64, "learning_rate": 0.001, "weight_decay": 0.0001}
    | {"train_epoch": 100, "batch_size": 4, "train_mask_rate": 0.3, "val_split_ratio": 0.2}
    | {"random_state": 42},
    "hybrid": {"hidden_layer_sizes": [128, 64], "activation": "relu", "solver": "adam"}
    | {"max_iter": 300},
}

CLASSES: dict[str, tuple[str, str]] = {
    "knn": ("KNNRouter", "KNNRouterTrainer"),
    "svm": ("SVMRouter", "SVMRouterTrainer"),
    "mlp": ("MLPRouter", "MLPTrainer"),
    "mf": ("MFRouter", "MFRouterTrainer"),
    "elo": ("EloRouter", "EloRouterTrainer"),
    "graph": ("GraphRouter", "GraphTrainer"),
    "hybrid": ("HybridLLMRouter", "HybridLLMTrainer"),
}

MAX_ROWS = {"svm": 12_000, "graph": 12_000}
"""Training rows that fit into five minutes on one core at 1,280 dimensions; others take all."""


def router(kind: str) -> Callable[[Split, Path], dict[str, object]]:
    """A function that trains this kind on a split and says where it sends the dev prompts."""

    def run(split: Split, folder: Path) -> dict[str, object]:
        sizes_b = hybrid_sizes(split) if kind == "hybrid" else {}
        if kind == "hybrid" and not sizes_b:
            return {"not_run": "chooses between the smallest and the largest expert; sizes unknown"}
        rows = training_rows(split, MAX_ROWS.get(kind, len(split.X_train)))
        config = write_files(kind, split, rows, folder, sizes_b)
        seed_everything(split.seed)
        started = time.process_time()
        peer = getattr(peers, CLASSES[kind][0])(str(config))
        getattr(peers, CLASSES[kind][1])(peer, device="cpu").train()
        fitted = time.process_time()
        picks = routed(peer, split)
        done = time.process_time()
        return {
            "picks": picks,
            "fit_s": round(fitted - started, 2),
            "predict_ms": round(1000 * (done - fitted) / len(picks), 3),
            "n_fit": len(rows),
            "version": f"{PACKAGE} {version(PACKAGE)}",
            "how": f"{CLASSES[kind][0]}, {CLASSES[kind][1]}, {SETTINGS[kind]}; "
            + ("reads no prompt" if kind == "elo" else "our embedding in place of Longformer"),
        }

    return run


def seed_everything(seed: int) -> None:
    """Seed the global generators that the peers draw from."""
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the peers use the global one
    torch.manual_seed(seed)


def training_rows(split: Split, at_most: int) -> list[int]:
    """Rows with a score, in order; a random choice of ``at_most`` of them if there are more."""
    rows = np.flatnonzero(~np.isnan(split.scores_train).all(axis=1))
    if len(rows) > at_most:
        chosen = np.random.default_rng(split.seed).choice(rows, at_most, replace=False)
        rows = np.sort(chosen)
    return rows.tolist()


def hybrid_sizes(split: Split) -> dict[str, float]:
    """Billions of parameters; of two unknown ones the better in training counts as the larger."""
    if split.sizes_b or len(split.experts) != 2:
        return split.sizes_b
    better, worse = split.by_training_mean()
    return {split.experts[worse]: 1.0, split.experts[better]: 2.0}


def write_files(
    kind: str, split: Split, rows: list[int], folder: Path, sizes_b: dict[str, float]
) -> Path:
    """Write the files that its data loader reads; where the configuration is.

    Its label of a prompt is the first row with the largest score, so the rows of a prompt go
    from the best training mean to the worst: ties, frequent with scores of 0 and 1, then fall to
    the expert that is best overall. This is the order that serves the peer best.
    """
    order = split.by_training_mean()
    with (folder / "routing.jsonl").open("w", encoding="utf-8") as lines:
        for embedding_id, row in enumerate(rows):
            for column in order:
                score = split.scores_train[row, column]
                if not np.isnan(score):
                    entry = {"query": f"train {row}", "model_name": split.experts[column]}
                    entry |= {"performance": float(score), "embedding_id": embedding_id}
                    lines.write(json.dumps(entry) + "\n")
    torch.save(torch.from_numpy(split.X_train[rows]), folder / "embeddings.pt")
    llms = {name: {"size": f"{sizes_b.get(name, 1.0)}B"} for name in split.experts}
    (folder / "llms.json").write_text(json.dumps(llms), encoding="utf-8")
    estimator = str(folder / ("estimator.pt" if kind == "graph" else "estimator.pkl"))
    config: dict[str, object] = {
        "data_path": {
            "routing_data_train": str(folder / "routing.jsonl"),
            "query_embedding_data": str(folder / "embeddings.pt"),
            "llm_data": str(folder / "llms.json"),
        },
        "model_path": {
            "ini_model_path": "",
            "save_model_path": estimator,
            "load_model_path": estimator,
        },
        "hparam": SETTINGS[kind] | ({"text_dim": split.X_train.shape[1]} if kind == "mf" else {}),
        "metric": {"weights": {"performance": 1, "cost": 0, "llm_judge": 0}},
        "api_endpoint": "none",
        "router_mode": "probabilistic",
        "router_tau": 0.1,
        "router_threshold": 0.5,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def routed(peer: peers.MetaRouter, split: Split) -> list[int]:
    """Where the peer's own ``route_batch`` sends each dev prompt."""
    vectors = torch.from_numpy(split.X_dev)
    module = sys.modules[type(peer).__module__]
    module.get_longformer_embedding = lambda row: vectors[int(row)]
    module.call_api = lambda request, **settings: {"response": ""}
    answers = peer.route_batch([{"query": str(row)} for row in range(len(vectors))])
    return [split.experts.index(answer["model_name"]) for answer in answers]
