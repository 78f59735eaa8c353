"""Tables of measured requests: CSV and Parquet files to `coe.device_fit.Measurements`."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from coe.device_fit import Measurements
from coe.errors.files import MeasurementsError

Row = Mapping[str, Any]

_NUMBERS = ("prompt_tokens", "output_tokens", "ttft_ms", "latency_ms", "energy_j", "power_w")
_NEEDED = {
    "request": ("prompt_tokens", "output_tokens", "ttft_ms", "latency_ms"),
    "prefill": ("prompt_tokens", "ttft_ms"),
    "decode": ("output_tokens", "latency_ms"),
}


def read_measurements(path: Path, idle_w: float = 0.0) -> Measurements:
    """The measured requests in a CSV or Parquet file, joules above ``idle_w``.

    A row is a whole request, or the prefill or decode of one where column ``phase`` says so:

    - ``request`` (or no such column): ``prompt_tokens, output_tokens, ttft_ms, latency_ms``,
      the latter from the request to the end of its answer.
    - ``prefill``: ``prompt_tokens, ttft_ms``.
    - ``decode``: ``output_tokens, latency_ms``, the time after the first token alone.

    ``energy_j`` or ``power_w``, the mean over the time of the row, may be given: for some rows or
    none. Other columns are left alone.

    Raises
    ------
    MeasurementsError
        The file cannot be read, a column is missing, or a cell is empty that is needed, not a
        number, negative, infinite, or contradicts another; the message names row and column.
        Rows count from 1, without the heading.
    """
    columns, table = _read(path)
    if not table:
        raise MeasurementsError(f"{path}: no rows")
    _check_columns(path, columns)
    found = []
    for n, row in enumerate(table, start=1):
        try:
            found.append(_measurement(row, idle_w))
        except ValueError as error:
            raise MeasurementsError(f"{path}: row {n}: {error}") from error
    return Measurements(*np.array(found, dtype=np.float64).T)


def _read(path: Path) -> tuple[Sequence[str], Sequence[Row]]:
    readers: Mapping[str, Callable[[Path], tuple[Sequence[str], Sequence[Row]]]] = {
        ".csv": _read_csv,
        ".parquet": _read_parquet,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise MeasurementsError(f"{path}: must be a .csv or a .parquet file")
    return reader(path)


def _read_csv(path: Path) -> tuple[Sequence[str], Sequence[Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            return reader.fieldnames or (), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MeasurementsError(f"{path}: not a readable CSV file: {error}") from error


def _read_parquet(path: Path) -> tuple[Sequence[str], Sequence[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise MeasurementsError(f"{path}: not a readable Parquet file: {error}") from error
    return table.column_names, table.to_pylist()


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    repeated = {name for name in columns if columns.count(name) > 1}
    if repeated:
        raise MeasurementsError(f"{path}: column {min(repeated)} appears twice")
    wanted = {"latency_ms"} if "phase" in columns else set(_NEEDED["request"])
    if missing := sorted(wanted - set(columns)):
        have = ", ".join(columns) or "none"
        raise MeasurementsError(
            f"{path}: missing columns: {', '.join(missing)}; it has {have}. Rows that are one "
            "phase of a request need a column phase: prefill or decode"
        )


def _measurement(row: Row, idle_w: float) -> tuple[float, ...]:
    phase = str(row.get("phase") or "request").strip().lower()
    if phase not in _NEEDED:
        raise ValueError(f"phase: must be one of {', '.join(_NEEDED)}, not {row['phase']!r}")
    cells = {name: _number(row.get(name), name) for name in _NUMBERS}
    for name in _NEEDED[phase]:
        if math.isnan(cells[name]):
            raise ValueError(f"{name}: empty, and a {phase} row needs it")
        if cells[name] == 0 and name != "prompt_tokens":
            raise ValueError(f"{name}: must be positive")
    ttft_ms, latency_ms = cells["ttft_ms"], cells["latency_ms"]
    if phase == "prefill":
        latency_ms, decode_ms, output_tokens = ttft_ms, math.nan, 0.0
    else:
        output_tokens = cells["output_tokens"]
        if phase == "decode":
            ttft_ms = math.nan
        decode_ms = latency_ms if phase == "decode" else latency_ms - ttft_ms
        if decode_ms <= 0:
            raise ValueError(f"latency_ms: {latency_ms:g} is not more than ttft_ms, {ttft_ms:g}")
    energy_j = _joules(cells, latency_ms / 1000.0, idle_w)
    return cells["prompt_tokens"], output_tokens, ttft_ms, decode_ms, energy_j


def _joules(cells: Mapping[str, float], seconds: float, idle_w: float) -> float:
    """Joules above idle; NaN where the row has none."""
    energy_j, power_w = cells["energy_j"], cells["power_w"]
    if math.isnan(energy_j):
        name, energy_j = "power_w", power_w * seconds
    else:
        name = "energy_j"
    above = energy_j - idle_w * seconds
    if above < 0 or (above == 0 and idle_w > 0):
        raise ValueError(
            f"{name}: {energy_j / seconds:.4g} W on average is no more than idle, {idle_w:g} W"
        )
    return above


def _number(cell: Any, name: str) -> float:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return math.nan
    try:
        value = float(cell)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: must be a number, not {cell!r}") from None
    if isinstance(cell, bool) or math.isinf(value) or value < 0:
        raise ValueError(f"{name}: must be a finite number of at least 0, not {cell!r}")
    return value
