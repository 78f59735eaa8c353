"""Run experts over prompts and write what they scored."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coe.answer import AnswerMeter
from coe.core import ExpertSpec, Message, Request
from coe.errors.experts import ExpertError, ExpertRejectedError
from coe.errors.files import OutcomesError
from coe.experts.protocol import Expert
from coe.experts.replay import prompt_key
from coe.logprobs import mean_logprob, with_logprobs
from coe.retrieval import Retriever
from coe.routers.checks import Check, parse_check
from coe.routers.outcomes import write_outcomes
from coe.routers.passages import Quoted, with_passages
from coe.services.fleet import Fleet
from coe.services.sandbox import score_answer

_DEFAULT_MAX_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Asked:
    """One expert's answer to one question, as kept in the journal; ``key`` is the question's."""

    prompt_id: str
    key: str
    expert_id: str
    answer: str
    output_tokens: int
    prompt_tokens: int
    latency_ms: float
    retrieved: bool = False
    logprob: float | None = None


_Answers = dict[tuple[str, str, bool], Asked]
"""Answers by prompt, expert, and whether passages went with it."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A prompt, and the passages that go with it; ``key`` is a hash of both."""

    row: Mapping[str, Any]
    key: str
    quoted: Quoted | None = None

    @property
    def retrieved(self) -> bool:
        return self.quoted is not None

    def named(self, expert_id: str) -> tuple[str, str, bool]:
        return self.row["prompt_id"], expert_id, self.retrieved


async def collect(
    fleet: Fleet,
    prompts: Sequence[Mapping[str, Any]],
    out: Path,
    concurrency: int = 1,
    run_code: bool = False,
    progress: Callable[[str], None] = lambda expert_id: None,
    retriever: Retriever | None = None,
) -> list[str]:
    """Ask every expert every prompt, score the answers, write the outcome table to ``out``.

    Answers are journalled beside ``out`` as they come: a second call after an interruption asks
    only what is missing. Joules are modelled from the device profile. Experts that can are asked
    for the log-probabilities of their tokens, for the columns ``logprob__<expert>``.

    Parameters
    ----------
    prompts : rows of `read_prompts`, each with a ``check``.
    concurrency : requests in flight per expert.
    run_code : whether answers that are programs may be run; without it they stay unscored.
    progress : called with the expert's id after each answer.
    retriever : when given, every prompt for which it finds passages is asked a second time with
        them, for the columns ``retrieved_score__<expert>`` and ``retrieved_answer__<expert>``.

    Returns
    -------
    Remarks: what was left unscored, and which answers failed.

    Raises
    ------
    OutcomesError
        A prompt's check is malformed.
    """
    checks = {row["prompt_id"]: _check(row) for row in prompts}
    journal = out.with_suffix(out.suffix + ".journal.jsonl")
    out.parent.mkdir(parents=True, exist_ok=True)
    questions = _questions(prompts, retriever)
    answers = _resumed(journal, questions, fleet)
    for _, expert_id, _ in answers:
        progress(expert_id)
    with journal.open("a", encoding="utf-8") as file:

        def note(asked: Asked) -> None:
            answers[asked.prompt_id, asked.expert_id, asked.retrieved] = asked
            # U+2028 and its kin stay escaped, so that a line is a row
            file.write(json.dumps(_as_row(asked)) + "\n")
            file.flush()
            progress(asked.expert_id)

        todo = {
            name: [asked for asked in questions if asked.named(name) not in answers]
            for name in fleet.experts
        }
        asking = (_ask_all(fleet, n, todo[n], concurrency, note) for n in todo)
        failures = await asyncio.gather(*asking)
    rows = await asyncio.to_thread(_score, prompts, checks, answers, fleet.specs, run_code)
    write_outcomes(out, rows)
    if len(answers) >= len(questions) * len(fleet.experts):
        journal.unlink()
    n_unscored = sum(row[f"score__{name}"] is None for row in rows for name in fleet.experts)
    unscored = [f"{n_unscored} answers are unscored"] if n_unscored else []
    return [*itertools.chain(*failures), *unscored]


async def _ask_all(
    fleet: Fleet,
    expert_id: str,
    questions: Sequence[_Question],
    concurrency: int,
    note: Callable[[Asked], None],
) -> list[str]:
    """Ask one expert these questions, so many at once; returns which failed and why."""
    todo, failures = iter(questions), []
    expert, telling = fleet.experts[expert_id], fleet.specs[expert_id].logprobs

    async def worker() -> None:
        for question in todo:
            try:
                note(await _ask(expert, expert_id, question, telling))
            except ExpertError as error:
                aided = " with passages" if question.retrieved else ""
                failures.append(f"{question.row['prompt_id']}{aided}: {error}")

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return failures


async def _ask(expert: Expert, expert_id: str, question: _Question, telling: bool) -> Asked:
    row = question.row
    max_tokens = int(row.get("max_tokens") or _DEFAULT_MAX_TOKENS)
    message = {"role": "user", "content": row["prompt"]}
    request = Request(
        messages=(Message("user", row["prompt"]),),
        insists=True,
        payload={"messages": [message], "temperature": 0, "max_tokens": max_tokens},
    )
    if question.quoted is not None:
        request = with_passages(request, question.quoted)
    if telling:
        request = with_logprobs(request)
    meter, pieces = AnswerMeter(stream=False), []
    started = time.monotonic()
    async for piece in expert.stream(request, max_tokens):
        meter.feed(piece)
        pieces.append(piece)
    latency_ms = (time.monotonic() - started) * 1000.0
    try:
        choice = json.loads(b"".join(pieces))["choices"][0]
        text = choice["message"]["content"] or ""
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ExpertRejectedError(expert_id, "answered something else than JSON", 502) from error
    reading = meter.reading()
    prompt_tokens = (
        request.prompt_tokens if reading.prompt_tokens is None else reading.prompt_tokens
    )
    return Asked(
        row["prompt_id"],
        question.key,
        expert_id,
        text,
        reading.output_tokens,
        prompt_tokens,
        latency_ms,
        question.retrieved,
        mean_logprob(choice.get("logprobs")),
    )


def _score(
    prompts: Sequence[Mapping[str, Any]],
    checks: Mapping[str, Check],
    answers: _Answers,
    specs: Mapping[str, ExpertSpec],
    run_code: bool,
) -> list[dict[str, Any]]:
    rows = []
    for prompt in prompts:
        row: dict[str, Any] = {
            "prompt_id": prompt["prompt_id"],
            "prompt": prompt["prompt"],
            "source_task": prompt.get("source_task"),
            "category": prompt.get("category"),
            "split": prompt.get("split", "train"),
        }
        for expert_id, spec in specs.items():
            row |= _outcome(answers.get((prompt["prompt_id"], expert_id, False)), expert_id, spec)
            aided = answers.get((prompt["prompt_id"], expert_id, True))
            if aided is not None:
                row[f"retrieved_answer__{expert_id}"] = aided.answer
            for kind in ("", "retrieved_"):
                answer = row.get(f"{kind}answer__{expert_id}")
                if answer is not None:
                    score = score_answer(answer, checks[prompt["prompt_id"]], run_code)
                    row[f"{kind}score__{expert_id}"] = score
        rows.append(row)
    return rows


def _outcome(asked: Asked | None, expert_id: str, spec: ExpertSpec) -> dict[str, Any]:
    """The columns of one expert in one row, the score still open."""
    if asked is None:
        figures: dict[str, Any] = dict.fromkeys(
            ("score", "tokens", "latency_ms", "energy_j", "cost_usd", "answer")
        )
    else:
        sizes = (asked.prompt_tokens, asked.output_tokens)
        figures = {
            "score": None,
            "tokens": float(asked.output_tokens),
            "latency_ms": asked.latency_ms,
            "energy_j": spec.profile.energy_j(*sizes),
            "cost_usd": spec.cost_usd(*sizes),
            "answer": asked.answer,
        }
    if spec.logprobs:
        figures["logprob"] = None if asked is None else asked.logprob
    return {f"{name}__{expert_id}": value for name, value in figures.items()}


def _check(row: Mapping[str, Any]) -> Check:
    try:
        return parse_check(row["check"])
    except KeyError as error:
        raise OutcomesError(f"prompt {row['prompt_id']!r} has no field 'check'") from error
    except OutcomesError as error:
        raise OutcomesError(f"prompt {row['prompt_id']!r}: {error}") from error


def _as_row(asked: Asked) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in Asked.__slots__}


def _questions(
    prompts: Sequence[Mapping[str, Any]], retriever: Retriever | None
) -> list[_Question]:
    """Every prompt alone, then those for which passages are found, with them."""
    alone = [_Question(row, prompt_key(row["prompt"])) for row in prompts]
    if retriever is None:
        return alone
    aided = []
    for row in prompts:
        quoted = retriever.find(row["prompt"])
        if quoted is not None:
            found = " ".join(cited.passage_id for cited in quoted.citations)
            aided.append(_Question(row, prompt_key(f"{row['prompt']} {found}"), quoted))
    return alone + aided


def _resumed(journal: Path, questions: Sequence[_Question], fleet: Fleet) -> _Answers:
    """Journalled answers that belong to these questions, unchanged since, and these experts."""
    keys = {(asked.row["prompt_id"], asked.retrieved): asked.key for asked in questions}
    return {
        (asked.prompt_id, asked.expert_id, asked.retrieved): asked
        for asked in _read_journal(journal)
        if keys.get((asked.prompt_id, asked.retrieved)) == asked.key
        and asked.expert_id in fleet.experts
    }


def _read_journal(path: Path) -> list[Asked]:
    """Answers of an interrupted run; a last line cut in two is dropped."""
    if not path.exists():
        return []
    asked = []
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            asked.append(Asked(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return asked
