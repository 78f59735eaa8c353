"""Public measurements of devices as this project reads them."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coe.device_fit import Measurements

Row = Mapping[str, str]

ORIN = "energy_edge_jetson_orin.csv.gz"
MLENERGY_2 = "energy_mlenergy_a100_h100.csv.gz"
MLENERGY_3 = "energy_mlenergy_h100_b200.csv.gz"

IDLE_W = 5.517
"""Lowest power in the Orin table: what its meter shows while nothing has begun."""

MIN_METERED_MS = 2000.0
"""The Orin meter speaks once a second: in a shorter prefill it has hardly seen the load."""

MIN_DECODED = 512
"""Shortest answer of the Orin table whose duration, in whole seconds, is good to a tenth."""


STATED_DECODE = {"DeepSeek_R1_Distill_Llama_8B": (9.8, 27.7)}
"""Tokens/s and watts that the paper states where its repository has no rows of decoding."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One request among ``streams`` on a loaded server, as ML.ENERGY measures it."""

    streams: float
    tokens_per_s: float
    token_j: float
    device_w: float


def rows(folder: Path, name: str) -> Iterator[Row]:
    """The rows of a compressed table."""
    with gzip.open(folder / name, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def orin(folder: Path, expert: str) -> Measurements:
    """Prefill and decode of an expert on AGX Orin, joules above idle.

    Prefill rows keep their joules from `MIN_METERED_MS` on. The decode rows are totals of whole
    seconds with prefill in them, so the row of one token and the same prompt is taken off each:
    what is left is the decoding of all tokens but the first. Answers shorter than
    `MIN_DECODED` are left out. Durations of decode rows are joules by watts. Where there are
    none, one row is made of `STATED_DECODE`.
    """
    table = [row for row in rows(folder, ORIN) if row["model"] == expert]
    found = [_prefill(row) for row in table if row["phase"] == "prefill"]
    firsts: dict[str, Row] = {}
    for row in table:
        if row["phase"] == "decode":
            first = firsts.setdefault(row["input_tokens"], row)
            if float(row["output_tokens"]) >= MIN_DECODED:
                found.append(_decode(row, first))
    if stated := STATED_DECODE.get(expert):
        found.append(_stated(*stated))
    return Measurements(*np.array(found).T)


def loaded(folder: Path, name: str, **wanted: str) -> Loaded:
    """The one row of an ML.ENERGY table with these cells, per request.

    Watts of the device: joules of a token times tokens/s of all requests (v2), or as
    stated (v3). Idle power is in them, and the joules of prompts are in those of the output tokens.
    """
    (row,) = (r for r in rows(folder, name) if all(r[k] == v for k, v in wanted.items()))
    if name == MLENERGY_2:
        token_j = float(row["energy_req_j"]) / float(row["avg_output_tokens"])
        return Loaded(
            float(row["avg_bs_reqs"]),
            1.0 / float(row["avg_tpot_s"]),
            token_j,
            token_j * float(row["token_tput_tok_s"]),
        )
    return Loaded(
        float(row["avg_batch_size"]),
        1000.0 / float(row["median_itl_ms"]),
        float(row["energy_per_token_joules"]),
        float(row["avg_power_watts"]),
    )


def _prefill(row: Row) -> tuple[float, ...]:
    ttft_ms = float(row["ttft_ms"])
    joules = float(row["total_energy_j"]) - IDLE_W * ttft_ms / 1000.0
    metered = joules if ttft_ms >= MIN_METERED_MS else np.nan
    return float(row["input_tokens"]), 0.0, ttft_ms, np.nan, metered


def _decode(row: Row, first: Row) -> tuple[float, ...]:
    seconds = _seconds(row) - _seconds(first)
    joules = float(row["total_energy_j"]) - float(first["total_energy_j"]) - IDLE_W * seconds
    tokens = float(row["output_tokens"]) - float(first["output_tokens"])
    return float(row["input_tokens"]), tokens, np.nan, 1000.0 * seconds, joules


def _stated(tokens_per_s: float, watts: float) -> tuple[float, ...]:
    seconds = MIN_DECODED / tokens_per_s
    return np.nan, MIN_DECODED, np.nan, 1000.0 * seconds, (watts - IDLE_W) * seconds


def _seconds(row: Row) -> float:
    return float(row["total_energy_j"]) / float(row["avg_power_w"])
