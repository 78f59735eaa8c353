"""Artefacts on disk: what was saved is what is loaded, or nothing is."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load as load_tensors

from coe.core import Budget, Message, Policy, Prices, Request
from coe.errors.files import ArtefactError
from coe.router import Router
from coe.routers.artefact import Artefact
from coe.routers.gate import RetrievalGate, column_names
from coe.routers.retrieve import Index

QUALITY = [[0.875, 0.5], [0.25, 0.75], [0.5, 0.625]]
PROMPTS = ("some code", "some maths", "code and maths", "a poem", "", "weather")


@pytest.fixture
def made(make_spec, make_artefact):
    return make_artefact([make_spec("a"), make_spec("b", watts=20.0, slots=2)], QUALITY)


@pytest.fixture
def folder(made, tmp_path):
    made.save(tmp_path / "artefact")
    return tmp_path / "artefact"


@pytest.fixture
def edited(folder):
    """The artefact's folder with a changed manifest."""

    def edit(change):
        path = folder / "manifest.json"
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))
        return folder

    return edit


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def decisions(artefact, embedder):
    router = Router(
        embedder(),
        artefact,
        {spec.id: spec for spec in artefact.experts},
        now=lambda: 0.0,
        new_id=lambda: "dec",
    )
    policies = [Policy("default"), Policy("eco", Budget(energy_j=15.0), Prices(per_joule=0.01))]
    return [
        router.decide(Request((Message("user", prompt),), policy))
        for prompt in PROMPTS
        for policy in policies
    ]


def test_a_loaded_artefact_decides_like_the_saved_one(made, folder, word_embedder):
    loaded = Artefact.load(folder)
    assert decisions(loaded, word_embedder) == decisions(made, word_embedder)
    for name in ("embedder", "experts", "canaries", "training", "metrics"):
        assert getattr(loaded, name) == getattr(made, name)
    for name in ("n_neighbors", "entropy_threshold", "distance_threshold"):
        assert getattr(loaded.category, name) == getattr(made.category, name)


def test_saving_what_was_loaded_writes_the_same_bytes(folder, tmp_path):
    Artefact.load(folder).save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(folder)


def test_an_infinite_threshold_survives(made, tmp_path):
    certain = replace(made.category, distance_threshold=np.inf)
    replace(made, category=certain).save(tmp_path / "artefact")
    loaded = Artefact.load(tmp_path / "artefact").category
    assert loaded.distance_threshold == loaded.entropy_threshold == np.inf


def test_a_distance_on_some_features_survives(made, tmp_path):
    partial = replace(made.category, points_=np.eye(2, dtype=np.float32))
    replace(made, category=partial).save(tmp_path / "artefact")
    loaded = Artefact.load(tmp_path / "artefact").category
    X = [[1.0, 0.5, 9.0]]
    assert loaded.assess(X).distance == partial.assess(X).distance


def test_a_retrieval_gate_survives(made, tmp_path, word_embedder):
    d = len(column_names(word_embedder().dim)) + 1
    rng = np.random.default_rng(0)
    # an outcome that training never saw has an infinite intercept
    gate = RetrievalGate(rng.normal(size=d), rng.normal(size=(4, d)), np.array([0, 1, -np.inf, 0]))
    replace(made, gate=gate).save(tmp_path / "artefact", word_embedder())
    loaded = Artefact.load(tmp_path / "artefact").gate
    features, strength = rng.normal(size=(3, d - 1)), [0.2, 0.9]
    np.testing.assert_array_equal(loaded.gain(features, strength), gate.gain(features, strength))


def test_an_artefact_without_a_gate_has_none(folder):
    assert Artefact.load(folder).gate is None


def test_a_gate_for_other_embeddings_is_refused(made, tmp_path):
    gate = RetrievalGate(np.zeros(5), np.zeros((4, 5)), np.zeros(4))
    replace(made, gate=gate).save(tmp_path / "artefact")
    with pytest.raises(ArtefactError, match="retrieval gate has 4 features"):
        Artefact.load(tmp_path / "artefact")


def test_a_retrieval_index_is_not_overwritten(made, tmp_path):
    Index.build([]).save(tmp_path / "index")
    with pytest.raises(ArtefactError, match="is not a router artefact: it is left alone"):
        made.save(tmp_path / "index")
    assert Index.load(tmp_path / "index").passages == ()


def test_an_artefact_is_json_and_plain_arrays(folder):
    files = contents(folder)
    assert set(files) == {"manifest.json", "arrays.safetensors"}
    json.loads(files["manifest.json"], parse_constant=pytest.fail)
    arrays = load_tensors(files["arrays.safetensors"])
    assert all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays.values())


def test_any_altered_byte_of_the_arrays_is_refused(folder):
    path = folder / "arrays.safetensors"
    right = path.read_bytes()
    for k in range(len(right)):
        path.write_bytes(right[:k] + bytes([right[k] ^ 1]) + right[k + 1 :])
        with pytest.raises(ArtefactError, match="not the bytes the manifest promises"):
            Artefact.load(folder)
    path.write_bytes(right)
    Artefact.load(folder)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\0", lambda b: b""])
def test_arrays_of_another_length_are_refused(folder, change):
    path = folder / "arrays.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ArtefactError):
        Artefact.load(folder)


@pytest.mark.parametrize("name", ["manifest.json", "arrays.safetensors"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ArtefactError, match=name):
        Artefact.load(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ArtefactError, match="nowhere"):
        Artefact.load(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b"null", b"{}"])
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ArtefactError):
        Artefact.load(folder)


@pytest.mark.parametrize("schema", [0, 1, "2", None])
def test_another_schema_is_refused(edited, schema):
    with pytest.raises(ArtefactError, match="schema is not 2: train it again"):
        Artefact.load(edited(lambda manifest: manifest.update(schema=schema)))


@pytest.mark.parametrize(
    "name",
    ["embedder", "categories", "category_router", "experts", "files", "canaries", "training"],
)
def test_a_manifest_without_a_field_is_refused(edited, name):
    with pytest.raises(ArtefactError):
        Artefact.load(edited(lambda manifest: manifest.pop(name)))


@pytest.mark.parametrize(
    "fields",
    [
        {"categories": ["code", "general"]},
        {"categories": ["code", "maths", "poems", "general"]},
        {"categories": None},
        {"category_router": None},
        {"category_router": {"depth": 3}},
        {"experts": []},
        {"experts": [None, None]},
        {"experts": [{"id": "a"}, {"id": "b"}]},
        {"files": []},
        {"files": None},
        {"canaries": [["one"]]},
        {"canaries": None},
    ],
)
def test_a_manifest_that_does_not_fit_its_arrays_is_refused(edited, fields):
    with pytest.raises(ArtefactError):
        Artefact.load(edited(lambda manifest: manifest.update(fields)))


# ---- canaries


def test_canaries_that_get_their_category_are_silent(made, word_embedder):
    made.check_canaries(word_embedder())
    replace(made, canaries=()).check_canaries(word_embedder())


def test_a_canary_that_gets_another_category_is_named(made, word_embedder):
    wrong = replace(made, canaries=(("some code", "code"), ("more code", "maths")))
    with pytest.raises(ArtefactError, match="'more code' gets category 'code', not 'maths'"):
        wrong.check_canaries(word_embedder())


def test_another_embedder_is_refused_though_the_canaries_would_pass(made, word_embedder):
    with pytest.raises(ArtefactError, match="trained on embedder 'words', not 'other'"):
        made.check_canaries(word_embedder(name="other"))


# ---- saving


def test_saving_replaces_an_artefact_as_a_whole(made, folder):
    (folder / "stale.txt").touch()
    replace(made, metrics={"score_routed": 0.5}).save(folder)
    assert Artefact.load(folder).metrics == {"score_routed": 0.5}
    assert set(contents(folder)) == {"manifest.json", "arrays.safetensors"}
    assert list(folder.parent.iterdir()) == [folder]


def test_saving_makes_the_folders_above(made, tmp_path):
    made.save(tmp_path / "a" / "b")
    Artefact.load(tmp_path / "a" / "b")


@pytest.mark.parametrize("names", [[], ["thesis.tex"]])
def test_a_foreign_folder_is_left_alone(made, tmp_path, names):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for name in names:
        (foreign / name).touch()
    with pytest.raises(ArtefactError, match="is not a router artefact: it is left alone"):
        made.save(foreign)
    assert [path.name for path in foreign.iterdir()] == names
    assert list(tmp_path.iterdir()) == [foreign]


def test_a_foreign_file_is_left_alone(made, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtefactError):
        made.save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(("figure", "refusal"), [(object(), TypeError), (float("nan"), ValueError)])
def test_a_save_that_fails_leaves_the_old_artefact_and_nothing_else(made, folder, figure, refusal):
    before = contents(folder)
    with pytest.raises(refusal):
        replace(made, metrics={"score_routed": figure}).save(folder)
    assert contents(folder) == before
    assert list(folder.parent.iterdir()) == [folder]


def test_canaries_in_any_script_survive(made, tmp_path):
    foreign = replace(made, canaries=(("Grüße 世界 code", "code"),))
    foreign.save(tmp_path / "artefact")
    assert Artefact.load(tmp_path / "artefact").canaries == foreign.canaries
