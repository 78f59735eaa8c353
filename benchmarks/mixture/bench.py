"""What a token-level mixture costs, and whether it helps. Prints one JSON document.

    python benchmarks/mixture/bench.py [--prompts N] [--experts ID ...] [--out FILE]

Of the small experts that ship, no two share a vocabulary. So two engines of the same weights are
mixed, which differ by a system message: both ask for a short answer, in different words. That
measures the cost as it is, for engines know nothing of each other's weights; and of the gain only
what two prompts of one expert can give, and nothing of what experts trained apart could.

Cost: tokens a second alone, as a mixture of one, as a mixture of two. Gain: probabilities of the
reference answers of ``data/prompts`` under each and under mixtures of every weight, which are exact
and leave penalties aside; and scores of greedy answers, penalties included.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coe.answer import AnswerMeter
from coe.config import DATA, load_config
from coe.core import Message, Request
from coe.experts.hosted import EmbeddedExpert
from coe.experts.llama import LlamaContinuation
from coe.experts.mixed import MixedExpert
from coe.experts.protocol import Expert
from coe.kinds import EmbeddedSection
from coe.routers.bootstrap import interval, resampled_means
from coe.routers.checks import parse_check, score
from coe.services.fleet import running

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

ROOT = Path(__file__).parents[2]
SYSTEMS = (
    "Answer with the result only, in as few words as possible.",
    "You are an expert. Reply with the exact answer and no explanation.",
)
SHARES = np.linspace(0.0, 1.0, 11)
CHECKS = {"number", "contains_any", "contains_all", "label", "choice", "text", "json_equals"}
N_LIKELIEST, N_RESAMPLES, N_SPEED_TOKENS, MOST_TOKENS = 2000, 2000, 40, 40
SUBJECTS = ("the sea", "a winter market", "an old clock", "two brothers", "a lost letter")
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Told:
    """An expert with a system message of ours before the request's own messages."""

    expert: EmbeddedExpert
    system: str | None

    async def continuation(self, request: Request) -> LlamaContinuation:
        """As the expert's."""
        if self.system is None:
            return await self.expert.continuation(request)
        messages = [{"role": "system", "content": self.system}, *request.payload["messages"]]
        payload = {**request.payload, "messages": messages}
        return await self.expert.continuation(replace(request, payload=payload))


def asked(text: str, stream: bool = False) -> Request:
    """A request for an answer to ``text``."""
    payload = {"messages": [{"role": "user", "content": text}], "stream": stream}
    return Request((Message("user", text),), stream=stream, payload=payload)


def of_two(pair: Sequence[Told], share: float) -> MixedExpert:
    """The mixture in which the second one weighs ``share``; one of no weight is not asked."""
    weights = {"first": 1.0 - share, "second": share}
    members = dict(zip(weights, pair, strict=True))
    return MixedExpert("mixture", {n: m for n, m in members.items() if weights[n] > 0}, weights)


async def tokens_per_s(expert: Expert, subject: str) -> float:
    """Tokens a second after the first one, of a long answer."""
    meter, first = AnswerMeter(stream=True), 0.0
    request = asked(f"Write a long story about {subject}.", stream=True)
    async for piece in expert.stream(request, N_SPEED_TOKENS):
        first = first or time.perf_counter()
        meter.feed(piece)
    return (meter.reading().output_tokens - 1) / (time.perf_counter() - first)


async def speed(pair: Sequence[Told]) -> dict[str, float]:
    """Median rates over some subjects, the ways taken in turn."""
    ways: dict[str, Expert] = {
        "alone": pair[0].expert,
        "mixture_of_one": of_two(pair, 0.0),
        "mixture_of_two": of_two(pair, 0.5),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for subject in SUBJECTS:
        for name, expert in ways.items():
            rates[name].append(await tokens_per_s(expert, subject))
    return {name: round(float(np.median(values)), 1) for name, values in rates.items()}


async def likeliest(
    view: LlamaContinuation, said: Sequence[int], n_likeliest: int
) -> dict[int, float]:
    """Logarithms of probabilities of that many next tokens, penalties aside."""
    body = {
        "prompt": [*view.prompt, *said],
        "n_predict": 1,
        "n_probs": n_likeliest,
        # a whole character, whatever is expected: of others the server says nothing
        "logit_bias": [[view.filler, 1000.0]],
        "samplers": ["top_k"],
        "top_k": 1,
    }
    document = await view.expert.document("/completion", body, 60.0)
    rows = document["completion_probabilities"][0]["top_logprobs"]
    return {row["id"]: row["logprob"] for row in rows}


async def reference_logs(view: LlamaContinuation, reference: Sequence[int]) -> Floats:
    """Logarithm of the probability of each token after those before it."""
    logs = []
    for n, token in enumerate(reference):
        known = await likeliest(view, reference[:n], N_LIKELIEST)
        if token not in known:
            known = await likeliest(view, reference[:n], view.vocabulary.n_tokens)
        logs.append(known[token])
    return np.array(logs)


async def likelihood(pair: Sequence[Told], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean log-probability a token of the references, by the second one's share."""
    means, n_tokens = [], 0
    for row in rows:
        views = [await one.continuation(asked(row["prompt"])) for one in pair]
        text = {"content": row["reference"] + "<|im_end|>", "parse_special": True}
        reference = (await views[0].expert.document("/tokenize", text, 60.0))["tokens"]
        found = await asyncio.gather(*(reference_logs(view, reference) for view in views))
        n_tokens += len(reference)
        first, second = (np.exp(logs) for logs in found)
        means.append([np.log((1 - a) * first + a * second).mean() for a in SHARES])
    table = np.array(means)
    return {
        "n_tokens": n_tokens,
        "mean_log_by_share": dict(
            zip(SHARES.round(1).tolist(), table.mean(0).round(4).tolist(), strict=True)
        ),
        **gain(table, np.random.default_rng(0)),
    }


def gain(table: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """The mixture over the better single one, share and single chosen on the other half."""
    halves = np.arange(len(table)) % 2
    gains = np.empty(len(table))
    shares = []
    for half in (0, 1):
        chosen_on = table[halves != half].mean(0)
        share = int(chosen_on.argmax())
        single = 0 if chosen_on[0] >= chosen_on[-1] else -1
        shares.append(float(SHARES[share].round(1)))
        gains[halves == half] = (table[:, share] - table[:, single])[halves == half]
    bounds = interval(resampled_means(gains[:, None], N_RESAMPLES, rng))
    return {
        "share_chosen": shares,
        "gain_over_best_single": round(float(gains.mean()), 4),
        "gain_ci95": np.round(bounds[0], 4).tolist(),
    }


async def answered(expert: Expert, row: dict[str, Any]) -> tuple[float, int]:
    """Score of the greedy answer, and its tokens."""
    pieces = [piece async for piece in expert.stream(asked(row["prompt"]), MOST_TOKENS)]
    document = json.loads(b"".join(pieces))
    text = document["choices"][0]["message"]["content"]
    return score(text, parse_check(row["check"])), document["usage"]["completion_tokens"]


async def accuracy(pair: Sequence[Told], rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Mean scores of greedy answers, and what the mixture adds to the better single one."""
    arms = {"first": 0.0, "mixture": 0.5, "second": 1.0}
    experts = {name: of_two(pair, share) for name, share in arms.items()}
    found = np.array([[await answered(e, row) for e in experts.values()] for row in rows])
    scores = found[:, :, 0]
    best = 0 if scores[:, 0].mean() >= scores[:, 2].mean() else 2
    added = scores[:, 1] - scores[:, best]
    bounds = interval(resampled_means(added[:, None], N_RESAMPLES, np.random.default_rng(0)))
    means = dict(zip(arms, scores.mean(0).round(4).tolist(), strict=True))
    return {
        "score": means,
        "answer_tokens": dict(zip(arms, found[:, :, 1].mean(0).round(1).tolist(), strict=True)),
        "gain_over_best_single": round(float(added.mean()), 4),
        "gain_ci95": np.round(bounds[0], 4).tolist(),
    }


async def measured(expert_id: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Everything of two engines of one expert."""
    config = load_config(DATA / "coe.yaml")
    section = next(e for e in config.experts if e.id == expert_id)
    assert isinstance(section, EmbeddedSection)
    twins = [section.model_copy(update={"id": f"{expert_id}-{n}", "threads": 1}) for n in (1, 2)]
    async with running(config.model_copy(update={"experts": twins})) as fleet:
        await fleet.settled()
        engines = [e for e in fleet.experts.values() if isinstance(e, EmbeddedExpert)]
        pair = [Told(e, system) for e, system in zip(engines, SYSTEMS, strict=True)]
        return {
            "tokens_per_s": await speed([Told(e, None) for e in engines]),
            "likelihood": await likelihood(pair, rows),
            "greedy": await accuracy(pair, rows),
        }


def chosen(n: int) -> list[dict[str, Any]]:
    """So many prompts with a short reference and a check that needs no program, by lot."""
    lines = (ROOT / "data/prompts/prompts.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["check"]["kind"] in CHECKS]
    order = np.random.default_rng(0).permutation(len(rows))[:n]
    return [rows[k] for k in sorted(order)]


def main() -> None:
    """Measure, and write the document."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--experts", nargs="+", default=["smollm2-135m", "qwen2.5-coder-0.5b"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = chosen(options.prompts)
    document: dict[str, Any] = {"machine": calibration(), "n_prompts": len(rows), "experts": {}}
    for expert_id in options.experts:
        document["experts"][expert_id] = asyncio.run(measured(expert_id, rows))
    document["machine_after"] = calibration()
    text = json.dumps(document, indent=1)
    if options.out is not None:
        options.out.write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
