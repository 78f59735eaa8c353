"""Every router on one tiny table: who takes part, who learns from what, and what is claimed."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from coe.core import Budget, Message, Policy, Prices, Request
from coe.errors.files import OutcomesError
from coe.evaluation import evaluate
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.routers.train import train

NAN = np.nan
ADJECTIVES = ("good", "old", "short", "quick", "plain", "nice", "rare", "late", "odd", "new")
AXES = ("cost_usd", "energy_j", "latency_ms", "active_params_b")
FRUGAL = {"frugal": Policy("frugal", prices=Prices(per_joule=1.0))}


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


def specialists(split, code=(1.0, 0.0), maths=(0.25, 1.0)):
    return [
        row
        for adjective in ADJECTIVES
        for row in (
            (f"{split} {adjective} code", "code", split, code),
            (f"{split} {adjective} maths", "maths", split, maths),
        )
    ]


# on the training rows the first expert is the better one, on the others the second
TRAIN = specialists("train", maths=(0.5, 1.0))
TEST = specialists("test", code=(0.75, 0.5))


@pytest.fixture
def specs(make_spec):
    return [
        make_spec("coder", watts=5.0, params_b=1.0, usd_per_mtok_out=1.0),
        make_spec("solver", watts=20.0, params_b=3.0, usd_per_mtok_out=4.0),
    ]


@pytest.fixture
def router(make_router, specs):
    """Knows code and maths, and takes the coder where it knows neither."""
    return make_router(specs, [[0.9, 0.2], [0.3, 0.8], [0.6, 0.5]])


def run(router, rows=None, **options):
    rows = outcomes(*TRAIN, *TEST) if rows is None else rows
    return evaluate(router, rows, "tiny", **{"n_resamples": 100, **options})


def by_name(found):
    return {arm.name: arm for arm in found.arms}


def test_every_arm_takes_part_once(router):
    found = run(router, policies=FRUGAL, stored_params_b=3.0)
    assert [arm.name for arm in found.arms] == [
        "always coder",
        "always solver",
        "random",
        "best single under 3B",
        "two-step under 3B",
        "knn",
        "direct classifier",
        "two-step",
        "two-step robust",
        "oracle category",
        "oracle prompt",
        "coe",
        "coe frugal",
    ]
    assert {arm.name for arm in found.arms if arm.oracle} == {"oracle category", "oracle prompt"}
    assert (found.dataset, found.n_prompts, found.n_left_out) == ("tiny", len(TEST), 0)


def test_two_steps_under_a_budget_need_sizes(make_router, make_spec):
    router = make_router(
        [make_spec("coder"), make_spec("solver")], [[0.9, 0.2], [0.3, 0.8], [0.6, 0.5]]
    )
    found = run(router)
    assert not any(name.startswith("two-step under") for name in by_name(found))
    assert found.ladder == ()
    assert {arm.active_params_b for arm in found.arms} == {None}


@pytest.mark.parametrize(("budget_b", "expert"), [(1.0, "coder"), (2.9, "coder")])
def test_a_budget_for_one_expert_leaves_that_one(router, budget_b, expert):
    arms = by_name(run(router, stored_params_b=budget_b))
    for name in ("best single", "two-step"):
        arm = arms[f"{name} under {budget_b:g}B"]
        assert arm.score == arms[f"always {expert}"].score
        assert arm.active_params_b <= budget_b


def test_a_budget_for_all_experts_leaves_both_steps_as_they_are(router):
    arms = by_name(run(router, stored_params_b=4.0))
    assert arms["two-step under 4B"].score == arms["two-step robust"].score
    assert arms["two-step under 4B"].active_params_b == arms["two-step robust"].active_params_b


# ---- the arm that is ours


@pytest.mark.parametrize("policy", [Policy("auto"), FRUGAL["frugal"]], ids=lambda p: p.name)
def test_our_arm_is_what_the_router_decides(router, policy):
    # a poem is of no known category; the scores tell the experts apart
    rows = [*TEST, ("a poem", "", "test", (0.125, 0.875))]
    found = run(router, outcomes(*TRAIN, *rows), policies=FRUGAL)
    decided = [
        router.decide(Request((Message("user", prompt),), policy)).expert_id for prompt, *_ in rows
    ]
    scores = [s[found.expert_ids.index(name)] for (*_, s), name in zip(rows, decided, strict=True)]
    arm = by_name(found)["coe" if policy.name == "auto" else "coe frugal"]
    assert arm.score == pytest.approx(np.mean(scores))
    if policy.name == "auto":
        for name, n, chosen in zip(
            found.categories.names, found.categories.n, found.categories.chosen, strict=True
        ):
            asked = [
                d for d, row in zip(decided, rows, strict=True) if (row[1] or "(none)") == name
            ]
            assert len(asked) == n
            np.testing.assert_allclose(chosen, [asked.count(e) / n for e in found.expert_ids])


def test_our_arm_follows_the_policy_called_default(router):
    policies = {"default": FRUGAL["frugal"], **FRUGAL}
    found = run(router, policies=policies)
    arms = by_name(found)
    assert "coe default" not in arms
    assert replace(arms["coe frugal"], name="coe", ci95=(0, 0), delta_ci95=(0, 0)) == replace(
        arms["coe"], ci95=(0, 0), delta_ci95=(0, 0)
    )
    assert arms["coe"].energy_j < by_name(run(router))["coe"].energy_j
    assert list(policies) == ["default", "frugal"]


def test_a_prompt_that_no_expert_fits_scores_nothing_and_uses_nothing(router):
    strict = {"strict": Policy("strict", Budget(energy_j=1e-9))}
    arm = by_name(run(router, policies=strict))["coe strict"]
    assert (arm.refused, arm.score, arm.energy_j) == (1.0, 0.0, 0.0)
    assert by_name(run(router))["coe"].refused == 0.0


def test_a_trained_router_beats_every_fixed_expert_on_specialists(word_embedder):
    embedder = word_embedder(noise=0.2)
    rows = outcomes(
        *[row for s in ("train", "dev", "test") for row in specialists(s, maths=(0.0, 1.0))]
    )
    artefact = train(rows, embedder)
    router = Router(embedder, artefact, {spec.id: spec for spec in artefact.experts})
    arms = by_name(run(router, rows))
    assert arms["coe"].score == arms["oracle prompt"].score == 1.0
    assert arms["coe"].oracle_gap_closed == pytest.approx(1.0)
    assert arms["coe"].delta_ci95[0] > 0


# ---- what is compared with what


def test_the_best_single_expert_is_that_of_the_training_rows(router):
    found = run(router)
    arms = by_name(found)
    assert found.best_single == "coder"
    assert arms["always coder"].delta_best_single == 0.0
    assert arms["always coder"].delta_ci95 == (0.0, 0.0)
    assert arms["always solver"].delta_best_single > 0


def test_rows_of_other_splits_change_nothing(router):
    dev = [(p, "poem", s, scores[::-1]) for p, _, s, scores in specialists("dev")]
    rows = outcomes(*TRAIN, *dev, *TEST)
    assert run(router, rows).arms == run(router).arms


@pytest.mark.parametrize("n_experts", [2, 3])
def test_identical_experts_gain_exactly_nothing(make_router, make_spec, n_experts):
    names = tuple(f"e{k}" for k in range(n_experts))
    router = make_router([make_spec(name, params_b=1.0) for name in names], [[0.5] * n_experts] * 3)
    scores = np.random.default_rng(0).integers(0, 5, len(TRAIN + TEST)) / 4
    rows = [
        (*row[:3], (s,) * n_experts) for row, s in zip(TRAIN + TEST, scores.tolist(), strict=True)
    ]
    found = run(router, outcomes(*rows, expert_ids=names), policies=FRUGAL)
    for arm in found.arms:
        if arm.name == "random" and n_experts == 3:  # a third has no exact float
            assert arm.delta_best_single == pytest.approx(0.0, abs=1e-15)
            continue
        assert arm.delta_best_single == 0.0, arm.name
        assert arm.delta_ci95 == (0.0, 0.0), arm.name
        assert arm.oracle_gap_closed is None


@pytest.mark.parametrize("seed", range(3))
def test_no_arm_is_above_the_prompt_oracle(router, seed):
    rng = np.random.default_rng(seed)
    rows = [(*row[:3], tuple(rng.random(2))) for row in TRAIN + TEST]
    arms = by_name(run(router, outcomes(*rows), policies=FRUGAL))
    best = arms["oracle prompt"]
    assert best.oracle_gap_closed == pytest.approx(1.0)
    assert all(arm.score <= best.score + 1e-12 for arm in arms.values())


def test_intervals_hold_the_figure_they_belong_to(router):
    for arm in run(router, n_resamples=400).arms:
        for value, (low, high) in (
            (arm.score, arm.ci95),
            (arm.delta_best_single, arm.delta_ci95),
        ):
            assert low - 1e-12 <= value <= high + 1e-12


def test_the_seed_decides_the_intervals_and_nothing_else(router):
    one, same, other = (run(router, seed=seed) for seed in (1, 1, 2))
    assert one.arms == same.arms
    assert one.arms != other.arms
    assert [a.score for a in one.arms] == [a.score for a in other.arms]


def test_the_order_of_the_tables_experts_does_not_matter(router):
    rows = outcomes(*TRAIN, *TEST)
    assert run(router, rows.columns(("solver", "coder"))).arms == run(router, rows).arms


# ---- rows that are left out


def test_rows_that_lack_a_score_are_left_out_and_counted(router):
    holes = [(f"{p} again", c, s, (NAN, 1.0)) for p, c, s, _ in TEST[:3]]
    found = run(router, outcomes(*TRAIN, *TEST, *holes))
    assert (found.n_prompts, found.n_left_out) == (len(TEST), 3)
    assert found.arms == run(router).arms


def test_training_rows_may_lack_scores(router):
    holes = [
        (p, c, s, (scores[0], NAN) if k % 2 else scores)
        for k, (p, c, s, scores) in enumerate(TRAIN)
    ]
    found = run(router, outcomes(*holes, *TEST))
    assert found.n_left_out == 0
    assert all(np.isfinite(arm.score) for arm in found.arms)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (TEST, "split 'train'"),
        (TRAIN, "no prompt of split 'test' has a score of every expert"),
        ([(*row[:3], (1.0, NAN)) for row in TRAIN] + TEST, "scored by every expert"),
        (TRAIN + [(*row[:3], (NAN, 1.0)) for row in TEST], "no prompt of split 'test'"),
    ],
)
def test_a_table_without_what_is_needed_is_refused(router, rows, message):
    with pytest.raises(OutcomesError, match=message):
        run(router, outcomes(*rows))


@pytest.mark.parametrize("expert_ids", [("coder", "writer"), ("coder",)])
def test_other_experts_than_the_artefacts_are_named(router, expert_ids):
    rows = [(*row[:3], row[3][: len(expert_ids)]) for row in TRAIN + TEST]
    with pytest.raises(OutcomesError) as refused:
        run(router, outcomes(*rows, expert_ids=expert_ids))
    assert all(name in str(refused.value) for name in (*expert_ids, "solver"))


def test_a_budget_below_every_expert_is_refused(router):
    with pytest.raises(OutcomesError, match=r"at most 0\.5 billion parameters, the smallest 1"):
        run(router, stored_params_b=0.5)


# ---- what arms spend


def test_records_are_believed_and_the_rest_is_reckoned(router):
    rows = outcomes(*TRAIN, *TEST)
    rows = replace(rows, energy_j=np.full_like(rows.scores, [7.0, 11.0]))
    plain, found = by_name(run(router)), by_name(run(router, rows))
    assert found["always coder"].energy_j == pytest.approx(7.0)
    assert found["random"].energy_j == pytest.approx(9.0)
    for axis in ("cost_usd", "latency_ms", "active_params_b"):
        assert [getattr(a, axis) for a in found.values()] == [
            getattr(a, axis) for a in plain.values()
        ]


def test_an_arm_that_asks_an_expert_of_unknown_price_has_no_cost(make_router, make_spec):
    specs = [make_spec("coder", usd_per_mtok_out=1.0), make_spec("solver")]
    router = make_router(specs, [[0.9, 0.2], [0.3, 0.8], [0.6, 0.5]])
    found = run(router)
    arms = by_name(found)
    assert arms["always coder"].cost_usd > 0
    assert arms["always solver"].cost_usd is arms["random"].cost_usd is arms["coe"].cost_usd is None
    assert "always solver" not in found.pareto["cost_usd"]


def test_recorded_joules_of_an_expert_without_a_profile_make_no_false_curve(make_router, make_spec):
    specs = [make_spec("coder", watts=0.0), make_spec("solver", watts=0.0)]
    router = make_router(specs, [[0.1, 0.9], [0.1, 0.9], [0.1, 0.9]])
    rows = outcomes(*TRAIN, *TEST)
    rows = replace(rows, energy_j=np.full_like(rows.scores, [7.0, 11.0]))
    found = run(router, rows)
    # without a price the expert of the best expected quality is asked, or there is no curve
    dearest = {(p.score, p.usage) for p in found.curves["energy_j"][:1]}
    assert dearest <= {(by_name(found)["always solver"].score, 11.0)}


def test_the_pareto_arms_are_beaten_by_nobody(router):
    found = run(router, policies=FRUGAL)
    arms = by_name(found)
    plain = [arm for arm in found.arms if not arm.oracle]
    assert set(found.pareto) == set(AXES)
    for axis, names in found.pareto.items():
        front = [arms[name] for name in names]
        assert front
        assert not any(arm.oracle for arm in front)
        for kept in front:
            spent = getattr(kept, axis)
            assert not any(getattr(a, axis) <= spent and a.score > kept.score for a in plain)
            assert not any(getattr(a, axis) < spent and a.score >= kept.score for a in plain)
        assert [getattr(a, axis) for a in front] == sorted(getattr(a, axis) for a in front)
        # the best of all is always there, at its cheapest
        assert front[-1].score == max(arm.score for arm in plain)


def test_the_ladder_climbs(router):
    ladder = run(router).ladder
    assert ladder
    for below, above in pairwise(ladder):
        assert below.stored_params_b < above.stored_params_b
        assert below.value < above.value
    assert set(ladder[-1].expert_ids) == {"coder", "solver"}


def test_coverage_runs_from_nobody_to_everybody(router):
    coverage = run(router).coverage
    assert (coverage.covered[0], coverage.covered[-1]) == (0.0, 1.0)
    assert coverage.chosen_covered == 1.0
    found = by_name(run(router))
    # nobody recognised: the best overall; everybody: the best of the category
    assert coverage.score[0] == pytest.approx(found["always coder"].score)
    assert coverage.score[-1] == pytest.approx(found["two-step"].score)


def test_shares_of_categories_are_shares(router):
    found = run(router, outcomes(*TRAIN, *TEST, ("a poem", "", "test", (0.5, 0.5)))).categories
    assert found.names == ("(none)", "code", "maths")
    assert found.n.sum() == len(TEST) + 1
    np.testing.assert_allclose(found.chosen.sum(axis=1), 1.0)
    np.testing.assert_allclose(found.confusion, [[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    assert found.predicted == ("code", "maths", "general")


def test_progress_names_the_steps(router):
    steps = []
    run(router, progress=steps.append)
    assert len(steps) == len(set(steps)) > 1
