"""Seconds and memory of training on 20,000 prompts and 18 experts.

    python benchmarks/training/bench.py [--prompts N] [--experts N]

Prompts are made of pseudo-words, 39 categories with a vocabulary each, scores drawn from a random
table, so that the script needs no data. Prints one JSON document.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from coe.routers.embed import MEANING_DIM, load_default
from coe.routers.outcomes import Outcomes
from coe.routers.train import train

sys.path.append(str(Path(__file__).parents[1]))

from calibration import calibration

N_CATEGORIES, N_WORDS, WORDS_A_PROMPT = 39, 300, 60


def made(n_prompts: int, n_experts: int, rng: np.random.Generator) -> Outcomes:
    """A table of prompts that tell their category by their words."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    vocabulary = ["".join(rng.choice(letters, 6)) for _ in range(N_CATEGORIES * N_WORDS)]
    category = rng.integers(0, N_CATEGORIES, n_prompts)
    own = rng.integers(0, N_WORDS, (n_prompts, WORDS_A_PROMPT)) + category[:, None] * N_WORDS
    any_word = rng.integers(0, len(vocabulary), own.shape)
    words = np.where(rng.random(own.shape) < 0.3, own, any_word)
    right = rng.uniform(0.2, 0.9, (N_CATEGORIES, n_experts))[category]
    scores = (rng.random(right.shape) < right).astype(float)
    return Outcomes.of(
        [" ".join(vocabulary[w] for w in row) for row in words],
        [f"expert-{k}" for k in range(n_experts)],
        scores,
        categories=np.array([f"category {k}" for k in category]),
        tokens=rng.lognormal(5.0, 0.5, right.shape),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--experts", type=int, default=18)
    options = parser.parse_args()
    outcomes = made(options.prompts, options.experts, np.random.default_rng(0))
    embedder = load_default()
    steps: list[tuple[str, float]] = []
    started, cpu = time.monotonic(), time.process_time()
    artefact = train(
        outcomes,
        embedder,
        features=MEANING_DIM,
        progress=lambda step: steps.append((step, round(time.monotonic() - started, 1))),
    )
    found = {
        "calibration": calibration(),
        "n_prompts": options.prompts,
        "n_experts": options.experts,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "steps_begin_at_s": dict(steps),
        "routed_by": artefact.training["held_out"]["routed_by"],
        "estimator": artefact.training["held_out"]["estimator"],
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
