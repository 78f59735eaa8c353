"""The program of one engine process: llama.cpp's own OpenAI-compatible server.

Prints one JSON line ``{"address": ...}`` when it serves. Ends when its standard input ends, so
that it cannot outlive the process that started it. Asks for the bearer token in
``$COE_ENGINE_KEY``, if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Serve the given weights on a free port until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m coe.services.host.llama")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--alias", required=True, help="name the server answers to")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True, help="requests served at once")
    parser.add_argument("--context", type=int, required=True, help="tokens per slot")
    parser.add_argument("--repeat-penalty", type=float, default=1.0, help="1 is none")
    parser.add_argument("--embeddings", action="store_true", help="serve vectors, not answers")
    options = parser.parse_args()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(options.weights)
    params.model_alias = {options.alias}
    params.cpuparams.n_threads = options.threads
    params.cpuparams_batch.n_threads = options.threads
    params.n_parallel = options.slots
    params.n_ctx = options.context * options.slots
    params.n_threads_http = options.slots + 4
    params.endpoint_slots = True
    params.endpoint_metrics = True
    params.hostnames = [options.bind]
    params.port = 0
    # not an argument: those are for everyone to read
    if key := os.environ.get("COE_ENGINE_KEY"):
        params.api_keys = [key]
    # outcomes are collected without sampling noise; a caller's own temperature wins
    params.sampling.temp = 0.0
    params.sampling.penalty_repeat = options.repeat_penalty
    params.verbosity = 1
    if options.embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        # pooling reads a text in one go, however long
        params.n_batch = params.n_ubatch = options.context
    server = xllamacpp.Server(params)
    sys.stdout.write(json.dumps({"address": server.listening_address}) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()
    # the server's threads do not end by themselves
    os._exit(0)


if __name__ == "__main__":
    main()
