"""Tables of prompts and of outcomes: what experts scored on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coe.errors.files import OutcomesError

_REQUIRED = ("prompt_id", "prompt", "split")
_AMOUNTS = ("tokens", "latency_ms", "energy_j", "cost_usd")
_MATRICES = ("scores", "retrieved_scores", *_AMOUNTS, "logprobs")
_MEASURES = ("score", "retrieved_score", *_AMOUNTS, "logprob")


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What each expert scored on each prompt.

    Parameters
    ----------
    prompt_ids, prompts, categories, tasks, splits : (n_prompts,); a category may be empty, and
        so may the task that a prompt was taken from, which is often finer.
    expert_ids : (n_experts,) names of the columns of the measures.
    scores : (n_prompts, n_experts) in [0, 1]; NaN where unknown.
    tokens, latency_ms, energy_j, cost_usd : likewise, non-negative; NaN where unknown.
    retrieved_scores : like ``scores``, of answers given with retrieved passages.
    sha256 : of the file they were read from.
    logprobs : likewise, at most 0: mean log-probability of the tokens of an answer, by the expert
        itself; NaN where unknown.
    answers : (n_prompts, n_experts) texts, ``None`` where unknown; or ``None``: not known, or not
        asked for.
    """

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    categories: NDArray[np.str_]
    tasks: NDArray[np.str_]
    splits: NDArray[np.str_]
    expert_ids: tuple[str, ...]
    scores: NDArray[np.float64]
    tokens: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    energy_j: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    retrieved_scores: NDArray[np.float64]
    logprobs: NDArray[np.float64]
    sha256: str
    answers: NDArray[np.object_] | None = None

    @classmethod
    def of(
        cls,
        prompts: Sequence[str],
        expert_ids: Sequence[str],
        scores: NDArray[np.float64],
        **known: Any,
    ) -> Outcomes:
        """A table that is at hand: ``known`` fields, and of the others nothing is known.

        Without splits all prompts are ``train`` rows; without ids they are numbered. Nothing is
        checked.
        """
        n_prompts = len(prompts)
        unknown, unnamed = np.full(scores.shape, np.nan), np.full(n_prompts, "")
        fields: dict[str, Any] = {
            **dict.fromkeys(_MATRICES, unknown),
            **dict.fromkeys(("categories", "tasks"), unnamed),
            "prompt_ids": tuple(f"p{k}" for k in range(n_prompts)),
            "prompts": tuple(prompts),
            "splits": np.full(n_prompts, "train"),
            "expert_ids": tuple(expert_ids),
            "scores": scores,
            "sha256": "0" * 64,
        }
        return cls(**fields | known)

    @classmethod
    def read(cls, path: Path, answers: bool = False) -> Outcomes:
        """The table in a Parquet file.

        Columns: ``prompt_id, prompt, split``, optionally ``category`` and ``source_task``,
        then per expert ``score__<expert>`` and optionally ``tokens__``, ``latency_ms__``,
        ``energy_j__``, ``cost_usd__``, ``logprob__``, the mean log-probability of the answer's
        tokens, and ``retrieved_score__``, the score of an answer that was given with passages.
        Other columns are not read.

        Parameters
        ----------
        answers : whether to read the texts of columns ``answer__<expert>`` too, if there are any.

        Raises
        ------
        OutcomesError
            The file is absent or not Parquet, a column is missing, not numeric or not text, a
            score lies outside [0, 1], a log-probability is above 0, another measure negative, any
            infinite, ids repeat, an expert has no score at all, or there are no prompts.
        """
        table = _table(path, answers)
        missing = [name for name in _REQUIRED if name not in table.column_names]
        if missing:
            raise OutcomesError(f"{path}: missing columns: {', '.join(missing)}")
        expert_ids = tuple(c[7:] for c in table.column_names if c.startswith("score__"))
        if not expert_ids:
            raise OutcomesError(f"{path}: no column named score__<expert>")
        if not table.num_rows:
            raise OutcomesError(f"{path}: no prompts")
        measures = {m: _matrix(table, m, expert_ids, path) for m in _MEASURES}
        outcomes = cls(
            prompt_ids=tuple(_values(table, "prompt_id", path)),
            prompts=_prompts(table, path),
            categories=_names(table, "category", path),
            tasks=_names(table, "source_task", path),
            splits=_names(table, "split", path),
            expert_ids=expert_ids,
            scores=measures["score"],
            tokens=measures["tokens"],
            latency_ms=measures["latency_ms"],
            energy_j=measures["energy_j"],
            cost_usd=measures["cost_usd"],
            retrieved_scores=measures["retrieved_score"],
            logprobs=measures["logprob"],
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            answers=_answers(table, expert_ids, path),
        )
        outcomes._check(path)
        return outcomes

    def _check(self, path: Path) -> None:
        if len(set(self.prompt_ids)) != len(self.prompt_ids):
            raise OutcomesError(f"{path}: prompt_id is not unique")
        self._check_range(path, "score", self.scores, 1.0, "in [0, 1]")
        self._check_range(path, "retrieved_score", self.retrieved_scores, 1.0, "in [0, 1]")
        most = float(np.finfo(float).max)
        for measure in _AMOUNTS:
            values = getattr(self, measure)
            self._check_range(path, measure, values, most, "a finite amount")
        self._check_range(path, "logprob", self.logprobs, 0.0, "a finite logarithm", -most)
        for expert_id in self.unscored:
            raise OutcomesError(f"{path}: score__{expert_id} holds no score")

    @property
    def unscored(self) -> tuple[str, ...]:
        """The experts without a score on any of these prompts."""
        known: NDArray[np.bool_] = np.any(~np.isnan(self.scores), axis=0)
        return tuple(name for name, some in zip(self.expert_ids, known, strict=True) if not some)

    def _check_range(
        self,
        path: Path,
        measure: str,
        values: NDArray[np.float64],
        most: float,
        right: str,
        least: float = 0.0,
    ) -> None:
        outside = (values < least) | (values > most)
        if outside.any():
            row, column = np.argwhere(outside)[0]
            raise OutcomesError(
                f"{path}: {measure}__{self.expert_ids[column]} of prompt "
                f"{self.prompt_ids[row]!r} is {values[row, column]}, not {right}"
            )

    def columns(self, expert_ids: Sequence[str]) -> Outcomes:
        """The same prompts with these experts, each of which the table knows, in this order."""
        order = [self.expert_ids.index(name) for name in expert_ids]
        measures: dict[str, Any] = {name: getattr(self, name)[:, order] for name in _MATRICES}
        answers = None if self.answers is None else self.answers[:, order]
        return replace(self, expert_ids=tuple(expert_ids), answers=answers, **measures)

    def rows(self, mask: NDArray[np.bool_]) -> Outcomes:
        """The prompts where ``mask`` (n_prompts,) is true."""
        keep = np.flatnonzero(mask)
        names = ("categories", "tasks", "splits", *_MATRICES)
        arrays: dict[str, Any] = {name: getattr(self, name)[keep] for name in names}
        return replace(
            self,
            prompt_ids=tuple(self.prompt_ids[i] for i in keep),
            prompts=tuple(self.prompts[i] for i in keep),
            answers=None if self.answers is None else self.answers[keep],
            **arrays,
        )


def write_outcomes(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write outcome rows as Parquet, atomically: a reader sees the old file or the new one."""
    partial = path.with_suffix(path.suffix + ".partial")
    # not `Table.from_pylist`: it drops the columns that the first row lacks
    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    pq.write_table(table, partial, compression="zstd")
    partial.replace(path)


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file of prompts; ``prompt_id`` and ``prompt`` are checked.

    Raises
    ------
    OutcomesError
        The file is absent, a line is not a JSON object, a field is missing, or ids repeat;
        the message names file and line.
    """
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    for where, line in _lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise OutcomesError(f"{where}: not JSON: {error.msg}") from error
        if not isinstance(row, dict):
            raise OutcomesError(f"{where}: not a JSON object")
        for name in ("prompt_id", "prompt"):
            if not isinstance(row.get(name), str) or not row[name]:
                raise OutcomesError(f"{where}: field {name!r} must be a non-empty string")
        if row["prompt_id"] in seen:
            raise OutcomesError(f"{where}: prompt_id {row['prompt_id']!r} repeats")
        seen.add(row["prompt_id"])
        rows.append(row)
    return rows


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OutcomesError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line


def _table(path: Path, answers: bool) -> pa.Table:
    """The columns of an outcome table; texts of answers, the most of a file, only if asked for."""
    measures = (*_MEASURES, "answer") if answers else _MEASURES
    wanted = (*_REQUIRED, "category", "source_task", *(f"{measure}__" for measure in measures))
    try:
        with pq.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name.startswith(wanted)]
            table = file.read(names)
    except (OSError, pa.ArrowInvalid) as error:
        raise OutcomesError(f"{path}: not a readable Parquet file: {error}") from error
    for name in names:
        if names.count(name) > 1:
            raise OutcomesError(f"{path}: column {name} is there twice")
    return table


def _names(table: pa.Table, column: str, path: Path) -> NDArray[np.str_]:
    """A column of names, empty where there is none."""
    if column not in table.column_names:
        return np.full(table.num_rows, "")
    names = _values(table, column, path)
    return np.array(["" if name is None else str(name) for name in names])


def _prompts(table: pa.Table, path: Path) -> tuple[str, ...]:
    return tuple(prompt or "" for prompt in _texts(table, "prompt", path))


def _answers(table: pa.Table, expert_ids: Sequence[str], path: Path) -> NDArray[np.object_] | None:
    columns = [f"answer__{expert_id}" for expert_id in expert_ids]
    if not set(columns) & set(table.column_names):
        return None
    found = np.full((table.num_rows, len(columns)), None, dtype=object)
    for k, column in enumerate(columns):
        if column in table.column_names:
            found[:, k] = _texts(table, column, path)
    return found


def _texts(table: pa.Table, column: str, path: Path) -> list[str | None]:
    texts = _values(table, column, path)
    for text in texts:
        if not isinstance(text, str | None):
            raise OutcomesError(f"{path}: column {column} holds {text!r}, which is not text")
    return texts


def _values(table: pa.Table, column: str, path: Path) -> list[Any]:
    try:
        values: list[Any] = table[column].to_pylist()
    except UnicodeDecodeError as error:
        raise OutcomesError(f"{path}: column {column} is not UTF-8: {error}") from error
    return values


def _matrix(
    table: pa.Table, measure: str, expert_ids: tuple[str, ...], path: Path
) -> NDArray[np.float64]:
    columns = []
    for expert_id in expert_ids:
        name = f"{measure}__{expert_id}"
        if name in table.column_names:
            try:
                column = table[name].cast(pa.float64()).to_numpy()
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise OutcomesError(f"{path}: column {name} is not numeric") from error
        else:
            column = np.full(table.num_rows, np.nan)
        columns.append(column)
    return np.column_stack(columns)
