"""What CoE's five experts answered, all of it: an outcome table to train on and to replay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from coe.routers.outcomes import write_outcomes

EXAMPLE = Path(__file__).parents[2] / "examples" / "edge_cloud"
NAMES = {
    "Qwen2-7B-Instruct": "qwen2-7b",
    "gemma-2-9b-it": "gemma-2-9b",
    "gemma-2-27b-it": "gemma-2-27b",
    "Meta-Llama-3.1-70B-Instruct": "llama-3.1-70b",
    "Qwen2-72B-Instruct": "qwen2-72b",
}


def write_table(responses: Path, out: Path) -> None:
    """The example's outcomes with the answers to all prompts, those of ``train`` rows too."""
    rows: list[dict[str, Any]] = pq.read_table(EXAMPLE / "outcomes.parquet").to_pylist()
    by_id = {row["prompt_id"]: row for row in rows}
    for said in pq.read_table(responses).to_pylist():
        by_id[said["prompt_id"]][f"answer__{NAMES[said['model']]}"] = said["response"]
    write_outcomes(out, rows)
