"""What a gateway keeps up under load, and what it loses: nothing.

    python benchmarks/load/soak.py [--only NAME ...] [--share S]

The gateway on one core; its callers and its experts, which do what they are told and attest what
they did, on another. Prints one JSON document: per scenario its figures and whether it passed; the
exit code is 1 where one has not. ``--share 0.1`` takes a tenth of the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "faults"))
from calibration import calibration

from harness import scenarios
from harness.scenarios import Figures

Scenario = Callable[[Path, float], Awaitable[Figures]]
STEPS = (50, 100, 150, 200, 250, 300, 350, 400)
SCENARIOS: dict[str, Scenario] = {
    "steady": lambda folder, share: scenarios.steady(folder, 300.0 * share),
    "streams": lambda folder, share: scenarios.streams(folder, 600.0 * share),
    "overload": lambda folder, share: scenarios.overload(folder, 60.0 * share, STEPS),
    "outage": lambda folder, share: scenarios.outage(folder, 30.0 * share),
    "neighbours": lambda folder, share: scenarios.neighbours(folder, 150.0 * share),
    "soak": lambda folder, share: scenarios.soak(folder, 1200.0 * share),
}


def main() -> None:
    """Print the measurements."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--share", type=float, default=1.0, help="of the full time")
    given = parser.parse_args()
    found: Figures = {"machine": calibration(), "share": given.share}
    for name in given.only:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = asyncio.run(SCENARIOS[name](Path(folder), given.share))
    found["ok"] = all(found[name]["ok"] for name in given.only)
    print(json.dumps(found, indent=2))
    sys.exit(not found["ok"])


if __name__ == "__main__":
    main()
