"""What splitting, ranking and searching promise of every text."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from coe.routers.chunk import Document, Section, passages_of, split
from coe.routers.postings import Postings
from coe.routers.ranking import FUSION_K, best, fused
from coe.routers.retrieve import MODES, Index
from coe.routers.terms import fold, query_terms, terms

anything = st.text(max_size=60)
words = st.sampled_from(["code", "maths", "poem", "sea", "a", "北京大学", "Ёлка"])
sentences = st.lists(words, max_size=8).map(" ".join)
corpora = st.lists(sentences, max_size=8)
orders = st.integers(1, 12).flatmap(lambda n: st.permutations(range(n)))


def index_of(texts, embedder=None):
    documents = [Document(f"{n}.txt", (Section(text, "t"),)) for n, text in enumerate(texts)]
    return Index.build(list(passages_of(documents)), embedder)


# ---- terms


@given(anything)
def test_folding_twice_is_folding_once(text):
    assert fold(fold(text)) == fold(text)


@given(anything)
def test_terms_do_not_depend_on_case(text):
    assert list(terms(text.casefold())) == list(terms(text))


@given(anything, anything)
def test_a_line_break_parts_terms(left, right):
    assert list(terms(f"{left}\n{right}")) == [*terms(left), *terms(right)]


@given(anything)
def test_a_query_names_each_term_once_in_order(text):
    assert query_terms(text) == list(dict.fromkeys(terms(text)))


# ---- splitting


@given(
    st.lists(st.sampled_from(["word", "end.", "字句", "\n\n", "x" * 80, "กี่", "!"]), max_size=80),
    st.integers(3, 12),
    st.data(),
)
def test_pieces_are_stretches_of_the_text_and_leave_nothing_out(parts, size, data):
    text = " ".join(parts)
    for piece in split(text, size, data.draw(st.integers(0, size // 2))):
        assert piece in text
        assert piece == piece.strip() != ""
    assert "".join("".join(split(text, size, 0)).split()) == "".join(text.split())


@given(st.integers(0, 400), st.integers(3, 40), st.data())
def test_neighbours_share_exactly_the_overlap(n_words, size, data):
    overlap = data.draw(st.integers(0, size // 2))
    text = " ".join(str(n) for n in range(n_words))
    pieces = [[int(word) for word in piece.split()] for piece in split(text, size, overlap)]
    for left, right in itertools.pairwise(pieces):
        assert left[len(left) - overlap :] == right[:overlap]
        assert len(left) <= size
    assert sorted({word for piece in pieces for word in piece}) == list(range(n_words))
    assert all(len(piece) <= size + overlap for piece in pieces)


# ---- ranking


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(0, 40))
def test_best_is_a_stable_sort_of_the_positive_scores(scores, k):
    expected = sorted((n for n, s in enumerate(scores) if s > 0), key=lambda n: (-scores[n], n))
    assert best(np.array(scores, dtype=np.float32), k).tolist() == expected[:k]


@given(orders)
def test_fusing_one_ranking_keeps_it(ranking):
    assert best(fused([np.array(ranking)], 12), 12).tolist() == list(ranking)


@given(st.permutations(range(9)), st.permutations(range(9)), st.integers(0, 9), st.integers(0, 9))
def test_fusion_is_the_sum_of_reciprocal_ranks(left, right, n_left, n_right):
    rankings = [np.array(left[:n_left], dtype=int), np.array(right[:n_right], dtype=int)]
    scores = fused(rankings, 9)
    for n in range(9):
        ranks = [r.tolist().index(n) + 1 for r in rankings if n in r]
        assert np.isclose(scores[n], sum(1 / (FUSION_K + rank) for rank in ranks))
    np.testing.assert_array_equal(scores, fused(rankings[::-1], 9))


@given(st.permutations(range(9)), st.permutations(range(9)))
def test_what_is_better_in_both_rankings_is_better_in_the_fusion(left, right):
    scores = fused([np.array(left), np.array(right)], 9)
    for a in range(9):
        for b in range(9):
            if left.index(a) < left.index(b) and right.index(a) < right.index(b):
                assert scores[a] > scores[b]


# ---- searching


@given(corpora, sentences, st.integers(0, 10), st.sampled_from(MODES))
def test_fewer_hits_are_the_first_of_more(word_embedder, texts, query, k, mode):
    index = index_of(texts, word_embedder())
    everything = index.search(query, 99, mode)
    assert index.search(query, k, mode) == everything[:k]
    assert len({hit.passage.passage_id for hit in everything}) == len(everything) <= len(texts)


@given(corpora, st.lists(words, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_the_words_of_a_query_does_not_matter(texts, asked, random):
    index = index_of(texts)
    shuffled = random.sample(asked, len(asked))
    assert index.search(" ".join(asked), 99) == index.search(" ".join(shuffled), 99)


@given(corpora, sentences)
def test_words_find_exactly_the_passages_that_hold_one(texts, query):
    index = index_of(texts)
    found = {hit.passage.passage_id for hit in index.search(query, 99, "bm25")}
    asked = set(query_terms(query))
    held = {p.passage_id for p in index.passages if asked & set(terms(p.searched))}
    assert found == held
    assert index.evidence(query).n_matching == len(held)


@given(corpora, sentences, st.data())
def test_evidence_agrees_with_the_search_and_stays_in_its_ranges(word_embedder, texts, query, data):
    index = index_of(texts, data.draw(st.sampled_from([None, word_embedder()])))
    seen = index.evidence(query)
    hits = index.search(query, 5, "bm25")
    assert seen.top_score == (hits[0].score if hits else 0.0)
    mean = sum(hit.score for hit in hits) / max(min(5, len(index.passages)), 1)
    assert np.isclose(seen.gap, seen.top_score - mean)
    assert 0 <= seen.coverage <= 1
    assert 0 <= seen.idf_coverage <= 1 + 1e-9
    assert seen.mean_idf >= 0
    assert -1.001 <= seen.top_cosine <= 1.001
    if index.dense and (near := index.search(query, 1, "dense")) and query_terms(query):
        assert np.isclose(seen.top_cosine, near[0].score)


@given(st.lists(st.lists(words, max_size=6), max_size=6), st.lists(words, max_size=4))
def test_a_passage_holds_what_it_was_built_from(corpus, asked):
    postings = Postings.build(corpus)
    for n, held in enumerate(corpus):
        assert postings.holds(n, asked).tolist() == [term in held for term in asked]


@given(corpora)
def test_ids_are_unique_and_the_same_every_time(texts):
    ids = [passage.passage_id for passage in index_of(texts).passages]
    assert ids == [passage.passage_id for passage in index_of(texts).passages]
    assert len(set(ids)) == len(ids)
