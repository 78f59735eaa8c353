"""Recorded requests in a file: when they came, and how long prompt and answer were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from coe.errors.files import SimulationError
from coe.simulation.workload import Trace

Floats = NDArray[np.float64]

_LENGTHS = ("ContextTokens", "GeneratedTokens")
_AT = "TIMESTAMP"


def read_trace(path: Path) -> Trace:
    """The trace in a CSV file, which may be compressed (``.csv.gz``).

    Columns as in Azure's traces of LLM inference: ``TIMESTAMP``, a date or seconds, then
    ``ContextTokens`` and ``GeneratedTokens``; others are left alone. Without ``TIMESTAMP`` only
    lengths are recorded, and two columns of numbers need no heading. Rows are put in order.

    Raises
    ------
    SimulationError
        The file cannot be read, has fewer than two rows or lacks a column, a length is not a
        whole, non-negative number, or all came at once.
    """
    table = _table(path)
    missing = [name for name in _LENGTHS if name not in table.column_names]
    if missing:
        have = ", ".join(table.column_names)
        raise SimulationError(f"{path}: missing columns: {', '.join(missing)}; it has {have}")
    if table.num_rows < 2:
        raise SimulationError(f"{path}: a trace needs two rows, it has {table.num_rows}")
    prompt_tokens, output_tokens = (_lengths(table, name, path) for name in _LENGTHS)
    if _AT not in table.column_names:
        return Trace(prompt_tokens, output_tokens)
    at_s = _seconds(table[_AT], path)
    order = np.argsort(at_s, kind="stable")
    at_s = at_s[order] - at_s[order[0]]
    if at_s[-1] == 0:
        raise SimulationError(f"{path}: all requests came at once: leave out {_AT}")
    return Trace(prompt_tokens[order], output_tokens[order], at_s)


def _table(path: Path) -> pa.Table:
    try:
        table = pacsv.read_csv(path)
        if table.num_columns == 2 and all(_is_number(name) for name in table.column_names):
            table = pacsv.read_csv(path, pacsv.ReadOptions(column_names=list(_LENGTHS)))
    except (OSError, pa.ArrowInvalid) as error:
        raise SimulationError(f"{path}: not a readable CSV file: {error}") from error
    return table


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _lengths(table: pa.Table, name: str, path: Path) -> Floats:
    try:
        found: Floats = table[name].cast(pa.int64()).cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SimulationError(f"{path}: column {name} must hold whole numbers: {error}") from error
    # written so that an empty cell, which is NaN, fails too
    if not found.min() >= 0:
        raise SimulationError(f"{path}: column {name} has an empty cell or a negative number")
    return found


def _seconds(column: pa.ChunkedArray, path: Path) -> Floats:
    try:
        if pa.types.is_timestamp(column.type):
            column = pc.subtract(column, pc.min(column)).cast(pa.duration("ns"))
            column = pc.divide(column.cast(pa.int64()).cast(pa.float64()), 1e9)
        found: Floats = column.cast(pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SimulationError(f"{path}: column {_AT} holds neither dates nor seconds") from error
    if not np.isfinite(found).all():
        raise SimulationError(f"{path}: column {_AT} has an empty or infinite cell")
    return found
