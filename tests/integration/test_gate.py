"""A retrieval gate from outcomes with and without passages to its decisions."""

import json
import subprocess

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coe.config import DATA, load_config

TOPICS = {"code": "Write a Python function for list {}", "maths": "What is the sum of 3 and {}"}
ASKED = {topic: text.format(498) for topic, text in TOPICS.items()}
CONFIG = f"""
artefact: artefact
budgets: {DATA / "budgets.yaml"}
retrieval: {{index: notes.index, k: 2}}
devices:
  here: {{ttft_b_ms: 1, decode_tokens_per_s: 100, prefill_w: 0, decode_w: 0}}
experts:
  - {{id: one, kind: replay, recording: outcomes.parquet, device: here, time_scale: 0}}
"""


def outcome(prompt, category, split):
    """Passages make every answer on maths right and every one on code wrong."""
    return {
        "prompt_id": prompt,
        "prompt": prompt,
        "category": category,
        "split": split,
        "score__one": float(category == "code"),
        "retrieved_score__one": float(category == "maths"),
        "tokens__one": 10.0,
        "answer__one": "An answer.",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, coe):
    folder = tmp_path_factory.mktemp("gate")
    rows = [
        outcome(text.format(100 + n), category, "dev" if n % 4 == 3 else "train")
        for category, text in TOPICS.items()
        for n in range(100)
    ] + [outcome(prompt, None, "test") for prompt in ASKED.values()]
    pq.write_table(pa.Table.from_pylist(rows), folder / "outcomes.parquet")
    (folder / "notes").mkdir()
    (folder / "notes" / "sums.md").write_text("# Sums\n\nWhat is the sum of a list? Add it up.\n")
    (folder / "notes" / "lists.md").write_text("# Lists\n\nA Python list is a function of 3.\n")
    (folder / "coe.yaml").write_text(CONFIG)
    index = folder / "notes.index"
    done = coe("index", "build", folder / "notes", "--out", index)
    assert done.returncode == 0, done.stderr
    done = coe(
        *("train", "--config", folder / "coe.yaml", "--outcomes", folder / "outcomes.parquet"),
        *("--out", folder / "artefact", "--index", index, "--json"),
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["metrics"]["gate"]
    assert figures["n_pairs"] == 50
    assert figures["score_never"] == figures["score_always"] == 0.5
    assert figures["score_gate"] > 0.95
    return folder


def test_auto_retrieves_where_it_was_seen_to_help(folder, serve):
    with serve(load_config(folder / "coe.yaml")) as running:

        def ask(topic, **more):
            body = {"model": "auto", "messages": [{"role": "user", "content": ASKED[topic]}]}
            url = f"{running.url}/v1/chat/completions"
            return httpx.post(url, json=body | more, timeout=30)

        helped, hurt = ask("maths"), ask("code")
        assert helped.headers["x-coe-retrieved"] == "2"
        extras = helped.json()["coe"]
        assert extras["retrieval"]["gain"] > extras["retrieval"]["price"] > 0
        assert extras["citations"][0]["source"] == "sums.md"
        assert hurt.headers["x-coe-retrieved"] == "0"
        assert hurt.json()["coe"]["retrieval"]["gain"] < 0
        tight = ask("maths", coe={"budget": {"ttft_ms": 60}})
        assert tight.status_code == 200
        assert tight.headers["x-coe-retrieved"] == "0"
        assert ask("maths", stream=True).content.count(b'"citations"') == 1


def test_a_decision_shown_by_the_command_retrieves_too(folder, coe):
    done = coe("route", ASKED["maths"], "--config", folder / "coe.yaml", "--json")
    assert json.loads(done.stdout)["retrieval"]["retrieve"], done.stderr


def test_a_damaged_index_ends_the_start_with_its_name(folder, tmp_path, coe):
    for name in ("outcomes.parquet", "artefact", "notes.index"):
        subprocess.run(["cp", "-r", folder / name, tmp_path / name], check=True)
    (tmp_path / "coe.yaml").write_text(CONFIG)
    with (tmp_path / "notes.index" / "passages.jsonl").open("a") as file:
        file.write(" ")
    done = coe("serve", "--port", "0", "--config", tmp_path / "coe.yaml")
    assert done.returncode != 0
    assert "notes.index/passages.jsonl: not the bytes the manifest promises" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_report_of_an_evaluation_draws_the_gate_s_curve(folder, tmp_path, coe):
    done = coe(
        *("evaluate", "--config", folder / "coe.yaml", "--outcomes", folder / "outcomes.parquet"),
        *("--split", "dev", "--report", tmp_path / "report.html"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report-retrieval.png").stat().st_size > 1000
