"""What is learned of modes, kept: what was saved is what is loaded, or nothing is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from coe.errors.files import ArtefactError
from coe.mode import Mode
from coe.routers.artefact import Artefact
from coe.routers.confidence import Confidence
from coe.routers.habit import Habit
from coe.routers.modes import LearnedModes, ModeTable

CATEGORIES = ("code", "maths", "general")
EXPERTS = ("a", "b", "c")
MODES = (
    *map(Mode.single, "abc"),
    Mode("vote", (("a", "b"),)),
    Mode("rank", (("a", "c"),)),
    Mode("cascade", (("c",), ("a", "b")), 0.85),
    Mode("fuse", (("a", "b"), ("c",))),
    Mode("mixture", (("a", "b"),)),
)
HABITS = {"a": Habit(-0.5, 0.25), "c": Habit(-1.5, 0.5)}


@pytest.fixture
def learned() -> LearnedModes:
    rng = np.random.default_rng(3)
    shape = (len(CATEGORIES), len(MODES))
    table = ModeTable(
        CATEGORIES,
        EXPERTS,
        MODES,
        quality=rng.random(shape),
        quality_se=rng.random(shape) / 10,
        usage=rng.random((*shape, 3)),
        reach=rng.random((*shape, 2)),
    )
    return LearnedModes(table, Confidence(rng.normal(size=7), 0.125), 3.5, HABITS)


def again(learned: LearnedModes, **changed) -> LearnedModes:
    """What is read of what was said, and of what was changed in it."""
    document = json.loads(json.dumps(changed.pop("modes", learned.document())))
    arrays = learned.to_arrays() | changed
    return LearnedModes.read(document, arrays, CATEGORIES, EXPERTS)


def test_what_is_read_is_what_was_said(learned):
    found = again(learned)
    assert found.table.modes == MODES
    assert (found.table.categories, found.table.expert_ids) == (CATEGORIES, EXPERTS)
    for name, array in learned.to_arrays().items():
        np.testing.assert_array_equal(found.to_arrays()[name], array)
    assert (found.n_options, found.confidence.intercept) == (3.5, 0.125)
    assert found.habits == HABITS


def test_what_was_learned_before_sureness_is_read_and_takes_no_notice_of_it(learned):
    older = learned.to_arrays()["confidence"][[0, 1, 2, 3, 4, 5, 7]]
    arrays = {name: array for name, array in learned.to_arrays().items() if name != "habits"}
    arrays["confidence"] = older
    found = LearnedModes.read(learned.document(), arrays, CATEGORIES, EXPERTS)
    np.testing.assert_array_equal(found.confidence.coef[:6], older[:6])
    assert (found.confidence.coef[6], found.confidence.intercept) == (0.0, older[6])
    assert found.habits == {}


@pytest.mark.parametrize(
    "habits",
    [
        np.full((2, 2), np.nan),
        np.array([[-0.5, 0.0]] * 3),
        np.array([[0.5, 1.0]] * 3),
        np.array([[-0.5, np.nan]] * 3),
        np.array([[-np.inf, 1.0]] * 3),
    ],
)
def test_habits_outside_their_range_are_refused(learned, habits):
    with pytest.raises(ValueError, match="habit"):
        again(learned, habits=habits)


@pytest.mark.parametrize(
    "mode",
    [
        Mode("single", (("a", "b"),)),
        Mode("vote", (("a", "a"),)),
        Mode("vote", (("a", "x"),)),
        Mode("vote", (("a",), ("b",))),
        Mode("vote", ((),)),
        Mode("vote", ()),
        Mode("chat", (("a", "b"),)),
        Mode("cascade", (("a", "b"),), 0.5),
        Mode("cascade", (("a",), ("a", "b")), 0.5),
        Mode("cascade", (("a",), ("b",)), 1.5),
        Mode("cascade", (("a",), ("b",)), float("nan")),
        Mode("fuse", (("a",), ("b", "c"))),
        Mode.single("b"),
    ],
)
def test_a_mode_that_is_none_or_twice_there_is_refused(learned, mode):
    table = replace(learned.table, modes=(*MODES[:-1], mode))
    with pytest.raises(ValueError, match="mode"):
        again(replace(learned, table=table))


def test_a_member_that_is_not_there_alone_is_refused(learned):
    table = replace(learned.table, modes=(*MODES[1:], Mode("vote", (("b", "c"),))))
    with pytest.raises(ValueError, match="not there as a single"):
        again(replace(learned, table=table))


def test_rows_of_other_types_are_refused(learned):
    for rows in ([None], [{}], [{"kind": "vote", "stages": 3, "threshold": 0}], [[]], []):
        with pytest.raises((KeyError, TypeError, ValueError)):
            again(learned, modes=rows)


@pytest.mark.parametrize("name", ["quality", "quality_se", "usage", "reach"])
@pytest.mark.parametrize("wrong", [-0.5, np.nan, np.inf])
def test_a_number_outside_its_range_is_refused(learned, name, wrong):
    array = learned.to_arrays()[name].copy()
    array.flat[-1] = wrong
    with pytest.raises(ValueError, match=f"{name} has a number"):
        again(learned, **{name: array})


@pytest.mark.parametrize("name", ["quality", "quality_se", "usage", "reach"])
def test_another_shape_is_refused(learned, name):
    array = learned.to_arrays()[name]
    for wrong in (array[1:], array[:, 1:], array[..., 1:]):
        with pytest.raises(ValueError, match=f"{name} has shape"):
            again(learned, **{name: wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"confidence": np.zeros(6)},
        {"confidence": np.full(7, np.nan)},
        {"n_options": np.array([1.0])},
        {"n_options": np.array([np.nan])},
        {"n_options": np.array([2.0, 3.0])},
    ],
)
def test_a_confidence_that_is_none_is_refused(learned, wrong):
    with pytest.raises(ValueError, match=r"confidence|n_options|size 1"):
        again(learned, **wrong)


# ---- in an artefact


@pytest.fixture
def made(learned, make_spec, make_artefact):
    quality = [[0.875, 0.5, 0.5], [0.25, 0.75, 0.5], [0.5, 0.625, 0.5]]
    return replace(make_artefact(list(map(make_spec, "abc")), quality), modes=learned)


def test_learned_modes_survive_in_an_artefact(made, tmp_path, word_embedder):
    made.save(tmp_path / "artefact", word_embedder())
    found = Artefact.load(tmp_path / "artefact")
    assert found.modes.document() == made.modes.document()
    found.save(tmp_path / "again")
    for name in ("manifest.json", "arrays.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (
            tmp_path / "artefact" / name
        ).read_bytes()


def test_an_artefact_without_modes_has_none(made, tmp_path):
    replace(made, modes=None).save(tmp_path / "artefact")
    assert Artefact.load(tmp_path / "artefact").modes is None
    assert "modes" not in json.loads((tmp_path / "artefact" / "manifest.json").read_text())


def test_modes_of_other_experts_are_refused(made, tmp_path, learned):
    table = replace(learned.table, modes=(Mode.single("x"), *MODES[1:]))
    replace(made, modes=replace(learned, table=table)).save(tmp_path / "artefact")
    with pytest.raises(ArtefactError, match="unknown or there twice"):
        Artefact.load(tmp_path / "artefact")


def test_modes_without_their_arrays_or_the_reverse_are_refused(made, tmp_path):
    manifest = tmp_path / "artefact" / "manifest.json"
    made.save(manifest.parent)
    whole = json.loads(manifest.read_text())
    for change in ({"modes": whole["modes"][:-1]}, {"modes": None}):
        manifest.write_text(json.dumps(whole | change))
        with pytest.raises(ArtefactError, match="malformed"):
            Artefact.load(manifest.parent)
    del whole["modes"]
    manifest.write_text(json.dumps(whole))
    with pytest.raises(ArtefactError, match="malformed"):
        Artefact.load(manifest.parent)
