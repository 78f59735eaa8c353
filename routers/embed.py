"""The seam between text and numbers, and the embedders that need nothing but this package.

`static` holds meaning (`coe.routers.static`), `lexical` wording (`coe.routers.lexical`), `default`
both side by side; `benchmarks/embedder` measures them. The vectors of the last few thousand
prompts are kept.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

import coe
from coe.errors.files import ArtefactError
from coe.routers.lexical import LexicalEmbedder
from coe.routers.static import StaticEmbedder

Vectors = NDArray[np.float32]
LocalName = Literal["lexical", "default", "static"]

MEANING_DIM = 256
"""Leading features of `default` and `static` that hold meaning; any others hold wording."""

REMOTE = "http-"
"""How the name of an embedder begins that an HTTP endpoint provides."""

_MEANING = "static-"


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
    """The embedder that `coe train` uses unless another is configured: meaning and wording.

    Raises
    ------
    ArtefactError
        The static table is absent or altered.
    """
    return load_named("default")


def load_named(name: LocalName) -> CachedEmbedder:
    """A local embedder: ``static``, ``lexical``, or both side by side as ``default``.

    Raises
    ------
    ArtefactError
        The static table is needed, and is absent or altered.
    """
    if name == "lexical":
        return CachedEmbedder(LexicalEmbedder())
    static = StaticEmbedder.load(default_embedder_path())
    if name == "static":
        return CachedEmbedder(static)
    return CachedEmbedder(JointEmbedder((static, LexicalEmbedder())))


def load_for(recorded: str) -> CachedEmbedder:
    """The local embedder of the vector space that an artefact has recorded.

    Parameters
    ----------
    recorded : `Artefact.embedder`, which is the embedder's ``name``.

    Raises
    ------
    ArtefactError
        It is remote and has to be configured, no embedder of this version has that name, or
        the static table is absent or altered.
    """
    if recorded.startswith(REMOTE):
        raise ArtefactError(
            f"the artefact was trained on embedder {recorded!r}, which is remote: "
            "give coe.yaml its section `embedder` with kind endpoint, base_url and model"
        )
    known = []
    for name in get_args(LocalName):
        embedder = load_named(name)
        if embedder.name == recorded:
            return embedder
        known.append(embedder.name)
    raise ArtefactError(
        f"the artefact was trained on embedder {recorded!r}, which this version does not have "
        f"({', '.join(known)}): train it again"
    )


def meaning_features(name: str) -> int | None:
    """How many leading features of the so named embedder hold meaning; ``None``: not set apart."""
    return MEANING_DIM if name.startswith(_MEANING) else None


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


class VectorCache:
    """The most recently used vectors by content of their text. Thread safe.

    Parameters
    ----------
    n_entries : most vectors kept; one takes ``4 * dim`` bytes and some 300 of overhead.
    """

    def __init__(self, n_entries: int = 4096) -> None:
        self._n_entries = n_entries
        self._vectors: OrderedDict[bytes, Vectors] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def recall(self, texts: Sequence[str]) -> dict[str, Vectors]:
        """The vectors of those texts that are kept; not to be written to."""
        keys = {text: _content_key(text) for text in texts}
        with self._lock:
            known = {text: key for text, key in keys.items() if key in self._vectors}
            for key in known.values():
                self._vectors.move_to_end(key)
            return {text: self._vectors[key] for text, key in known.items()}

    def remember(self, vectors: Mapping[str, Vectors]) -> None:
        """Keep copies of these vectors; the least recently used make room."""
        fresh = {_content_key(text): vector.copy() for text, vector in vectors.items()}
        with self._lock:
            self._vectors.update(fresh)
            while len(self._vectors) > self._n_entries:
                self._vectors.popitem(last=False)


class CachedEmbedder:
    """Another embedder with its most recently used vectors kept. Thread safe.

    Parameters
    ----------
    inner : the embedder that does the work.
    n_entries : as `VectorCache`.
    """

    def __init__(self, inner: Embedder, n_entries: int = 4096) -> None:
        self._inner = inner
        self._kept = VectorCache(n_entries)

    def __len__(self) -> int:
        return len(self._kept)

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
        known = self._kept.recall(texts)
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        if missing:
            # Outside the lock: two threads may embed one text twice, none waits for another.
            fresh = dict(zip(missing, self._inner.embed(missing), strict=True))
            self._kept.remember(fresh)
            known.update(fresh)
        return stacked(texts, known, self.dim)


def stacked(texts: Sequence[str], known: Mapping[str, Vectors], dim: int) -> Vectors:
    """A new array (n_texts, dim) of the known vectors; zero where there is none."""
    vectors = np.zeros((len(texts), dim), dtype=np.float32)
    for vector, text in zip(vectors, texts, strict=True):
        if text in known:
            vector[:] = known[text]
    return vectors


def _content_key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
