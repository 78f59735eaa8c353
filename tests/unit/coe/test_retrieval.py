"""Whether passages go with a prompt: gain against price, ceilings, context, and what was asked."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coe.core import Budget, ExpertSpec, Message, Policy, Prices, Request
from coe.device import DeviceProfile
from coe.errors.callers import InfeasibleError, RequestError
from coe.retrieval import Retriever
from coe.routers.gate import RetrievalGate, column_names
from coe.routers.passages import LEAST_PRICE
from coe.routers.retrieve import Index, Passage

PASSAGES = [
    Passage("p1", "The Zarbon engine was built by Ilse Kettering.", "engines.md", "Engines"),
    Passage("p2", "Some code for an engine.", "code.md", "", 0, 2),
]
POLICY = Policy("p")
QUESTION = "some code of the Zarbon engine"


def gate_of(gain, dim=3):
    """A gate that expects this gain of everything."""
    d = len(column_names(dim)) + 1
    shares = np.array([0.0, 0.05 + max(gain, 0.0), 0.05 + max(-gain, 0.0), 0.05])
    shares[0] = 1.0 - shares.sum()
    return RetrievalGate(np.zeros(d), np.zeros((4, d)), np.log(shares))


def spec_of(name, prefill_ms=1.0, context_tokens=4096, usd_in=0.0):
    profile = DeviceProfile(name, 0.0, prefill_ms, 10.0, 100.0, 20.0, 10.0)
    return ExpertSpec(
        name, profile, context_tokens=context_tokens, usd_per_mtok_in=usd_in, slots=10
    )


@pytest.fixture(scope="session")
def index():
    return Index.build(PASSAGES)


@pytest.fixture(scope="session")
def build(make_router, index):
    """A router over "good" and "fair" whose gate expects a gain."""

    def made(gain=0.3, specs=None, **settings):
        specs = specs or [spec_of("good"), spec_of("fair")]
        qualities = [[0.9, 0.6][: len(specs)]] * 3
        router = make_router(specs, qualities)
        gate = None if gain is None else gate_of(gain)
        retriever = Retriever(index, mode="bm25", new_nonce=lambda: "7f3a91", **settings)
        return replace(router, artefact=replace(router.artefact, gate=gate), retriever=retriever)

    return made


def ask(retrieve="auto", policy=POLICY, text=QUESTION, **fields):
    payload = {"messages": [{"role": "user", "content": text}]}
    return Request((Message("user", text),), policy, retrieve=retrieve, payload=payload, **fields)


def test_passages_worth_their_price_go_with_the_prompt_and_are_counted(build):
    router = build()
    decision, outgoing = router.dispatch(ask())
    plain = router.decide(ask("never"))
    assert decision.retrieval.retrieve
    assert decision.retrieval.gain == pytest.approx(0.3)
    assert [c.passage_id for c in decision.retrieval.citations] == ["p2", "p1"]
    assert [c.n for c in decision.retrieval.citations] == [1, 2]
    assert len(outgoing.payload["messages"]) == 2
    assert "Ilse Kettering" in outgoing.payload["messages"][0]["content"]
    longer_ms = outgoing.prompt_tokens - ask().prompt_tokens  # a millisecond a token
    assert decision.predicted.ttft_ms == pytest.approx(plain.predicted.ttft_ms + longer_ms)
    assert decision.predicted.energy_j > plain.predicted.energy_j
    assert "2 passages retrieved" in decision.why


def test_what_was_retrieved_is_no_part_of_what_the_router_reads(build):
    router = build()
    decision, outgoing = router.dispatch(ask())
    assert outgoing.text == ask().text
    assert decision.category == router.decide(ask("never")).category


@pytest.mark.parametrize("gain", [0.0, -0.2, LEAST_PRICE / 2])
def test_a_gain_of_nothing_never_retrieves(build, gain):
    decision, outgoing = build(gain).dispatch(ask())
    assert not decision.retrieval.retrieve
    assert decision.retrieval.citations == ()
    assert outgoing == ask()
    assert "not worth" in decision.why


def test_never_and_always_override_the_gate(build):
    assert not build(0.6).decide(ask("never")).retrieval.retrieve
    always = build(-0.6).decide(ask("always")).retrieval
    assert always.retrieve
    assert always.gain == pytest.approx(-0.6)


def test_without_gate_or_index_auto_retrieves_nothing_and_says_so(build):
    assert "no gate" in build(None).decide(ask()).retrieval.why
    bare = replace(build(), retriever=None)
    decision = bare.decide(ask())
    assert "no index" in decision.retrieval.why
    assert "index" not in decision.why


def test_always_without_an_index_is_refused(build):
    with pytest.raises(RequestError, match="no index is configured") as caught:
        replace(build(), retriever=None).decide(ask("always"))
    assert caught.value.param == "coe.retrieve"


@pytest.mark.parametrize("retrieve", ["auto", "always"])
def test_what_finds_nothing_retrieves_nothing(build, retrieve):
    decision, outgoing = build().dispatch(ask(retrieve, text="quux"))
    assert "none found" in decision.retrieval.why
    assert outgoing.passages_tokens == 0


def test_always_without_a_gate_knows_no_gain(build):
    retrieval = build(None).decide(ask("always")).retrieval
    assert (retrieval.retrieve, retrieval.gain) == (True, None)
    assert retrieval.price >= LEAST_PRICE


@pytest.fixture(scope="session")
def between(build):
    """A ceiling on the time to the first token that holds without passages only."""
    router = build()
    least, most = (router.decide(ask(r)).predicted.ttft_ms for r in ("never", "always"))
    return (least + most) / 2


def test_passages_that_break_a_ceiling_are_left_out_or_refused(build, between):
    router, budget = build(), Budget(ttft_ms=between)
    decision = router.decide(ask(budget=budget))
    assert not decision.retrieval.retrieve
    assert decision.slack["ttft_ms"] >= 0
    with pytest.raises(InfeasibleError):
        router.decide(ask("always", budget=budget))


def test_nearest_does_not_exceed_a_ceiling_for_passages(build, between):
    policy = Policy("near", on_infeasible="nearest")
    router, budget = build(), Budget(ttft_ms=between)
    assert not router.decide(ask(policy=policy, budget=budget)).retrieval.retrieve
    decision = router.decide(ask("always", policy, budget=budget))
    assert (decision.retrieval.retrieve, decision.status) == (True, "nearest")


def test_auto_does_not_change_the_expert_for_passages(build, between):
    router = build(specs=[spec_of("good"), spec_of("fair", prefill_ms=0.0)])
    budget = Budget(ttft_ms=between)
    assert router.decide(ask(budget=budget)).expert_id == "good"
    assert router.decide(ask("always", budget=budget)).expert_id == "fair"


@pytest.mark.parametrize("context_tokens", [150, 240])
def test_passages_and_an_answer_must_fit_the_context(build, context_tokens):
    router = build(specs=[spec_of("good", context_tokens=context_tokens)])
    assert not router.decide(ask()).retrieval.retrieve


def test_always_beyond_every_context_is_refused(build):
    router = build(specs=[spec_of("good", context_tokens=150)])
    with pytest.raises(InfeasibleError, match="context"):
        router.decide(ask("always"))


def test_an_expert_that_the_artefact_does_not_know_may_get_passages(build):
    router = build()
    router = replace(router, specs={**router.specs, "new": spec_of("new")})
    assert router.decide(ask(pinned="new")).retrieval.retrieve


def test_dense_that_finds_nothing_searches_by_words(build, word_embedder):
    # like an endpoint that is down: it knows nothing of any text
    index = Index.build(PASSAGES, word_embedder(words=("nothing",)))
    assert Retriever(index, mode="dense").find(QUESTION) is not None


prices = st.floats(0, 10)


@given(st.floats(-0.5, 0.5), prices, prices, prices, prices)
def test_a_higher_price_never_retrieves_more(build, gain, second, joule, usd, more):
    router = build(gain, specs=[spec_of("good", usd_in=5.0)])

    def retrieves(extra):
        policy = Policy("p", prices=Prices(second + extra, joule + extra, usd + extra))
        return router.decide(ask(policy=policy)).retrieval.retrieve

    assert retrieves(0.0) >= retrieves(more)


@given(st.floats(-0.6, 0.6), prices)
def test_passages_are_worth_their_price_or_absent(build, gain, per_joule):
    router = build(gain)
    retrieval = router.decide(ask(policy=Policy("p", prices=Prices(per_joule=per_joule)))).retrieval
    assert retrieval.price >= LEAST_PRICE
    assert retrieval.retrieve == (retrieval.gain > retrieval.price)
