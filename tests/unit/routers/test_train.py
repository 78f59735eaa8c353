"""Training on a tiny table: who is learned from, who is not, and what comes out."""

from dataclasses import replace

import numpy as np
import pytest

from coe.core import ExpertSpec, Message, Request
from coe.errors.files import OutcomesError
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.routers.train import train

NAN = np.nan
ADJECTIVES = ("good", "old", "short", "quick", "plain", "nice", "rare", "late", "odd", "new")


def outcomes(*rows, expert_ids=("coder", "solver")):
    """A table of rows (prompt, category, split, scores)."""
    prompts, categories, splits, scores = zip(*rows, strict=True)
    table = np.array(scores, dtype=float)
    return Outcomes.of(
        prompts,
        expert_ids,
        table,
        categories=np.array(categories),
        splits=np.array(splits),
        tokens=np.where(np.isnan(table), NAN, 40.0),
    )


def specialists(split, n=10):
    """One expert that can code and one that can calculate."""
    return [
        row
        for adjective in ADJECTIVES[:n]
        for row in (
            (f"{split} {adjective} code", "code", split, (1.0, 0.0)),
            (f"{split} {adjective} maths", "maths", split, (0.0, 1.0)),
        )
    ]


TRAIN, DEV, TEST = specialists("train"), specialists("dev"), specialists("test")


@pytest.fixture
def embedder(word_embedder):
    return word_embedder(noise=0.2)


def arrays(artefact):
    """Every array that training learned."""
    category, quality = artefact.category, artefact.expectation.table
    found = [category.coef_, category.intercept_, category.points_]
    table = [quality.quality, quality.quality_se, quality.mean_tokens, quality.cautious_tokens]
    return found + table


def assert_same_arrays(one, other):
    for left, right in zip(arrays(one), arrays(other), strict=True):
        np.testing.assert_array_equal(left, right)


def chosen(artefact, embedder, text):
    router = Router(embedder, artefact, {spec.id: spec for spec in artefact.experts})
    return router.decide(Request((Message("user", text),))).expert_id


def test_prompts_are_routed_to_the_specialist(embedder):
    artefact = train(outcomes(*TRAIN, *DEV), embedder)
    assert chosen(artefact, embedder, "some code") == "coder"
    assert chosen(artefact, embedder, "some maths") == "solver"
    assert artefact.expectation.categories == ("code", "maths", "general")
    figures = artefact.metrics
    assert figures["n_prompts"] == len(DEV)
    assert figures["score_single"] == {"coder": 0.5, "solver": 0.5}
    assert figures["score_routed"] == figures["score_oracle"] == 1.0
    assert figures["category_accuracy"] == 1.0


def test_identical_experts_are_routed_for_the_score_that_each_has(embedder):
    rows = [(*row[:3], (0.25, 0.25) if k % 3 else (1.0, 1.0)) for k, row in enumerate(TRAIN + DEV)]
    artefact = train(outcomes(*rows), embedder)
    one, other = artefact.expectation.table.quality.T
    np.testing.assert_array_equal(one, other)
    figures = artefact.metrics
    assert figures["score_single"]["coder"] == figures["score_single"]["solver"]
    assert figures["score_routed"] == figures["score_oracle"] == figures["score_single"]["coder"]


def test_dev_rows_influence_no_array(embedder):
    without = train(outcomes(*TRAIN), embedder)
    misleading = [(prompt, "poem", "dev", scores[::-1]) for prompt, _, _, scores in DEV]
    for dev in (DEV, misleading, DEV[:1]):
        assert_same_arrays(train(outcomes(*TRAIN, *dev), embedder), without)
    assert without.metrics == {}


def test_test_rows_are_never_looked_at(embedder):
    asked = []

    class Listening:
        name, dim = embedder.name, embedder.dim

        def embed(self, texts):
            asked.extend(texts)
            return embedder.embed(texts)

    without = train(outcomes(*TRAIN, *DEV), embedder)
    misleading = [(prompt, "poem", "test", (NAN, 0.0)) for prompt, *_ in TEST]
    found = train(outcomes(*misleading, *TRAIN, *DEV), Listening())
    assert_same_arrays(found, without)
    assert (found.metrics, found.canaries) == (without.metrics, without.canaries)
    for name in ("n_neighbors", "entropy_threshold", "distance_threshold"):
        assert getattr(found.category, name) == getattr(without.category, name)
    assert not {prompt for prompt, *_ in TEST} & set(asked)


def test_the_same_table_gives_the_same_bytes(embedder, tmp_path):
    for name in ("one", "other"):
        train(outcomes(*TRAIN, *DEV), embedder).save(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "other" / path.name).read_bytes()


def test_a_trained_artefact_decides_alike_after_a_round_trip(embedder, tmp_path):
    made = train(outcomes(*TRAIN, *DEV), embedder)
    made.save(tmp_path / "artefact")
    loaded = type(made).load(tmp_path / "artefact")
    loaded.check_canaries(embedder)
    for prompt, *_ in TEST:
        assert chosen(loaded, embedder, prompt) == chosen(made, embedder, prompt)


def test_the_artefact_says_what_it_was_trained_on(embedder):
    artefact = train(outcomes(*TRAIN, *DEV, *TEST), embedder)
    assert artefact.embedder == embedder.name
    training = artefact.training
    assert (training["n_train"], training["n_dev"]) == (len(TRAIN), len(DEV))
    assert training["outcomes_sha256"] == "0" * 64


def test_canaries_are_training_prompts_of_every_category_that_pass(embedder):
    artefact = train(outcomes(*TRAIN, *DEV), embedder, n_canaries=6)
    categories = {prompt: category for prompt, category, *_ in TRAIN}
    assert len(artefact.canaries) == 6
    assert all(categories[prompt] == name for prompt, name in artefact.canaries)
    assert {name for _, name in artefact.canaries} == {"code", "maths"}
    artefact.check_canaries(embedder)


def test_only_the_leading_features_place_a_prompt_among_its_neighbours(embedder):
    head = train(outcomes(*TRAIN), embedder, features=2).category
    assert head.points_.shape == (len(TRAIN), 2)


def test_experts_are_recorded_as_they_are_configured(embedder, make_spec):
    solver = make_spec("solver", watts=3.0)
    artefact = train(outcomes(*TRAIN), embedder, {"solver": solver, "other": make_spec("other")})
    coder, known = artefact.experts
    assert known == solver
    assert isinstance(coder, ExpertSpec)
    assert (coder.id, coder.profile.name) == ("coder", "unknown")


# ---- missing categories, scores, rows


def test_prompts_without_a_category_count_only_in_the_general_row(embedder):
    anonymous = [(f"poem {a}", "", "train", (1.0, 0.0)) for a in ADJECTIVES]
    without, found = (train(outcomes(*rows), embedder) for rows in (TRAIN, TRAIN + anonymous))
    assert found.expectation.categories == ("code", "maths", "general")
    # "general": 10 of 20 without them, 20 of 30 with them
    np.testing.assert_allclose(without.expectation.table.quality[-1], [0.5, 0.5])
    np.testing.assert_allclose(found.expectation.table.quality[-1], [2 / 3, 1 / 3])
    for left, right in zip(arrays(found)[:3], arrays(without)[:3], strict=True):
        np.testing.assert_array_equal(left, right)


def test_missing_scores_are_left_out(embedder):
    rows = [
        (p, c, s, (scores[0], NAN if k % 2 else scores[1]))
        for k, (p, c, s, scores) in enumerate(TRAIN)
    ]
    found = train(outcomes(*rows, *DEV), embedder).expectation.table.quality
    assert np.isfinite(found).all()


def test_dev_rows_with_missing_scores_are_not_measured(embedder):
    holes = [(p, c, s, (NAN, scores[1])) for p, c, s, scores in DEV]
    assert train(outcomes(*TRAIN, *holes), embedder).metrics == {"n_prompts": 0}
    figures = train(outcomes(*TRAIN, *holes[:4], *DEV[4:]), embedder).metrics
    assert figures["n_prompts"] == len(DEV) - 4


@pytest.mark.parametrize(
    "rows", [DEV, [(p, "", s, scores) for p, _, s, scores in TRAIN], [*TEST, *DEV]]
)
def test_without_a_training_prompt_of_known_category_nothing_is_learned(embedder, rows):
    with pytest.raises(OutcomesError, match="there is nothing to learn"):
        train(outcomes(*rows), embedder)


def test_an_expert_without_a_training_score_is_named(embedder):
    holes = [(p, c, s, (scores[0], NAN)) for p, c, s, scores in TRAIN]
    with pytest.raises(OutcomesError, match="solver"):
        train(outcomes(*holes, *DEV), embedder)


def test_a_single_category_can_be_learned(embedder):
    rows = [row for row in TRAIN + DEV if row[1] == "code"]
    artefact = train(outcomes(*rows), embedder)
    assert artefact.expectation.categories == ("code", "general")
    assert chosen(artefact, embedder, "some code") == "coder"


def test_a_single_prompt_can_be_learned(embedder):
    artefact = train(outcomes(TRAIN[0]), embedder)
    assert chosen(artefact, embedder, "train good code") == "coder"


# ---- thresholds


def test_training_prompts_are_familiar_and_strangers_are_not(embedder):
    artefact = train(outcomes(*TRAIN, *DEV), embedder)
    familiar = artefact.category.assess(embedder.embed([prompt for prompt, *_ in TRAIN]))
    # the threshold is the 99th percentile of the training prompts themselves
    assert familiar.uncertain.sum() <= 1
    assert artefact.category.assess(embedder.embed(["a poem", ""])).uncertain.all()


def test_at_least_half_of_the_dev_prompts_stay_covered(embedder):
    wrong = [(p, "maths" if c == "code" else "code", s, scores) for p, c, s, scores in DEV]
    router = train(outcomes(*TRAIN, *wrong), embedder).category
    router = replace(router, distance_threshold=np.inf)
    found = router.assess(embedder.embed([prompt for prompt, *_ in wrong]))
    assert found.uncertain.mean() <= 0.5


def test_progress_names_the_steps(embedder):
    steps = []
    train(outcomes(*TRAIN), embedder, progress=steps.append)
    assert len(steps) == len(set(steps)) > 1


def test_the_table_is_left_as_it_was(embedder):
    table = outcomes(*TRAIN, *DEV)
    before = replace(table, scores=table.scores.copy(), tokens=table.tokens.copy())
    train(table, embedder)
    np.testing.assert_array_equal(table.scores, before.scores)
    np.testing.assert_array_equal(table.tokens, before.tokens)
