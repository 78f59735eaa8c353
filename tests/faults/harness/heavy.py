"""Load that wears a gateway down: connections that say nothing, requests as large as may be.

As `harness.scenarios`, whose verdicts these give.
"""

from __future__ import annotations

import asyncio
import json
import re
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import httpx

from harness.client import Leaving, Seen
from harness.gateway import SMALL
from harness.load import plain, poisson
from harness.scenarios import Figures, broken, gateway_alone, pid_of, quantiles_ms
from harness.script import Script
from harness.stage import Stage, ends
from harness.watching import sample, watched

_OK = ("done", "whole")
_USUAL = Script(tokens=200, ttft_s=0.02)
_READ_BPS, _EVENT_BYTES = 1024.0, 200.0
# of each slow reader: 64 and a piece unsent, 128 and a read that came meanwhile. A read of uvloop's
# is 256 at most, and a piece all that came; on a quiet machine it is 200 in all. And what the
# process takes besides while it stands still
_READER_KIB, _SPARE_KIB = 64.0 + 384.0 + 128.0 + 256.0, 4096.0
_LONG = {"answer_tokens": 90_000, "context_tokens": 99_000, "answer_timeout_s": 600.0}
_LATE_S = 2.0


@dataclass
class Crowd:
    """Connections on which little or nothing is said, opened anew whenever they are closed.

    Attributes
    ----------
    lasted_s : how long each that was closed by the gateway had been open, by kind.
    n_refused : that were not let in.
    """

    port: int
    lasted_s: dict[str, list[float]] = field(default_factory=lambda: {"idle": [], "slow": []})
    n_refused: int = 0

    async def one(self, kind: str, after_s: float) -> None:
        """A connection for ever; ``slow``: a byte of a head every second."""
        await asyncio.sleep(after_s)
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                self.n_refused += 1
                await asyncio.sleep(1.0)
                continue
            opened_s = time.monotonic()
            try:
                head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nx-slow: "
                while not await self._ended(reader, 1.0 if kind == "slow" else None):
                    writer.write(head[:1])
                    head = head[1:] or b"x"
                self.lasted_s[kind].append(time.monotonic() - opened_s)
            finally:
                writer.close()

    async def _ended(self, reader: asyncio.StreamReader, within_s: float | None) -> bool:
        """Whether the gateway has closed it within this time; ``None``: however long it takes."""
        try:
            async with asyncio.timeout(within_s):
                while await reader.read(4096):
                    pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True


async def crowded(
    folder: Path,
    seconds: float,
    per_s: float = 50.0,
    n_idle: int = 1000,
    n_slow: int = 300,
    n_readers: int = 20,
    head_timeout_s: float = 10.0,
) -> Figures:
    """Idle connections, heads that never end and readers of a kilobyte a second, beside callers.

    The first third of the time the callers are alone. That more connections are opened at once than
    their own side does in no time is in the callers' milliseconds, which decide nothing.
    """
    # a descriptor for both ends of each connection
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found: Figures = {"idle": n_idle, "slow": n_slow, "readers": n_readers, "seconds": seconds}
    gateway, draw = {"head_timeout_s": head_timeout_s}, plain(_USUAL, 0.0)
    async with gateway_alone(folder, gateway=gateway, expert=_LONG) as standing:
        alone = await poisson(standing.caller, per_s, seconds / 3.0, Random(1), draw, "alone")
        readers, grown_kib = await reading(standing, n_readers, 2 * seconds / 3)
        crowd, dice = Crowd(standing.gateway.port), Random(2)
        tasks = [
            asyncio.create_task(crowd.one(kind, dice.random() * min(5.0, head_timeout_s)))
            for kind, n in (("idle", n_idle), ("slow", n_slow))
            for _ in range(n)
        ]
        async with watched(pid_of(standing)) as samples:
            seen = await poisson(standing.caller, per_s, 2 * seconds / 3, Random(3), draw, "l")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found["readers_ended"] = ends(await asyncio.gather(*readers))
        found["violations"] = await broken(standing)
    late = [
        s for kind in crowd.lasted_s.values() for s in kind if abs(s - head_timeout_s) > _LATE_S
    ]
    answered = sum(one.end in _OK for one in seen) / max(1, len(seen))
    ratio = quantiles_ms(seen)["p99_ms"] / quantiles_ms(alone)["p99_ms"]
    found |= {
        "alone": quantiles_ms(alone),
        "beside": quantiles_ms(seen) | {"requests": len(seen), "ends": ends(seen)},
        "p99_ratio": round(ratio, 2),
        "answered_share": round(answered, 5),
        "closed": {kind: len(lasted) for kind, lasted in crowd.lasted_s.items()},
        "closed_early_or_late": len(late),
        "not_let_in": crowd.n_refused,
        "fds": max(s.n_fds for s in samples),
        "kib_per_reader": round(grown_kib / max(1, n_readers), 1),
    }
    found["ok"] = (
        not found["violations"]
        and answered >= 0.999
        and found["readers_ended"] == {"left": n_readers}
        and not late
        and grown_kib <= n_readers * _READER_KIB + _SPARE_KIB
    )
    return found


async def reading(
    standing: Stage, n_readers: int, seconds: float
) -> tuple[list[asyncio.Task[Seen]], float]:
    """So many slow readers of long streams, who leave after a while; KiB that the gateway grew."""
    # what streams side by side take is not the readers'
    await asyncio.gather(
        *(standing.caller.ask(f"quick{n}", Script(64), True, model=SMALL) for n in range(n_readers))
    )
    before = sample(pid_of(standing)).rss_mb
    readers = [
        asyncio.create_task(
            standing.caller.ask(
                f"reader{n}",
                Script(90_000),
                True,
                model=SMALL,
                leaving=Leaving(after_s=1.5 * seconds),
                slowly_bps=_READ_BPS,
            )
        )
        for n in range(n_readers)
    ]
    n_before, n_written, until_s = -1, 0, time.monotonic() + seconds / 2.0
    # until the sockets between are full, but for what is read of them
    while n_written > n_before and time.monotonic() < until_s:
        await asyncio.sleep(0.5)
        read = round(n_readers * _READ_BPS / _EVENT_BYTES / 2.0)
        n_before, n_written = n_written + read, sum(one.written for one in standing.small.log)
    return readers, (sample(pid_of(standing)).rss_mb - before) * 1024.0


async def expensive(folder: Path, seconds: float, per_s: float = 50.0, n_each: int = 20) -> Figures:
    """Requests as large as they may be, all of a kind at once, beside callers who feel nothing.

    The first half of the time the callers are alone. Bodies are written and read by the callers'
    and the experts' process, too, so that milliseconds decide nothing; how late the gateway's own
    loop was stands beside them.
    """
    found: Figures = {"each": n_each, "seconds": seconds}
    # all that can be held is answered
    expert = {"answer_tokens": 1000, "context_tokens": 4_000_000, "limit": "none"}
    expert |= {"capabilities": ["json_schema"], "first_token_timeout_s": 30.0}
    async with gateway_alone(folder, expert=expert) as standing:
        draw, port = plain(_USUAL, 0.0), standing.gateway.port
        for name in ("alone", "beside"):
            heavy: list[Seen] = []
            if name == "beside":
                bursts = asyncio.create_task(_bursts(standing, seconds / 2.0, n_each))
            before = await lags(port)
            async with watched(pid_of(standing)) as samples:
                seen = await poisson(standing.caller, per_s, seconds / 2.0, Random(4), draw, name)
            if name == "beside":
                heavy = await bursts
            late = {le: n - before.get(le, 0.0) for le, n in (await lags(port)).items()}
            found[name] = quantiles_ms(seen) | {
                "requests": len(seen),
                "ends": ends(seen),
                "heavy": ends(heavy),
                "lag_p99_ms": round(quantile_of(late, 0.99) * 1e3, 1),
                "lags": int(max(late.values())),
                "rss_mb": round(max(s.rss_mb for s in samples), 1),
            }
        found["violations"] = await broken(standing)
    beside = found["beside"]
    found["p99_ratio"] = round(beside["p99_ms"] / found["alone"]["p99_ms"], 2)
    found["ok"] = (
        not found["violations"]
        and beside["ends"] == {"whole": beside["requests"]}
        and beside["heavy"] == {"whole": len(KINDS) * n_each}
    )
    return found


BODY_BYTES, N_MESSAGES, SCHEMA_BYTES = 4 * 1024 * 1024, 1024, 64 * 1024
KINDS = ("bytes", "messages", "schema")


async def _bursts(standing: Stage, seconds: float, n_each: int) -> list[Seen]:
    """Of every kind all at once, the kinds one after the other in this time."""
    heavy: list[Seen] = []
    for kind in KINDS:
        asked = [
            standing.caller.ask(f"{kind}{n}", Script(), model=SMALL, **large(kind, f"{kind}{n}"))
            for n in range(n_each)
        ]
        began_s = time.monotonic()
        heavy += await asyncio.gather(*asked)
        await asyncio.sleep(max(0.0, seconds / len(KINDS) - (time.monotonic() - began_s)))
    return heavy


def large(kind: str, tag: str) -> dict[str, Any]:
    """Fields of a request at the top of a limit."""
    asking = {"role": "user", "content": Script().prompt(tag)}
    if kind == "schema":
        names = (f"field_{n:04d}" for n in range(780))
        schema: dict[str, Any] = {"type": "object", "properties": {}}
        for name in names:
            schema["properties"][name] = {"type": "string", "title": "x" * 30}
        assert 0.8 * SCHEMA_BYTES < len(json.dumps(schema)) <= SCHEMA_BYTES
        told = {"name": "large", "schema": schema}
        return {"response_format": {"type": "json_schema", "json_schema": told}}
    n = 1 if kind == "bytes" else N_MESSAGES - 1
    # some of the bytes go to what is around
    text = "word " * ((BODY_BYTES - 80_000) // n // 5)
    return {"messages": [{"role": "user", "content": text}] * n + [asking]}


async def lags(port: int) -> dict[float, float]:
    """How often the gateway's loop has been so late at most, by seconds."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
        page = (await client.get("/metrics")).text
    found = re.findall(r'^coe_loop_lag_seconds_bucket\{le="(\S+)"\} (\S+)$', page, re.M)
    return {float(le): float(n) for le, n in found}


def quantile_of(late: dict[float, float], q: float) -> float:
    """Of a cumulative histogram, in a straight line between its bounds."""
    low, n_low = 0.0, 0.0
    wanted = q * max(late.values())
    for le, n in sorted(late.items()):
        if n >= wanted and n > n_low:
            return low if le == float("inf") else low + (le - low) * (wanted - n_low) / (n - n_low)
        low, n_low = le, n
    return low
