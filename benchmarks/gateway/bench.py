"""What a gateway costs: ours pinned and routed, LiteLLM, sglang-router, none; one run, one stub.

``python benchmarks/gateway/bench.py [--seconds 2] [--repeats 3]`` writes ``results.json``, then
``README.md`` and the picture beside it. The servers share one core and take turns; the load and
the stub share another. Figures are medians of the repeats.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from contenders import Contender, start
from generator import Asked, Seen, closed_loop, open_loop
from processes import cpu_s, free_port, pinned_to, rss_mb, running

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from calibration import calibration  # noqa: E402

AT_ONCE = (1, 16, 64, 256)
RATES_PER_S = (50, 100)
PACED = ((64, 4), (256, 8))
"""Streams at once, and milliseconds between the events of each."""
MOST_S = 4.0
"""So many at once that would take longer than this to be answered are not asked."""
LEAST_PACED_PER_S = 50.0
"""Who answers fewer streams a second that come at once is not asked for slow ones."""

Row = dict[str, float]


def figures(seen: Seen, used_s: float) -> Row:
    """What one measurement says."""
    if seen.wrong:
        raise RuntimeError(f"a wrong answer: {seen.wrong[0]}")
    n = len(seen.spent_s)
    if not n:
        raise RuntimeError(f"all of {seen.n_refused} requests were refused")
    p50, p99 = np.percentile(np.array(seen.spent_s) * 1000, [50, 99])
    row = {
        "requests_per_s": n / seen.elapsed_s,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_ms_per_request": used_s / n * 1000,
        "busy": used_s / seen.elapsed_s,
        "refused": seen.n_refused / (n + seen.n_refused),
    }
    if seen.n_events:
        row["chunks_per_s"] = seen.n_events / seen.elapsed_s
        row["chunks_per_cpu_s"] = seen.n_events / used_s
    return row


def closed(one: Contender, asked: Asked, n_at_once: int, seconds: float) -> Row:
    """Closed-loop load after a short warm-up."""
    uvloop.run(closed_loop(one.port, asked, min(n_at_once, 16), min(0.2, seconds)))
    before = cpu_s(one.pid)
    seen = uvloop.run(closed_loop(one.port, asked, n_at_once, seconds))
    return figures(seen, cpu_s(one.pid) - before)


def opened(one: Contender, asked: Asked, rate_per_s: float, seconds: float, seed: int) -> Row:
    """Open-loop load: latency from when a request was due."""
    before = cpu_s(one.pid)
    rng = random.Random(seed)
    seen = uvloop.run(open_loop(one.port, asked, rate_per_s, seconds, rng))
    return figures(seen, cpu_s(one.pid) - before)


def measured(field: dict[str, Contender], seconds: float, repeats: int) -> dict[str, Any]:
    """Every cell, the contenders in turn, repeat by repeat; medians."""
    cells: dict[tuple[str, str], list[Row]] = {}
    for repeat in range(repeats):
        for name, one in field.items():
            for cell, row in _once(one, seconds, repeat):
                cells.setdefault((cell, name), []).append(row)
            print(f"repeat {repeat + 1} of {repeats}: {name}", file=sys.stderr, flush=True)
    table: dict[str, Any] = {}
    for (cell, name), rows in cells.items():
        medians = {k: _short(statistics.median(row[k] for row in rows)) for k in rows[0]}
        table.setdefault(cell, {})[name] = medians
    return table


def _once(one: Contender, seconds: float, repeat: int) -> list[tuple[str, Row]]:
    found = []
    if one.name == "echo":
        # it sends back what it gets: the words that an answer is known by
        asked = Asked.chat(one.port, one.model, prompt="token63 " * 9)
        return [(f"whole, {n} at once", closed(one, asked, n, seconds)) for n in AT_ONCE]
    for stream in (False, True):
        asked = Asked.chat(one.port, one.model, stream, key=one.key)
        last = 0.0
        for n in AT_ONCE:
            if last and n / last > MOST_S:
                break
            cell = f"{'stream' if stream else 'whole'}, {n} at once"
            found.append((cell, closed(one, asked, n, seconds)))
            last = found[-1][1]["requests_per_s"]
    for n, pace_ms in PACED if last > LEAST_PACED_PER_S else ():
        asked = Asked.chat(one.port, one.model, True, pace_ms, key=one.key)
        cell = f"paced stream, {n} at once, {pace_ms} ms apart"
        found.append((cell, closed(one, asked, n, seconds)))
    asked = Asked.chat(one.port, one.model, key=one.key)
    for rate in RATES_PER_S:
        cell = f"whole, {rate} a second (open loop)"
        found.append((cell, opened(one, asked, rate, 3 * seconds, repeat)))
    return found


def client_alone(port: int, core: int, seconds: float) -> Row:
    """The gateway's client against the stub, on the gateways' core."""
    command = [sys.executable, str(HERE / "limits.py"), "client", str(port), "64", str(seconds)]
    done = subprocess.run([*pinned_to(core), *command], check=True, capture_output=True, timeout=60)
    said = json.loads(done.stdout)
    cpu_ms = said["cpu_s"] / said["n"] * 1000
    return {"requests_per_s": said["requests_per_s"], "cpu_ms_per_request": cpu_ms}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def main() -> None:
    """Measure, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--note", default="", help="what a reader should know of the machine")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    theirs, mine = cores[0], cores[-1]
    before = calibration()
    os.sched_setaffinity(0, {mine})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = free_port()
        stub = [sys.executable, str(HERE / "stub.py"), str(port)]
        pid = stack.enter_context(running(stub, port, mine, folder / "stub.log"))
        field = start(stack, folder, port, pid, theirs)
        alone = [client_alone(port, theirs, given.seconds) for _ in range(given.repeats)]
        table = measured(field.contenders, given.seconds, given.repeats)
        memory = {one.name: round(rss_mb(one.pid), 1) for one in field.contenders.values()}
    client = {k: _short(statistics.median(row[k] for row in alone)) for k in alone[0]}
    result = {
        "command": " ".join(["python", *sys.argv]),
        "note": given.note,
        "machine": {"before": before, "after": calibration()},
        "versions": field.versions,
        "missing": field.missing,
        "client_alone_64_at_once": client,
        "rss_mb_after": memory,
        "cells": table,
    }
    document = json.dumps(result, indent=2)
    (HERE / "results.json").write_text(document + "\n")
    print(document)
    for script in ("inside.py", "report.py"):
        subprocess.run([sys.executable, str(HERE / script)], check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
