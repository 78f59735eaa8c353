"""What CoE's five experts answered, all of it: an outcome table to train on and to replay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from coe.routers.outcomes import write_outcomes

EXAMPLE = Path(__file__).parents[2] / "examples" / "edge_cloud"


def write_table(responses: Path, out: Path, experts: Mapping[str, str]) -> None:
    """The example's outcomes with the answers to all prompts, those of ``train`` rows too.

    Parameters
    ----------
    experts : by id, the name that an expert has in ``responses``.
    """
    ids = {model: expert_id for expert_id, model in experts.items()}
    rows: list[dict[str, Any]] = pq.read_table(EXAMPLE / "outcomes.parquet").to_pylist()
    by_id = {row["prompt_id"]: row for row in rows}
    for said in pq.read_table(responses).to_pylist():
        by_id[said["prompt_id"]][f"answer__{ids[said['model']]}"] = said["response"]
    write_outcomes(out, rows)
