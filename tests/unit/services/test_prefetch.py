"""An endpoint's vectors while serving: no decision waits, and none fails, for the endpoint."""

import asyncio

import httpx
import numpy as np
import pytest

from coe.errors.gateway import EmbeddingError, EmbeddingUnavailableError
from coe.services.embedding import HttpEmbedder
from coe.services.prefetch import PrefetchedEmbedder, prefetching

GONE = EmbeddingUnavailableError("embedder.base_url: nobody there")
WRONG = EmbeddingError("embedder.max_chars: too long")
PAUSE_S = 5.0


class Endpoint:
    """Fetches the length of a text, or fails as it is told to."""

    name, dim = "http-lengths-1", 1

    def __init__(self):
        self.asked = []
        self.error = None
        self.entered, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()

    async def fetch(self, client, texts):
        self.asked += texts
        self.entered.set()
        await self.open.wait()
        if self.error:
            raise self.error
        return {text: np.array([len(text)], dtype=np.float32) for text in texts if text.strip()}


@pytest.fixture
def endpoint():
    return Endpoint()


@pytest.fixture
def said():
    return []


@pytest.fixture
def embedder(endpoint, said, clock):
    return PrefetchedEmbedder(endpoint, None, said.append, PAUSE_S, clock)


def embedded(embedder, text):
    return embedder.embed([text])[0].tolist()


async def test_what_was_warmed_is_known_and_the_rest_is_zero(embedder, endpoint):
    await embedder.warm(["four"])
    assert embedder.embed(["four", "three"]).tolist() == [[4.0], [0.0]]
    assert embedder.embed([]).shape == (0, 1)
    assert (embedder.name, embedder.dim) == (endpoint.name, endpoint.dim)


async def test_a_text_is_fetched_once(embedder, endpoint):
    for texts in (["a"], ["a", "b"], ["b"]):
        await embedder.warm(texts)
    assert endpoint.asked == ["a", "b"]


async def test_an_endpoint_that_is_gone_is_left_alone_for_a_while(embedder, endpoint, said, clock):
    endpoint.error = GONE
    for text in ("a", "b", "c"):
        await embedder.warm([text])
        assert embedded(embedder, text) == [0.0]
    assert endpoint.asked == ["a"]
    assert len(said) == 1
    assert "nobody there" in said[0]
    assert "unknown" in said[0]
    await clock.sleep(PAUSE_S)
    await embedder.warm(["d"])
    await embedder.warm(["e"])
    assert endpoint.asked == ["a", "d"]


async def test_what_was_known_stays_known_while_the_endpoint_is_gone(embedder, endpoint):
    await embedder.warm(["four"])
    endpoint.error = GONE
    await embedder.warm(["other"])
    await embedder.warm(["four"])
    assert embedded(embedder, "four") == [4.0]


async def test_a_prompt_that_failed_is_fetched_when_the_endpoint_is_back(
    embedder, endpoint, said, clock
):
    endpoint.error = GONE
    await embedder.warm(["four"])
    endpoint.error = None
    await clock.sleep(PAUSE_S)
    await embedder.warm(["four"])
    await embedder.warm(["three"])
    assert embedder.embed(["four", "three"]).tolist() == [[4.0], [5.0]]
    assert said[-1] == "embedder: the endpoint answers again"


async def test_only_one_prompt_tries_whether_the_endpoint_is_back(embedder, endpoint, clock):
    endpoint.error = GONE
    await embedder.warm(["a"])
    await clock.sleep(PAUSE_S)
    endpoint.open.clear()
    endpoint.entered.clear()
    trying = asyncio.create_task(embedder.warm(["b"]))
    await endpoint.entered.wait()
    # comes back although "b" is still waiting
    await embedder.warm(["c"])
    endpoint.open.set()
    await trying
    assert endpoint.asked == ["a", "b"]


async def test_a_caller_that_leaves_while_trying_does_not_close_the_door(embedder, endpoint, clock):
    endpoint.error = GONE
    await embedder.warm(["a"])
    await clock.sleep(PAUSE_S)
    endpoint.open.clear()
    endpoint.entered.clear()
    trying = asyncio.create_task(embedder.warm(["b"]))
    await endpoint.entered.wait()
    trying.cancel()
    await asyncio.gather(trying, return_exceptions=True)
    endpoint.open.set()
    endpoint.error = None
    await clock.sleep(PAUSE_S)
    await embedder.warm(["c"])
    assert embedded(embedder, "c") == [1.0]


async def test_a_refused_prompt_is_unknown_and_the_others_are_still_embedded(
    embedder, endpoint, said
):
    endpoint.error = WRONG
    await embedder.warm(["long"])
    await embedder.warm(["longer"])
    assert endpoint.asked == ["long", "longer"]
    assert len(said) == 1
    endpoint.error = None
    await embedder.warm(["short"])
    assert embedder.embed(["long", "short"]).tolist() == [[0.0], [5.0]]


async def test_a_real_endpoint_is_asked_for_what_is_missing_and_then_missed(
    mortal_embedding_server, said
):
    server = mortal_embedding_server
    inner = HttpEmbedder(server.url, "words", server.dim)
    async with prefetching(inner, said.append) as embedder:
        await embedder.warm(["write code"])
        await embedder.warm(["write code", ""])
        await asyncio.to_thread(server.stop)
        await embedder.warm(["solve maths"])
        found = embedder.embed(["write code", "solve maths"])
        np.testing.assert_array_equal(found[:1], inner_vector(server, "write code"))
        assert not found[1].any()
    assert [body["input"] for body in server.bodies] == [["write code"]]
    assert len(said) == 1
    assert "embedder.base_url" in said[0]


async def test_a_real_endpoint_that_is_silent_is_not_waited_for_long(embedding_server, said):
    embedding_server.plan = ["hang"]
    inner = HttpEmbedder(embedding_server.url, "words", embedding_server.dim, timeout_s=0.1)
    async with httpx.AsyncClient() as client:
        embedder = PrefetchedEmbedder(inner, client, said.append)
        await embedder.warm(["write code"])
        await embedder.warm(["solve maths"])
    assert not embedder.embed(["write code", "solve maths"]).any()
    assert len(embedding_server.bodies) == 1
    assert "embedder.timeout_s" in said[0]


def inner_vector(server, text):
    vector = np.array([server.vector(text)])
    return (vector / np.linalg.norm(vector)).astype(np.float32)
