"""Recorded answers beside what was expected of them."""

from dataclasses import replace

import numpy as np
import pytest

from coe.mode import Mode
from coe.routers.confidence import SILENT, Confidence
from coe.routers.habit import Habit
from coe.routers.modes import LearnedModes, ModeTable
from coe.routers.outcomes import Outcomes
from coe.routers.transcript import Transcript

NAN = np.nan
ANSWERS = [
    ["The answer is 12.", "12", "11"],
    ["", "5", None],
    ["6", "six of them is 6", "\\frac{1}{2}"],
]
SCORES = [[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, NAN, 0.0]]
TOKENS = [[20.0, 2.0, 2.0], [10.0, 4.0, 1.0], [5.0, 5.0, NAN]]


def transcript(answers=ANSWERS, scores=SCORES, tokens=TOKENS):
    rows = Outcomes.of(
        [f"p{k}" for k in range(len(scores))],
        "abc",
        np.array(scores),
        tokens=np.array(tokens),
        answers=None if answers is None else np.array(answers, dtype=object),
    )
    names = np.array(["maths", "general", "maths"])[: len(scores)]
    return Transcript(rows, names, np.full((len(scores), 3), 0.5), np.full((len(scores), 3), 10.0))


def test_an_answer_is_known_with_text_score_and_length():
    assert transcript().answered().tolist() == [
        [True, True, True],
        [True, True, False],  # no text
        [True, False, False],  # no score; no length
    ]
    assert not transcript(answers=None).answered().any()
    assert transcript([], np.zeros((0, 3)), np.zeros((0, 3))).answered().shape == (0, 3)


def test_complete_prompts_are_those_that_all_answered():
    part = transcript().complete(["b", "a"])
    assert part.rows.prompts == ("p0", "p1")
    assert part.rows.expert_ids == ("b", "a")
    assert part.rows.answers.tolist() == [["12", "The answer is 12."], ["5", ""]]
    assert part.category.tolist() == ["maths", "general"]
    assert part.quality.shape == part.mean_tokens.shape == (2, 2)
    assert transcript().complete(["a"], most=2).rows.prompts == ("p0", "p2")


def test_what_is_said_is_numbered_and_silence_is_no_verdict():
    said = transcript().said()
    assert said[0, 0] == said[0, 1] != said[0, 2]
    assert said[1].tolist() == [SILENT, 0, SILENT]
    assert transcript(answers=None).said().tolist() == [[SILENT] * 3] * 3


def test_answers_vote_with_their_lengths_over_those_expected():
    told = transcript().complete(["a", "b"])
    answers = told.answers(told.said(), 3.0)
    np.testing.assert_allclose(answers.stretch, [[2.0, 0.2], [1.0, 0.4]])
    np.testing.assert_allclose(answers.weight, np.log(2.0))


def test_answers_are_as_sure_as_their_experts_habits_tell():
    told = transcript().complete(["a", "b"])
    told = replace(told, rows=replace(told.rows, logprobs=np.array([[-1.0, -1.0], [np.nan, -0.5]])))
    assert not told.answers(told.said(), 3.0).sureness.any()
    found = told.answers(told.said(), 3.0, {"a": Habit(-0.5, 0.25)})
    np.testing.assert_allclose(found.sureness, [[-2.0, 0.0], [0.0, 0.0]])


def test_an_unsure_expert_has_its_cascade_go_on():
    modes = (*map(Mode.single, "ab"), Mode("cascade", (("a",), ("b",)), 0.5))
    shape = (1, len(modes))
    table = ModeTable(
        ("general",), tuple("abc"), modes, np.ones(shape), np.ones(shape),
        np.ones((*shape, 3)), np.ones((*shape, 2)),
    )  # fmt: skip
    unsure = Confidence(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]), 0.0)
    told = transcript().complete(["a", "b"])
    told = replace(told, rows=replace(told.rows, logprobs=np.array([[-0.1, -1.0], [-0.9, -1.0]])))
    *_, played = told.play(LearnedModes(table, unsure, 3.0, {"a": Habit(-0.5, 0.25)}), modes)
    assert played.n_stages.tolist() == [1, 2]


def test_modes_are_played_on_what_was_said():
    modes = (*map(Mode.single, "ab"), Mode("cascade", (("a",), ("b",)), 0.9))
    shape = (1, len(modes))
    table = ModeTable(
        ("general",), tuple("abc"), modes, np.ones(shape), np.ones(shape),
        np.ones((*shape, 3)), np.ones((*shape, 2)),
    )  # fmt: skip
    silent = Confidence(np.array([0.0, -9.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 5.0)
    told = transcript().complete(["a", "b"])
    *_, played = told.play(LearnedModes(table, silent, 3.0), modes)
    # the second prompt's first answer says nothing: the second expert is asked, and alone votes
    assert played.n_stages.tolist() == [1, 2]
    assert played.winner.tolist() == [0, 1]


@pytest.mark.parametrize("n_prompts", [0, 6])
def test_the_router_says_what_it_expected(draw_outcomes, make_artefact, make_spec, n_prompts):
    case = draw_outcomes([[0.9, 0.2], [0.3, 0.8]], n_train=6, n_dev=0, dim=3)
    artefact = make_artefact(
        [make_spec("a"), make_spec("b")], [[0.875, 0.5], [0.25, 0.75], [0.5, 0.625]]
    )
    X = np.eye(3, dtype=np.float32)[np.arange(n_prompts) % 3]
    rows = case.outcomes.rows(np.arange(6) < n_prompts)
    told = Transcript.of(rows, X, artefact.category, artefact.expectation)
    found = artefact.category.assess(X)
    np.testing.assert_array_equal(told.category, artefact.category.named(found))
    np.testing.assert_array_equal(told.quality, artefact.expectation.of(X, found).quality)
