"""Where the CPU of a request goes inside the gateway: no sockets, an expert that answers at once.

``python benchmarks/gateway/inside.py [MODEL]`` writes ``inside.json``, which ``report.py`` shows.
The total is the least of many rounds; the shares are a profiler's, by CPU time.
"""

import asyncio
import cProfile
import json
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path

import stub
import uvloop
from contenders import ours
from generator import PROMPT

from coe.config import load_config
from coe.services.gateway import Gateway
from coe.services.observing.opening import observing
from coe.services.runtime import serving

HERE = Path(__file__).parent
_ROUNDS, _PER_ROUND, _PROFILED = 40, 100, 2000
# by part: the functions that do it, each of whose time holds no other's
_PARTS = {
    "body read and parsed": ("body.py:json_of", "gateway.py:_parsed"),
    "decided": ("engine.py:_dispatch",),
    "expert asked, answer metered, booked": ("reply.py:begin", "reply.py:pieces"),
    "answer's document and head": (
        "answers.py:document_of",
        "answers.py:headers_of",
        "answers.py:as_answer",
    ),
    "metrics": ("metrics.py:tell",),
    "log": ("log.py:tell",),
}


class Instant:
    """An expert whose whole answer is there."""

    async def stream(self, request, max_tokens):
        """The stub's document."""
        yield stub.DOCUMENT


async def _asked(app, body: bytes) -> int:
    """The status of one request."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    sent = []

    async def receive():
        return waiting.pop() if waiting else await asyncio.sleep(3600)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
    path = "/v1/chat/completions"
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode()}
    scope |= {"headers": headers, "http_version": "1.1", "query_string": b"", "root_path": ""}
    await app(scope | {"client": ("127.0.0.1", 1), "scheme": "http"}, receive, send)
    return int(sent[0]["status"])


async def _measured(model: str, folder: Path, log: int) -> tuple[float, pstats.Stats]:
    """CPU seconds of a request, and a profile of many."""
    message = {"role": "user", "content": PROMPT}
    body = json.dumps({"model": model, "messages": [message], "max_tokens": 64}).encode()
    config = load_config(ours(folder, 9, 8080))
    async with (
        serving(config, lambda line: None) as runtime,
        observing(config.telemetry, (config.logging, log)) as observers,
    ):
        gateway = Gateway(runtime, metrics=observers.metrics, tell=observers.tell)
        app = gateway.app()
        runtime.engine.experts = dict.fromkeys(runtime.engine.experts, Instant())
        assert await _asked(app, body) == 200
        least_s = float("inf")
        for _ in range(_ROUNDS):
            began = time.process_time()
            for _ in range(_PER_ROUND):
                await _asked(app, body)
            least_s = min(least_s, (time.process_time() - began) / _PER_ROUND)
        profile = cProfile.Profile(time.process_time)
        profile.enable()
        for _ in range(_PROFILED):
            await _asked(app, body)
        profile.disable()
    return least_s, pstats.Stats(profile)


def shares(profile: pstats.Stats) -> dict[str, float]:
    """The share of each part; "rest" is layers, and what nobody else does."""
    took = {f"{Path(k[0]).name}:{k[2]}": v[3] for k, v in profile.stats.items()}
    total = took["watch.py:__call__"]
    found = {part: sum(took[name] for name in names) / total for part, names in _PARTS.items()}
    return found | {"rest": 1.0 - sum(found.values())}


def main() -> None:
    """Measure, and write it down."""
    found = {}
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as log:
        for model in sys.argv[1:] or ("smollm2-135m", "auto"):
            least_s, profile = uvloop.run(_measured(model, Path(folder), log.fileno()))
            parts = {part: share * least_s * 1e6 for part, share in shares(profile).items()}
            found[model] = {"all": round(least_s * 1e6), **{k: round(v) for k, v in parts.items()}}
    (HERE / "inside.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
