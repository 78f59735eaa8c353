"""The routers to compare with: what each may know, and what it then picks."""

from dataclasses import replace

import numpy as np
import pytest

from coe.routers import arms
from coe.routers.outcomes import Outcomes

NAN = np.nan
ADJECTIVES = ("good", "old", "short", "quick", "plain", "nice")
IDS = ("coder", "solver", "talker")


def outcomes(*rows):
    """A table of rows (prompt, category, scores)."""
    prompts, categories, scores = zip(*rows, strict=True)
    table = np.array(scores, dtype=float)
    return Outcomes.of(prompts, IDS, table, categories=np.array(categories))


def specialists():
    """Code for the first expert, maths for the second, a poem for the third."""
    return [
        (f"{adjective} {word}", word, tuple(float(k == mine) for k in range(3)))
        for adjective in ADJECTIVES
        for mine, word in enumerate(("code", "maths", "poem"))
    ]


TRAIN = outcomes(*specialists())


@pytest.fixture
def embed(word_embedder):
    return word_embedder(noise=0.2).embed


@pytest.fixture
def artefact(make_artefact, make_spec):
    specs = [make_spec(name) for name in IDS]
    return make_artefact(specs, [[0.9, 0.2, 0.1], [0.1, 0.8, 0.3], [0.4, 0.3, 0.6]])


def picked(arm):
    """Column of the one expert that is asked for each prompt."""
    np.testing.assert_array_equal(np.sort(arm.weights, axis=1)[:, -1], 1.0)
    np.testing.assert_array_equal(arm.weights.sum(axis=1), 1.0)
    return arm.weights.argmax(axis=1).tolist()


def test_a_fixed_expert_is_asked_always():
    found = arms.singles(TRAIN)
    assert [arm.name for arm in found] == [f"always {name}" for name in IDS]
    assert [set(picked(arm)) for arm in found] == [{0}, {1}, {2}]


def test_random_asks_everybody_alike():
    weights = arms.at_random(TRAIN).weights
    assert len(np.unique(weights)) == 1
    np.testing.assert_allclose(weights.sum(axis=1), 1.0)


@pytest.mark.parametrize("learn", [arms.knn, arms.direct_classifier])
def test_direct_routers_learn_the_specialists(learn, embed):
    arm = learn(TRAIN, embed(TRAIN.prompts), embed(["new poem", "new code", "new maths"]))
    assert picked(arm) == [2, 0, 1]
    assert not arm.oracle


@pytest.mark.parametrize("learn", [arms.knn, arms.direct_classifier])
def test_direct_routers_live_with_missing_scores_and_leave_the_table_alone(learn, embed):
    holes = outcomes(
        *[(p, c, (*s[:2], NAN) if k % 4 else s) for k, (p, c, s) in enumerate(specialists())]
    )
    before = holes.scores.copy()
    picks = picked(learn(holes, embed(holes.prompts), embed(["new code", "new maths"])))
    assert picks == [0, 1]
    np.testing.assert_array_equal(holes.scores, before)


@pytest.mark.parametrize("learn", [arms.knn, arms.direct_classifier])
@pytest.mark.parametrize("n_train", [1, 4])
def test_an_expert_that_is_always_best_is_always_picked(learn, n_train, embed):
    train = outcomes(*[(p, c, (0.0, 1.0, 0.5)) for p, c, _ in specialists()[:n_train]])
    arm = learn(train, embed(train.prompts), embed(["new code", "a poem", "nothing known"]))
    assert picked(arm) == [1, 1, 1]


def test_nothing_to_route_is_no_neighbours(embed):
    assert arms.knn(TRAIN, embed(TRAIN.prompts), embed([])).weights.shape == (0, 3)


def test_of_equally_good_experts_the_label_is_the_better_one_overall(embed):
    code = [(p, c, (1.0, 1.0, 0.0)) for p, c, _ in specialists() if c == "code"]
    rest = [(p, c, (0.0, 1.0, 0.0)) for p, c, _ in specialists() if c == "maths"]
    train = outcomes(*code, *rest)
    arm = arms.direct_classifier(train, embed(train.prompts), embed(["new code", "new maths"]))
    assert picked(arm) == [1, 1]


# ---- two steps


def test_two_steps_follow_the_category_and_the_robust_one_knows_when_not_to(artefact, embed):
    found = artefact.category.assess(embed(["some code", "some maths", "a poem"]))
    plain, robust = arms.two_step(artefact.expectation, found)
    assert (plain.name, robust.name) == ("two-step", "two-step robust")
    assert picked(plain)[:2] == picked(robust)[:2] == [0, 1]
    # a poem is of no known category: the best overall, which no category would have named
    assert picked(plain)[2] in (0, 1)
    assert picked(robust)[2] == 2


def test_categories_are_those_of_the_router_and_general_beyond(artefact, embed):
    head = artefact.category
    asked = embed(["some code", "some maths", "a poem", ""])
    found = head.named(head.assess(asked))
    assert found.tolist() == ["code", "maths", "general", "general"]


# ---- oracles


def test_the_category_oracle_reads_the_true_category_and_else_the_task(artefact):
    rows = outcomes(*[("poem", c, (1.0, 1.0, 1.0)) for c in ("code", "", "never seen", "")])
    rows = replace(rows, tasks=np.array(["", "maths", "", "neither"]))
    arm = arms.oracle_category(artefact.expectation, rows)
    assert picked(arm) == [0, 1, 2, 2]
    assert arm.oracle


def test_the_prompt_oracle_takes_the_best_of_every_prompt():
    arm = arms.oracle_prompt(TRAIN)
    assert arm.oracle
    scores = (arm.weights * TRAIN.scores).sum(axis=1)
    np.testing.assert_array_equal(scores, TRAIN.scores.max(axis=1))
