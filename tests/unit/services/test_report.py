"""The report: right verdicts, a page that stands alone, pictures that are pictures."""

import dataclasses
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from coe.core import Policy
from coe.evaluation import ArmResult, Categories, Coverage, Evaluation, evaluate
from coe.routers.calibration import Reliability, reliability
from coe.routers.frontier import frontier
from coe.routers.outcomes import Outcomes
from coe.services.report import GateCurve, ReportError, write_report
from coe.services.report.arms import kind_of
from coe.services.report.grids import MOST, REST, confusion_grid, expert_grid
from coe.services.report.labels import clean, cut, shortened
from coe.services.report.placing import Box, Names
from coe.services.report.verdict import headline, remarks, verdict

PLOTS = ("pareto", "experts", "calibration", "confusion", "coverage")
VOID = {"meta", "link", "br", "img", "input", "hr", "base", "source", "embed", "col"}
HOSTILE = (
    "<script>alert(1)</script>",
    "\" onload='x' autofocus=\"",
    "a&b $x^2$ %s {0} \\frac",
    "line\nbreak\x00\x1b[31m\u202eevil \ud800",
    'id="m" url(#p) href="#x"',
    "https://example.org/" + "long-" * 40 + "name",
    "https://example.org/" + "long-" * 41 + "name",
)


def names(word: str, n: int) -> list[str]:
    return [f"{word}-{k:02d}" for k in range(n)]


def make_evaluation(
    experts=None, categories=None, n=600, lift=None, seed=0, known=("cost_usd", "energy_j")
):
    """An evaluation of random outcomes, with the arms of a real one.

    ``lift`` sets the interval of the difference of arm coe to the best single expert; ``known``
    the resources of which the usage is known.
    """
    rng = np.random.default_rng(seed)
    experts = names("expert", 18) if experts is None else experts
    categories = names("category", 16) if categories is None else categories
    shares = rng.dirichlet(np.full(len(categories), 2.0))
    label = np.concatenate(
        [np.arange(len(categories)), rng.choice(len(categories), max(n - len(categories), 0), p=shares)]
    )
    n = len(label)
    here = np.arange(n)
    size = np.sort(rng.lognormal(2.5, 1.0, len(experts)))
    ability = 0.35 + 0.35 * np.linspace(0, 1, len(experts)) ** 0.6
    truth = np.clip(
        ability + rng.normal(0, 0.1, (len(categories), len(experts)))
        + rng.normal(0, 0.12, (len(categories), 1)), 0.02, 0.98,
    )  # fmt: skip
    scores = (rng.random((n, len(experts))) < truth[label]).astype(float)
    length = rng.lognormal(5.5, 0.5, (n, 1))
    usage = {
        "cost_usd": length * size * 2e-8,
        "energy_j": length * size * 0.02,
        "latency_ms": length * (5 + size) * 1.5,
        "active_params_b": np.broadcast_to(size, scores.shape),
    }
    quality = np.clip(truth[label] + rng.normal(0, 0.05, scores.shape), 0, 1)
    single = int(scores.mean(axis=0).argmax())
    eye = np.eye(len(experts))
    dear = quality - 0.2 * size / size.max()
    weights = {
        **{f"always {name}": np.tile(eye[k], (n, 1)) for k, name in enumerate(experts)},
        "random": np.full(scores.shape, 1 / len(experts)),
        "best single under 14B": np.tile(eye[min(len(experts) - 1, len(experts) // 2)], (n, 1)),
        "knn": eye[(quality + rng.normal(0, 0.1, scores.shape)).argmax(axis=1)],
        "direct classifier": eye[(quality + rng.normal(0, 0.2, scores.shape)).argmax(axis=1)],
        "two-step": eye[truth.argmax(axis=1)[label]],
        "two-step robust": eye[
            np.where(rng.random(n) < 0.8, truth.argmax(axis=1)[label], truth.mean(axis=0).argmax())
        ],
        "oracle category": eye[truth.argmax(axis=1)[label]],
        "oracle prompt": eye[scores.argmax(axis=1)],
        "coe": eye[quality.argmax(axis=1)],
        "coe eco": eye[dear.argmax(axis=1)],
        "coe fast": eye[(dear - 0.2 * size / size.max()).argmax(axis=1)],
    }
    reference = scores[:, single]
    best, oracle = float(reference.mean()), float(scores.max(axis=1).mean())

    def arm(name: str, weight: np.ndarray) -> ArmResult:
        got = (weight * scores).sum(axis=1)
        low, high = np.array([-1.96, 1.96]) * got.std() / n**0.5
        delta = got.mean() - best
        spread = 1.96 * (got - reference).std() / n**0.5
        interval = (delta - spread, delta + spread)
        if name == "coe" and lift is not None:
            interval, delta = lift, sum(lift) / 2
        spent = {
            axis: float((weight * usage[axis]).sum(axis=1).mean())
            if axis in known or axis == "active_params_b" else None
            for axis in usage
        }  # fmt: skip
        return ArmResult(
            name, float(got.mean()), (got.mean() + low, got.mean() + high), float(delta), interval,
            **spent, oracle_gap_closed=float(delta) / (oracle - best) if oracle > best else None,
            refused=0.0, oracle=name.startswith("oracle"),
        )  # fmt: skip

    masks = [label == k for k in range(len(categories))]
    guess = np.where(rng.random(n) < 0.75, label, rng.integers(0, len(categories) + 1, n))
    covered = np.arange(n + 1) / n
    return Evaluation(
        dataset="outcomes of July",
        n_prompts=n,
        n_left_out=12,
        expert_ids=tuple(experts),
        best_single=experts[single],
        arms=tuple(arm(name, weight) for name, weight in weights.items()),
        curves={
            axis: frontier(quality, usage[axis], scores, usage[axis])
            for axis in ("cost_usd", "energy_j") if axis in known
        },
        calibration=reliability(quality, scores),
        categories=Categories(
            names=tuple(categories),
            n=np.array([mask.sum() for mask in masks]),
            scores=np.array([scores[mask].mean(axis=0) for mask in masks]),
            chosen=np.array([weights["coe"][mask].mean(axis=0) for mask in masks]),
            predicted=(*categories, "general"),
            confusion=np.array(
                [[(guess[m] == c).mean() for c in range(len(categories) + 1)] for m in masks]
            ),
        ),
        coverage=Coverage(
            covered,
            best + 0.03 * covered * (1.6 - covered) + rng.normal(0, 0.001, n + 1).cumsum() / 9,
            0.83,
        ),
        seed=7,
        n_resamples=2000,
    )  # fmt: skip


def make_curve(chosen=(0.4, 0.588)):
    share = np.linspace(0, 1, 80)
    return GateCurve(share, 0.5 + 0.3 * share - 0.2 * share**2, 0.5, 0.6, (0.36, 0.71), chosen)
