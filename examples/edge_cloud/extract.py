"""Write ``outcomes.parquet``, the part of ZeroEval's public records that the example replays.

    python examples/edge_cloud/extract.py FOLDER

``FOLDER`` holds two tables made of WildEval/ZeroEval @8c1485edf1 (Apache-2.0), ``result_dirs/`` of
gsm, crux and math-l5: prompts in ``zeroeval_coe5.parquet``, and in
``zeroeval_coe5_responses.parquet`` what CoE's five experts answered, with scores. ZeroEval kept no
token counts: every answer is counted by one tokenizer, Qwen2.5's, that of the weights
``qwen2.5-coder-0.5b-instruct-q4_k_m`` (`coe weights fetch`), and as no more than the 4,096 tokens
at which ZeroEval ended an answer.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from coe.config import DATA
from coe.environment import weights_home
from coe.routers.outcomes import write_outcomes
from coe.services.host.process import EngineHost
from coe.services.weights import read_manifest, verified

HERE = Path(__file__).resolve().parent
TASKS = ("zeroeval:gsm", "zeroeval:crux", "zeroeval:math-l5")
EXPERTS = {
    "qwen2-7b": "Qwen2-7B-Instruct",
    "gemma-2-9b": "gemma-2-9b-it",
    "gemma-2-27b": "gemma-2-27b-it",
    "llama-3.1-70b": "Meta-Llama-3.1-70B-Instruct",
    "qwen2-72b": "Qwen2-72B-Instruct",
}
# `coe train` tunes on dev rows and leaves test rows alone
SPLITS = {"train": "train", "dev": "test"}
TOKENIZER = "qwen2.5-coder-0.5b-instruct-q4_k_m"
MOST_TOKENS = 4096
PROMPT_COLUMNS = ["prompt_id", "source_task", "category", "prompt", "split"]

Rows = list[dict[str, Any]]


def rows_of(prompts: Rows, responses: Rows, n_tokens: Sequence[int]) -> Rows:
    """One row per prompt of the three tasks, in an order that mixes them; answers of test rows."""
    said = {
        (row["prompt_id"], row["model"]): (row, n)
        for row, n in zip(responses, n_tokens, strict=True)
    }
    asked = [prompt for prompt in prompts if prompt["source_task"] in TASKS]
    return [_row(prompt, said) for prompt in sorted(asked, key=_shuffled)]


def _row(prompt: dict[str, Any], said: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    found = prompt | {"split": SPLITS[prompt["split"]]}
    for expert_id, model in EXPERTS.items():
        response, n = said[prompt["prompt_id"], model]
        found[f"score__{expert_id}"] = response["score"]
        found[f"tokens__{expert_id}"] = min(n, MOST_TOKENS)
        replayed = found["split"] == "test"
        found[f"answer__{expert_id}"] = response["response"] if replayed else None
    return found


def _shuffled(prompt: dict[str, Any]) -> str:
    return hashlib.sha256(prompt["prompt_id"].encode()).hexdigest()


async def counted(texts: Sequence[str]) -> list[int]:
    """Tokens of each text, counted by the engine that holds the tokenizer."""
    weights = verified(read_manifest(DATA / "weights.json")[TOKENIZER], weights_home())
    command = [
        sys.executable, "-m", "coe.services.host.llama", "--weights", str(weights),
        "--alias", "tokenizer", "--threads", "1", "--slots", "1", "--context", "256",
    ]  # fmt: skip
    host = EngineHost("tokenizer", lambda: command)
    await host.start()
    try:
        await host.settled()
        async with httpx.AsyncClient(base_url=host.address or "", trust_env=False) as client:
            return [await _count(client, text) for text in texts]
    finally:
        await host.stop()


async def _count(client: httpx.AsyncClient, text: str) -> int:
    answer = await client.post("/tokenize", json={"content": text})
    return len(answer.raise_for_status().json()["tokens"])


def main() -> None:
    """Read the source, count, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=HERE / "outcomes.parquet")
    given = parser.parse_args()
    source = given.folder / "zeroeval_coe5.parquet"
    prompts = pq.read_table(source, columns=PROMPT_COLUMNS).to_pylist()
    responses = pq.read_table(given.folder / "zeroeval_coe5_responses.parquet").to_pylist()
    n_tokens = asyncio.run(counted([row["response"] for row in responses]))
    rows = rows_of(prompts, responses, n_tokens)
    write_outcomes(given.out, rows)
    print(f"wrote {given.out}: {len(rows)} prompts, {given.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
