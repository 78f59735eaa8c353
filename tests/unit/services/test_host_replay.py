"""Recorded answers over HTTP are those of the expert in this process, byte for byte."""

import asyncio
import json
from dataclasses import replace

import httpx
import pytest

from coe.core import Message, Request
from coe.experts.replay import Recorded, ReplayExpert, prompt_key
from coe.routers.passages import Quoted, quote, with_passages
from coe.routers.retrieve import Hit, Passage
from coe.services.host.replay import Served, as_asked

ANSWERS = {"What is 2 + 2?": "It is four,\nas ever. ", "Say nothing": "", "Ünïcode": "naïve … ok"}


@pytest.fixture
def expert(make_spec):
    answers = {prompt_key(prompt): Recorded(answer) for prompt, answer in ANSWERS.items()}
    return ReplayExpert(make_spec("r"), answers, time_scale=0)


def client(expert, key=None):
    transport = httpx.ASGITransport(Served(expert, "r", key).app())
    return httpx.AsyncClient(transport=transport, base_url="http://r")


def body(prompt, **more):
    return {"model": "r", "messages": [{"role": "user", "content": prompt}], **more}


async def said(expert, prompt, stream, max_tokens):
    request = Request(messages=(Message("user", prompt),), stream=stream)
    return b"".join([piece async for piece in expert.stream(request, max_tokens)])


@pytest.mark.parametrize("prompt", ANSWERS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("max_tokens", [None, 1, 100])
async def test_answers_are_byte_for_byte_the_experts(expert, prompt, stream, max_tokens):
    more = {} if max_tokens is None else {"max_tokens": max_tokens}
    async with client(expert) as http:
        answer = await http.post("/v1/chat/completions", json=body(prompt, stream=stream, **more))
    assert answer.status_code == 200
    assert answer.content == await said(expert, prompt, stream, max_tokens)
    expected = "text/event-stream" if stream else "application/json"
    assert answer.headers["content-type"].startswith(expected)


async def test_what_was_not_recorded_and_what_is_wrong_is_refused(expert):
    async with client(expert) as http:
        url = "/v1/chat/completions"
        unknown = await http.post(url, json=body("Nobody asked this", stream=True))
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_recorded")
        wrong = await http.post(url, content=b"{")
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_json")


async def test_everything_but_health_asks_for_the_key(expert):
    async with client(expert, key="secret") as http:
        assert (await http.get("/health")).status_code == 200
        for path in ("/metrics", "/v1/models"):
            assert (await http.get(path)).status_code == 401
        refused = await http.post("/v1/chat/completions", json=body("Say nothing"))
        assert refused.status_code == 401
        http.headers["authorization"] = "Bearer secret"
        answered = await http.post("/v1/chat/completions", json=body("Say nothing"))
        assert answered.status_code == 200
        assert (await http.get("/v1/models")).json()["data"][0]["id"] == "r"


async def test_what_runs_is_counted_until_it_ends(expert):
    waiting, go_on = asyncio.Event(), asyncio.Event()

    async def wait(seconds):
        waiting.set()
        await go_on.wait()

    paced = replace(expert, time_scale=1.0, sleep=wait)
    async with client(paced) as http:
        asking = asyncio.create_task(
            http.post("/v1/chat/completions", json=body("What is 2 + 2?", stream=True))
        )
        async with asyncio.timeout(5.0):
            await waiting.wait()
        assert "processing 1\n" in (await http.get("/metrics")).text
        go_on.set()
        await asking
        page = (await http.get("/metrics")).text
    n_tokens = json.loads(await said(expert, "What is 2 + 2?", False, None))["usage"]
    assert "processing 0\n" in page
    assert f"predicted_total {n_tokens['completion_tokens']}\n" in page


def test_passages_that_came_along_do_not_count_as_the_prompt():
    hits = [Hit(Passage("p", "Some text.", "d.txt", "A title"), 1.0, 1)]
    quoted = quote(hits, 500, "nonce")
    assert isinstance(quoted, Quoted)
    bare = {"messages": [{"role": "user", "content": "Who?"}]}
    sent = with_passages(Request(messages=(Message("user", "Who?"),), payload=bare), quoted)
    wire = sent.payload["messages"]
    arrived = Request(messages=tuple(Message(m["role"], m["content"]) for m in wire))
    asked = as_asked(arrived)
    assert asked.text == sent.text == "Who?"
    assert asked.prompt_tokens == sent.prompt_tokens
