"""Passages of a real index, a real engine and the real OpenAI client."""

import httpx
import pytest

from coe.config import RetrievalSection
from coe.routers.chunk import passages_of
from coe.routers.embed import MEANING_DIM, load_default
from coe.routers.retrieve import Index
from coe.services.documents import read_documents

EXPERT = "qwen2.5-coder-0.5b"
QUESTION = "When was the Zarbon engine built, and by whom?"
DOCUMENTS = {
    "engines.md": "# Engines\n\nThe Zarbon engine was built in 1873 by Ilse Kettering.\n",
    "bridges.txt": "The bridge over the Lorn was opened in 1902.\n",
    "gardens.html": "<title>Gardens</title><p>Roses want sun, and water in the evening.</p>",
}
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    documents = tmp_path_factory.mktemp("documents")
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text)
    passages = list(passages_of(read_documents(documents).documents))
    index = tmp_path_factory.mktemp("index") / "zarbon.index"
    Index.build(passages, load_default(), MEANING_DIM).save(index)
    return index


@pytest.fixture(scope="module")
def gateway(embedded_config, serve, folder):
    experts = [section for section in embedded_config.experts if section.id == EXPERT]
    retrieval = RetrievalSection(index=folder, k=1, passage_tokens=256)
    with serve(
        embedded_config.model_copy(update={"experts": experts, "retrieval": retrieval})
    ) as running:
        yield running


def ask(gateway, retrieve, **more):
    return gateway.client.chat.completions.create(
        model=EXPERT,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=24,
        temperature=0,
        extra_body={"coe": {"retrieve": retrieve}},
        **more,
    )


def test_a_whole_answer_knows_the_passage_and_cites_it(gateway):
    answer, without = ask(gateway, "always"), ask(gateway, "never")
    extras = answer.model_extra["coe"]
    (cited,) = extras["citations"]
    assert (cited["n"], cited["source"], cited["title"]) == (1, "engines.md", "Engines")
    assert extras["retrieval"]["retrieve"]
    said, unaided = (a.choices[0].message.content for a in (answer, without))
    assert "Kettering" in said
    assert "Kettering" not in unaided
    grown = extras["receipt"]["prompt_tokens"] - without.usage.prompt_tokens
    assert 50 < grown <= 256
    assert "citations" not in without.model_extra["coe"]


def test_a_stream_ends_with_its_citations(gateway):
    chunks = list(ask(gateway, "always", stream=True))
    (extras,) = [c.model_extra["coe"] for c in chunks if "coe" in c.model_extra]
    assert chunks[-1].model_extra["coe"] == extras
    assert chunks[-1].choices == []
    assert [cited["source"] for cited in extras["citations"]] == ["engines.md"]
    said = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert "Kettering" in said
    receipt = gateway.receipt(extras["decision_id"])
    assert receipt["outcome"] == "complete"
    assert receipt["prompt_tokens"] > 90


def test_never_leaves_the_stream_alone(gateway):
    chunks = list(ask(gateway, "never", stream=True))
    assert not [c for c in chunks if "coe" in c.model_extra]
    assert all(c.choices for c in chunks)


def test_auto_says_why_it_does_not_retrieve(gateway):
    body = {"model": "auto", "messages": [{"role": "user", "content": QUESTION}]}
    decision = httpx.post(f"{gateway.url}/v1/route", json=body, timeout=30).json()
    assert decision["retrieval"]["retrieve"] is False
    assert "no gate" in decision["why"]
