"""One folder per table and split: how the benchmark and the peers' environment exchange data.

NumPy and the standard library only: it is imported in both environments.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Split:
    """What a router may see: everything of the training prompts, nothing but text of the others.

    Attributes
    ----------
    X_train, X_dev
        (n_train, d) and (n_dev, d) frozen embeddings of the prompts.
    scores_train
        (n_train, n_experts) quality in [0, 1]; NaN where an expert was not asked.
    prompts_train, prompts_dev
        The texts, one per row.
    experts
        Names of the columns.
    seed
        For whatever is random in a router.
    sizes_b
        Billions of parameters per expert where they are known, else empty.
    """

    X_train: Vectors
    scores_train: Scores
    X_dev: Vectors
    prompts_train: list[str]
    prompts_dev: list[str]
    experts: list[str]
    seed: int
    sizes_b: dict[str, float]

    def by_training_mean(self) -> list[int]:
        """Columns, best mean training score first; equal means keep the order of the table."""
        return np.argsort(-np.nanmean(self.scores_train, axis=0), kind="stable").tolist()


def write_split(folder: Path, split: Split) -> None:
    """Write the folder, which is made if absent; files of an earlier split are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "split.npz",
        X_train=split.X_train,
        scores_train=split.scores_train,
        X_dev=split.X_dev,
        seed=split.seed,
    )
    for name in ("prompts_train", "prompts_dev", "experts", "sizes_b"):
        text = json.dumps(getattr(split, name), ensure_ascii=False)
        (folder / f"{name}.json").write_text(text, encoding="utf-8")


def holds(folder: Path, split: Split) -> bool:
    """Whether the folder holds this very split."""
    if not (folder / "split.npz").exists():
        return False
    kept = read_split(folder)
    arrays = ("X_train", "scores_train", "X_dev")
    others = ("prompts_train", "prompts_dev", "experts", "seed", "sizes_b")
    return all(
        np.array_equal(getattr(kept, name), getattr(split, name), equal_nan=True) for name in arrays
    ) and all(getattr(kept, name) == getattr(split, name) for name in others)


def read_split(folder: Path) -> Split:
    """The split in this folder; ``sizes_b.json`` may be absent.

    Raises
    ------
    ValueError
        Arrays, texts and names do not agree in number.
    """
    with np.load(folder / "split.npz", allow_pickle=False) as arrays:
        X_train, scores, X_dev = (arrays[k] for k in ("X_train", "scores_train", "X_dev"))
        seed = int(arrays["seed"])
    texts = {
        name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("prompts_train", "prompts_dev", "experts")
    }
    counts = (len(texts["prompts_train"]), len(texts["prompts_dev"]), len(texts["experts"]))
    if counts != (len(X_train), len(X_dev), scores.shape[1]) or len(scores) != len(X_train):
        raise ValueError(
            f"{folder}: {counts} prompts, dev prompts and experts, but arrays of shape "
            f"{X_train.shape}, {X_dev.shape} and {scores.shape}; write the folder again"
        )
    sizes = folder / "sizes_b.json"
    sizes_b = json.loads(sizes.read_text(encoding="utf-8")) if sizes.exists() else {}
    return Split(X_train, scores, X_dev, **texts, seed=seed, sizes_b=sizes_b)
