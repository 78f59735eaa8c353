"""How well device profiles fit public measurements; prints one JSON document.

    python benchmarks/devices/bench.py [--tables FOLDER] > out.json

FOLDER holds the tables that `tables.py` names; those that are absent are left out and said so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import tables

from coe.config import DATA, shipped_profiles
from coe.device import DeviceProfile
from coe.device_fit import Measurements, fit, held_out_errors
from coe.profiles import Library, ShippedSection
from coe.yamlfile import read_yaml

AGX = "orin-agx-64-maxn/deepseek-r1-distill-"
DEFAULT_TABLES = Path(__file__).parents[3] / "shared" / "data" / "energy_latency"
ORIN = {
    f"{AGX}qwen-1.5b-fp16-vllm": "DeepSeek_R1_Distill_Qwen_1.5B",
    f"{AGX}llama-8b-fp16-vllm": "DeepSeek_R1_Distill_Llama_8B",
    f"{AGX}qwen-14b-fp16-vllm": "DeepSeek_R1_Distill_Qwen_14B",
}
PUBLISHED_TTFT_S = {
    f"{AGX}qwen-1.5b-fp16-vllm": (1.56e-7, 2.31e-6, 0.046),
    f"{AGX}llama-8b-fp16-vllm": (6.65e-7, 2.90e-4, 0.104),
    f"{AGX}qwen-14b-fp16-vllm": (1.23e-6, 5.3e-4, 0.189),
}
"""EdgeReasoning's own fits (arXiv 2511.01866): a I^2 + b I + c seconds for I prompt tokens."""

PUBLISHED_TOKENS_PER_S = {
    f"{AGX}qwen-1.5b-fp16-vllm": 40.7,
    f"{AGX}llama-8b-fp16-vllm": 9.8,
    f"{AGX}qwen-14b-fp16-vllm": 5.36,
}
SHORT_PROMPT = 1100
PROMPTS = (256, 1024, 4096)
"""Prompt lengths at which a shipped curve is compared with a fit."""


def chat_2(expert: str, gpu: str, tp: int, n_requests: int) -> tuple[str, dict[str, str]]:
    """A row of ML.ENERGY v2."""
    wanted = {"task": "chat", "model": expert, "gpu": gpu, "tp": str(tp), "pp": "1"}
    return tables.MLENERGY_2, wanted | {"max_bs_reqs": str(n_requests)}


def chat_3(expert: str, gpu: str, n_gpus: int) -> tuple[str, dict[str, str]]:
    """A row of ML.ENERGY v3 with eight requests at once."""
    wanted = {"task": "lm-arena-chat", "model_id": expert, "gpu_model": gpu}
    return tables.MLENERGY_3, wanted | {"num_gpus": str(n_gpus), "max_num_seqs": "8"}


A100, H100 = "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3"
LLAMA_8B, LLAMA_70B = "Meta-Llama-3.1-8B-Instruct", "Meta-Llama-3.1-70B-Instruct"
LOADED = {
    "a100-40-sxm/llama-3.1-8b-bf16-vllm-32": chat_2(f"meta-llama/{LLAMA_8B}", A100, 1, 32),
    "a100-40-sxm/mistral-7b-bf16-vllm-32": chat_2(
        "mistralai/Mistral-7B-Instruct-v0.3", A100, 1, 32
    ),
    "a100-40-sxm/gemma-2-9b-bf16-vllm-32": chat_2("google/gemma-2-9b-it", A100, 1, 32),
    "a100-40-sxm-x2/gemma-2-27b-bf16-vllm-32": chat_2("google/gemma-2-27b-it", A100, 2, 32),
    "a100-40-sxm-x8/llama-3.1-70b-bf16-vllm-32": chat_2(f"meta-llama/{LLAMA_70B}", A100, 8, 32),
    "h100-80-sxm/llama-3.1-8b-bf16-vllm-64": chat_2(f"meta-llama/{LLAMA_8B}", H100, 1, 64),
    "h100-80-sxm-x4/llama-3.1-70b-bf16-vllm-64": chat_2(f"meta-llama/{LLAMA_70B}", H100, 4, 64),
    "h100-80-sxm/llama-3.1-8b-bf16-vllm-8": chat_3("meta-llama/Llama-3.1-8B-Instruct", "H100", 1),
    "h100-80-sxm/qwen3-8b-bf16-vllm-8": chat_3("Qwen/Qwen3-8B", "H100", 1),
    "h100-80-sxm/qwen3-14b-bf16-vllm-8": chat_3("Qwen/Qwen3-14B", "H100", 1),
    "h100-80-sxm/qwen3-32b-bf16-vllm-8": chat_3("Qwen/Qwen3-32B", "H100", 1),
    "h100-80-sxm/qwen3-30b-a3b-bf16-vllm-8": chat_3("Qwen/Qwen3-30B-A3B-Instruct-2507", "H100", 1),
    "h100-80-sxm-x4/llama-3.1-70b-bf16-vllm-8": chat_3(
        "meta-llama/Llama-3.1-70B-Instruct", "H100", 4
    ),
    "b200/llama-3.1-8b-bf16-vllm-8": chat_3("meta-llama/Llama-3.1-8B-Instruct", "B200", 1),
}


def main() -> None:
    """Print what the tables that are there allow to be said."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tables", type=Path, default=DEFAULT_TABLES, help="folder of the tables")
    folder = parser.parse_args().tables
    names = (tables.ORIN, tables.MLENERGY_2, tables.MLENERGY_3)
    there = [name for name in names if (folder / name).exists()]
    document: dict[str, Any] = {"absent": [name for name in names if name not in there]}
    if tables.ORIN in there:
        document["orin"] = {slug: orin(folder, slug, expert) for slug, expert in ORIN.items()}
    document["loaded"] = {
        slug: compared(shipped_profiles()[slug], tables.loaded(folder, name, **wanted))
        for slug, (name, wanted) in LOADED.items()
        if name in there
    }
    document["assumed_prefill"] = assumed_prefill()
    print(json.dumps(rounded(document), indent=2))


def orin(folder: Path, slug: str, expert: str) -> dict[str, Any]:
    """Held-out errors of our fit, errors of the published one, and the shipped profile's."""
    measured = tables.orin(folder, expert)
    fitted = fit(slug, measured)
    prefill = measured.rows(~np.isnan(measured.ttft_ms))
    decode = measured.rows(~np.isnan(measured.decode_ms))
    short = prefill.rows(prefill.prompt_tokens < SHORT_PROMPT)
    a_s, b_s, c_s = PUBLISHED_TTFT_S[slug]
    published = DeviceProfile(
        "published", 1e3 * a_s, 1e3 * b_s, 1e3 * c_s, PUBLISHED_TOKENS_PER_S[slug], 0, 0
    )
    shipped = shipped_profiles()[slug].profile(slug)
    return {
        "n_prefill": len(prefill.ttft_ms),
        "n_decode": len(decode.decode_ms),
        "held_out": asdict(held_out_errors(measured, np.random.default_rng(0))),
        "fit_ttft_error_short_prompts": ttft_error(fitted, short),
        "published_ttft_error": ttft_error(published, prefill),
        "published_ttft_error_short_prompts": ttft_error(published, short),
        "tokens_per_s": {
            "fit": fitted.decode_tokens_per_s,
            "published": published.decode_tokens_per_s,
        },
        "published_decode_error": decode_error(published, decode),
        "shipped_off_fit": deviations(shipped, fitted),
    }


def ttft_error(profile: DeviceProfile, rows: Measurements) -> float:
    """Median absolute error of the time to the first token, as a share."""
    predicted = np.array([profile.ttft_ms(tokens) for tokens in rows.prompt_tokens])
    return float(np.median(np.abs(predicted / rows.ttft_ms - 1)))


def decode_error(profile: DeviceProfile, rows: Measurements) -> float | None:
    """Likewise of the time of decoding; none without rows that the source states itself."""
    if len(rows.decode_ms) < 2:
        return None
    predicted = np.array([profile.decode_ms(tokens) for tokens in rows.output_tokens])
    return float(np.median(np.abs(predicted / rows.decode_ms - 1)))


def deviations(shipped: DeviceProfile, fitted: DeviceProfile) -> dict[str, float]:
    """Each figure of the shipped profile over that of the fit, less 1."""
    pairs = {f"ttft_{n}": (shipped.ttft_ms(n), fitted.ttft_ms(n)) for n in PROMPTS} | {
        "decode_tokens_per_s": (shipped.decode_tokens_per_s, fitted.decode_tokens_per_s),
        "decode_w": (shipped.decode_w, fitted.decode_w),
    }
    if fitted.prefill_w:
        pairs["prefill_w"] = (shipped.prefill_w, fitted.prefill_w)
    return {name: ours / theirs - 1 for name, (ours, theirs) in pairs.items()}


def compared(section: ShippedSection, row: tables.Loaded) -> dict[str, float]:
    """Each figure of a shipped profile over that of its source's row, less 1."""
    profile = section.profile("shipped")
    return {
        "decode_tokens_per_s": profile.decode_tokens_per_s / row.tokens_per_s - 1,
        "token_j": profile.token_j / row.token_j - 1,
        "prefill_w": profile.prefill_w / row.device_w - 1,
        "streams": section.streams / row.streams - 1,
    }


def assumed_prefill() -> Mapping[str, float]:
    """Share of the makers' FP16 rate at 512 tokens, of the shipped profiles whose TTFT is measured.

    Profiles without a measured one assume 0.4 and a decode step.
    """
    library = read_yaml(DATA / "devices.yaml", Library)
    shares = {}
    for name, section in library.profiles.items():
        if "TTFT by arithmetic" not in section.assumed:
            profile = section.profile(name)
            step_ms = min(profile.decode_ms(1), profile.ttft_c_ms)
            teraflops = 2 * section.active_params_b * 512 / (profile.ttft_ms(512) - step_ms)
            shares[name] = teraflops / library.hardware[section.hardware].fp16_tflops
    return shares


def rounded(document: Any) -> Any:
    """The document with three significant digits."""
    if isinstance(document, dict):
        return {key: rounded(value) for key, value in document.items()}
    if isinstance(document, float):
        return None if np.isnan(document) else float(f"{document:.3g}")
    return document


if __name__ == "__main__":
    main()
