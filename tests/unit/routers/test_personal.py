"""What serving keeps of a personal gate: its arithmetic, its file, and what it may be used with."""

import json
from dataclasses import replace

import numpy as np
import pytest

from coe.errors.files import ArtefactError
from coe.routers.expectation import Expectation
from coe.routers.head import Assessment
from coe.routers.personal import PersonalExpectation, PersonalGate, Premise, levelled
from coe.routers.quality import Expected, QualityTable

PREMISE = Premise("acme", "own", ("a", "b"), "desk", "words", "f" * 64)
X = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)


def gate(level=0.0, coef=(0.0, 0.0, 0.0, 0.5), declined=False, **changed):
    premise = replace(PREMISE, **changed)
    return PersonalGate(
        premise, level, np.array(coef, dtype=np.float32), 0.1, 20.0, 50.0, declined, {"n": 3}
    )


def expected(quality):
    quality = np.array(quality, dtype=float)
    return Expected(quality, quality / 10, quality * 100, quality * 200)


def test_the_own_expert_is_expected_by_embedding_and_best_rival():
    found = gate(coef=(0.2, -0.1, 0.5, 0.1)).refine(
        expected([[0.4, 0.8], [0.6, 0.2]]), ("a", "b"), X
    )
    assert found.quality == pytest.approx(
        np.array([[0.4, 0.8, 0.2 + 0.4 + 0.1], [0.6, 0.2, -0.1 + 0.3 + 0.1]])
    )
    assert found.quality_se[:, 2].tolist() == [0.1, 0.1]
    assert found.mean_tokens[:, 2].tolist() == [20.0, 20.0]
    assert found.cautious_tokens[:, 2].tolist() == [50.0, 50.0]


def test_an_own_expert_that_the_artefact_knows_keeps_its_column():
    before = expected([[0.4, 0.9, 0.8], [0.6, 0.9, 0.2]])
    found = gate().refine(before, ("a", "own", "b"), X)
    assert found.quality.tolist() == [[0.4, 0.5, 0.8], [0.6, 0.5, 0.2]]
    assert before.quality[0, 1] == 0.9


def test_only_rivals_are_looked_at():
    found = gate(coef=(0, 0, 1, 0)).refine(expected([[0.4, 0.3, 0.9]]), ("a", "b", "c"), X[:1])
    assert found.quality[0, 3] == pytest.approx(0.4)


def test_one_that_declined_is_behind_the_best_rival_on_every_prompt():
    found = gate(coef=(0, 0, 0, 0.7), declined=True)
    quality = found.refine(expected([[0.4, 0.3], [0.9, 0.2]]), ("a", "b"), X).quality
    assert quality[0, 2] < 0.4
    assert quality[0, 2] == pytest.approx(0.4)
    assert quality[1, 2] == pytest.approx(0.7)


def test_levels_move_quality_towards_one_and_nought():
    quality = np.array([0.0, 0.5, 1.0])
    assert levelled(quality, 0.2).tolist() == pytest.approx([0.2, 0.6, 1.0])
    assert levelled(quality, -0.2).tolist() == pytest.approx([0.0, 0.4, 0.8])
    assert levelled(quality, 0.0).tolist() == quality.tolist()


def test_the_expectation_of_a_tenant_has_its_expert_too():
    table = np.array([[0.4, 0.8]])
    everyones = Expectation(
        QualityTable(("general",), ("a", "b"), table, table * 0, table * 9, table * 9)
    )
    mine = PersonalExpectation.of_tenant(everyones, gate(level=0.5))
    assert mine.expert_ids == ("a", "b", "own")
    sure = np.zeros(2)
    unread = Assessment(np.zeros((2, 0)), sure, sure, np.ones(2, dtype=bool))
    assert mine.of(X, unread).quality[0].tolist() == pytest.approx([0.7, 0.9, 0.5])
    assert everyones.expert_ids == ("a", "b")
    with pytest.raises(ArtefactError, match="knows experts that the artefact does not: z"):
        PersonalExpectation.of_tenant(everyones, gate(rivals=("a", "z")))


def test_what_is_saved_is_loaded(tmp_path):
    saved = gate(level=-0.25, coef=(0.1, 0.2, 0.3, 0.4), declined=True, node=None)
    saved.save(tmp_path / "gate")
    found = PersonalGate.load(tmp_path / "gate")
    assert found.premise == saved.premise
    assert found.coef.tolist() == saved.coef.tolist()
    figures = ("level", "quality_se", "mean_tokens", "cautious_tokens", "declined", "training")
    assert all(getattr(found, name) == getattr(saved, name) for name in figures)


def test_a_folder_that_is_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(ArtefactError, match="is not a personal gate: it is left alone"):
        gate().save(tmp_path / "notes")


@pytest.mark.parametrize(
    ("name", "value"),
    [("level", 1.0), ("rivals", []), ("rivals", ["own"]), ("quality_se", None), ("tenant", ...)],
)
def test_a_malformed_gate_is_refused(tmp_path, name, value):
    gate().save(tmp_path / "gate")
    path = tmp_path / "gate" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest[name] = value
    if value is ...:
        del manifest[name]
    path.write_text(json.dumps(manifest))
    with pytest.raises(ArtefactError, match="malformed personal gate"):
        PersonalGate.load(tmp_path / "gate")


def test_altered_coefficients_are_refused(tmp_path):
    gate().save(tmp_path / "gate")
    path = tmp_path / "gate" / "arrays.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match="not the bytes"):
        PersonalGate.load(tmp_path / "gate")


USED = {
    "tenant": "acme",
    "expert_id": "own",
    "embedder": "words",
    "dim": 2,
    "artefact": "f" * 64,
}


def test_a_gate_goes_with_what_it_was_trained_with():
    gate().check(**USED)


@pytest.mark.parametrize(
    ("name", "other", "noun"),
    [
        ("tenant", "evil", "tenant 'acme', not 'evil'"),
        ("expert_id", "a", "expert 'own', not 'a'"),
        ("embedder", "lexical", "embedder 'words', not 'lexical'"),
        ("dim", 3, "length of vectors 2, not 3"),
        ("artefact", "0" * 64, "artefact 'f"),
    ],
)
def test_and_with_nothing_else(name, other, noun):
    with pytest.raises(ArtefactError, match=noun):
        gate().check(**USED | {name: other})
