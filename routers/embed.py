"""The seam between text and numbers, and the embedder that ships.

`load_default` joins meaning (`coe.routers.static`) and wording (`coe.routers.lexical`), and
remembers the last few thousand prompts.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

import coe
from coe.routers.lexical import LexicalEmbedder
from coe.routers.static import StaticEmbedder

Vectors = NDArray[np.float32]


MEANING_DIM = 256
"""Leading features of `load_default` that hold meaning; the others hold wording."""


class Embedder(Protocol):
    """Anything that turns texts into vectors."""

    @property
    def name(self) -> str:
        """Identity of the vector space: vectors of differently named embedders do not mix."""

    @property
    def dim(self) -> int:
        """Length of a vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of the texts, (n_texts, dim): unit length, or zero where nothing is known."""


def default_embedder_path() -> Path:
    """Folder of the static table that ships with the package."""
    # Through the package: routers/ is reached by a link in a checkout, so __file__ may mislead.
    return Path(coe.__file__).parent / "data" / "static-minilm"


def load_default() -> CachedEmbedder:
    """The embedder that `coe train` and the gateway use.

    Raises
    ------
    ArtefactError
        The static table is absent or altered.
    """
    static = StaticEmbedder.load(default_embedder_path())
    return CachedEmbedder(JointEmbedder((static, LexicalEmbedder())))


@dataclass(frozen=True, slots=True)
class JointEmbedder:
    """The vectors of several embedders side by side, each of equal weight."""

    parts: tuple[Embedder, ...]

    @property
    def name(self) -> str:
        """The names of the parts."""
        return "+".join(part.name for part in self.parts)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return sum(part.dim for part in self.parts)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of the texts, (n_texts, dim): unit length where every part knows something."""
        joint = np.hstack([part.embed(texts) for part in self.parts])
        return joint / np.float32(np.sqrt(len(self.parts)))


class CachedEmbedder:
    """Another embedder with its most recently used vectors kept, by content hash. Thread safe.

    Parameters
    ----------
    inner : the embedder that does the work.
    n_entries : most vectors kept; one takes ``4 * dim`` bytes and some 300 of overhead.
    """

    def __init__(self, inner: Embedder, n_entries: int = 4096) -> None:
        self._inner = inner
        self._n_entries = n_entries
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def name(self) -> str:
        """Name of the inner embedder: the vectors are its own."""
        return self._inner.name

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._inner.dim

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As the inner embedder, which sees each text not in the cache once; the rest is copied."""
        keys = [_content_key(text) for text in texts]
        known = self._recall(keys)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            # Outside the lock: two threads may embed one text twice, none waits for another.
            fresh = self._inner.embed(list(missing.values()))
            known.update(zip(missing, fresh, strict=True))
            self._remember({key: known[key].copy() for key in missing})
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        for vector, key in zip(vectors, keys, strict=True):
            vector[:] = known[key]
        return vectors

    def _recall(self, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        with self._lock:
            known = {key: self._vectors[key] for key in keys if key in self._vectors}
            for key in known:
                self._vectors.move_to_end(key)
        return known

    def _remember(self, vectors: dict[bytes, Vectors]) -> None:
        with self._lock:
            self._vectors.update(vectors)
            while len(self._vectors) > self._n_entries:
                self._vectors.popitem(last=False)


def _content_key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
