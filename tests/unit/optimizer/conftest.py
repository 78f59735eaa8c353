"""Random problems of sets of experts, and what sets are worth in them."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from coe.optimizer.footprint import allowed, exceeded, total_usage
from coe.optimizer.problem import Memory, Problem, Prompts
from coe.optimizer.result import Found
from coe.optimizer.value import over_traffic, value_of

AGGREGATIONS = ("best", "sum", "mixture", "choose", "likelihood")


def draw_problem(
    rng: np.random.Generator,
    n_experts: int,
    n_categories: int,
    aggregation: str | None = None,
    **fixed: object,
) -> Problem:
    """Any problem; half of them are made of few round figures, so that ties are common.

    ``fixed``: fields in place of drawn ones.
    """
    aggregation = aggregation or str(rng.choice(AGGREGATIONS))
    pairs, exact = (n_categories, n_experts), rng.random() < 0.5

    def figures(low: float, high: float, *shape: int) -> NDArray[np.float64]:
        if exact:
            return low + (high - low) * rng.integers(0, 5, shape) / 4
        return rng.uniform(low, high, shape)

    counts = rng.integers(0, 4, n_categories)
    counts[0] += 1
    fields = {
        "shares": counts / counts.sum(),
        "energy_j": figures(1.0, 9.0, *pairs),
        "latency_ms": figures(100.0, 500.0, *pairs),
        "cost_usd": figures(0.0, 0.5, *pairs),
        "overhead_ms": float(rng.choice([0.0, 50.0])),
    }
    if aggregation in ("best", "sum"):
        fields["quality"] = figures(0.0, 1.0, *pairs)
    else:
        category = np.concatenate(
            [np.arange(n_categories), rng.integers(0, n_categories, rng.integers(0, 9))]
        )
        seen = (category.size, n_experts)
        fields["prompts"] = Prompts(figures(-3.0, 3.0, *seen), figures(0.0, 1.0, *seen), category)
    ceilings = {
        "max_energy_j": float(figures(0.5, 3.0) * fields["energy_j"].mean()),
        "max_cost_usd": float(figures(0.5, 3.0) * fields["cost_usd"].mean()),
        "max_latency_ms": float(figures(150.0, 550.0)),
        "k": int(rng.integers(1, 4)),
        "able": rng.random(pairs) < 0.9,
        "memory": Memory(
            figures(1.0, 9.0, n_experts), rng.integers(0, 2, n_experts), figures(4.0, 20.0, 2)
        ),
    }
    fields |= {name: limit for name, limit in ceilings.items() if rng.random() < 0.5}
    return Problem(aggregation, **(fields | fixed))


class Judge:
    """Says of sets what they are worth, and whether they may be."""

    @staticmethod
    def value(problem: Problem, members: NDArray[np.bool_]) -> float:
        own = np.diagonal(value_of(problem).of(members))
        return float(over_traffic(problem.shares, own[:, None])[0])

    @staticmethod
    def feasible(problem: Problem, members: NDArray[np.bool_]) -> bool:
        alike = problem.sets == "per_category" or (members == members[0]).all()
        used = total_usage(problem, members)
        able = members.any(axis=1).all() and not np.any(members & ~allowed(problem))
        return bool(able and alike) and not exceeded(used, problem.ceilings())

    @classmethod
    def agrees(cls, found: Found, value: float | None, problem: Problem) -> bool:
        """Whether what was found is feasible and of this value; nothing was, where ``None``."""
        if value is None:
            return found.members is None and found.upper == -np.inf
        if found.members is None or not cls.feasible(problem, found.members):
            return False
        own = cls.value(problem, found.members)
        return np.allclose([own, found.upper], value, rtol=0, atol=1e-9)


@pytest.fixture(scope="session", name="draw_problem")
def _draw_problem() -> Callable[..., Problem]:
    return draw_problem


@pytest.fixture(scope="session")
def judge() -> Judge:
    return Judge()
