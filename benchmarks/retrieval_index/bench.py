"""Time and size of an index, and how often each mode finds what it should, on one core.

The corpus is what the standard library of this Python says of itself: 10,000 passages of about
180 words, put together from its docstrings at random, for time and size; and the docstrings of at
least 25 words, each to be found by its own first line, for the share found. Prints one JSON
document.
"""

import ast
import json
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from coe.routers.embed import MEANING_DIM, load_default
from coe.routers.postings import Postings
from coe.routers.retrieve import MODES, Index, Mode, Passage
from coe.routers.terms import terms

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

N_PASSAGES = 10_000
N_WORDS = 180
N_QUERIES = 300


def docstrings() -> list[str]:
    """Every docstring of the standard library once, in the order of the files."""
    found: dict[str, None] = {}
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if {"site-packages", "test", "tests", "idlelib", "lib2to3"} & set(parts):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    found[text] = None
    return list(found)


def synthetic(texts: list[str], rng: np.random.Generator) -> list[Passage]:
    """Passages of whole docstrings at random, cut at the wanted number of words."""
    passages = []
    for n in range(N_PASSAGES):
        words: list[str] = []
        while len(words) < N_WORDS:
            words += texts[rng.integers(len(texts))].split()
        passages.append(Passage(f"{n}", " ".join(words[:N_WORDS]), f"{n}.txt"))
    return passages


def elapsed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that the work takes, and what it gives."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def query_times(index: Index, queries: list[str]) -> dict[str, dict[str, float]]:
    """Milliseconds of each mode and of the evidence; no query is asked twice of one."""
    kinds: dict[str, Callable[[str], Any]] = {
        mode: lambda query, mode=mode: index.search(query, 5, mode) for mode in MODES
    }
    kinds["evidence"] = index.evidence
    rows = {}
    for n, (kind, ask) in enumerate(kinds.items()):
        # a number of its own keeps the embedder from remembering the query
        spent = [elapsed(lambda q=q, ask=ask, n=n: ask(f"{n} {q}"))[0] * 1000 for q in queries]
        p50, p99 = np.percentile(spent[10:], [50, 99])
        rows[kind] = {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}
    return rows


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def timings(passages: list[Passage], queries: dict[str, list[str]]) -> dict[str, Any]:
    """Build, save, load, search."""
    words_s, _ = elapsed(lambda: Postings.build(terms(p.searched) for p in passages))
    build_s, built = elapsed(lambda: Index.build(passages, load_default(), MEANING_DIM))
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "index")
        save_s, _ = elapsed(lambda: built.save(folder))
        megabytes = {p.name: round(p.stat().st_size / 1e6, 1) for p in sorted(folder.iterdir())}
        counts = json.loads((folder / "manifest.json").read_bytes())["counts"]
        embedder = load_default()
        before = resident_mb()
        load_s, loaded = elapsed(lambda: Index.load(folder, embedder))
        held = resident_mb() - before
    return {
        "counts": counts,
        "build_s": {"by words alone": round(words_s, 1), "with vectors": round(build_s, 1)},
        "save_s": round(save_s, 2),
        "load_s": round(load_s, 2),
        "megabytes_on_disk": megabytes,
        "megabytes_in_memory": round(held),
        "search": {name: query_times(loaded, asked) for name, asked in queries.items()},
    }


def shares_found(texts: list[str]) -> dict[str, Any]:
    """Share of docstrings that their first line finds, the rest being what is searched."""
    pairs = [(head, body) for head, _, body in (t.partition("\n\n") for t in texts)]
    pairs = [(h, b) for h, b in pairs if 4 <= len(h.split()) <= 25 <= len(b.split())]
    bodies = {body: head for head, body in pairs}
    passages = [Passage(str(n), body, "stdlib") for n, body in enumerate(bodies)]
    rows: dict[str, Any] = {"n": len(passages)}
    for name, features in (("meaning", MEANING_DIM), ("meaning and wording", None)):
        index = Index.build(passages, load_default(), features)
        for mode in MODES:
            label = mode if mode == "bm25" else f"{mode}, {name}"
            rows[label] = share_found(index, list(bodies.values()), mode)
    return rows


def share_found(index: Index, queries: list[str], mode: Mode) -> dict[str, float]:
    """Share of queries whose own passage is the first, or among the first 5 or 20."""
    ranks = []
    for n, query in enumerate(queries):
        ids = [hit.passage.passage_id for hit in index.search(query, 20, mode)]
        ranks.append(ids.index(str(n)) if str(n) in ids else 20)
    return {f"at_{k}": round(float(np.mean(np.array(ranks) < k)), 3) for k in (1, 5, 20)}


def main() -> None:
    """Measure and print."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    texts = docstrings()
    rng = np.random.default_rng(0)
    passages = synthetic(texts, rng)
    words = " ".join(texts).split()
    queries = {}
    for n_words in (8, 200, 5000):
        starts = rng.integers(len(words) - n_words, size=N_QUERIES)
        queries[f"{n_words} words"] = [" ".join(words[s : s + n_words]) for s in starts]
    result = {
        "machine": calibration(),
        **timings(passages, queries),
        "own_docstring_found": shares_found(texts),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
