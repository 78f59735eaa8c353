"""How fast this machine is right now: print it beside every measurement taken here."""

import os
import platform
import time


def calibration() -> dict[str, object]:
    """Cores, Python version, and the time of a fixed loop (about 0.1 s on a quiet core)."""
    started = time.perf_counter()
    total = 0
    for n in range(2_000_000):
        total += n & 7
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "fixed_loop_s": round(time.perf_counter() - started, 3),
        "load_average": os.getloadavg()[0],
    }
