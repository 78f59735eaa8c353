"""Public outcome tables as this project reads them."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coe.core import ExpertSpec
from coe.device import DeviceProfile
from coe.routers.outcomes import Outcomes

Floats = NDArray[np.float64]

# joules per output token and billion parameters of a busy GPU server, tokens/s of a 7 B expert:
# only the ratios between experts matter here
JOULES_PER_TOKEN_B, TOKENS_PER_S_7B = 0.05, 100.0
CHARS_PER_TOKEN = 4.0


@dataclass(frozen=True, slots=True)
class Pool:
    """Some experts of one file: all, at most so many billion parameters, or chat experts alone."""

    name: str
    file: str
    max_params_b: float = np.inf
    chat_only: bool = False


POOLS = (
    Pool("routerdc", "routerdc_7models"),
    Pool("llmrouter_9", "llmrouter_9models"),
    Pool("openllm <=10B", "openllm_v2_18models", max_params_b=10),
    Pool("mmlupro chat", "mmlupro_cot", chat_only=True),
    Pool("openllm 18", "openllm_v2_18models"),
    Pool("routerbench", "routerbench_subset_11models"),
    Pool("routellm pair", "routellm_pair"),
    Pool("zeroeval 27", "zeroeval_coe5"),
    Pool("zeroeval coe5", "zeroeval_coe5"),
    Pool("mmlu-redux", "mmluredux_helm20"),
    Pool("alpacaeval", "alpacaeval2_judge"),
    Pool("ru arena", "ru_arena_judge"),
)
COE5 = (
    "Qwen2-7B-Instruct",
    "gemma-2-9b-it",
    "gemma-2-27b-it",
    "Meta-Llama-3.1-70B-Instruct",
    "Qwen2-72B-Instruct",
)


def tables(
    folder: Path, names: list[str]
) -> Iterator[tuple[Pool, Outcomes, dict[str, ExpertSpec]]]:
    """Pools (all, or those named), their outcomes and experts.

    Rows of split ``train`` stay so; those of ``dev`` become ``test``: thresholds are then tuned
    on held-out training prompts, and nothing of what is reported is looked at in training.
    """
    figures = {(row["dataset"], row["model"]): row for row in _csv(folder / "models.csv")}
    for pool in POOLS:
        if names and pool.name not in names:
            continue
        outcomes = _read(folder / f"{pool.file}.parquet", pool, figures)
        specs = {
            name: _spec(name, figures.get((pool.file, name), {})) for name in outcomes.expert_ids
        }
        yield pool, outcomes, specs


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _read(path: Path, pool: Pool, figures: dict[tuple[str, str], dict[str, str]]) -> Outcomes:
    table = pq.read_table(path)
    experts = [name[7:] for name in table.column_names if name.startswith("score__")]
    experts = [name for name in experts if _admitted(name, pool, figures[pool.file, name])]

    def matrix(measure: str) -> Floats:
        columns = [
            table[f"{measure}__{name}"].to_numpy().astype(float)
            if f"{measure}__{name}" in table.column_names
            else np.full(table.num_rows, np.nan)
            for name in experts
        ]
        return np.column_stack(columns)

    def names(column: str) -> NDArray[np.str_]:
        if column not in table.column_names:
            return np.full(table.num_rows, "")
        return np.array([value or "" for value in table[column].to_pylist()])

    cost = matrix("cost")
    prices = np.array([_spec(name, figures[pool.file, name]).usd_per_mtok_out for name in experts])
    # where calls are priced and not counted, the answer is as long as its price says
    tokens = np.where(np.isnan(cost), matrix("chars") / CHARS_PER_TOKEN, cost * 1e6 / prices)
    if pool.file == "openllm_v2_18models":
        # MMLU-Pro and BBH were scored by the likelihood of the options: one token each
        tokens[names("source_task") != "ifeval"] = 1.0
    split = names("split")
    return Outcomes.of(
        [text or "" for text in table["prompt"].to_pylist()],
        experts,
        matrix("score"),
        prompt_ids=tuple(table["prompt_id"].to_pylist()),
        categories=names("category"),
        tasks=names("source_task"),
        splits=np.where(split == "dev", "test", split),
        tokens=tokens,
        cost_usd=cost,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _admitted(name: str, pool: Pool, row: dict[str, str]) -> bool:
    if pool.name == "zeroeval coe5" and name not in COE5:
        return False
    if pool.chat_only and row["is_base_model"] == "True":
        return False
    return (_params_b(row) or np.inf) <= pool.max_params_b


def _params_b(row: dict[str, str]) -> float:
    """Billions of parameters, 0 where unknown; some are written "8B"."""
    return float(row.get("params_b", "").rstrip("B") or 0)


def _spec(name: str, row: dict[str, str]) -> ExpertSpec:
    params_b = _params_b(row)
    price = float(row.get("price_per_mtok") or 0)
    per_call_only = row.get("dataset", "").startswith("routerbench")
    watts = JOULES_PER_TOKEN_B * TOKENS_PER_S_7B * 7.0 if params_b else 0.0
    speed = TOKENS_PER_S_7B * 7.0 / params_b if params_b else 1.0
    profile = DeviceProfile("GPU server", 0, 0.05, 50, speed, watts, watts, source="assumed")
    # a price per call is turned into a length: any price will do, as long as it is one
    price = price or (1.0 if per_call_only else 0.0)
    return ExpertSpec(
        id=name,
        profile=profile,
        params_b=params_b,
        context_tokens=1_000_000,
        usd_per_mtok_in=0.0 if per_call_only else price,
        usd_per_mtok_out=price,
    )
