"""Speed of the embedded experts here: the figures of a device profile. Prints one JSON document.

One request at a time, one expert at a time. The time to the first token is fitted as
``b * prompt_tokens + c`` over coe's own estimate of the prompt's length, so that ``c`` holds what
the chat template adds.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import numpy as np

from coe.answer import AnswerMeter
from coe.config import DATA, load_config
from coe.core import Message, Request
from coe.experts.protocol import Expert
from coe.services.fleet import running

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

WORDS = "market river seven paper window garden light train winter music".split()
PROMPT_WORDS = (5, 20, 60, 120, 240, 480)
N_OUTPUT = 48
N_REPEATS = 3


async def ask(expert: Expert, n_words: int, seed: int) -> tuple[int, float, float]:
    """Estimated prompt tokens, milliseconds to the first piece, output tokens per second."""
    # another first word each time: a cached prefix would hide the prefill
    words = np.random.default_rng([seed, n_words]).choice(WORDS, n_words)
    text = f"{seed * 1000 + n_words} Write a story with these words: {' '.join(words)}"
    payload = {
        "messages": [{"role": "user", "content": text}],
        "stream": True,
        "temperature": 0,
        "cache_prompt": False,
    }
    request = Request((Message("user", text),), stream=True, payload=payload)
    meter = AnswerMeter(stream=True)
    started = time.perf_counter()
    first = 0.0
    async for piece in expert.stream(request, N_OUTPUT):
        first = first or time.perf_counter()
        meter.feed(piece)
    rate = (meter.reading().output_tokens - 1) / (time.perf_counter() - first)
    return request.prompt_tokens, (first - started) * 1000, rate


async def measure() -> dict[str, dict[str, float]]:
    """The profile of every embedded expert."""
    profiles = {}
    config = load_config(DATA / "coe.yaml")
    async with running(config) as fleet:
        await fleet.settled()
        for name, expert in fleet.experts.items():
            rows = [
                await ask(expert, n_words, seed)
                for seed in range(N_REPEATS)
                for n_words in PROMPT_WORDS
            ]
            tokens, ttft_ms, rates = np.array(rows).T
            slope, constant = np.polyfit(tokens, ttft_ms, 1)
            profiles[name] = {
                "ttft_b_ms": round(float(slope), 2),
                "ttft_c_ms": round(float(constant), 1),
                "decode_tokens_per_s": round(float(np.median(rates)), 1),
            }
    return profiles


def main() -> None:
    """Measure and print."""
    before = calibration()
    profiles = asyncio.run(measure())
    print(json.dumps({"before": before, "profiles": profiles, "after": calibration()}, indent=2))


if __name__ == "__main__":
    main()
