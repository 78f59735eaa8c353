"""Text to a hashed bag of words and word pairs: what is asked for, in which words and signs."""

from __future__ import annotations

import itertools
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TERM = re.compile(r"[^\W\d_]+|\d|[^\w\s]")
_MAX_CHARS = 2048
_SIGN_BIT = 1 << 31


@dataclass(frozen=True, slots=True)
class LexicalEmbedder:
    """Signed hashing of lower-case words, digits, signs and their pairs (Weinberger et al., 2009).

    Needs no data. Immutable, so threads may share one.

    Parameters
    ----------
    dim : buckets, at least 1.
    """

    dim: int = 1024

    @property
    def name(self) -> str:
        """Identity of the vector space."""
        return f"lexical-{self.dim}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of the texts, (n_texts, dim) float32: unit length, or zero for no terms.

        Counts are dampened, ``sign(c) ln(1 + |c|)``. Of a long text the first and the last 2,048
        characters count, so that the time per text is bounded.
        """
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            for term in _terms(text):
                code = zlib.crc32(term.encode(errors="replace"))
                vector[code % self.dim] += 1.0 if code & _SIGN_BIT else -1.0
            np.copyto(vector, np.sign(vector) * np.log1p(np.abs(vector)))
            norm = np.linalg.norm(vector)
            if norm > 0:
                vector /= norm
        return vectors


def _terms(text: str) -> list[str]:
    """Words, digits and signs in order, then each with its successor."""
    if len(text) > 2 * _MAX_CHARS:
        text = f"{text[:_MAX_CHARS]} {text[-_MAX_CHARS:]}"
    words = _TERM.findall(text.lower())
    return words + [f"{left} {right}" for left, right in itertools.pairwise(words)]
