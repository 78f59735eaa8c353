"""The shipped static embedder and the cache in front of any embedder."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coe.errors.files import ArtefactError
from coe.routers.embed import (
    MEANING_DIM,
    CachedEmbedder,
    VectorCache,
    default_embedder_path,
    load_default,
    load_for,
    load_named,
    meaning_features,
    stacked,
)
from coe.routers.static import END_BYTES, StaticEmbedder

PROMPTS = (
    "How do I sort a list in Python?",
    "What is the capital of Australia?",
    "Integrate x^2 from 0 to 3.",
    "Write a poem about the sea.",
    "今天天气很好",
    "",
)


@pytest.fixture(scope="module")
def embedder() -> StaticEmbedder:
    return StaticEmbedder.load(default_embedder_path())


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return shutil.copytree(default_embedder_path(), tmp_path / "embedder")


class CountingEmbedder:
    """Vector of a text is its length and its number of spaces; remembers what it was asked."""

    name, dim = "counting", 2

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.extend(texts)
        return np.array([[len(t), t.count(" ")] for t in texts], dtype=np.float32).reshape(-1, 2)


def test_vectors_have_unit_length_and_the_promised_shape(embedder: StaticEmbedder) -> None:
    vectors = embedder.embed(PROMPTS)
    assert vectors.shape == (len(PROMPTS), embedder.dim)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors[:-1], axis=1), 1, rtol=1e-5)


def test_no_texts_give_no_rows(embedder: StaticEmbedder) -> None:
    assert embedder.embed([]).shape == (0, embedder.dim)
    assert CachedEmbedder(embedder).embed([]).shape == (0, embedder.dim)


@pytest.mark.parametrize("text", ["", "  \n\t", "\x00\x01\x7f", "ᚠᚢᚦ", "a" * 100_000])
def test_text_without_a_known_token_is_the_zero_vector(embedder: StaticEmbedder, text: str) -> None:
    assert not embedder.embed([text]).any()


def test_unknown_tokens_and_control_characters_are_left_out(embedder: StaticEmbedder) -> None:
    plain, disturbed = embedder.embed(["sort a list", "ᚠᚢᚦ sort\x00 a\x07 list"])
    np.testing.assert_allclose(plain, disturbed, atol=1e-6)


def test_special_tokens_spelled_in_a_prompt_are_plain_text(embedder: StaticEmbedder) -> None:
    marked, spelled = embedder.embed(["sort a list [SEP]", "sort a list [ sep ]"])
    np.testing.assert_allclose(marked, spelled, atol=1e-6)


@pytest.mark.parametrize("text", ["今天天气很好", "Привет, мир", "مرحبا", "नमस्ते", "\ud800 lone"])
def test_other_scripts_have_a_vector(embedder: StaticEmbedder, text: str) -> None:
    np.testing.assert_allclose(np.linalg.norm(embedder.embed([text])), 1, rtol=1e-5)


@given(st.text())
def test_any_text_has_a_finite_vector_of_length_one_or_zero(
    embedder: StaticEmbedder, text: str
) -> None:
    norm = np.linalg.norm(embedder.embed([text]))
    assert norm == 0 or abs(norm - 1) < 1e-5


@pytest.mark.parametrize("unit", ["sort the words ", "今天天气很好我们", "?!", "\ud800é "])
def test_only_the_ends_of_a_long_text_count(embedder: StaticEmbedder, unit: str) -> None:
    ends = unit * END_BYTES  # more than enough at either end
    text = ends + "quantum chromodynamics of the vacuum " * 100_000 + ends
    short, long = embedder.embed([ends + "entirely different" + ends, text])
    np.testing.assert_array_equal(short, long)


def test_both_ends_of_a_long_text_count(embedder: StaticEmbedder) -> None:
    filler = "the quick brown fox " * 5000
    plain, first, last = embedder.embed(
        [filler, "theorem proof " * 50 + filler, filler + "theorem proof " * 50]
    )
    assert first @ plain < 0.99
    assert last @ plain < 0.99


@pytest.mark.parametrize(
    ("anchor", "near", "far"),
    [
        (PROMPTS[0], "Ordering the elements of a Python array", "A recipe with eggs and flour"),
        (PROMPTS[1], "Which city is Australia's seat of government?", "Solve 3x + 4 = 19 for x"),
        ("Solve the quadratic equation", "Find the roots of a polynomial", "Plan a trip to Rome"),
        ("My stomach hurts after dinner", "I feel abdominal pain", "Compile the C++ program"),
        ("The court dismissed the appeal", "A judge rejected the lawsuit", "Bake bread at home"),
        ("Write SQL that joins two tables", "A database query", "Mozart wrote many operas"),
    ],
)
def test_similar_texts_are_nearer(
    embedder: StaticEmbedder, anchor: str, near: str, far: str
) -> None:
    vectors = embedder.embed([anchor, near, far])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1


def test_vector_does_not_depend_on_batch_or_repetition(embedder: StaticEmbedder) -> None:
    order = np.random.default_rng(0).permutation(len(PROMPTS))
    together = embedder.embed(PROMPTS)
    np.testing.assert_array_equal(embedder.embed([PROMPTS[i] for i in order]), together[order])
    alone = np.concatenate([embedder.embed([prompt]) for prompt in PROMPTS])
    np.testing.assert_array_equal(alone, together)
    again = StaticEmbedder.load(default_embedder_path())
    np.testing.assert_array_equal(again.embed(PROMPTS), together)


def test_threads_agree(embedder: StaticEmbedder) -> None:
    cached = CachedEmbedder(embedder, n_entries=2)
    expected = embedder.embed(PROMPTS)
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(cached.embed, [PROMPTS] * 40):
            np.testing.assert_array_equal(vectors, expected)
    assert len(cached) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_embeds_in_silence(
    embedder: StaticEmbedder, capfd: pytest.CaptureFixture[str]
) -> None:
    expected = embedder.embed(PROMPTS)
    with warnings.catch_warnings():  # Python's own, about threads: not what is tested here
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(embedder.embed(PROMPTS), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert capfd.readouterr().err == ""


def test_manifest_states_name_dim_licence_and_sizes(embedder: StaticEmbedder) -> None:
    folder = default_embedder_path()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert embedder.name.startswith(manifest["name"])
    assert embedder.dim == manifest["dim"]
    assert manifest["licence"] == "Apache-2.0"
    for name, entry in manifest["files"].items():
        assert (folder / name).stat().st_size == entry["bytes"]


def test_absent_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match=r"cannot read manifest\.json"):
        StaticEmbedder.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["table.safetensors", "tokenizer.json"])
def test_absent_or_altered_file_is_refused(copied: Path, name: str) -> None:
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(ArtefactError, match=f"{name} was altered"):
        StaticEmbedder.load(copied)
    (copied / name).unlink()
    with pytest.raises(ArtefactError, match=f"cannot read {name}"):
        StaticEmbedder.load(copied)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"name": "x"}', '{"files": [], "name": 1}'])
def test_malformed_manifest_is_refused(copied: Path, content: str) -> None:
    (copied / "manifest.json").write_text(content)
    with pytest.raises(ArtefactError, match=r"malformed manifest\.json"):
        StaticEmbedder.load(copied)


@pytest.mark.parametrize("name", ["table.safetensors", "tokenizer.json"])
def test_file_of_another_format_is_refused(copied: Path, name: str) -> None:
    _replace(copied, name, b"{}")
    with pytest.raises(ArtefactError, match="malformed"):
        StaticEmbedder.load(copied)


def test_table_that_does_not_fit_is_refused(copied: Path) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(manifest | {"dim": 7}))
    with pytest.raises(ArtefactError, match="does not fit"):
        StaticEmbedder.load(copied)


def test_cache_gives_the_vectors_of_the_inner_embedder(embedder: StaticEmbedder) -> None:
    cached = CachedEmbedder(embedder)
    assert (cached.name, cached.dim) == (embedder.name, embedder.dim)
    for _ in range(2):
        np.testing.assert_array_equal(cached.embed(PROMPTS), embedder.embed(PROMPTS))


def test_cache_asks_once_per_text(embedder: StaticEmbedder) -> None:
    inner = CountingEmbedder()
    cached = CachedEmbedder(inner)
    np.testing.assert_array_equal(cached.embed(["a", "b c", "a"]), [[1, 0], [3, 1], [1, 0]])
    cached.embed(["b c", "d"])
    assert inner.asked == ["a", "b c", "d"]


def test_cache_drops_the_least_recently_used() -> None:
    inner = CountingEmbedder()
    cached = CachedEmbedder(inner, n_entries=2)
    for text in ("a", "b", "a", "c", "a", "b"):
        cached.embed([text])
    assert len(cached) == 2
    assert inner.asked == ["a", "b", "c", "b"]


@given(st.lists(st.text(max_size=3)), st.integers(0, 4))
def test_cache_is_bounded_and_true_whatever_is_asked(texts: list[str], n_entries: int) -> None:
    cached = CachedEmbedder(CountingEmbedder(), n_entries)
    for _ in range(2):
        np.testing.assert_array_equal(cached.embed(texts), CountingEmbedder().embed(texts))
        assert len(cached) <= n_entries


def test_cached_vectors_do_not_change_with_what_was_handed_out() -> None:
    cached = CachedEmbedder(CountingEmbedder())
    cached.embed(["abc"])[:] = 9
    np.testing.assert_array_equal(cached.embed(["abc"]), [[3, 0]])


NAMED = ("default", "static", "lexical")


def test_the_default_is_meaning_then_wording() -> None:
    default, static, lexical = (load_named(name).embed(PROMPTS) for name in NAMED)
    both = np.hstack([static, lexical]) / np.sqrt(2)
    np.testing.assert_allclose(default, both, atol=1e-7)
    np.testing.assert_array_equal(load_default().embed(PROMPTS), default)
    assert load_default().name == load_named("default").name


@pytest.mark.parametrize("name", NAMED)
def test_a_named_embedder_is_found_again_by_the_name_it_records(name) -> None:
    embedder = load_named(name)
    again = load_for(embedder.name)
    assert (again.name, again.dim) == (embedder.name, embedder.dim)
    np.testing.assert_array_equal(again.embed(PROMPTS), embedder.embed(PROMPTS))


def test_differently_named_embedders_are_different_spaces() -> None:
    assert len({load_named(name).name for name in NAMED}) == len(NAMED)


def test_a_remote_embedder_has_to_be_configured() -> None:
    with pytest.raises(ArtefactError, match=r"'http-e5-384', which is remote.*kind endpoint"):
        load_for("http-e5-384")


def test_an_unknown_embedder_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ArtefactError, match=r"trained on embedder 'words'.*lexical-1024.*train it"):
        load_for("words")


def test_the_meaning_comes_first_where_there_is_any(embedder: StaticEmbedder) -> None:
    for name in ("default", "static"):
        named = load_named(name)
        assert meaning_features(named.name) == MEANING_DIM == embedder.dim
        leading = named.embed(PROMPTS)[:-1, :MEANING_DIM]
        leading /= np.linalg.norm(leading, axis=1, keepdims=True)
        np.testing.assert_allclose(leading, embedder.embed(PROMPTS[:-1]), atol=1e-6)
    assert meaning_features(load_named("lexical").name) is None
    assert meaning_features("http-e5-384") is None


def test_a_vector_cache_recalls_what_it_was_told_and_nothing_else() -> None:
    kept = VectorCache(n_entries=2)
    told = {text: np.full(2, k, dtype=np.float32) for k, text in enumerate("abc")}
    kept.remember(told)
    told["c"][:] = 9
    known = kept.recall(["a", "b", "c", "c", "d"])
    assert {text: vector.tolist() for text, vector in known.items()} == {"b": [1, 1], "c": [2, 2]}
    assert stacked(["d", "b"], known, 2).tolist() == [[0, 0], [1, 1]]


def _replace(folder: Path, name: str, content: bytes) -> None:
    """Another file under a manifest that agrees with it."""
    (folder / name).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
