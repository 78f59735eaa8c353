"""The program of one engine process: vLLM's own OpenAI-compatible server.

Started by file, with the interpreter of an environment that holds vLLM and need not hold this
package: it imports nothing but the standard library. Prints one JSON line ``{"address": ...}`` when
the server is healthy, and sends what the server prints to standard error. Ends when its standard
input ends, and takes the server with it, also where it is killed itself. Asks for the bearer token
in ``$COE_ENGINE_KEY``, if there is one. Arguments after ``--`` are vLLM's own.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

_ASK_PERIOD_S = 0.2
_ASK_TIMEOUT_S = 5.0
_END_TIMEOUT_S = 10.0
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
# the environment's proxies are for others
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def main() -> None:
    """Serve the given weights on a free port until standard input ends."""
    parser = argparse.ArgumentParser(prog="python vllm.py")
    parser.add_argument("--bind", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--weights", required=True, help="folder, or name on the Hugging Face hub")
    parser.add_argument("--alias", required=True, help="name the server answers to")
    parser.add_argument("--slots", type=int, required=True, help="requests served at once")
    parser.add_argument("--context", type=int, required=True, help="tokens per request")
    parser.add_argument("arguments", nargs="*", help="after --: vLLM's own")
    options = parser.parse_args()

    port = _free_port(options.bind)
    command = [
        # the module, not `vllm serve`: builds for CPUs carry another name, and that asks for it
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--host", options.bind, "--port", str(port), "--model", options.weights,
        "--served-model-name", options.alias, "--max-num-seqs", str(options.slots),
        "--max-model-len", str(options.context), *options.arguments,
    ]  # fmt: skip
    engine = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        env=_environment(),
        preexec_fn=_ending_with(os.getpid()),
    )
    threading.Thread(target=_end_with_input, args=[engine], daemon=True).start()
    signal.signal(signal.SIGTERM, lambda number, frame: engine.terminate())
    host = f"[{options.bind}]" if ":" in options.bind else options.bind
    address = f"http://{host}:{port}"
    while engine.poll() is None:
        if _healthy(address):
            sys.stdout.write(json.dumps({"address": address}) + "\n")
            sys.stdout.flush()
            break
        time.sleep(_ASK_PERIOD_S)
    sys.exit(engine.wait())


def _ending_with(parent: int) -> Callable[[], None]:
    """Has the kernel end a process when its parent has ended, which may have been killed."""
    prctl = ctypes.CDLL(None).prctl

    def end() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)

    return end


def _environment() -> dict[str, str]:
    """Variables of the server: ours, the engine's key under the name that vLLM looks for."""
    environment = dict(os.environ)
    environment.pop("VLLM_API_KEY", None)
    if key := environment.pop("COE_ENGINE_KEY", None):
        environment["VLLM_API_KEY"] = key
    return environment


def _free_port(bind: str) -> int:
    """A port that is free now; should another program take it, the server ends and is restarted."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.create_server((bind, 0), family=family) as listener:
        return int(listener.getsockname()[1])


def _healthy(address: str) -> bool:
    try:
        with _DIRECT.open(f"{address}/health", timeout=_ASK_TIMEOUT_S) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def _end_with_input(engine: subprocess.Popen[bytes]) -> None:
    # not sys.stdin: its lock, held here, would abort the interpreter when it ends by itself
    while os.read(0, 65536):
        pass
    engine.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        engine.wait(_END_TIMEOUT_S)
    engine.kill()


if __name__ == "__main__":
    main()
