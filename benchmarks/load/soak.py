"""What a gateway keeps up under load, and what it loses: nothing.

    python benchmarks/load/soak.py [--only NAME ...] [--share S]

The gateway on one core; its callers and its experts, which do what they are told and attest what
they did, on another. Prints one JSON document: per scenario its figures and whether it passed; the
exit code is 1 where one has not. ``--share 0.1`` takes a tenth of the time, ``--rate 0.3`` asks
a third as much of a machine that has something else to do.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "faults"))
from calibration import calibration

from harness import heavy, scenarios
from harness.scenarios import Figures

Scenario = Callable[[Path, float, float], Awaitable[Figures]]
STEPS = (50, 100, 200, 300, 350, 400, 450, 500, 550, 600, 700, 800)
SCENARIOS: dict[str, Scenario] = {
    "steady": lambda at, share, rate: scenarios.steady(at, 300.0 * share, 100.0 * rate),
    "streams": lambda at, share, rate: scenarios.streams(at, 600.0 * share, round(200 * rate)),
    "overload": lambda at, share, rate: scenarios.overload(at, 60.0 * share, STEPS),
    "outage": lambda at, share, rate: scenarios.outage(at, 30.0 * share, 100.0 * rate),
    "crowded": lambda at, share, rate: heavy.crowded(at, 300.0 * share, 50.0 * rate),
    "neighbours": lambda at, share, rate: scenarios.neighbours(
        at, 150.0 * share, each_s=2.0 / rate
    ),
    "expensive": lambda at, share, rate: heavy.expensive(at, 120.0 * share, 50.0 * rate),
    "soak": lambda at, share, rate: scenarios.soak(at, 1200.0 * share, 30.0 * rate),
}


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--share", type=float, default=1.0, help="of the full time")
    parser.add_argument("--rate", type=float, default=1.0, help="of the full rate")
    given = parser.parse_args()
    # callers and experts remember all that they saw: whenever it is gone through, all are late
    gc.set_threshold(100_000, 50, 1000)
    found: Figures = {"machine": calibration(), "share": given.share, "rate": given.rate}
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = asyncio.run(SCENARIOS[name](Path(folder), given.share, given.rate))
    found["ok"] = all(found[name]["ok"] for name in given.only)
    print(json.dumps(found, indent=2))
    sys.exit(not found["ok"])


if __name__ == "__main__":
    main()
