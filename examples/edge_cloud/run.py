"""Edge and cloud: three budgets against every single expert, replayed over HTTP.

    python examples/edge_cloud/run.py [--prompts N] [--speed TIMES] [--gap-s S] [--out FOLDER]

Trains a router on the `train` rows of ``outcomes.parquet``, plans who is resident, serves the five
recorded experts at the pace of their devices, asks `test` prompts, prints what became of them, and
writes ``results.json`` and the picture ``edge_cloud``. ``README.md`` says what is to be seen.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import picture
from asking import Arm, Experiment, asked
from summary import N_RESAMPLES, SEED, slowed, summarised, tables

from coe.budgets import load_policies
from coe.config import Config, load_config
from coe.plan import Plan
from coe.routers.outcomes import Outcomes

HERE = Path(__file__).resolve().parent
OUTCOMES = HERE / "outcomes.parquet"
BUDGETS = ("edge", "balanced", "cloud")
PLANNED_FOR = "balanced"
BUSY = 0.03


def main() -> None:
    """Train, plan, ask, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=425, help="how many to ask, all by default")
    parser.add_argument("--speed", type=float, default=5.0, help="device seconds in a second")
    parser.add_argument("--gap-s", type=float, default=0.2, help="seconds from prompt to prompt")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder to write to")
    given = parser.parse_args()
    if given.prompts < 1 or given.speed <= 0 or given.gap_s <= 0:
        parser.error("--prompts, --speed and --gap-s must be positive")
    given.out.mkdir(parents=True, exist_ok=True)
    config, outcomes = prepared(given.out), Outcomes.read(OUTCOMES)
    rows = asked(outcomes, "test", given.prompts)
    arms = [Arm(name, name) for name in config.specs]
    arms += [Arm(name, f"auto:{name}") for name in BUDGETS]
    print(f"asking {len(rows.prompts)} prompts in {len(arms)} ways ...", flush=True)
    started = time.monotonic()
    found = asyncio.run(Experiment(config, rows, given.speed, given.gap_s).run(arms))
    document = {
        "n_prompts": len(rows.prompts),
        "speed": given.speed,
        "gap_s": given.gap_s,
        "slowed_by": round(slowed(found), 4),
        "asking_s": round(time.monotonic() - started, 1),
        "seed": SEED,
        "n_resamples": N_RESAMPLES,
        "budgets": described(config),
        "plan": planned(given.out / "plan.json"),
        "arms": summarised(arms, found),
    }
    (given.out / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    paths = picture.write(document, given.out / "edge_cloud")
    print(report(document))
    print("wrote", *(os.path.relpath(path) for path in [given.out / "results.json", *paths]))


def prepared(out: Path) -> Config:
    """The configuration, with a router and a plan made by coe's own commands."""
    config = load_config(HERE / "coe.yaml")
    config = config.model_copy(update={"artefact": out / "artefact", "plan": out / "plan.json"})
    own = ["--config", HERE / "coe.yaml"]
    coe("train", *own, "--outcomes", OUTCOMES, "--out", config.artefact)
    coe("plan", *own, "--artefact", config.artefact, "--budget", PLANNED_FOR, "--out", config.plan)
    return config


def coe(*arguments: object) -> None:
    """Run the command line, to its end."""
    words = [str(argument) for argument in arguments]
    print("$ coe", *words, flush=True)
    subprocess.run([sys.executable, "-m", "coe", *words], check=True)


def described(config: Config) -> dict[str, str]:
    """What each of the three policies says of itself."""
    policies = load_policies(config.budgets)
    return {name: policies[name].description for name in BUDGETS}


def planned(path: Path) -> dict[str, Any]:
    """Who is resident where, and what a mean of so many joules was expected to buy."""
    plan = Plan.load(path)
    steps = plan.staircases["energy_j"]
    return {
        "policy": plan.policy,
        "resident": plan.resident,
        "staircase": [[round(step.energy_j, 1), round(step.quality, 4)] for step in steps],
    }


def report(document: dict[str, Any]) -> str:
    """All figures as text."""
    resident = sorted(document["plan"]["resident"].items())
    lines = [f"resident on {node}: {', '.join(names)}" for node, names in resident]
    lines += ["", tables(document["arms"]), ""]
    lines += [f"auto:{name}: {said}" for name, said in document["budgets"].items()]
    lines += [
        f"auto:{arm['name']}: {arm['n_cut']} answers cut at what that pays for, and wrong"
        for arm in document["arms"]
        if arm["n_cut"]
    ]
    slowed_by = document["slowed_by"]
    lines += [
        "seconds are device time, joules are modelled, cents are list prices: of an answer",
        f"time ran {document['speed']:g} times as fast, for {document['asking_s']:.0f} s; "
        f"gateway and clients made answers {slowed_by:.1%} longer",
    ]
    if slowed_by > BUSY:
        lines.append(
            "this machine was busy: seconds are too long, and auto:cloud decided by them; "
            "--gap-s 0.5 --speed 3 asks more slowly"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
