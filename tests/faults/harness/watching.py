"""What a process takes, from outside."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Sample:
    """A process at one moment."""

    at_s: float
    rss_mb: float
    n_fds: int
    n_threads: int
    cpu_s: float


def sample(pid: int) -> Sample:
    """The process now."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return Sample(
        time.monotonic(),
        int(fields["VmRSS"].split()[0]) / 1024.0,
        len(os.listdir(f"/proc/{pid}/fd")),
        int(fields["Threads"]),
        (int(stat[11]) + int(stat[12])) / _TICKS,
    )


@asynccontextmanager
async def watched(pid: int, every_s: float = 1.0) -> AsyncIterator[list[Sample]]:
    """Samples for as long as the context lasts, one at its beginning and one at its end."""
    samples = [sample(pid)]

    async def watch() -> None:
        while True:
            await asyncio.sleep(every_s)
            samples.append(sample(pid))

    task = asyncio.create_task(watch())
    try:
        yield samples
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        with suppress(FileNotFoundError):
            samples.append(sample(pid))


def slope_mb_per_h(samples: list[Sample]) -> float:
    """Growth of the resident memory, by least squares."""
    if len(samples) < 2:
        return 0.0
    at_s, rss_mb = np.array([(s.at_s, s.rss_mb) for s in samples]).T
    return float(np.polyfit(at_s - at_s[0], rss_mb, 1)[0] * 3600.0)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This process on one core, where there are two."""
    before = os.sched_getaffinity(0)
    if len(before) > 1:
        os.sched_setaffinity(0, {sorted(before)[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def command_on_core(core: int) -> list[str]:
    """What starts a process on one core, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[core])] if len(cores) > 1 else []
