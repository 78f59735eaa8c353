"""Recorded answers of one expert, for replay."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coe.errors.files import ConfigError
from coe.experts.replay import Recorded, prompt_key


def read_recording(path: Path, expert_id: str) -> dict[str, Recorded]:
    """What was recorded, by `prompt_key`, from two columns of an outcome table.

    These are ``answer__<expert_id>`` and, if there is one, ``tokens__<expert_id>``.

    Raises
    ------
    ConfigError
        The file is not Parquet, lacks the columns, or a count is not a number.
    """
    column, counts = f"answer__{expert_id}", f"tokens__{expert_id}"
    try:
        # of a column that is not there, a dot in its name would mean a field of another
        there = [name for name in pq.read_schema(path).names if name in ("prompt", column, counts)]
        table = pq.read_table(path, columns=there)
        n_tokens = [None] * table.num_rows
        if counts in table.column_names:
            n_tokens = table[counts].cast(pa.float64()).to_pylist()
    except (OSError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ConfigError(f"recording {path}: cannot be read: {error}") from error
    if column not in table.column_names:
        raise ConfigError(f"recording {path}: has no column {column!r}: name it in recorded_as")
    rows = zip(table["prompt"].to_pylist(), table[column].to_pylist(), n_tokens, strict=True)
    return {
        prompt_key(prompt): Recorded(answer, _count(n))
        for prompt, answer, n in rows
        if answer is not None
    }


def _count(n_tokens: float | None) -> int | None:
    """A count of tokens; ``None`` where it is unknown."""
    return None if n_tokens is None or not math.isfinite(n_tokens) else round(n_tokens)
