"""What modes are worth, on outcomes whose making is known."""

from dataclasses import replace

import numpy as np
import pytest

from coe.core import ExpertSpec
from coe.device import DeviceProfile
from coe.mode import Mode
from coe.routers.confidence import TRAITS, Answers, Confidence
from coe.routers.confidence_training import fit_confidence
from coe.routers.modes import LearnedModes, ModeTable
from coe.routers.modes_training import learned, measured, mode_table, undominated, worthwhile
from coe.routers.outcomes import Outcomes
from coe.routers.played import elections, modes, play
from coe.routers.transcript import Transcript

RNG_SEED = 5
EXPERTS = tuple("abcd")
ACCURACIES = (0.55, 0.6, 0.65, 0.8)


def outcomes(n_prompts: int, n_options: int, rng: np.random.Generator) -> tuple:
    """Independent experts of known accuracy; the right answer is number 0."""
    right = rng.random((n_prompts, len(ACCURACIES))) < ACCURACIES
    said = np.where(right, 0, rng.integers(1, n_options, right.shape))
    return said, right.astype(float)


def answers(said: np.ndarray, n_options: float) -> Answers:
    quality = np.tile(ACCURACIES, (len(said), 1))
    return Answers.of(quality, said, np.ones(said.shape), n_options)


def table(said: np.ndarray, scores: np.ndarray, confidence: Confidence) -> ModeTable:
    every = list(modes(EXPERTS, thresholds=(0.7, 0.9)))
    known = elections(answers(said, 5.0), confidence, EXPERTS, every)
    category = np.where(np.arange(len(said)) % 2 == 0, "even", "odd")
    tokens = np.tile([10.0, 20.0, 30.0, 40.0], (len(said), 1))
    return mode_table(
        category, ["even", "odd"], EXPERTS, [play(mode, known) for mode in every], scores, tokens
    )


def test_independent_experts_gain_by_a_vote_and_cascades_save() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(4000, 5, rng)
    confidence = fit_confidence(answers(said, 5.0), scores)
    found = table(*outcomes(4000, 5, rng), confidence)
    at = {mode: m for m, mode in enumerate(found.modes)}
    overall = found.quality[-1]
    together = at[Mode("vote", (EXPERTS,))]
    assert overall[together] > overall[at[Mode.single("d")]] + 0.02
    cascade = at[Mode("cascade", (("a", "b"), ("c", "d")), 0.7)]
    assert overall[cascade] > overall[at[Mode("vote", (("a", "b"),))]] + 0.05
    assert 0.2 < found.reach[-1, cascade, 1] < 0.8
    assert np.allclose(found.reach[:, :, 0], 1.0)
    # tokens do not depend on the prompt here: usage is the share of prompts
    assert np.allclose(found.usage[:, cascade, 2], found.reach[:, cascade, 1])
    assert np.allclose(found.usage[:, together], 1.0)


def test_shuffled_answers_gain_nothing() -> None:
    """Verdicts of other prompts agree by chance: no mode beats the best single on new prompts."""
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(4000, 5, rng)
    shuffled = np.stack([rng.permutation(column) for column in said.T], axis=1)
    confidence = fit_confidence(answers(shuffled, 5.0), scores)
    found = table(shuffled, scores, confidence).quality[-1]
    assert found.max() <= scores.mean(axis=0).max() + 0.02


def test_an_unseen_category_is_worth_what_all_prompts_are() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(50, 5, rng)
    mode = Mode("cascade", (("a",), ("b",)), 0.7)
    known = elections(
        answers(said, 5.0), fit_confidence(answers(said, 5.0), scores), EXPERTS, [mode]
    )
    category = np.full(50, "seen")
    made = mode_table(
        category, ["seen", "unseen"], EXPERTS, [play(mode, known)], scores, np.ones((50, 4))
    )
    assert made.quality[1] == pytest.approx(made.quality[2])
    assert made.quality_se[1] > made.quality_se[2]


def test_what_a_mode_scored_is_shrunk_towards_the_confidence_in_it() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(60, 5, rng)
    mode = Mode("cascade", (("a", "b"), ("c", "d")), 0.7)
    made = answers(said, 5.0)
    played = play(mode, elections(made, fit_confidence(made, scores), EXPERTS, [mode]))
    category = np.repeat(["a", "b"], 30)

    def quality(shrinkage: float) -> np.ndarray:
        tokens = np.ones(said.shape)
        return mode_table(
            category, ["a", "b"], EXPERTS, [played], scores, tokens, shrinkage
        ).quality[:, 0]

    scored = scores[np.arange(60), played.winner]
    rows = (slice(0, 30), slice(30, 60), slice(0, 60))
    assert np.allclose(quality(0.0), [scored[row].mean() for row in rows])
    assert np.allclose(quality(1e12), [played.confidence[row].mean() for row in rows])
    assert np.allclose(quality(30.0)[:2], (quality(0.0)[:2] + quality(1e12)[:2]) / 2)


# ---- from a transcript


def specs(n: int = 3, **known: float | bool) -> list[ExpertSpec]:
    unknown = DeviceProfile("unknown", 0, 0, 0, 1, 0, 0)
    return [ExpertSpec(name, unknown, **known) for name in "abcdefgh"[:n]]


def transcript(said: np.ndarray, scores: np.ndarray, quality: np.ndarray) -> Transcript:
    """Prompts of two categories; an answer below 0 is not known."""
    n, n_experts = said.shape
    texts = np.array([[None if k < 0 else f"option {k}" for k in row] for row in said.tolist()])
    rows = Outcomes.of(
        [f"p{k}" for k in range(n)],
        "abcdefgh"[:n_experts],
        scores,
        tokens=np.full(scores.shape, 10.0),
        answers=texts.astype(object),
    )
    category = np.array(["even", "odd"])[np.arange(n) % 2]
    return Transcript(rows, category, np.tile(quality, (n, 1)), np.full(scores.shape, 10.0))


def equals(n: int, rng: np.random.Generator, n_experts: int = 3) -> Transcript:
    """Independent experts who are right seven times in ten."""
    right = rng.random((n, n_experts)) < 0.7
    said = np.where(right, 0, rng.integers(1, 6, right.shape))
    return transcript(said, right.astype(float), np.full(n_experts, 0.7))


CATEGORIES = ["even", "odd"]


def test_a_vote_of_equals_is_learned_to_be_worth_more() -> None:
    rng = np.random.default_rng(RNG_SEED)
    modes, report = learned(equals(1500, rng), CATEGORIES, specs())
    table = modes.table
    vote = table.modes.index(table.vote_of_best(3))
    alone = table.modes.index(table.best(lambda mode: mode.kind == "single"))
    # of five wrong options two of three rarely pick the same: right where two are, .784, and more
    assert table.quality[-1, vote] > table.quality[-1, alone] + 0.08
    assert table.quality[-1, vote] > table.quality[-1, alone] + 4 * table.quality_se[-1, vote]
    assert (table.categories, table.expert_ids) == (("even", "odd", "general"), ("a", "b", "c"))
    assert report["modes"]["n_prompts"] == report["modes"]["n_answered"] == 1500
    assert modes.n_options == pytest.approx(6.0, rel=0.2)
    again = LearnedModes.read(
        modes.document(), modes.to_arrays(), table.categories, table.expert_ids
    )
    assert again.table.modes == table.modes
    figures = measured(modes, equals(1500, rng), specs())["modes"]
    assert figures["calibration_error"] < 0.1
    assert figures["vote_of_best_three"]["score"] > figures["best_single"]["score"] + 0.05
    assert figures["best_single"]["energy_j"] is None
    assert figures["best_at_its_joules"]["score"] >= figures["best_single"]["score"] - 0.05


def test_words_that_right_answers_are_surer_of_are_learned_from() -> None:
    rng = np.random.default_rng(RNG_SEED)
    told = equals(600, rng)
    mute = learned(told, CATEGORIES, specs())[0]
    # each expert has a level of its own, and c says nothing of its tokens
    logprobs = 0.2 * told.rows.scores - np.array([0.5, 2.0, np.nan]) - 0.1 * rng.random((600, 3))
    telling = replace(told, rows=replace(told.rows, logprobs=logprobs))
    modes = learned(telling, CATEGORIES, specs())[0]
    assert modes.habits.keys() == {"a", "b"}
    assert modes.habits["b"].mean < modes.habits["a"].mean
    assert modes.confidence.coef[TRAITS.index("sureness")] > 1.0
    assert (mute.confidence.coef[TRAITS.index("sureness")], mute.habits) == (0.0, {})
    cascade = Mode("cascade", (("a",), ("b", "c")), 0.8)
    here = np.arange(600)
    scores = [
        told.rows.scores[here, rows.play(known, [cascade])[0].winner].mean()
        for rows, known in ((told, mute), (telling, modes))
    ]
    assert scores[1] > scores[0]


def test_answers_that_are_all_the_same_gain_nothing() -> None:
    rng = np.random.default_rng(RNG_SEED)
    right = np.repeat(rng.random((600, 1)) < 0.7, 3, axis=1)
    told = transcript(np.where(right, 0, 1), right.astype(float), np.full(3, 0.7))
    table = learned(told, CATEGORIES, specs())[0].table
    singles = table.quality[:, [mode.kind == "single" for mode in table.modes]].max(axis=1)
    assert (table.quality <= singles[:, None] + table.quality_se / 2).all()
    for row in table.quality - singles[:, None]:
        assert row.max() < 0.01


@pytest.mark.parametrize("n", [0, 1, 199])
def test_from_too_few_answers_nothing_is_learned(n: int) -> None:
    told = equals(400, np.random.default_rng(RNG_SEED))
    told.rows.answers[n:] = None
    modes, report = learned(told, CATEGORIES, specs())
    assert modes is None
    assert report == ({"modes": {"n_answered": n, "n_modes": 0}} if n else {})


def test_an_expert_without_answers_is_in_no_mode() -> None:
    told = equals(400, np.random.default_rng(RNG_SEED))
    told.rows.answers[:, 1] = None
    table = learned(told, CATEGORIES, specs())[0].table
    assert (table.expert_ids, table.known_ids) == (("a", "b", "c"), ("a", "c"))
    assert not table.usage[:, :, 1].any()
    told.rows.answers[:, 2] = None
    assert learned(told, CATEGORIES, specs()) == (None, {})


def test_of_many_experts_six_are_learned_from_and_shared_ones_are_in_all() -> None:
    rng = np.random.default_rng(RNG_SEED)
    told = equals(300, rng, 8)
    told.rows.scores[:, 2] = 0.0  # never right
    told.rows.scores[:, 5] = told.rows.scores[:, 4]  # right where another is
    modes, report = learned(told, CATEGORIES, specs(8, params_b=1.0))
    assert report["modes"]["expert_ids"] == list(modes.table.known_ids)
    assert len(modes.table.known_ids) == 6
    assert "c" not in modes.table.known_ids
    assert not {"e", "f"} <= set(modes.table.known_ids)
    assert len(modes.table.modes) <= 200
    mine = [replace(spec, shared=spec.id == "c") for spec in specs(8)]
    shared = learned(told, CATEGORIES, mine)[0].table.modes
    assert all("c" in mode.members for mode in shared if mode.kind != "single")
    assert any(len(mode.members) == 6 for mode in shared)


def test_what_is_kept_is_what_no_resource_has_cheaper() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(2000, 5, rng)
    whole = table(said, scores, fit_confidence(answers(said, 5.0), scores))
    joules, seconds = rng.random((2, 3, 4)) + 0.1
    kept = worthwhile(whole, [joules, seconds]).tolist()
    modes = [whole.modes[n] for n in kept]
    assert set(map(Mode.single, EXPERTS)) | {Mode("vote", (EXPERTS,))} <= set(modes)
    assert whole.vote_of_best(3) == Mode("vote", (("b", "c", "d"),))
    assert whole.vote_of_best(3) in modes
    use = np.einsum("cme,ce->cm", whole.usage, joules)
    for c, quality in enumerate(whole.quality):
        for n in range(len(whole.modes)):
            better = (quality[kept] >= quality[n]) & (use[c, kept] <= use[c, n])
            assert better.any()


def test_a_table_knows_how_long_its_modes_take() -> None:
    rng = np.random.default_rng(RNG_SEED)
    said, scores = outcomes(300, 5, rng)
    whole = table(said, scores, fit_confidence(answers(said, 5.0), scores))
    each = rng.random((3, 4))
    found = whole.latency(each)
    assert np.allclose(found[:, 2], each[:, 2])
    m = whole.modes.index(Mode("cascade", (("a", "b"), ("d",)), 0.7))
    second = whole.reach[:, m, 1] * each[:, 3]
    assert np.allclose(found[:, m], np.maximum(each[:, 0], each[:, 1]) + second)


def test_a_gain_below_the_least_is_not_worth_more_use() -> None:
    quality, usage = np.array([0.5, 0.509, 0.512, 0.6]), np.arange(4.0)
    assert undominated(quality, usage).tolist() == [0, 1, 2, 3]
    assert undominated(quality, usage, 0.01).tolist() == [0, 2, 3]
    assert undominated(quality, usage, 1.0).tolist() == [0]
