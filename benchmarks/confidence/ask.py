"""Ask the two embedded experts, and keep the log-probability of every token they write.

Prompts come in one shuffled order, so that what a time limit leaves out is left out at random. The
cheaper expert answers each twice more, at temperature 0.8. Answers that are there are not asked for
again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coe
from coe.config import load_config
from coe.core import Message, Request
from coe.experts.protocol import Expert
from coe.routers.outcomes import read_prompts
from coe.services.fleet import running

ROOT = Path(__file__).parents[2]
CHEAP, DEAR = "smollm2-135m", "qwen2.5-coder-0.5b"
N_SAMPLES = 2
TEMPERATURE = 0.8

Asked = tuple[str, dict[str, Any], int]
"""An expert, a prompt, and the number of the sample: 0 is the answer at temperature 0."""


async def answer(expert: Expert, asked: Asked) -> dict[str, Any]:
    """What the expert says, with the log-probability of each token and of the runner-up."""
    expert_id, row, n = asked
    payload = {
        "messages": [{"role": "user", "content": row["prompt"]}],
        "temperature": TEMPERATURE if n else 0,
        "seed": n,
        "max_tokens": row["max_tokens"],
        "logprobs": True,
        "top_logprobs": 2,
    }
    request = Request(messages=(Message("user", row["prompt"]),), payload=payload)
    body = b"".join([piece async for piece in expert.stream(request, row["max_tokens"])])
    choice = json.loads(body)["choices"][0]
    tokens = choice["logprobs"]["content"] if choice.get("logprobs") else []
    return {
        "expert_id": expert_id,
        "prompt_id": row["prompt_id"],
        "sample": n,
        "answer": choice["message"]["content"],
        "finish": choice["finish_reason"],
        "logprobs": [round(token["logprob"], 3) for token in tokens],
        "seconds": [
            round(max(t["logprob"] for t in token["top_logprobs"] if t["id"] != token["id"]), 3)
            for token in tokens
        ],
    }


def questions(expert_id: str, rows: list[dict[str, Any]]) -> Iterator[Asked]:
    """Everything to ask an expert, prompt by prompt."""
    n_answers = 1 + N_SAMPLES if expert_id == CHEAP else 1
    yield from ((expert_id, row, n) for row in rows for n in range(n_answers))


def named(asked: Asked) -> tuple[str, str, int]:
    """Expert, prompt and sample of a question."""
    expert_id, row, n = asked
    return expert_id, row["prompt_id"], n


def key(row: dict[str, Any]) -> tuple[str, str, int]:
    """Expert, prompt and sample of an answer."""
    return row["expert_id"], row["prompt_id"], row["sample"]


async def main() -> None:
    """Append answers to a file until the time is over; what it holds is not asked again."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=float, default=45.0)
    parser.add_argument("--out", type=Path, default=Path("answers.jsonl"))
    options = parser.parse_args()
    rows = read_prompts(ROOT / "data" / "prompts" / "prompts.jsonl")
    random.Random(0).shuffle(rows)
    options.out.touch()
    known = {key(json.loads(line)) for line in options.out.read_text().splitlines()}
    until = time.monotonic() + options.minutes * 60
    config = load_config(Path(coe.__file__).parent / "data" / "coe.yaml")
    with options.out.open("a", encoding="utf-8") as file:
        async with running(config) as fleet:
            await fleet.settled()

            async def ask_all(expert_id: str) -> None:
                todo = (asked for asked in questions(expert_id, rows) if named(asked) not in known)
                for asked in todo:
                    if time.monotonic() > until:
                        return
                    file.write(json.dumps(await answer(fleet.experts[expert_id], asked)) + "\n")
                    file.flush()

            await asyncio.gather(*(ask_all(name) for name in (DEAR, CHEAP)))


if __name__ == "__main__":
    asyncio.run(main())
