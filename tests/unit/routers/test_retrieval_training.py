"""The retrieval gate of an artefact: who teaches it, what it learns, what is measured."""

from dataclasses import replace

import numpy as np
import pytest

from coe.core import Message, Request
from coe.retrieval import Retriever
from coe.router import Router
from coe.routers.outcomes import Outcomes
from coe.routers.passages import LEAST_PRICE
from coe.routers.retrieval_training import FEWEST, Lessons, curve, measured
from coe.routers.retrieve import Index, Passage
from coe.routers.train import train

NAN = float("nan")
INDEX = Index.build(
    [Passage("p1", "the maths of a number", "m.md"), Passage("p2", "roses", "r.md")]
)


@pytest.fixture
def embedder(word_embedder):
    return word_embedder(noise=0.2)


def table(n=60, known=1.0):
    """Retrieval makes every answer on maths right, and every answer on code wrong."""
    rows = [
        (f"{word} number {100 + k}", word, "dev" if k % 2 else "train")
        for k in range(2 * n)
        for word in ("code", "maths")
    ]
    words = np.array([word for _, word, _ in rows])
    scores = np.repeat((words == "code").astype(float)[:, None], 2, axis=1)
    retrieved = 1.0 - scores
    retrieved[np.arange(len(rows)) >= known * len(rows)] = NAN
    retrieved[:, 1] = NAN
    return Outcomes.of(
        [text for text, _, _ in rows],
        ("one", "other"),
        scores,
        categories=words,
        splits=np.array([split for _, _, split in rows]),
        retrieved_scores=retrieved,
    )


def test_a_gate_is_learned_measured_and_kept(embedder, tmp_path):
    artefact = train(table(), embedder, index=INDEX)
    figures = artefact.metrics["gate"]
    assert figures["n_pairs"] == 120
    assert figures["price"] == LEAST_PRICE
    assert figures["score_never"] == figures["score_always"] == 0.5
    assert figures["score_gate"] == figures["score_oracle"] == 1.0
    assert figures["share_retrieved"] == 0.5
    assert figures["need_auc"] == 1.0
    artefact.save(tmp_path / "artefact", embedder)
    router = Router.load(tmp_path / "artefact", embedder=embedder)
    router = replace(router, retriever=Retriever(INDEX))
    for text, retrieves in (("maths number 500", True), ("code number 500", False)):
        decision = router.decide(Request((Message("user", text),)))
        assert decision.retrieval.retrieve == retrieves


def test_without_an_index_the_gate_learns_from_the_prompt(embedder):
    figures = train(table(), embedder).metrics["gate"]
    assert figures["score_gate"] == 1.0


def test_too_few_retrieved_scores_teach_nothing(embedder):
    artefact = train(table(n=FEWEST // 2 - 1), embedder)
    assert artefact.gate is None
    assert "gate" not in artefact.metrics


def test_without_retrieved_scores_the_index_is_not_asked(embedder):
    artefact = train(table(known=0.0), embedder, index=None)
    assert artefact.gate is None
    rows = table(known=0.0)
    X, unknown = embedder.embed(rows.prompts), np.full(len(rows.prompts), NAN)
    assert set(Lessons.of(rows, X, unknown, rows.scores, INDEX).evidence) == {None}


def test_dev_rows_without_retrieved_scores_measure_nothing(embedder):
    gate = train(table(), embedder).gate
    rows = table(known=0.0)
    X, entropy = embedder.embed(rows.prompts), np.zeros(len(rows.prompts))
    assert measured(gate, Lessons.of(rows, X, entropy, rows.scores, None)) == {"n_pairs": 0}


def test_the_curve_goes_from_never_to_always_over_the_gate_s_best(embedder):
    outcomes = table()
    artefact = train(outcomes, embedder, index=INDEX)
    rows = outcomes.rows(outcomes.splits == "dev")
    X = embedder.embed(rows.prompts)
    found = artefact.category.assess(X)
    quality = artefact.expectation.of(X, found).quality
    lessons = Lessons.of(rows, X, found.entropy, quality, INDEX)
    share, score = curve(artefact.gate, lessons)
    figures = measured(artefact.gate, lessons)
    assert (share[0], share[-1]) == (0.0, 1.0)
    assert score[0] == pytest.approx(figures["score_never"])
    assert score[-1] == pytest.approx(figures["score_always"])
    assert score.max() == pytest.approx(figures["score_oracle"])


def test_without_pairs_there_is_no_curve(embedder):
    outcomes = table()
    artefact = train(outcomes, embedder, index=INDEX)
    bare = replace(outcomes, retrieved_scores=np.full(outcomes.scores.shape, NAN))
    X = embedder.embed(bare.prompts)
    found = artefact.category.assess(X)
    quality = artefact.expectation.of(X, found).quality
    share, score = curve(artefact.gate, Lessons.of(bare, X, found.entropy, quality, None))
    assert share.size == score.size == 0
