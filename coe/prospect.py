"""What answers are expected to be worth and to take, over the traffic of an artefact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coe.errors.files import PlanError
from coe.optimizer.options import AXES
from coe.router import Router
from coe.routers.head import Assessment
from coe.routers.quality import Expected
from coe.routers.traffic import Traffic

Floats = NDArray[np.float64]


def columns_of(router: Router) -> list[int]:
    """Columns of the artefact's experts that are configured.

    Raises
    ------
    PlanError
        There are none, or one has no device profile.
    """
    known = router.artefact.expectation.expert_ids
    columns = [column for column, name in enumerate(known) if name in router.specs]
    if not columns:
        raise PlanError("the artefact knows none of the configured experts: train one")
    for column in columns:
        spec = router.specs[known[column]]
        if spec.profile.decode_tokens_per_s == np.inf or spec.profile.ttft_ms(100) <= 0:
            raise PlanError(f"expert {spec.id!r} has no device profile: planning needs its speed")
    return columns


def among(expected: Expected, columns: Sequence[int]) -> Expected:
    """What is expected of the experts in these columns."""
    return Expected(
        expected.quality[:, columns],
        expected.quality_se[:, columns],
        expected.mean_tokens[:, columns],
        expected.cautious_tokens[:, columns],
    )


def traffic_of(router: Router) -> Traffic:
    """The traffic that the artefact was trained on.

    Raises
    ------
    PlanError
        It does not say.
    """
    try:
        return Traffic.read(router.artefact.training["traffic"])
    except (KeyError, TypeError, ValueError) as error:
        raise PlanError(
            "the artefact does not say what traffic it was trained on: train it again"
        ) from error


def by_category(router: Router, n: int) -> Expected:
    """What is expected of every expert in each of ``n`` categories, the last one for the rest."""
    certain = Assessment(
        probabilities=np.eye(n)[:, :-1],
        entropy=np.zeros(n),
        distance=np.zeros(n),
        uncertain=np.arange(n) == n - 1,
    )
    table = replace(router.artefact.expectation, residual=None, lengths=None)
    return table.of(np.zeros((n, 0), dtype=np.float32), certain)


def used(router: Router, traffic: Traffic, expected: Expected) -> tuple[Floats, Floats]:
    """(n_categories, n_experts, 4) what answers of mean and of cautious length take, by `AXES`.

    They are no longer than an expert's own cap.
    """
    known = router.artefact.expectation.expert_ids
    specs = [router.specs[known[column]] for column in columns_of(router)]

    def used_by(lengths: Floats) -> Floats:
        estimates = [
            [
                spec.estimate(0.0, float(n_in), min(float(n), spec.answer_tokens or np.inf))
                for spec, n in zip(specs, row, strict=True)
            ]
            for n_in, row in zip(traffic.prompt_tokens, lengths, strict=True)
        ]
        return np.array([[[getattr(e, axis) for axis in AXES] for e in row] for row in estimates])

    return used_by(expected.mean_tokens), used_by(expected.cautious_tokens)
