"""What texts say, each alone and many at once."""

import numpy as np
import pytest

from coe.routers.reading import read


@pytest.fixture
def artefact(make_artefact, make_spec):
    return make_artefact(
        [make_spec("small"), make_spec("large")], [[0.25, 0.75], [0.5, 0.375], [0.5, 0.5]]
    )


TEXTS = ["some code", "", "some maths", "a poem", "weather", "some code"]


def test_each_text_is_read_as_if_it_were_alone(artefact, word_embedder):
    together = read(TEXTS, word_embedder(), artefact)
    for text, reading in zip(TEXTS, together, strict=True):
        (alone,) = read([text], word_embedder(), artefact)
        assert (reading.text, reading.guess) == (text, alone.guess)
        for figure in ("quality", "quality_se", "mean_tokens", "cautious_tokens"):
            ours = getattr(reading.expected, figure)
            assert ours.shape == (1, 2)
            np.testing.assert_array_equal(ours, getattr(alone.expected, figure))
        np.testing.assert_array_equal(reading.vectors, alone.vectors)


def test_a_text_that_says_nothing_is_general(artefact, word_embedder):
    names = [reading.guess.name for reading in read(TEXTS, word_embedder(), artefact)]
    assert names == ["code", "general", "maths", "general", "general", "code"]


def test_nothing_is_read_of_no_texts(artefact, word_embedder):
    assert read([], word_embedder(), artefact) == []
