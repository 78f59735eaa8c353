"""``coe index build | search``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from coe.routers.chunk import passages_of
from coe.routers.embed import MEANING_DIM, load_default
from coe.routers.folder import ensure_replaceable
from coe.routers.retrieve import FORM, Hit, Index, Mode
from coe.services.cli.console import print_json, progress_bar, say, tell
from coe.services.documents import Reading, read_documents
from coe.services.formats import Omission

_SHOWN_OMISSIONS = 20
_SHOWN_CHARS = 300


def build(documents: Path, out: Path, dense: bool, strict: bool, as_json: bool) -> None:
    """Read, cut, index, save; then print what there is and what was left out.

    Raises
    ------
    ConfigError
        There is nothing to read; or, under ``strict``, something could not be read.
    ArtefactError
        ``out`` holds something that is not an index, or cannot be written.
    """
    ensure_replaceable(out, FORM)
    with progress_bar() as bar:
        task = bar.add_task("reading", total=None)
        reading = read_documents(
            documents,
            strict,
            progress=lambda n_done, n: bar.update(task, completed=n_done, total=n),
        )
        passages = list(passages_of(reading.documents))
        task = bar.add_task("indexing", total=len(passages))
        # postings hold the wording already: hybrid finds as much among the first five without the
        # embedder's half of it (benchmarks/retrieval_index), in a fifth of the memory
        index = Index.build(
            passages,
            load_default() if dense else None,
            MEANING_DIM,
            lambda n_done: bar.update(task, completed=n_done),
        )
        index.save(out)
    if as_json:
        print_json(_report(reading, index, out))
        return
    _note(reading.skipped, "skipped")
    _note(reading.failed, "could not be read")
    n_documents = len({document.source for document in reading.documents})
    tell(
        f"{len(index.passages)} passages of {n_documents} documents, "
        f"{len(index.postings.terms)} terms, {'with' if dense else 'without'} vectors"
    )
    tell(f"wrote {out} ({_n_bytes(out) / 1e6:.1f} MB)")


def search(folder: Path, query: str, k: int, mode: str, as_json: bool) -> None:
    """Print the passages that answer a query best.

    Raises
    ------
    ArtefactError
        The index is absent, altered, or of another embedder.
    RequestError
        The mode does not exist, or needs vectors that the index has not.
    """
    index = Index.load(folder, None if mode == "bm25" else load_default())
    hits = index.search(query, k, cast(Mode, mode))
    if mode == "hybrid" and index.dense is None:
        say("the index has no vectors: searched by words alone")
    if as_json:
        evidence = asdict(index.evidence(query))
        print_json(
            {"query": query, "mode": mode, "evidence": evidence, "hits": [_row(h) for h in hits]}
        )
        return
    if not hits:
        tell("nothing found")
    for hit in hits:
        passage = hit.passage
        place = passage.source + (f", page {passage.page}" if passage.page else "")
        tell(_printable(f"{hit.rank}. {place}  {passage.title}".rstrip() + f"  [{hit.score:.4g}]"))
        tell(f"   {_printable(_shortened(passage.text))}")


def _report(reading: Reading, index: Index, out: Path) -> dict[str, Any]:
    dense = index.dense
    return {
        "out": str(out),
        "n_documents": len({document.source for document in reading.documents}),
        "n_passages": len(index.passages),
        "n_terms": len(index.postings.terms),
        "embedder": None if dense is None else dense.embedder.name,
        "n_bytes": _n_bytes(out),
        "skipped": [_reason(omission) for omission in reading.skipped],
        "failed": [_reason(omission) for omission in reading.failed],
    }


def _reason(omission: Omission) -> dict[str, str]:
    return {"source": omission.source, "reason": omission.reason}


def _row(hit: Hit) -> dict[str, Any]:
    return {"rank": hit.rank, "score": hit.score, **asdict(hit.passage)}


def _note(omissions: Sequence[Omission], verdict: str) -> None:
    for omission in omissions[:_SHOWN_OMISSIONS]:
        say(_printable(f"{verdict}: {omission.source}: {omission.reason}"))
    if len(omissions) > _SHOWN_OMISSIONS:
        say(f"{verdict}: {len(omissions) - _SHOWN_OMISSIONS} more (--json names all)")


def _n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARS else line[: _SHOWN_CHARS - 1] + "…"


def _printable(line: str) -> str:
    """The line without what could steer a terminal: documents are not trusted."""
    return "".join(character if character.isprintable() else "�" for character in line)
