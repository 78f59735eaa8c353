"""Text to the mean of stored token vectors, without a neural network at run time.

Model2Vec (Tulkens and van Dongen, 2024); the table is distilled by ``data/embedder/distil.py``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from tokenizers import Tokenizer

from coe.errors.files import ArtefactError

Vectors = NDArray[np.float32]

TABLE, TOKENIZER, MANIFEST = "table.safetensors", "tokenizer.json", "manifest.json"
UNKNOWN = "[UNK]"
# Of a long text only this many bytes of UTF-8 at either end are read: some 600 English tokens in
# all, 1 to 2 ms; bytes and not characters, because a Chinese character is a token of its own.
END_BYTES = 1536


@dataclass(frozen=True, slots=True)
class StaticEmbedder:
    """Mean of stored token rows, L2-normalised. Immutable, so threads may share one.

    Parameters
    ----------
    name : identity of the vector space.
    rows : (n_tokens, dim) int8; the row of a token is ``rows[token] * scales[token]``.
    scales : (n_tokens,) float32.
    tokenizer : without padding, truncation or special tokens.
    """

    name: str
    rows: NDArray[np.int8]
    scales: NDArray[np.float32]
    tokenizer: Tokenizer

    @classmethod
    def load(cls, path: Path) -> StaticEmbedder:
        """Embedder of a folder that holds a table, a tokenizer and their manifest.

        Raises
        ------
        ArtefactError : a file is absent, is not the one the manifest names, or is malformed.
        """
        manifest = _read_manifest(path)
        table = _read_verified(path, TABLE, manifest)
        vocabulary = _read_verified(path, TOKENIZER, manifest)
        try:
            tensors = load_tensors(table)
            tokenizer = Tokenizer.from_buffer(vocabulary)
            name = f"{manifest.name}-{manifest.sha256[TABLE][:8]}"
            embedder = cls(name, tensors["rows"], tensors["scales"], tokenizer)
        except (KeyError, ValueError, SafetensorError) as error:
            raise ArtefactError(f"embedder {path}: malformed: {error!r}") from error
        _check_shapes(path, embedder, manifest)
        return embedder

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.rows.shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of the texts, (n_texts, dim) float32.

        Rows have unit length; a text that is empty, or of which no token is known, gets a zero
        row. Unknown tokens are left out. Of a text longer than ``2 * END_BYTES`` bytes only the two
        ends count, so the time per text is bounded. A vector does not depend on its batch.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            ids = self._known_ids(text)
            # einsum, not a BLAS product: it never wakes a thread pool for these few microseconds.
            np.einsum("n,nd->d", self.scales[ids], self.rows[ids].astype(np.float32), out=vector)
            norm = np.linalg.norm(vector)
            if norm > 0:
                vector /= norm
        return vectors

    def _known_ids(self, text: str) -> NDArray[np.int64]:
        # One encode() per text: encode_batch() starts threads and then warns in forked processes.
        found = self.tokenizer.encode(_ends(text), add_special_tokens=False).ids
        unknown = self.tokenizer.token_to_id(UNKNOWN)
        return np.array([token for token in found if token != unknown], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Manifest:
    name: str
    dim: int
    sha256: dict[str, str]


def _ends(text: str) -> str:
    if len(text) <= 2 * END_BYTES:
        content = _utf8(text)
        if len(content) <= 2 * END_BYTES:
            return content.decode()
    head, tail = _utf8(text[:END_BYTES])[:END_BYTES], _utf8(text[-END_BYTES:])[-END_BYTES:]
    return head.decode(errors="ignore") + " " + tail.decode(errors="ignore")


def _utf8(text: str) -> bytes:
    # A lone surrogate, which JSON can carry, has no UTF-8 form: it becomes a question mark.
    return text.encode(errors="replace")


def _read(path: Path, name: str) -> bytes:
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise ArtefactError(f"embedder {path}: cannot read {name}: {error.strerror}") from error


def _read_manifest(path: Path) -> _Manifest:
    try:
        parsed = json.loads(_read(path, MANIFEST))
        sha256 = {file: str(parsed["files"][file]["sha256"]) for file in (TABLE, TOKENIZER)}
        return _Manifest(str(parsed["name"]), int(parsed["dim"]), sha256)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtefactError(f"embedder {path}: malformed {MANIFEST}: {error!r}") from error


def _read_verified(path: Path, name: str, manifest: _Manifest) -> bytes:
    content = _read(path, name)
    found = hashlib.sha256(content).hexdigest()
    if found != manifest.sha256[name]:
        raise ArtefactError(
            f"embedder {path}: {name} was altered or is incomplete: "
            f"sha256 {found}, {MANIFEST} says {manifest.sha256[name]}"
        )
    return content


def _check_shapes(path: Path, embedder: StaticEmbedder, manifest: _Manifest) -> None:
    rows, scales, n_tokens = embedder.rows, embedder.scales, embedder.tokenizer.get_vocab_size()
    fits = (
        rows.dtype == np.int8
        and scales.dtype == np.float32
        and rows.shape == (n_tokens, manifest.dim)
        and scales.shape == (n_tokens,)
        and embedder.tokenizer.token_to_id(UNKNOWN) is not None
    )
    if not fits:
        raise ArtefactError(
            f"embedder {path}: table of {rows.dtype} {rows.shape} with {scales.dtype} "
            f"{scales.shape} scales does not fit {n_tokens} tokens of {manifest.dim} numbers"
        )
