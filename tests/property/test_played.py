"""Modes played on recorded answers, against plain twins that ask one prompt at a time."""

from dataclasses import fields, replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coe.combine import log_odds, vote
from coe.mode import Mode
from coe.routers.confidence import SILENT, Answers, Confidence, elected, traits
from coe.routers.modes_training import undominated
from coe.routers.played import elections, modes, play

EXPERTS = tuple("abcd")
N_EXPERTS = len(EXPERTS)
CONFIDENCE = Confidence(np.array([1.0, -2.0, -0.5, 0.4, -0.6, 0.1, 0.7]), 0.2)


@st.composite
def answered(draw) -> Answers:
    n_prompts = draw(st.integers(1, 6))
    shape = (n_prompts, N_EXPERTS)
    quality = draw(arrays(float, shape, elements=st.floats(0.0, 1.0)))
    said = draw(arrays(np.int64, shape, elements=st.integers(SILENT, 2)))
    stretch = draw(arrays(float, shape, elements=st.floats(0.1, 10.0)))
    sureness = draw(arrays(float, shape, elements=st.floats(-3.0, 3.0)))
    return Answers.of(quality, said, stretch, draw(st.floats(1.5, 10.0)), sureness)


ASKED = st.lists(st.booleans(), min_size=N_EXPERTS, max_size=N_EXPERTS).filter(any).map(np.array)


def parts(answers: Answers) -> list[np.ndarray]:
    return [getattr(answers, part.name) for part in fields(Answers)]


def verdicts(row: np.ndarray, hand: np.ndarray) -> list[int | None]:
    return [None if row[n] == SILENT else int(row[n]) for n in hand]


@given(answered(), ASKED)
def test_many_elections_at_once_are_votes(answers: Answers, asked: np.ndarray) -> None:
    hand = np.flatnonzero(asked)
    for row, (said, weight) in enumerate(zip(answers.said, answers.weight, strict=True)):
        won = vote(verdicts(said, hand), np.round(weight, 9)[hand].tolist())
        rounded = replace(answers, weight=np.round(answers.weight, 9))
        assert elected(rounded, asked)[row] == hand[won.winner]


@given(answered())
def test_votes_weigh_what_log_odds_say(answers: Answers) -> None:
    again = Answers.of(answers.quality, answers.said, answers.stretch, 3.0)
    expected = [log_odds(row, 3.0) for row in answers.quality.tolist()]
    assert np.allclose(again.weight, expected)


@given(answered(), ASKED)
def test_what_was_not_asked_is_not_looked_at(answers: Answers, asked: np.ndarray) -> None:
    other = replace(
        answers,
        said=np.where(asked, answers.said, 7),
        stretch=np.where(asked, answers.stretch, 1.0),
        sureness=np.where(asked, answers.sureness, 0.0),
    )
    assert np.array_equal(elected(answers, asked), elected(other, asked))
    assert np.array_equal(CONFIDENCE.of(answers, asked), CONFIDENCE.of(other, asked))


@given(answered())
def test_one_alone_has_neither_support_nor_opposition(answers: Answers) -> None:
    alone = np.arange(N_EXPERTS) == 1
    assert (traits(answers, alone)[:, 1, 3:6] == 0).all()
    assert (elected(answers, alone) == 1).all()


@given(answered(), st.permutations(EXPERTS), st.floats(0.0, 1.0))
def test_a_mode_asks_stage_by_stage(answers: Answers, order: list[str], threshold: float) -> None:
    mode = Mode("cascade", (tuple(order[:1]), tuple(order[1:3]), tuple(order[3:])), threshold)
    played = play(mode, elections(answers, CONFIDENCE, EXPERTS, [mode]))
    asked, times = played.asked(EXPERTS), np.arange(4.0) + np.ones(answers.said.shape)
    for row in range(len(answers.said)):
        hand = np.zeros(N_EXPERTS, dtype=bool)
        took, winner = 0.0, -1
        for stage in mode.stages:
            columns = [EXPERTS.index(name) for name in stage]
            hand[columns] = True
            took += times[row, columns].max()
            winner = elected(answers, hand)[row]
            if CONFIDENCE.of(answers, hand)[row, winner] >= threshold:
                break
        assert played.winner[row] == winner
        assert np.array_equal(asked[row], hand)
        assert played.latency(EXPERTS, times)[row] == took


@given(answered(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_higher_threshold_asks_no_fewer(answers: Answers, one: float, other: float) -> None:
    low, high = (Mode("cascade", (("a",), ("b", "c")), t) for t in sorted((one, other)))
    known = elections(answers, CONFIDENCE, EXPERTS, [low])
    assert (play(low, known).n_stages <= play(high, known).n_stages).all()


@given(answered(), st.floats(0.0, 1.0))
def test_experts_that_all_say_the_same_gain_nothing(answers: Answers, threshold: float) -> None:
    alike = Answers(*(np.repeat(part[:, :1], N_EXPERTS, axis=1) for part in parts(answers)))
    scores = np.repeat(np.linspace(0, 1, len(answers.said))[:, None], N_EXPERTS, axis=1)
    every = list(modes(EXPERTS, thresholds=(threshold,)))
    known = elections(alike, CONFIDENCE, EXPERTS, every)
    here = np.arange(len(scores))
    for mode in every:
        assert np.array_equal(scores[here, play(mode, known).winner], scores[:, 0])


@given(st.lists(st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)), min_size=1))
def test_what_stays_is_what_nothing_cheaper_equals(points: list[tuple[float, float]]) -> None:
    quality, usage = np.array(points).T
    kept = undominated(quality, usage).tolist()
    for n in range(len(points)):
        beaten = any(
            quality[k] >= quality[n]
            and usage[k] <= usage[n]
            and ((quality[k], usage[k]) != (quality[n], usage[n]) or k < n)
            for k in range(len(points))
        )
        assert (n in kept) != beaten
    assert usage[kept].tolist() == sorted(usage[kept])


def test_every_mode_is_there_once() -> None:
    found = list(modes(["c", "a", "b"], thresholds=(0.5, 0.9)))
    assert len(set(found)) == len(found)
    assert [mode.name for mode in found[:4]] == ["c", "a", "b", "c + a"]
    assert [mode.kind for mode in found[2:4]] == ["single", "vote"]
    # 7 sets; of the 3 pairs 2 cascades each, of the trio 6; two thresholds
    assert len(found) == 7 + 2 * (3 * 2 + 6)
    assert {mode.kind for mode in found[7:]} == {"cascade"}


@given(answered(), st.permutations(EXPERTS))
def test_columns_that_no_mode_names_are_not_looked_at(answers: Answers, order: list[str]) -> None:
    mode = Mode("cascade", (("a",), ("c",)), 0.6)
    columns = [EXPERTS.index(name) for name in order if name != "b"]
    part = Answers(*(array[:, columns] for array in parts(answers)))
    names = [EXPERTS[k] for k in columns]
    whole = play(mode, elections(answers, CONFIDENCE, EXPERTS, [mode]))
    played = play(mode, elections(part, CONFIDENCE, names, [mode]))
    won = [names[k] for k in played.winner]
    assert np.array_equal(whole.n_stages, played.n_stages)
    assert all(name in ("a", "c") for name in won)
    assert not played.asked(EXPERTS)[:, [1, 3]].any()
