"""Which passage holds which term, and what that is worth: BM25 as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

K1 = 1.5
B = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Postings:
    """Weights of terms in passages, one column a term. Immutable, so threads may share one.

    Parameters
    ----------
    n_passages : how many passages there are.
    terms : every term with its column.
    starts : (n_terms + 1,) int64; column t holds entries ``starts[t]`` to before ``starts[t + 1]``.
    passages : (n_entries,) int32, positions of passages, rising within a column.
    weights : (n_entries,) float32, positive.

    Memory is 8 bytes an entry, some 100 distinct terms a passage of English prose, and about
    100 bytes a term.
    """

    n_passages: int
    terms: Mapping[str, int]
    starts: NDArray[np.int64]
    passages: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def build(cls, passages: Iterable[Iterable[str]]) -> Postings:
        """Postings of passages given as their terms.

        BM25 as Lucene computes it (Kamphuis et al., 2020), k1 = 1.5 and b = 0.75, by bm25s
        (Lù, 2024), which weighs every term of every passage beforehand. While building, terms take
        8 bytes an occurrence.
        """
        # Here and not above: who only searches is spared 24 MB and a sixth of a second.
        from bm25s import BM25  # type: ignore[import-untyped]

        columns: dict[str, int] = {}
        numbered = [[columns.setdefault(t, len(columns)) for t in terms] for terms in passages]
        if not columns:
            return cls(len(numbered), {}, np.zeros(1, np.int64), _NO_PASSAGES, _NO_WEIGHTS)
        library = BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")
        library.index((numbered, columns), create_empty_token=False, show_progress=False)
        found = library.scores
        return cls(len(numbered), columns, found["indptr"], found["indices"], found["data"])

    def columns(self, terms: Iterable[str]) -> list[int]:
        """Columns of the terms that some passage holds, rising."""
        return sorted({self.terms[term] for term in terms if term in self.terms})

    def scores(self, columns: Sequence[int]) -> NDArray[np.float32]:
        """BM25 of every passage, (n_passages,): 0 where it holds none of these columns' terms.

        Time and memory are linear in the number of passages and of entries in these columns.
        """
        scores = np.zeros(self.n_passages, dtype=np.float32)
        for column in columns:
            entries = slice(self.starts[column], self.starts[column + 1])
            # a passage stands in a column once, so that no addition is lost
            scores[self.passages[entries]] += self.weights[entries]
        return scores

    def idf(self, terms: Iterable[str]) -> NDArray[np.float64]:
        """Rarity of each term, positive: ``ln(1 + (n - df + 1/2) / (df + 1/2))``.

        ``df`` of ``n`` passages hold the term, and none holds one that is not known.
        """
        columns = [self.terms.get(term, -1) for term in terms]
        df = np.array([self.starts[c + 1] - self.starts[c] if c >= 0 else 0 for c in columns])
        return np.log1p((self.n_passages - df + 0.5) / (df + 0.5))

    def holds(self, passage: int, terms: Iterable[str]) -> NDArray[np.bool_]:
        """Whether the passage at this position holds each of the terms."""
        return np.array([self._is_in(passage, self.terms.get(t)) for t in terms], dtype=bool)

    def _is_in(self, passage: int, column: int | None) -> bool:
        if column is None:
            return False
        rows = self.passages[self.starts[column] : self.starts[column + 1]]
        k = int(np.searchsorted(rows, passage))
        return k < len(rows) and int(rows[k]) == passage


_NO_PASSAGES = np.zeros(0, dtype=np.int32)
_NO_WEIGHTS = np.zeros(0, dtype=np.float32)
