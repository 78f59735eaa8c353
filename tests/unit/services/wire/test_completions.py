"""A prompt completed, texts embedded: the older interface and the vectors, as clients see them."""

import base64
import json
from dataclasses import replace

import httpx
import numpy as np
import openai
import pytest

from coe.answer import DONE
from coe.errors.experts import ExpertUnavailableError
from coe.errors.gateway import EmbeddingUnavailableError
from coe.experts.stub import StubExpert
from coe.services.wire.completions import retold

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
TOKENS = ["two ", "lines\n", "data: [DONE]\n\n", "\u2028"]


@pytest.fixture
def stubs():
    return {name: StubExpert(name, tokens=TOKENS) for name in (SMALL, LARGE)}


@pytest.fixture
def client(gateway):
    transport = httpx.ASGITransport(gateway.app(), raise_app_exceptions=False)
    http = httpx.AsyncClient(transport=transport, base_url="http://gateway/v1")
    return openai.AsyncOpenAI(
        base_url="http://gateway/v1", api_key="unused", max_retries=0, http_client=http
    )


@pytest.mark.parametrize("prompt", ["What is 17 * 6?", ["What is 17 * 6?"]])
async def test_a_prompt_is_asked_as_a_message_and_answered_as_a_text(client, stubs, prompt):
    answer = await client.completions.create(model="auto", prompt=prompt, max_tokens=9)
    assert answer.object == "text_completion"
    assert answer.choices[0].text == "".join(TOKENS)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model_extra["coe"]["category"] == "maths"
    (request,) = stubs[answer.model].requests
    assert request.payload == {
        "messages": [{"role": "user", "content": "What is 17 * 6?"}],
        "max_tokens": 9,
    }


async def test_a_stream_says_the_same(client):
    stream = await client.completions.create(model=SMALL, prompt="Hi", stream=True)
    chunks = [chunk async for chunk in stream]
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert "".join(chunk.choices[0].text for chunk in chunks) == "".join(TOKENS)
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_a_stream_that_breaks_off_says_so(client, stubs):
    stubs[SMALL].error, stubs[SMALL].error_after = ExpertUnavailableError(SMALL, "gone"), 2
    stream = await client.completions.create(model=SMALL, prompt="Hi", stream=True)
    with pytest.raises(openai.APIError, match="gone"):
        async for _ in stream:
            pass


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_it_does_not_matter_how_a_stream_is_cut(size):
    event = {
        "object": "chat.completion.chunk",
        "choices": [{"index": 0, "delta": {"content": "a"}}],
    }
    whole = f": waiting\n\ndata: {json.dumps(event)}\n\n".encode() + DONE + b"data: {broken"

    async def pieces():
        for start in range(0, len(whole), size):
            yield whole[start : start + size]

    told = b"".join([piece async for piece in retold(pieces())])
    first, second, *rest = told.split(b"\n\n")
    assert first == b": waiting"
    assert json.loads(second.removeprefix(b"data: "))["choices"][0]["text"] == "a"
    assert b"\n\n".join(rest) == DONE + b"data: {broken"


async def test_who_leaves_a_stream_of_completions_ends_the_answer(gateway, stubs):
    closed = []

    async def pieces():
        try:
            yield b"data: {}\n\n"
            yield b"data: {}\n\n"
        finally:
            closed.append(True)

    told = retold(pieces())
    await anext(told)
    await told.aclose()
    assert closed == [True]


@pytest.mark.parametrize("encoding", [openai.NOT_GIVEN, "float", "base64"])
async def test_texts_become_the_vectors_that_the_router_reads(client, gateway, encoding):
    embedder, texts = gateway.runtime.engine.router.embedder, ["Hello", "What is 17 * 6?"]
    answer = await client.embeddings.create(
        model=embedder.name, input=texts, encoding_format=encoding
    )
    found = [row.embedding for row in answer.data]
    if encoding == "base64":
        found = [np.frombuffer(base64.b64decode(v), dtype="<f4") for v in found]
    np.testing.assert_array_equal(np.array(found, dtype=np.float32), embedder.embed(texts))
    assert [row.index for row in answer.data] == [0, 1]
    assert answer.usage.total_tokens > 0


async def test_the_embedder_is_a_model_like_any_other(client, gateway):
    name = gateway.runtime.engine.router.embedder.name
    assert (await client.models.retrieve(name)).id == name
    assert name in [model.id async for model in client.models.list()]


class Unreachable:
    """An embedder whose endpoint is not there."""

    name, dim = "far", 3

    def embed(self, texts):
        raise EmbeddingUnavailableError("http://10.0.0.1/v1: connection refused")


async def test_an_endpoint_that_is_down_is_said_without_its_address(client, gateway):
    gateway.runtime = replace(gateway.runtime, embedder=Unreachable())
    with pytest.raises(openai.InternalServerError) as raised:
        await client.embeddings.create(model="far", input="a")
    assert (raised.value.status_code, raised.value.code) == (503, "embedder_unavailable")
    assert "10.0.0.1" not in str(raised.value)
