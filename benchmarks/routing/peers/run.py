"""Train other projects' routers on a split and write where they send its dev prompts.

    PEERS/bin/python benchmarks/routing/peers/run.py FOLDER --out picks.json [--routers NAME ...]

FOLDER is written by `exchange.write_split`; PEERS is made by `environment.sh`. The document maps
each router to its picks (columns of the table, one per dev prompt) and how they came about, or to
the reason why it did not run. A router that is in the document already keeps what stands there.
One core, no network, at most `LIMIT_S` a router.
"""

from __future__ import annotations

import os

# Before NumPy, PyTorch and the hub clients are imported.
os.environ |= {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # litellm fetches a price list at import otherwise
    "OPENAI_API_KEY": "unused",  # routellm builds a client at import
    "TQDM_DISABLE": "1",
}

import argparse
import contextlib
import json
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from exchange import Split, read_split

Peer = Callable[[Split, Path], dict[str, object]]

LIMIT_S = 240
"""Seconds of processor time to fit and to route all dev prompts."""

HUB = "needs {}: on a hub, in no package"
LLM = "asks a language model while routing ({})"
NOT_RUN = {
    "llmrouter-routerdc": HUB.format("the weights of mDeBERTa-v3"),
    "llmrouter-causallm": HUB.format(
        "a language model of 7 billion parameters to fine-tune, a GPU, peft and vllm"
    ),
    "llmrouter-automix": LLM.format("self-verification of its answer"),
    "llmrouter-router_r1": LLM.format("the router is one"),
    "llmrouter-knnmultiround": LLM.format("decomposition of the prompt"),
    "llmrouter-llmmultiround": LLM.format("decomposition of the prompt"),
    "llmrouter-gmtrouter": "learns from users' ratings; its constructor raises TypeError",
    "llmrouter-personalized": "learns from several users' preferences; a table has none",
    "llmrouter-tsrouter": "for time series; its source is not in the package",
    "routellm-bert": HUB.format("its trained BERT classifier"),
    "routellm-causal_llm": HUB.format("its fine-tuned Llama-3-8B, and CUDA"),
}


def peers() -> dict[str, Peer]:
    """Every router that can be trained here, by name. Imports the peers, which takes a while."""
    import from_llmrouter
    import from_routellm
    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)  # of the peers' calls of scikit-learn
    return {
        **{f"llmrouter-{kind}": from_llmrouter.router(kind) for kind in from_llmrouter.CLASSES},
        "routellm-mf": from_routellm.matrix_factorization,
        "routellm-sw_ranking": from_routellm.similarity_weighted,
    }


def attempt(peer: Peer, split: Split) -> dict[str, object]:
    """What the peer returns, or its failure as the reason why it did not run."""
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(sys.stderr),
    ):
        try:
            return peer(split, Path(folder))
        except (ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
            return {"not_run": f"{type(error).__name__}: {error}"}


def within_limit(peer: Peer, split: Split) -> dict[str, object]:
    """`attempt` in a process of its own, which the system ends at the limit."""
    forking = multiprocessing.get_context("fork")
    answers, sender = forking.Pipe(duplex=False)

    def answer(connection: Connection) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 5))
        connection.send(attempt(peer, split))

    process = forking.Process(target=answer, args=(sender,))
    process.start()
    sender.close()
    try:
        return dict(answers.recv())
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGXCPU:
            return {"not_run": f"did not finish in {LIMIT_S} s"}
        return {"not_run": f"its process ended with code {process.exitcode} and no answer"}
    finally:
        process.join()


def main() -> None:
    """Read, run, write after each router."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--routers", nargs="+", metavar="NAME", help="all, unless given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        os.environ["HF_HOME"] = cache
        available = peers()
        names = arguments.routers or [*available, *NOT_RUN]
        if unknown := set(names) - set(available) - set(NOT_RUN):
            parser.error(f"unknown: {sorted(unknown)}; known: {[*available, *NOT_RUN]}")
        split = read_split(arguments.folder)
        found = arguments.out.read_text(encoding="utf-8") if arguments.out.exists() else "{}"
        results: dict[str, dict[str, object]] = json.loads(found)
        for name in names:
            if name in results:
                continue
            started = time.perf_counter()
            reason = NOT_RUN.get(name)
            results[name] = {"not_run": reason} if reason else within_limit(available[name], split)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
