import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from coe.routers.answers import normalise
from coe.routers.checks import parse_check
from coe.services.sandbox import score_answer

PROMPTS = Path(__file__).resolve().parents[2] / "data" / "prompts"
ROWS = [json.loads(line) for line in (PROMPTS / "prompts.jsonl").read_text("utf-8").splitlines()]
COLUMNS = {
    "prompt_id",
    "prompt",
    "source_task",
    "category",
    "split",
    "max_tokens",
    "check",
    "reference",
}


def test_rows_are_complete_and_unique():
    assert all(set(row) == COLUMNS for row in ROWS)
    assert len({row["prompt_id"] for row in ROWS}) == len(ROWS)
    assert len({normalise(row["prompt"]) for row in ROWS}) == len(ROWS)


def test_categories_and_splits_have_their_shares():
    assert set(Counter(row["category"] for row in ROWS).values()) == {80}
    cells = Counter((row["category"], row["split"]) for row in ROWS)
    shares = {"train": 48, "dev": 16, "test": 16}
    assert len(cells) == 6 * len(shares)
    assert all(abs(n - shares[split]) <= 2 for (_, split), n in cells.items())


def test_each_category_has_several_tasks():
    tasks = {(row["category"], row["source_task"]) for row in ROWS}
    assert min(Counter(category for category, _ in tasks).values()) >= 5
    assert all(task.startswith(f"{category}/") for category, task in tasks)


def test_every_reference_passes_and_every_blank_fails():
    for row in ROWS:
        check = parse_check(row["check"])
        assert score_answer(row["reference"], check, run_code=True) == 1.0, row["prompt_id"]
        assert score_answer("", check, run_code=True) == 0.0, row["prompt_id"]


def test_echoing_the_prompt_seldom_pays():
    checked = [row for row in ROWS if row["category"] != "chat"]
    echoes = [r for r in checked if score_answer(r["prompt"], parse_check(r["check"]), False)]
    assert len(echoes) <= 0.01 * len(checked)


def test_make_reproduces_the_committed_file(tmp_path):
    out = tmp_path / "prompts.jsonl"
    subprocess.run([sys.executable, PROMPTS / "make.py", "--out", out], check=True, timeout=60)
    assert out.read_bytes() == (PROMPTS / "prompts.jsonl").read_bytes()
