"""Several experts, one answer, over HTTP: what modes are worth beside single experts.

    python benchmarks/ensembles/run.py [--responses FILE] [--prompts N] [--speed TIMES] [--out FILE]

Five recorded experts answer behind a real gateway, at the pace and power of their devices'
profiles. Router, modes and confidence are learned on `train` rows, and so are the prices of joules
that keep a budget: policies are asked for `train` prompts first. Reported are the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ahead import tried
from recording import EXAMPLE, write_table

sys.path.insert(0, str(EXAMPLE))

import plot
from asking import Answered, Arm, Experiment, asked
from extract import EXPERTS
from report import document_of, printed
from ways import PRICES, Mixed, fixed, policies, staircase

from coe.config import Config, load_config
from coe.kinds import ReplaySection
from coe.routers.outcomes import Outcomes

DEFAULT = Path(__file__).parents[3] / "shared/data/outcomes/zeroeval_coe5_responses.parquet"
HERE = Path(__file__).parent
FAMILIES = ("modes", "singles")


class Ensembles(Experiment):
    """Asks by any mode, a few arms at a time."""

    async def _ask(self, client: Any, arm: Arm, n: int) -> Answered:
        chosen = arm.of(self._rows.prompt_ids[n]) if isinstance(arm, Mixed) else arm
        return await super()._ask(client, chosen, n)

    def _device_ms(self, receipt: Mapping[str, Any]) -> float:
        """What the profiles say; of several experts what was measured."""
        return receipt["latency_ms"] if receipt["parts"] else super()._device_ms(receipt)


def configured(folder: Path, table: Path) -> Config:
    """The example's experts, with all answers to replay, and a router that learned from them."""
    config = load_config(EXAMPLE / "coe.yaml")
    words = ["train", "--config", EXAMPLE / "coe.yaml", "--outcomes", table, "--out", folder / "a"]
    subprocess.run([sys.executable, "-m", "coe", *map(str, words)], check=True)
    (folder / "budgets.yaml").write_text(yaml.safe_dump(policies(PRICES)))
    replayed = [expert for expert in config.experts if isinstance(expert, ReplaySection)]
    changed = {
        "artefact": folder / "a",
        "budgets": folder / "budgets.yaml",
        "plan": None,
        "experts": [expert.model_copy(update={"recording": table}) for expert in replayed],
    }
    return config.model_copy(update=changed)


def measured(
    config: Config,
    rows: Outcomes,
    arms: Sequence[Arm],
    given: argparse.Namespace,
) -> dict[str, list[Answered]]:
    """What the prompts came to in each arm."""
    found: dict[str, list[Answered]] = {}
    for first in range(0, len(arms), given.at_once):
        few = arms[first : first + given.at_once]
        print("asking", ", ".join(arm.name for arm in few), flush=True)
        experiment = Ensembles(config, rows, given.speed, given.gap_s)
        found |= asyncio.run(experiment.run(few))
    return found


def replaced(old: dict[str, Any], new: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The old document with the new figures of these arms, which says so."""
    rows = {row["name"]: row for row in new["arms"] if row["name"] in names}
    arms = [rows.get(row["name"], row) for row in old["arms"]]
    again = {"arms": list(names), "speed": new["speed"], "gap_s": new["gap_s"]}
    return old | {"arms": arms, "asked_again": again}


def main() -> None:
    """Learn, calibrate, ask, report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--responses", type=Path, default=DEFAULT)
    parser.add_argument("--prompts", type=int, default=425, help="of the test rows")
    parser.add_argument("--train-prompts", type=int, default=600, help="to learn prices from")
    parser.add_argument("--speed", type=float, default=2.0, help="device seconds in a second")
    parser.add_argument("--gap-s", type=float, default=0.3, help="seconds from prompt to prompt")
    parser.add_argument("--at-once", type=int, default=4, help="arms that are asked at once")
    parser.add_argument(
        "--again", nargs="+", help="ask these arms again, and keep the others as they are in --out"
    )
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    given = parser.parse_args()
    if not given.responses.exists():
        sys.exit(f"no recorded answers in {given.responses.name}: nothing to measure")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = folder / "outcomes.parquet"
        write_table(given.responses, table, EXPERTS)
        outcomes, config = Outcomes.read(table), configured(folder, table)
        learning = asked(outcomes, "train", given.train_prompts)
        train = outcomes.rows(outcomes.splits == "train")
        single = outcomes.expert_ids[int(train.scores.mean(axis=0).argmax())]
        steps = [f"{family}-{k}" for family in FAMILIES for k in range(len(PRICES))]
        print(f"trying {len(steps)} policies on {len(learning.prompts)} prompts", flush=True)
        ladder = {single: single} | {name: f"auto:{name}" for name in steps}
        seen = tried(config, learning, ladder)
        arms = fixed(outcomes, config.specs)
        for family in FAMILIES:
            arms += staircase(family, seen, seen[single])
        rows = asked(outcomes, "test", given.prompts)
        if given.again:
            arms = [arm for arm in arms if arm.name in {*given.again, *outcomes.expert_ids}]
        found = measured(config, rows, arms, given)
    document = document_of(arms, found, single, rows, seen, given)
    if given.again:
        document = replaced(json.loads(given.out.read_text()), document, given.again)
    given.out.write_text(json.dumps(document, indent=1) + "\n")
    paths = plot.write(document, given.out.with_name("ensembles"))
    print(printed(document))
    print("wrote", given.out.name, *(path.name for path in paths))


if __name__ == "__main__":
    main()
