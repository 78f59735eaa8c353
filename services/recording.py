"""Recorded answers of one expert, for replay."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coe.errors import ConfigError
from coe.experts.replay import prompt_key


def read_recording(path: Path, expert_id: str) -> dict[str, str]:
    """Answers by `prompt_key`, from the column ``answer__<expert_id>`` of an outcome table.

    Raises
    ------
    ConfigError
        The file is not Parquet or lacks the columns.
    """
    column = f"answer__{expert_id}"
    try:
        table = pq.read_table(path, columns=["prompt", column])
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"recording {path}: cannot be read: {error}") from error
    if column not in table.column_names:
        raise ConfigError(f"recording {path}: has no column {column!r}: name it in recorded_as")
    rows = zip(table["prompt"].to_pylist(), table[column].to_pylist(), strict=True)
    return {prompt_key(prompt): answer for prompt, answer in rows if answer is not None}
