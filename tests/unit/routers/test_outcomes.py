"""Tables of prompts and outcomes: what is read, what is refused."""

import datetime
import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coe.errors.files import OutcomesError
from coe.routers.outcomes import Outcomes, read_prompts, write_outcomes

ROWS = [
    {
        "prompt_id": "p1",
        "prompt": "What is 7 + 5?",
        "split": "train",
        "category": "maths",
        "score__a": 1.0,
        "score__b/c.gguf": 0.25,
        "tokens__a": 12,
        "energy_j__a": 0.5,
    },
    {
        "prompt_id": "p2",
        "prompt": "Grüße 世界",
        "split": "dev",
        "category": None,
        "score__a": None,
        "score__b/c.gguf": 0.0,
        "tokens__a": None,
        "energy_j__a": 1.5,
    },
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outcomes.parquet"


@pytest.fixture
def refusal(path):
    """What is said of a table of these rows."""

    def of(rows):
        write_outcomes(path, rows)
        with pytest.raises(OutcomesError) as refused:
            Outcomes.read(path)
        assert str(path) in str(refused.value)
        return str(refused.value)

    return of


def changed(**fields):
    """`ROWS` with other values in the first."""
    return [ROWS[0] | fields, ROWS[1]]


def without(*names):
    return [{k: v for k, v in row.items() if k not in names} for row in ROWS]


def test_what_was_written_is_read(path):
    write_outcomes(path, ROWS)
    found = Outcomes.read(path)
    assert found.prompt_ids == ("p1", "p2")
    assert found.prompts == ("What is 7 + 5?", "Grüße 世界")
    assert found.categories.tolist() == ["maths", ""]
    assert found.splits.tolist() == ["train", "dev"]
    assert found.expert_ids == ("a", "b/c.gguf")
    np.testing.assert_array_equal(found.scores, [[1.0, 0.25], [np.nan, 0.0]])
    np.testing.assert_array_equal(found.tokens, [[12, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(found.energy_j, [[0.5, np.nan], [1.5, np.nan]])
    np.testing.assert_array_equal(found.latency_ms, np.full((2, 2), np.nan))
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_writing_again_replaces_the_file_and_leaves_nothing_else(path):
    write_outcomes(path, ROWS[:1])
    write_outcomes(path, ROWS)
    assert Outcomes.read(path).prompt_ids == ("p1", "p2")
    assert list(path.parent.iterdir()) == [path]


def test_a_column_that_the_first_row_lacks_is_not_lost(path):
    late = {k: v for k, v in ROWS[0].items() if k != "score__a"}
    other = ROWS[1] | {"score__a": 0.5}
    write_outcomes(path, [late, other])
    np.testing.assert_array_equal(Outcomes.read(path).scores[:, 1], [np.nan, 0.5])


def test_a_table_without_categories_is_a_table_of_unknown_ones(path):
    write_outcomes(path, without("category"))
    assert Outcomes.read(path).categories.tolist() == ["", ""]


def test_tasks_are_read_where_there_are_any(path):
    write_outcomes(path, [ROWS[0] | {"source_task": "sums"}, ROWS[1] | {"source_task": None}])
    assert Outcomes.read(path).tasks.tolist() == ["sums", ""]
    write_outcomes(path, ROWS)
    assert Outcomes.read(path).tasks.tolist() == ["", ""]


@pytest.mark.parametrize("names", [(0, 1), (False, True), (2.0, 0.0)])
def test_names_that_are_no_text_are_written_out(path, names):
    columns = ("category", "source_task")
    rows = [row | dict.fromkeys(columns, name) for row, name in zip(ROWS, names, strict=True)]
    write_outcomes(path, rows)
    found = Outcomes.read(path)
    assert found.categories.tolist() == found.tasks.tolist() == [str(name) for name in names]


def test_scores_of_answers_with_passages_are_read_apart(path):
    write_outcomes(path, [row | {"retrieved_score__a": 0.75} for row in ROWS])
    found = Outcomes.read(path)
    np.testing.assert_array_equal(found.retrieved_scores, [[0.75, np.nan], [0.75, np.nan]])
    np.testing.assert_array_equal(found.scores, [[1.0, 0.25], [np.nan, 0.0]])
    # they make no expert
    assert found.expert_ids == ("a", "b/c.gguf")
    write_outcomes(path, ROWS)
    assert np.isnan(Outcomes.read(path).retrieved_scores).all()


def test_answers_are_read_when_asked_for(path):
    texts = {"answer__a": "Zwölf, *also* 12", "answer__c": "no expert's"}
    write_outcomes(path, [ROWS[0] | texts, ROWS[1] | {"answer__a": None, "answer__b/c.gguf": ""}])
    assert Outcomes.read(path).answers is None
    found = Outcomes.read(path, answers=True)
    assert found.answers.tolist() == [["Zwölf, *also* 12", None], [None, ""]]
    assert found.columns(["b/c.gguf"]).rows(np.array([False, True])).answers.tolist() == [[""]]
    write_outcomes(path, ROWS)
    assert Outcomes.read(path, answers=True).answers is None


@pytest.mark.parametrize("name", ["prompt", "score__a"])
def test_a_column_that_is_there_twice_is_named(path, name):
    write_outcomes(path, ROWS)
    table = pq.read_table(path)
    pq.write_table(table.append_column(name, table[name]), path)
    with pytest.raises(OutcomesError, match=f"column {name} is there twice"):
        Outcomes.read(path)


def test_an_answer_that_is_no_text_is_named(path):
    write_outcomes(path, [row | {"answer__a": 7} for row in ROWS])
    Outcomes.read(path)
    with pytest.raises(OutcomesError, match="answer__a holds 7, which is not text"):
        Outcomes.read(path, answers=True)


@pytest.mark.parametrize("score", [-0.5, 2.0])
def test_a_score_with_passages_outside_its_range_is_named(refusal, score):
    said = refusal(changed(retrieved_score__a=score))
    assert f"retrieved_score__a of prompt 'p1' is {score}, not in [0, 1]" in said


def test_log_probabilities_are_read_and_are_at_most_zero(path, refusal):
    write_outcomes(path, [row | {"logprob__a": -0.75} for row in ROWS])
    np.testing.assert_array_equal(Outcomes.read(path).logprobs, [[-0.75, np.nan]] * 2)
    assert "logprob__a of prompt 'p1' is 0.5, not a finite logarithm" in refusal(
        changed(logprob__a=0.5)
    )
    assert "logprob__a" in refusal(changed(logprob__a=-np.inf))


@pytest.mark.parametrize("prompt", [7, b"bytes", ["a"], datetime.date(2026, 1, 1)])
def test_prompts_that_are_no_text_are_refused(refusal, prompt):
    said = refusal([row | {"prompt": prompt} for row in ROWS])
    assert "column prompt holds" in said
    assert said.endswith("which is not text")


@pytest.mark.parametrize("name", ["prompt_id", "prompt", "split"])
def test_a_missing_column_is_named(refusal, name):
    assert f"missing columns: {name}" in refusal(without(name))


def test_a_table_without_scores_is_refused(refusal):
    assert "no column named score__<expert>" in refusal(without("score__a", "score__b/c.gguf"))


def test_a_table_without_prompts_is_refused(path):
    names = {name: pa.string() for name in ("prompt_id", "prompt", "split")}
    schema = pa.schema(names | {"score__a": pa.float64()})
    pq.write_table(schema.empty_table(), path)
    with pytest.raises(OutcomesError, match="no prompts"):
        Outcomes.read(path)


def test_repeated_prompts_are_refused(refusal):
    assert "prompt_id is not unique" in refusal(changed(prompt_id="p2"))


@pytest.mark.parametrize("score", [-0.01, 1.01, float("inf")])
def test_a_score_outside_its_range_is_named(refusal, score):
    assert f"score__a of prompt 'p1' is {score}, not in [0, 1]" in refusal(changed(score__a=score))


@pytest.mark.parametrize("tokens", [-1.0, float("inf")])
def test_a_measure_that_is_no_finite_amount_is_named(refusal, tokens):
    said = refusal(changed(tokens__a=tokens))
    assert f"tokens__a of prompt 'p1' is {tokens}, not a finite amount" in said


def test_an_expert_without_any_score_is_named(refusal):
    assert "score__a holds no score" in refusal(changed(score__a=None))


@pytest.mark.parametrize("value", ["good", ["1"], datetime.date(2026, 1, 1)])
def test_a_column_that_is_not_numeric_is_named(refusal, value):
    rows = [row | {"score__a": value} for row in ROWS]
    assert "column score__a is not numeric" in refusal(rows)


@pytest.mark.parametrize("content", [None, b"", b"prompt_id,prompt\n1,2\n", b"PAR1PAR1"])
def test_a_file_that_is_not_parquet_is_refused(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OutcomesError, match="not a readable Parquet file"):
        Outcomes.read(path)


def test_rows_keep_what_the_mask_says(path):
    write_outcomes(path, ROWS)
    found = Outcomes.read(path)
    dev = found.rows(found.splits == "dev")
    assert (dev.prompt_ids, dev.prompts) == (("p2",), ("Grüße 世界",))
    assert (dev.expert_ids, dev.sha256) == (found.expert_ids, found.sha256)
    amounts = ("tokens", "latency_ms", "energy_j", "cost_usd")
    measures = ("scores", *amounts, "retrieved_scores", "logprobs")
    for name in (*measures, "tasks", "categories"):
        np.testing.assert_array_equal(getattr(dev, name), getattr(found, name)[1:])
    assert found.rows(np.zeros(2, dtype=bool)).prompt_ids == ()


# ---- prompts


PROMPT = {"prompt_id": "p1", "prompt": "Why?"}


@pytest.fixture
def prompts_file(tmp_path):
    def write(*lines):
        path = tmp_path / "prompts.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def test_prompts_are_read_with_all_their_fields(prompts_file):
    other = {"prompt_id": "p2", "prompt": "a\u2028b", "check": {"kind": "label"}}
    path = prompts_file(json.dumps(PROMPT), "", json.dumps(other, ensure_ascii=False), "  ")
    assert read_prompts(path) == [PROMPT, other]


def test_no_prompts_are_no_error(prompts_file):
    assert read_prompts(prompts_file("")) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", ":2: not JSON: "),
        ("[1]", ":2: not a JSON object"),
        ('{"prompt": "x"}', ":2: field 'prompt_id' must be a non-empty string"),
        ('{"prompt_id": 7, "prompt": "x"}', ":2: field 'prompt_id' must be"),
        ('{"prompt_id": "p2"}', ":2: field 'prompt' must be a non-empty string"),
        ('{"prompt_id": "p2", "prompt": ""}', ":2: field 'prompt' must be"),
        (json.dumps(PROMPT), ":2: prompt_id 'p1' repeats"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(prompts_file, line, said):
    path = prompts_file(json.dumps(PROMPT), line)
    with pytest.raises(OutcomesError) as refused:
        read_prompts(path)
    assert f"{path}{said}" in str(refused.value)


def test_a_file_of_prompts_that_cannot_be_read_is_named(tmp_path):
    absent, binary = tmp_path / "absent.jsonl", tmp_path / "binary.jsonl"
    binary.write_bytes(b"\xff\xfe")
    for path in (absent, binary):
        with pytest.raises(OutcomesError, match="cannot be read"):
            read_prompts(path)


def test_a_table_at_hand_knows_what_it_was_given_and_nothing_else():
    scores = np.array([[0.0, 1.0], [np.nan, 0.5]])
    found = Outcomes.of(["a", "b"], ("x", "y"), scores, categories=np.array(["code", ""]))
    assert (found.prompts, found.expert_ids) == (("a", "b"), ("x", "y"))
    assert (found.splits.tolist(), found.categories.tolist()) == (["train"] * 2, ["code", ""])
    np.testing.assert_array_equal(found.scores, scores)
    for unknown in (found.tokens, found.latency_ms, found.energy_j, found.cost_usd):
        assert np.isnan(unknown).all()
    assert np.isnan(found.retrieved_scores).all()
    assert len(set(found.prompt_ids)) == 2
