"""`coe train` on tables that are short of something: an artefact that decides, or a clear no."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from coe.config import DATA
from coe.core import Message, Request
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.services.cli import app

CONFIG = f"""
artefact: artefact
budgets: {DATA / "budgets.yaml"}
embedder: {{kind: static}}
devices:
  here: {{ttft_b_ms: 1, decode_tokens_per_s: 100, prefill_w: 10, decode_w: 10}}
experts:
  - {{id: coder, kind: replay, recording: outcomes.parquet, device: here, time_scale: 0}}
  - {{id: solver, kind: replay, recording: outcomes.parquet, device: here, time_scale: 0}}
"""
TOPICS = {"code": "Write a Python function for list {}", "maths": "What is the sum of 3 and {}"}
SCRIPTS = {
    "数学": "三加{}等于多少? 请计算总和。",
    "编程": "请写一个排序列表的程序, 编号{}。",
    "الرياضيات": "ما هو مجموع الرقمين ثلاثة و{}؟",
    "شعر": "اكتب قصيدة قصيرة عن البحر رقم {}",
    "गणित": "तीन और {} का योग क्या है?",
    "कविता": "समुद्र पर एक छोटी कविता लिखो, संख्या {}",
}


def table(n_each=25, topics=TOPICS, **change):
    """Rows of a coder, who is right on every other topic, and a solver, who is on the others.

    Parameters
    ----------
    change : per column a function of the row's place and the row.
    """
    rows = [
        {
            "prompt_id": f"p{k}-{n}",
            "prompt": text.format(n),
            "category": category,
            "split": "dev" if n % 5 == 4 else "train",
            "score__coder": float(k % 2 == 0),
            "score__solver": float(k % 2 == 1),
        }
        for n in range(n_each)
        for k, (category, text) in enumerate(topics.items())
    ]
    return [
        row | {name: value(k, row) for name, value in change.items()} for k, row in enumerate(rows)
    ]


def without(rows, *names):
    return [{name: value for name, value in row.items() if name not in names} for row in rows]


@pytest.fixture
def coe_train(tmp_path):
    """`coe train` on these rows: its result, and the router that came of it."""
    (tmp_path / "coe.yaml").write_text(CONFIG)

    def of(rows, *options):
        if not isinstance(rows, pa.Table):
            rows = pa.Table.from_pylist(rows)
        pq.write_table(rows, tmp_path / "outcomes.parquet")
        arguments = ["--config", "coe.yaml", "--outcomes", "outcomes.parquet", "--out", "artefact"]
        paths = [a if a.startswith("--") else str(tmp_path / a) for a in arguments]
        return CliRunner().invoke(app, ["train", *paths, *options])

    return of


@pytest.fixture
def trained(coe_train, tmp_path):
    """The report of `coe train` on these rows, and who is asked a prompt by what it wrote."""

    def of(rows):
        result = coe_train(rows, "--json")
        assert result.exit_code == 0, (result.stderr, result.exception)
        report = json.loads(result.stdout)
        router = Router.load(tmp_path / "artefact")
        short = [row["prompt"] or "" for row in rows[:8] if len(row["prompt"] or "") < 1000]
        for decision in decisions(router, short):
            assert decision.expert_id in router.artefact.expectation.expert_ids
            assert 0.0 <= decision.predicted.quality <= 1.0
        assert all(np.isfinite(list(figures(report))))
        return report, router

    return of


def decisions(router, prompts):
    return [router.decide(Request((Message("user", prompt),))) for prompt in prompts]


def asked(router, prompts):
    """The expert of each prompt."""
    return [decision.expert_id for decision in decisions(router, prompts)]


def figures(document):
    """Every number in a document."""
    if isinstance(document, dict):
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from figures(part)
    elif isinstance(document, int | float):
        yield document


def assert_routes(router, n=9):
    """The coder is asked for code, the solver for sums; no prompt with a 9 is learned from."""
    assert asked(router, [text.format(n) for text in TOPICS.values()]) == ["coder", "solver"]


def refusal(result):
    """The one line that says what is wrong."""
    assert result.exit_code == 2, (result.stderr, result.exception)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


# ---- what is trained


def test_a_table_without_oddities(trained):
    report, router = trained(table())
    assert_routes(router)
    assert report["metrics"]["score_routed"] == report["metrics"]["score_oracle"] == 1.0


def test_thirty_cells_in_a_hundred_missing(trained):
    missing = np.random.default_rng(0).random((50, 2)) < 0.3
    report, router = trained(
        table(
            score__coder=lambda k, row: None if missing[k, 0] else row["score__coder"],
            score__solver=lambda k, row: None if missing[k, 1] else row["score__solver"],
        )
    )
    assert_routes(router)
    assert 0 < report["metrics"]["n_prompts"] < 10


def test_scores_that_are_not_numbers_are_missing(trained):
    holes = table(score__coder=lambda k, row: float("nan") if k % 3 else row["score__coder"])
    assert_routes(trained(holes)[1])


def test_one_category(trained):
    report, router = trained(table(category=lambda k, row: "everything"))
    assert router.artefact.expectation.categories == ("everything", "general")
    assert report["metrics"]["category_accuracy"] == 1.0


def test_one_expert(trained):
    report, router = trained(without(table(), "score__solver"))
    assert report["training"]["held_out"]["gain"] == 0.0
    assert asked(router, TOPICS.values()) == ["coder", "coder"]


def test_one_prompt(trained):
    _, router = trained(table(1)[:1])
    assert router.artefact.expectation.categories == ("code", "general")


def test_one_prompt_over_and_over(trained):
    report, router = trained(
        table(prompt=lambda k, row: "What is 1 + 1?", category=lambda k, row: "maths")
    )
    # half of the answers of either are right, and nothing tells which
    assert report["training"]["held_out"]["gain"] == 0.0
    assert router.artefact.expectation.categories == ("maths", "general")


def test_prompts_repeated_within_train_and_on_dev(trained):
    texts = list(TOPICS.values())
    report, router = trained(table(prompt=lambda k, row: texts[k % 2].format(k // 2 % 9)))
    assert_routes(router, 7)
    assert report["metrics"]["score_routed"] == 1.0


def test_one_prompt_for_each_category_over_and_over(trained):
    report, _ = trained(table(prompt=lambda k, row: list(TOPICS.values())[k % 2]))
    # without its only prompt a category is not known: there is no evidence that routing gains
    assert report["training"]["held_out"]["gain"] <= 0.0


def test_equal_prompts_of_contrary_outcomes(trained):
    rows = table()
    contrary = [
        row
        | {"prompt_id": f"again-{row['prompt_id']}"}
        | {"score__coder": row["score__solver"], "score__solver": row["score__coder"]}
        for row in rows
    ]
    report, _ = trained(rows + contrary)
    assert abs(report["training"]["held_out"]["gain"]) <= 0.1
    assert report["metrics"]["score_routed"] == pytest.approx(0.5)


@pytest.mark.parametrize("empty", ["", None, " \n"], ids=["empty", "null", "blank"])
def test_empty_prompts_among_others(trained, empty):
    report, router = trained(table(prompt=lambda k, row: empty if k % 4 == 0 else row["prompt"]))
    assert report["training"]["n_train"] == 40
    assert asked(router, [TOPICS["maths"].format(9)]) == ["solver"]


def test_nothing_but_empty_prompts(trained):
    report, _ = trained(table(40, prompt=lambda k, row: ""))
    assert report["training"]["held_out"]["gain"] == 0.0


def test_prompts_of_a_hundred_thousand_characters(trained, tmp_path):
    def long(k, row):
        return (row["prompt"] + " ") * 4000 if k % 5 == 0 else row["prompt"]

    report, router = trained(table(prompt=long))
    assert max(len(text) for text in Outcomes.read(tmp_path / "outcomes.parquet").prompts) > 1e5
    assert_routes(router)
    assert report["metrics"]["score_routed"] == 1.0
    # canaries are for people to read
    assert max(len(prompt) for prompt, _ in router.artefact.canaries) <= 400


def test_prompts_and_categories_in_other_scripts(trained):
    report, router = trained(table(topics=SCRIPTS))
    assert router.artefact.expectation.categories == (*sorted(SCRIPTS), "general")
    assert report["metrics"]["category_accuracy"] > 0.8
    assert report["metrics"]["score_routed"] > 0.8
    unseen = [text.format(9) for text in SCRIPTS.values()]
    assert asked(router, unseen) == ["coder", "solver"] * 3


@pytest.mark.parametrize("column", ["null", "absent", "general"])
def test_without_categories_clusters_take_over(trained, column):
    rows = {
        "null": table(50, category=lambda k, row: None),
        "general": table(50, category=lambda k, row: "general"),
        "absent": without(table(50), "category"),
    }[column]
    report, router = trained(rows)
    assert report["training"]["held_out"]["routed_by"] in ("k-means", "least-squares")
    assert all(name.startswith("cluster-") for name in router.artefact.expectation.categories[:-1])
    assert report["metrics"]["category_accuracy"] is None
    assert report["metrics"]["score_routed"] > 0.9
    assert_routes(router)


def test_labels_spread_where_half_of_them_are_missing(trained):
    # too few prompts for clusters: labels are what there is to route by
    report, router = trained(table(category=lambda k, row: row["category"] if k % 4 < 2 else None))
    held_out = report["training"]["held_out"]
    assert held_out["routed_by"] == "category"
    assert "spreading" in held_out["brier"]
    assert_routes(router)


def test_tasks_finer_than_categories(trained):
    # who is right hangs on the task, and both tasks are of one category
    report, router = trained(
        table(
            60,
            source_task=lambda k, row: row["category"],
            category=lambda k, row: "everything",
        )
    )
    assert "source_task" in report["training"]["held_out"]["gain_by_scheme"]
    assert report["training"]["held_out"]["gain"] > 0.4
    assert_routes(router)


def test_tasks_without_any_category(trained):
    report, router = trained(
        table(30, source_task=lambda k, row: row["category"], category=lambda k, row: None)
    )
    assert report["training"]["held_out"]["routed_by"] == "source_task"
    assert router.artefact.expectation.categories == ("code", "maths", "general")
    assert_routes(router)


def test_categories_that_are_numbers(trained):
    numbers = {"code": 0, "maths": 1}
    _, router = trained(table(category=lambda k, row: numbers[row["category"]]))
    assert router.artefact.expectation.categories == ("0", "1", "general")
    assert_routes(router)


@pytest.mark.parametrize("tokens", [0, 1, 10**9])
def test_answers_of_odd_lengths(trained, tokens):
    _, router = trained(
        table(tokens__coder=lambda k, row: tokens, tokens__solver=lambda k, row: 1 + k % 7)
    )
    assert np.all(router.artefact.expectation.table.mean_tokens >= 0)
    assert_routes(router)


# ---- what is said for people


def test_the_report_for_people_names_every_expert(coe_train):
    result = coe_train(table())
    assert result.exit_code == 0
    assert "measured on 10" in result.stdout
    assert "score of coder alone: 0.500" in result.stdout


def test_the_report_for_people_goes_without_an_accuracy_where_there_are_no_categories(coe_train):
    result = coe_train(table(50, category=lambda k, row: None))
    assert result.exit_code == 0, result.exception
    assert "score of coder alone" in result.stdout


def test_the_report_for_people_goes_without_figures_where_there_are_no_dev_rows(coe_train):
    result = coe_train(table(split=lambda k, row: "train"))
    assert result.exit_code == 0, result.exception
    assert "trained on 50 prompts" in result.stdout


# ---- what is refused


def test_too_few_prompts_without_a_category_are_refused(coe_train):
    said = refusal(coe_train(table(10, category=lambda k, row: None)))
    assert "no prompt of split 'train' has a category" in said
    assert "too few to form clusters" in said


@pytest.mark.parametrize("split", ["dev", "test", None, "Train"])
def test_a_table_without_training_rows_is_refused(coe_train, split):
    said = refusal(coe_train(table(split=lambda k, row: split)))
    assert "no prompt has split 'train'" in said


def test_an_expert_known_on_dev_alone_is_refused(coe_train):
    rows = table(score__solver=lambda k, row: 1.0 if row["split"] == "dev" else None)
    assert "expert 'solver' has no score on any prompt of split 'train'" in refusal(coe_train(rows))


@pytest.mark.parametrize("score", [1.5, -1.0, 73.0])
def test_scores_out_of_range_are_refused(coe_train, score):
    said = refusal(coe_train(table(score__coder=lambda k, row: score if k == 3 else 1.0)))
    assert f"score__coder of prompt 'p1-1' is {score}, not in [0, 1]" in said


@pytest.mark.parametrize("prompt", [7, b"bytes", ["a", "list"]])
def test_prompts_that_are_no_text_are_refused(coe_train, prompt):
    said = refusal(coe_train(table(prompt=lambda k, row: prompt)))
    assert "column prompt holds" in said
    assert "not text" in said


@pytest.mark.parametrize("column", ["prompt", "category", "split", "prompt_id"])
def test_text_that_is_not_utf_8_is_refused(coe_train, column):
    rows = pa.Table.from_pylist(table())
    place = rows.column_names.index(column)
    values = [value.encode() for value in rows[column].to_pylist()]
    raw = pa.array([b"\xff\xfe", *values[1:]], pa.binary())
    # bytes that a careless writer called text
    mislabelled = pa.Array.from_buffers(pa.string(), len(raw), raw.buffers())
    said = refusal(coe_train(rows.set_column(place, column, mislabelled)))
    assert f"column {column} is not UTF-8" in said
