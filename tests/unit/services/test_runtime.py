"""What serves: an index that fits its router, searched by words while the endpoint is down."""

from dataclasses import replace

import httpx
import numpy as np
import pytest

from coe.config import DATA, RetrievalSection, load_config
from coe.errors.files import ArtefactError, ConfigError
from coe.ledger.limits import Limit
from coe.mode import Mode
from coe.optimizer.pacing import Allowance
from coe.routers.artefact import Artefact
from coe.routers.confidence import Confidence
from coe.routers.habit import Habit
from coe.routers.modes import LearnedModes, ModeTable
from coe.routers.retrieve import Index, Passage
from coe.services.draft import retriever_of
from coe.services.embedding import HttpEmbedder
from coe.services.prefetch import PrefetchedEmbedder
from coe.services.runtime import embedded_by, serving

PASSAGES = [Passage("p1", "code of engines", "a.md"), Passage("p2", "maths of roses", "b.md")]


@pytest.fixture
def section(tmp_path, word_embedder):
    Index.build(PASSAGES, word_embedder()).save(tmp_path / "index")
    return RetrievalSection(index=tmp_path / "index", k=3, passage_tokens=200, mode="dense")


def test_a_section_becomes_a_retriever(section, word_embedder):
    retriever = retriever_of(section, word_embedder())
    assert (retriever.k, retriever.passage_tokens, retriever.mode) == (3, 200, "dense")
    assert [c.passage_id for c in retriever.find("some code").citations] == ["p1"]


def test_without_a_section_nothing_retrieves(word_embedder):
    assert retriever_of(None, word_embedder()) is None


def test_an_index_that_is_absent_or_of_another_embedder_is_refused(section, word_embedder):
    with pytest.raises(ArtefactError, match="built with embedder 'words', not 'other'"):
        retriever_of(section, word_embedder(name="other"))
    with pytest.raises(ArtefactError, match="not a readable retrieval index"):
        retriever_of(section.model_copy(update={"index": section.index / "x"}), word_embedder())


CONFIGURED = f"""
artefact: {DATA / "artefact"}
budgets: {DATA / "budgets.yaml"}
devices: {{there: {{ttft_b_ms: 1, decode_tokens_per_s: 50, prefill_w: 0, decode_w: 0}}}}
experts: [{{id: smollm2-135m, kind: http, base_url: "http://127.0.0.1:9/v1", device: there}}]
"""


@pytest.mark.parametrize(
    ("section", "routing"),
    [
        ("", ("sticky", 0.03, 1, 1.0)),
        ("routing: {turns: last, switch_margin: 0}", ("last", 0.0, 1, 1.0)),
        ("routing: {most_experts: 3, top_p: 0.8}", ("sticky", 0.03, 3, 0.8)),
    ],
)
async def test_routing_is_as_configured(tmp_path, section, routing):
    (tmp_path / "coe.yaml").write_text(CONFIGURED + section)
    async with serving(load_config(tmp_path / "coe.yaml")) as runtime:
        router = runtime.engine.router
        found = (router.turns, router.switch_margin, router.most_experts, router.top_p)
        assert found == routing


async def test_hard_limits_are_kept_as_configured(tmp_path):
    (tmp_path / "coe.yaml").write_text(CONFIGURED)
    async with serving(load_config(tmp_path / "coe.yaml")) as runtime:
        assert runtime.engine.store is None
    own = CONFIGURED.replace(f"{DATA / 'budgets.yaml'}", "own.yaml")
    (tmp_path / "coe.yaml").write_text(own + "store: {kind: sqlite, path: state/ledger.sqlite}\n")
    (tmp_path / "own.yaml").write_text(
        "policies: {default: {}}\nlimits: {day: {scope: global, window_s: 86400, requests: 5}}\n"
    )
    async with serving(load_config(tmp_path / "coe.yaml")) as runtime:
        assert runtime.engine.store.books.ledger.limits == (
            Limit("day", "global", 86400, requests=5),
        )
        assert (tmp_path / "state" / "ledger.sqlite").exists()


async def test_budgets_over_time_are_paced_as_configured(tmp_path):
    (tmp_path / "coe.yaml").write_text(CONFIGURED)
    async with serving(load_config(tmp_path / "coe.yaml")) as runtime:
        assert runtime.engine.pacer is None
    (tmp_path / "coe.yaml").write_text(CONFIGURED.replace(f"{DATA / 'budgets.yaml'}", "own.yaml"))
    (tmp_path / "own.yaml").write_text(
        "policies: {default: {}}\nperiods: {day: {window_s: 86400, energy_j: 500}}\n"
    )
    async with serving(load_config(tmp_path / "coe.yaml")) as runtime:
        assert runtime.engine.pacer.allowances == (Allowance("energy_j", 500, 86400, name="day"),)
        assert runtime.engine.pacer.left(runtime.engine.now()) == (500,)


async def test_escalations_are_bounded_as_configured(tmp_path, clock):
    (tmp_path / "coe.yaml").write_text(CONFIGURED)
    async with serving(load_config(tmp_path / "coe.yaml")) as runtime:
        assert runtime.engine.escalations is None
    bounds = "routing: {escalations: {per_minute: 6, burst: 2}}"
    (tmp_path / "coe.yaml").write_text(CONFIGURED + bounds)
    async with serving(load_config(tmp_path / "coe.yaml"), now=clock) as runtime:
        escalations = runtime.engine.escalations
        assert [escalations.take("a") for _ in range(3)] == [True, True, False]
        await clock.sleep(10.0)
        assert escalations.take("a")


async def test_answers_are_weighed_as_the_artefact_has_learned(tmp_path):
    shipped = Artefact.load(DATA / "artefact")
    names = shipped.expectation.expert_ids
    shape = (len(shipped.expectation.categories), len(names))
    table = ModeTable(
        shipped.expectation.categories,
        names,
        tuple(map(Mode.single, names)),
        quality=np.full(shape, 0.5),
        quality_se=np.zeros(shape),
        usage=np.tile(np.eye(len(names)), (shape[0], 1, 1)),
        reach=np.ones((*shape, 1)),
    )
    learned = LearnedModes(
        table, Confidence(np.arange(7.0), 0.5), 3.5, {names[0]: Habit(-0.5, 0.25)}
    )
    replace(shipped, modes=learned).save(tmp_path / "artefact")
    own = CONFIGURED.replace(f"{DATA / 'artefact'}", "artefact")
    (tmp_path / "coe.yaml").write_text(own)
    async with serving(load_config(tmp_path / "coe.yaml")) as runtime:
        assert runtime.engine.n_options == 3.5
        np.testing.assert_array_equal(runtime.engine.confidence.coef, np.arange(7.0))
        assert runtime.engine.confidence.intercept == 0.5
        assert runtime.engine.habits == {names[0]: Habit(-0.5, 0.25)}


def test_dense_needs_vectors(section, word_embedder):
    Index.build(PASSAGES).save(section.index)
    with pytest.raises(ConfigError, match=r"retrieval\.mode: .* has no vectors"):
        retriever_of(section, word_embedder())


@pytest.mark.parametrize("mode", ["hybrid", "dense"])
async def test_while_the_endpoint_is_down_words_are_searched(
    tmp_path, make_router, make_spec, mortal_embedding_server, mode
):
    server = mortal_embedding_server
    endpoint = HttpEmbedder(server.url, "words", server.dim)
    Index.build(PASSAGES, endpoint).save(tmp_path / "index")
    retriever = retriever_of(RetrievalSection(index=tmp_path / "index", mode=mode), endpoint)
    router = replace(make_router([make_spec("a")], [[0.5]] * 3), retriever=retriever)
    server.stop()
    async with httpx.AsyncClient() as client:
        prefetched = PrefetchedEmbedder(endpoint, client)
        served = embedded_by(prefetched, router)
        await prefetched.warm(["roses?"])
        assert served.embedder is prefetched
        assert [c.passage_id for c in served.retriever.find("roses?").citations] == ["p2"]


async def test_a_canned_answer_for_a_category_that_there_is_not_is_remarked_on(tmp_path):
    (tmp_path / "coe.yaml").write_text(
        "experts: [{id: faq, kind: constant, answers: [{text: x, categories: [maths, cooking]}]}]"
    )
    config = load_config(tmp_path / "coe.yaml").model_copy(update={"artefact": DATA / "artefact"})
    said = []
    async with serving(config, said.append) as runtime:
        assert runtime.engine.cache is None
    assert [line for line in said if "cooking" in line] == said
    assert said[0].startswith("expert faq: no prompt is of category cooking, only ")
