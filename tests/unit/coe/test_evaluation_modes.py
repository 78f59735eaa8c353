"""Arms of several experts: who is asked, what that takes, and what comes of it."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from coe.core import Policy, Prices
from coe.evaluation import evaluate
from coe.mode import Mode
from coe.repertoire import Repertoire
from coe.router import Router
from coe.routers.confidence import Confidence
from coe.routers.modes import LearnedModes, ModeTable
from coe.routers.outcomes import Outcomes

IDS = tuple("abcd")
CASCADE = Mode("cascade", (("a",), ("b", "c")), 0.9)
MODES = (
    *map(Mode.single, "abc"),
    Mode("vote", (("a", "b"),)),
    Mode("vote", (("a", "b", "c"),)),
    CASCADE,
    replace(CASCADE, threshold=0.5),
)
QUALITY = [0.5, 0.6, 0.7, 0.6, 0.8, 0.75, 0.7]
# an expert alone is as sure as expected of it, 0.5; who is contradicted is less
ALONE = Confidence(np.array([1.0, 0.0, 0.0, 1.0, -1.0, 0.0, 0.0]), 0.0)
ANSWERS = [
    ("7", "7", "8", "9"),
    ("1", "2", "2", "3"),
    ("", "4", "5", "5"),
    ("6", "6", "6", "6"),
]
JOULES = [1.0, 2.0, 4.0, 8.0]
TIMES = [10.0, 20.0, 40.0, 80.0]


def table(answers):
    """Each prompt once in "train", where nothing is known of answers, and once in "test"."""
    n = len(answers)
    scores = np.array([[float(said == row[1]) for said in row] for row in answers])
    return Outcomes.of(
        [f"{split} {k} code" for split in ("train", "test") for k in range(n)],
        IDS,
        np.vstack([scores, scores]),
        splits=np.repeat(["train", "test"], n),
        tokens=np.full((2 * n, 4), 5.0),
        energy_j=np.tile(JOULES, (2 * n, 1)),
        latency_ms=np.tile(TIMES, (2 * n, 1)),
        answers=np.vstack([np.full((n, 4), None), np.array(answers, dtype=object)]),
    )


@pytest.fixture
def router(make_artefact, make_spec, word_embedder):
    specs = [make_spec(name, params_b=1.0) for name in IDS]
    artefact = make_artefact(specs, [[0.5] * 4] * 3)
    shape = (3, len(MODES))
    modes = ModeTable(
        ("code", "maths", "general"),
        IDS,
        MODES,
        np.tile(QUALITY, (3, 1)),
        np.zeros(shape),
        np.ones((*shape, 4)),
        np.ones((*shape, 2)),
    )
    learned = LearnedModes(modes, ALONE, 3.0)
    return Router(
        word_embedder(), replace(artefact, modes=learned), {spec.id: spec for spec in specs}
    )


def arms(router, outcomes):
    return {arm.name: arm for arm in evaluate(router, outcomes, "tiny", n_resamples=20).arms}


def test_a_vote_delivers_what_most_say_and_everybody_is_paid(router):
    found = arms(router, table(ANSWERS))["vote-3"]
    counts = [Counter(filter(None, row[:3])).most_common(1)[0][0] for row in ANSWERS]
    right = [said == row[1] for said, row in zip(counts, ANSWERS, strict=True)]
    assert found.score == np.mean(right)
    assert (found.energy_j, found.latency_ms, found.active_params_b) == (7.0, 40.0, 3.0)
    assert found.refused == 0.0
    assert not found.oracle


def test_the_best_cascade_asks_a_second_stage_where_the_first_is_unsure(router):
    found = arms(router, table(ANSWERS))["cascade"]
    # 0.9 is never reached by one alone, whose expected quality is 0.5
    assert (found.energy_j, found.latency_ms) == (7.0, 10.0 + 40.0)
    modes = router.artefact.modes
    sure = replace(modes, confidence=replace(ALONE, intercept=9.0))
    found = arms(replace(router, artefact=replace(router.artefact, modes=sure)), table(ANSWERS))
    assert (found["cascade"].energy_j, found["cascade"].latency_ms) == (1.0, 10.0)
    assert found["cascade"].score == found["always a"].score


def test_all_are_those_that_modes_are_known_of(router):
    found = arms(router, table(ANSWERS))
    assert found["vote-all"].energy_j == found["vote-3"].energy_j


@pytest.mark.parametrize(("expert", "n_arms"), [(0, 0), (3, 3)])
def test_without_an_answer_of_a_member_there_is_no_such_arm(router, expert, n_arms):
    rows = table(ANSWERS)
    rows.answers[-1, expert] = None
    names = arms(router, rows)
    assert len({"vote-3", "vote-all", "cascade"} & set(names)) == n_arms


def test_without_answers_or_modes_there_is_no_such_arm(router):
    plain = replace(router, artefact=replace(router.artefact, modes=None))
    for found in (arms(plain, table(ANSWERS)), arms(router, replace(table(ANSWERS), answers=None))):
        assert not {"vote-3", "vote-all", "cascade"} & set(found)


# ---- what the router itself decides


@pytest.fixture
def serving(router):
    """The router with the modes that it learned, as it is loaded for serving."""
    return replace(router, repertoire=Repertoire.of(router.artefact.modes.table))


def asked_for(found):
    return found.score, found.energy_j, found.latency_ms, found.n_asked, found.refused


def decided(router, outcomes, **policies):
    policies = {name: replace(policy, name=name) for name, policy in policies.items()}
    found = evaluate(router, outcomes, "tiny", policies=policies, n_resamples=20)
    return {arm.name: arm for arm in found.arms}, found.notes


def test_what_the_router_decides_is_played(serving):
    found, notes = decided(
        serving,
        table(ANSWERS),
        default=Policy(""),
        alone=Policy("", combine="never"),
        without=Policy("", ban=frozenset("c")),
        dear=Policy("", prices=Prices(per_joule=0.1)),
        gone=Policy("", ban=frozenset(IDS)),
    )
    assert notes == ()
    # of the table the vote of all three is worth most, and within singles all are alike
    assert asked_for(found["coe"]) == asked_for(found["vote-3"])
    assert found["coe"].n_asked == 3.0
    assert asked_for(found["coe alone"]) == asked_for(found["always a"])
    assert found["coe without"].n_asked == 1.0
    assert asked_for(found["coe dear"]) == asked_for(found["always a"])
    assert asked_for(found["coe gone"]) == (0.0, 0.0, 0.0, 0.0, 1.0)


def test_a_cascade_is_played_as_its_arm_is(serving):
    modes = serving.artefact.modes
    columns = [k for k, mode in enumerate(MODES) if mode.kind in ("single", "cascade")]
    kept = replace(
        modes.table,
        modes=tuple(MODES[k] for k in columns),
        **{
            name: getattr(modes.table, name)[:, columns]
            for name in ("quality", "quality_se", "usage", "reach")
        },
    )
    sure_of_a = replace(ALONE, intercept=0.5)
    learned = replace(modes, table=kept, confidence=sure_of_a)
    artefact = replace(serving.artefact, modes=learned)
    router = replace(serving, artefact=artefact, repertoire=Repertoire.of(kept))
    found, _ = decided(router, table(ANSWERS), default=Policy("", ban=frozenset("d")))
    assert asked_for(found["coe"]) == asked_for(found["cascade"])


def test_what_cannot_be_played_is_decided_for_one_and_told(serving):
    rows = table(ANSWERS)
    rows.answers[-1, 2] = None
    found, (note,) = decided(serving, rows, default=Policy(""), alone=Policy("", combine="never"))
    assert note.startswith("coe: modes could not be played on 1 of 4 prompts: no recorded answers")
    assert found["coe"].n_asked == (3 + 3 + 3 + 1) / 4
    without, (note,) = decided(serving, replace(rows, answers=None), default=Policy(""))
    assert "4 of 4" in note
    assert asked_for(without["coe"]) == asked_for(found["coe alone"])


def test_where_all_who_are_forced_cannot_be_played_one_of_them_answers(router):
    plain = replace(router, artefact=replace(router.artefact, modes=None))
    forced = Policy("", force=frozenset("bd"))
    found, (note,) = decided(plain, table(ANSWERS), default=forced)
    assert "4 of 4" in note
    assert asked_for(found["coe"]) in {asked_for(found[f"always {name}"]) for name in "bd"}
    # with what was learned of answers, their vote can be
    found, notes = decided(router, table(ANSWERS), default=forced)
    assert notes == ()
    assert (found["coe"].energy_j, found["coe"].n_asked) == (2.0 + 8.0, 2.0)
