"""Search over the owner's documents: by words, by meaning, or by both."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from coe.errors.callers import RequestError
from coe.errors.files import ArtefactError
from coe.routers.folder import MALFORMED, Form, is_of, read, write
from coe.routers.head import unit_rows
from coe.routers.postings import K1, B, Postings
from coe.routers.ranking import FUSION_K, best, fused
from coe.routers.terms import query_terms, terms

if TYPE_CHECKING:  # the embedder that ships needs tokenizers; a search by words does not
    from coe.routers.embed import Embedder

SCHEMA = 1
FORM = Form(
    "retrieval index", SCHEMA, "build it again", kind="retrieval-index", largest_bytes=2**36
)
FUSION_DEPTH = 1000
EVIDENCE_DEPTH = 5

Mode = Literal["hybrid", "bm25", "dense"]
MODES: tuple[Mode, ...] = get_args(Mode)

_ARRAYS, _PASSAGES, _TERMS = "arrays.safetensors", "passages.jsonl", "terms.json"
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a document, as it stands there. Its text is data, whatever it says.

    Parameters
    ----------
    passage_id : the same for the same content; unique in an index.
    text : verbatim.
    source : the document, as a path relative to the indexed folder, or its address.
    title : the headings it stands under.
    position : number of the passage in its document, from 0.
    page : page of the document, from 1; ``None`` where it has no pages.
    """

    passage_id: str
    text: str
    source: str
    title: str = ""
    position: int = 0
    page: int | None = None

    @property
    def searched(self) -> str:
        """What a query is compared with: the title, then the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found.

    ``rank`` counts from 1. ``score`` is positive and falls with the rank; its unit is that of the
    mode: a BM25 sum, a cosine, or a sum of reciprocal ranks.
    """

    passage: Passage
    score: float
    rank: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """How much an index has to say on a query: features of the retrieval gate.

    All are 0 for a query without terms and for an index without passages.

    Parameters
    ----------
    top_score : BM25 of the best passage.
    gap : ``top_score`` minus the mean over the five best passages (all, when there are fewer;
        passages without any term of the query count 0).
    coverage : share of the query's distinct terms that the best passage holds, in [0, 1].
    idf_coverage : the same with every term weighed by its rarity.
    mean_idf : mean rarity of the query's terms; those that no passage holds are the rarest.
    n_matching : passages that hold at least one of the terms.
    top_cosine : cosine of the query to the nearest passage; 0 without vectors, or where the
        embedder knows nothing of the query.
    """

    top_score: float = 0.0
    gap: float = 0.0
    coverage: float = 0.0
    idf_coverage: float = 0.0
    mean_idf: float = 0.0
    n_matching: int = 0
    top_cosine: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Passages as vectors.

    Parameters
    ----------
    embedder : maps queries to the space of the passages.
    rows : (n_passages, n_features) float32, unit length or zero: the leading features of the
        embedder's vectors. Their values are those of float16, as which they are saved: lengths and
        cosines are right to three digits.
    """

    embedder: Embedder
    rows: NDArray[np.float32]

    def cosines(self, query_text: str) -> NDArray[np.float32]:
        """Cosine of each passage to the query, (n_passages,); 0 where one of them is unknown."""
        vector = _leading(self.embedder, [query_text], self.rows.shape[1])[0]
        # not a BLAS product, whose threads may wait for a core longer than the sum takes
        cosines: NDArray[np.float32] = np.einsum("nd,d->n", self.rows, vector)
        return cosines


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Passages that can be searched. Immutable, so threads may share one.

    Memory: the text, 8 bytes for every distinct term of every passage, about 100 bytes a term, and
    4 bytes a feature and passage (256 features: 1 kB a passage). Loading takes about twice as much
    for a moment.

    Parameters
    ----------
    passages : in the order that breaks ties.
    postings : their terms.
    dense : their vectors; ``None``: searched by words alone.
    """

    passages: tuple[Passage, ...]
    postings: Postings
    dense: Dense | None = None

    @classmethod
    def build(
        cls,
        passages: Sequence[Passage],
        embedder: Embedder | None = None,
        n_features: int | None = None,
        progress: Callable[[int], None] = lambda n_done: None,
    ) -> Index:
        """An index over these passages, of which there may be none.

        Parameters
        ----------
        embedder : ``None``: searched by words alone.
        n_features : how many leading features of the embedder are kept; ``None``: all. Of a joint
            embedding the part that holds the meaning comes first, and postings hold the wording.
        progress : called with the number of passages embedded so far; at the end with all.
        """
        passages = tuple(passages)
        postings = Postings.build(terms(passage.searched) for passage in passages)
        dense = None
        if embedder is not None:
            kept = embedder.dim if n_features is None else min(n_features, embedder.dim)
            rows = np.zeros((len(passages), kept), dtype=np.float16)
            for start in range(0, len(passages), _BATCH):
                batch = [passage.searched for passage in passages[start : start + _BATCH]]
                rows[start : start + _BATCH] = _leading(embedder, batch, kept)
                progress(start + len(batch))
            dense = Dense(embedder, rows.astype(np.float32))
        progress(len(passages))
        return cls(passages, postings, dense)

    def search(self, query_text: str, k: int = 5, mode: Mode = "hybrid") -> list[Hit]:
        """At most ``k`` passages, best first; ties in the order of the passages.

        ``bm25`` finds what holds a term of the query, ``dense`` what has a positive cosine to it,
        ``hybrid`` either: the sum of ``1 / (60 + rank)`` over the two rankings (reciprocal rank
        fusion; Cormack, Clarke and Büttcher, 2009), each of 1,000 passages at most. Without
        vectors, ``hybrid`` ranks as ``bm25`` does. An empty query finds nothing. The hits of a
        smaller ``k`` are the first of a larger one.

        The time is bounded by the size of the index: of a query the first 512 distinct terms count,
        and what its embedder reads.

        Raises
        ------
        RequestError
            ``mode`` is unknown, or ``dense`` without vectors; or ``k`` is negative.
        """
        if mode not in MODES or (mode == "dense" and self.dense is None):
            allowed = [m for m in MODES if m != "dense" or self.dense]
            message = f"mode must be one of {', '.join(allowed)} for this index, not {mode!r}"
            raise RequestError(message, "mode")
        if k < 0:
            raise RequestError(f"k must not be negative, not {k}", "k")
        scores = self._scores(query_text, mode)
        return [
            Hit(self.passages[position], float(scores[position]), rank)
            for rank, position in enumerate(best(scores, k).tolist(), start=1)
        ]

    def evidence(self, query_text: str) -> Evidence:
        """What is known of the query before anything is retrieved; as cheap as a search."""
        asked = query_terms(query_text)
        if not asked or not self.passages:
            return Evidence()
        scores = self.postings.scores(self.postings.columns(asked))
        ranked = best(scores, EVIDENCE_DEPTH)
        idf = self.postings.idf(asked)
        n_compared = min(EVIDENCE_DEPTH, len(self.passages))
        held = np.zeros(len(asked), dtype=bool)
        top = 0.0
        if len(ranked):
            top = float(scores[ranked[0]])
            held = self.postings.holds(int(ranked[0]), asked)
        cosines = self.dense.cosines(query_text) if self.dense else np.zeros(1)
        return Evidence(
            top_score=top,
            gap=top - float(scores[ranked].sum(dtype=np.float64)) / n_compared,
            coverage=float(held.mean()),
            idf_coverage=float(idf[held].sum() / idf.sum()),
            mean_idf=float(idf.mean()),
            n_matching=int(np.count_nonzero(scores)),
            top_cosine=float(cosines.max()),
        )

    def save(self, folder: Path) -> None:
        """Write the index; ``folder`` is replaced as a whole or not at all.

        Raises
        ------
        ArtefactError
            ``folder`` exists and is not an index, so it is left alone; or it cannot be written.
        """
        postings, dense = self.postings, self.dense
        arrays = {
            "postings.starts": postings.starts,
            "postings.passages": postings.passages,
            "postings.weights": postings.weights,
        }
        if dense is not None:
            arrays["dense.rows"] = dense.rows.astype(np.float16)
        lines = [json.dumps(asdict(p), ensure_ascii=False) + "\n" for p in self.passages]
        files = {
            _ARRAYS: save_tensors({name: np.ascontiguousarray(a) for name, a in arrays.items()}),
            # a lone surrogate, which JSON can carry, survives
            _PASSAGES: "".join(lines).encode(errors="surrogatepass"),
            _TERMS: json.dumps(list(postings.terms), ensure_ascii=False, indent=0).encode(),
        }
        write(folder, FORM, self._manifest(), files)

    @classmethod
    def load(cls, folder: Path, embedder: Embedder | None = None) -> Index:
        """The index in ``folder``, every file checked against the manifest.

        Parameters
        ----------
        embedder : the one the index was built with; ``None``: its vectors are left out, and it is
            searched by words alone. Not looked at when the index has no vectors.

        Raises
        ------
        ArtefactError
            Something is absent, altered, malformed, not a part of it, or of another schema; or
            the embedder is another.
        """
        manifest, files = read(folder, FORM, (_ARRAYS, _PASSAGES, _TERMS))
        name = manifest.get("embedder")
        if embedder is not None and name not in (None, embedder.name):
            raise ArtefactError(
                f"{folder}: built with embedder {name!r}, not {embedder.name!r}: build it again"
            )
        try:
            tensors = load_tensors(files[_ARRAYS])
            lines = files[_PASSAGES].decode(errors="surrogatepass").split("\n")[:-1]
            passages = tuple(_passage(json.loads(line)) for line in lines)
            postings = _postings(tensors, json.loads(files[_TERMS]), len(passages))
            dense = None
            if name is not None and embedder is not None:
                dense = Dense(embedder, _rows(tensors["dense.rows"], len(passages), embedder.dim))
        except (*MALFORMED, RecursionError) as error:
            raise ArtefactError(f"{folder}: malformed retrieval index: {error!r}") from error
        return cls(passages, postings, dense)

    def _scores(self, query_text: str, mode: Mode) -> NDArray[Any]:
        by_meaning = None
        if self.dense is not None and mode != "bm25":
            by_meaning = self.dense.cosines(query_text)
            if mode == "dense":
                return by_meaning
        by_words = self.postings.scores(self.postings.columns(query_terms(query_text)))
        if mode == "bm25":
            return by_words
        scores = [by_words] if by_meaning is None else [by_words, by_meaning]
        return fused([best(each, FUSION_DEPTH) for each in scores], len(self.passages))

    def _manifest(self) -> dict[str, Any]:
        dense = self.dense
        return {
            "embedder": None if dense is None else dense.embedder.name,
            "counts": {
                "passages": len(self.passages),
                "sources": len({passage.source for passage in self.passages}),
                "terms": len(self.postings.terms),
                "entries": len(self.postings.weights),
            },
            "settings": {
                "fusion_k": FUSION_K,
                "bm25": {"method": "lucene", "k1": K1, "b": B},
                "n_features": None if dense is None else dense.rows.shape[1],
            },
        }


def is_index(folder: Path) -> bool:
    """Whether the folder holds an index, of whatever schema."""
    return is_of(folder, FORM)


def _leading(embedder: Embedder, texts: Sequence[str], n_features: int) -> NDArray[np.float32]:
    return unit_rows(embedder.embed(texts)[:, :n_features].astype(np.float64))


def _passage(row: Mapping[str, Any]) -> Passage:
    passage = Passage(**row)
    strings = (passage.passage_id, passage.text, passage.source, passage.title)
    if not all(isinstance(string, str) for string in strings):
        raise TypeError(f"passage {passage.passage_id!r} has a field that is not a string")
    return passage


def _postings(
    tensors: Mapping[str, NDArray[Any]], names: Sequence[str], n_passages: int
) -> Postings:
    starts = tensors["postings.starts"]
    passages, weights = tensors["postings.passages"], tensors["postings.weights"]
    fits = (
        starts.dtype == np.int64
        and passages.dtype == np.int32
        and weights.dtype == np.float32
        and len(starts) == len(names) + 1
        and starts[0] == 0
        and starts[-1] == len(passages) == len(weights)
        and bool((np.diff(starts) >= 0).all())
        and bool(((passages >= 0) & (passages < n_passages)).all())
    )
    if not fits:
        raise ValueError(f"postings do not fit {len(names)} terms and {n_passages} passages")
    columns = dict(zip(names, itertools.count(), strict=False))
    return Postings(n_passages, columns, starts, passages, weights)


def _rows(rows: NDArray[Any], n_passages: int, dim: int) -> NDArray[np.float32]:
    fits = rows.dtype == np.float16 and rows.ndim == 2
    if not fits or len(rows) != n_passages or rows.shape[1] > dim:
        raise ValueError(f"{rows.dtype} vectors {rows.shape} do not fit {n_passages} passages")
    return rows.astype(np.float32)
