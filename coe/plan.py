"""A plan: which experts are resident, which sets serve which category, and what budgets buy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from coe.errors.files import PlanError
from coe.mode import Mode

SCHEMA = 1

MODES = "modes"
"""The aggregation of plans of learned modes, whose values are expected scores."""


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """A set of experts, what it is expected to be worth, and what it uses.

    ``quality`` is in the unit of the plan's aggregation; joules and dollars are those of an
    answer of mean length, milliseconds those of a cautious one. ``mode`` says how they make one
    answer, in a plan of modes.
    """

    experts: tuple[str, ...]
    quality: float
    energy_j: float
    latency_ms: float
    cost_usd: float
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What a budget buys: the set of every category, together ``experts``, and their means.

    ``latency_ms`` is that of the slowest category. ``modes`` names how each of the sets makes one
    answer, in a plan of modes.
    """

    experts: tuple[str, ...]
    sets: tuple[tuple[str, ...], ...]
    quality: float
    energy_j: float
    latency_ms: float
    cost_usd: float
    modes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedCategory:
    """What is planned for one category: the set that serves it, and all worth considering.

    ``weights`` are mean shares in the answer; in a plan of modes, whose set makes one answer by
    ``mode``, all the same.
    """

    name: str
    share: float
    experts: tuple[str, ...]
    weights: tuple[float, ...]
    menu: tuple[PlannedSet, ...]
    mode: Mode | None = None


@dataclass(frozen=True, slots=True)
class Certificate:
    """The plan's value lies in [lower, upper], and so does the optimum."""

    lower: float
    upper: float
    gap: float
    nodes: int
    solve_ms: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What `coe plan` found. See `coe.optimizer.result.Result` for status, binding and needed.

    Parameters
    ----------
    policy, aggregation, k, means : what was planned for; ``means`` are ceilings on means over
        the traffic.
    status, method, why, certificate : how, and how good it is.
    quality, energy_j, cost_usd, latency_ms : of the plan over the traffic; the time of its
        slowest category. All 0 when infeasible.
    resident : experts by node; of those without a node, under "". None when infeasible.
    binding, slack, needed : by what was asked: ``mean_energy_j``, ``mean_cost_usd``,
        ``node_gb[name]``, and the policy's ``latency_ms``, ``ttft_ms``, ``energy_j``, ``cost_usd``.
    categories : in the order of the artefact's table.
    staircases : by axis, for every budget the best sets that it buys, cheapest first.
    singles : every expert alone, serving all categories.
    premise : how often the value of sets is not monotone or not submodular.
    """

    policy: str
    aggregation: str
    k: int | None
    means: Mapping[str, float]
    status: str
    method: str
    why: str
    certificate: Certificate | None
    quality: float
    energy_j: float
    latency_ms: float
    cost_usd: float
    resident: Mapping[str, tuple[str, ...]]
    categories: tuple[PlannedCategory, ...]
    staircases: Mapping[str, tuple[PlannedStep, ...]]
    singles: tuple[PlannedSet, ...]
    binding: str | None
    slack: Mapping[str, float]
    needed: Mapping[str, float | None]
    premise: Mapping[str, float]

    @property
    def experts(self) -> tuple[str, ...]:
        """All resident experts."""
        return tuple(sorted(name for node in self.resident.values() for name in node))

    def menu(self, category: str) -> tuple[PlannedSet, ...] | None:
        """The sets worth considering for a category; ``None`` if it was not planned for."""
        for planned in self.categories:
            if planned.name == category:
                return planned.menu
        return None

    def affordable(self, axis: str, budget: float) -> PlannedStep | None:
        """The best sets that a mean of ``budget`` per request buys; ``None``: none at all.

        Parameters
        ----------
        axis : energy_j, latency_ms or cost_usd.
        """
        within = [step for step in self.staircases[axis] if getattr(step, axis) <= budget]
        return within[-1] if within else None

    def document(self) -> dict[str, Any]:
        """The plan as plain values, for JSON; ``staircase`` is that over joules."""
        said = asdict(self)
        said["schema"] = SCHEMA
        said["staircase"] = said["staircases"].get("energy_j", [])
        return said

    def save(self, path: Path) -> None:
        """Write the plan; an older file is replaced as a whole or not at all.

        Raises
        ------
        PlanError
            The file cannot be written.
        """
        staging = path.with_name(path.name + ".new")
        try:
            staging.write_text(
                json.dumps(self.document(), indent=1, allow_nan=False) + "\n", encoding="utf-8"
            )
            staging.replace(path)
        except OSError as error:
            raise PlanError(f"{path}: cannot be written: {error}") from error

    @classmethod
    def load(cls, path: Path) -> Plan:
        """The plan in a file that `save` wrote.

        Raises
        ------
        PlanError
            The file is absent, not a plan, or of another schema.
        """
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PlanError(f"{path}: not a readable plan: {error}") from error
        if not isinstance(said, dict) or said.get("schema") != SCHEMA:
            raise PlanError(f"{path}: not a plan of schema {SCHEMA}: make it again with `coe plan`")
        fields = {
            name: value for name, value in said.items() if name not in ("schema", "staircase")
        }
        try:
            return TypeAdapter(cls).validate_python(fields)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(map(str, first["loc"]))
            raise PlanError(
                f"{path}: {at}: {first['msg']}: make it again with `coe plan`"
            ) from error
