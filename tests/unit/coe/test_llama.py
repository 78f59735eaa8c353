"""What the adapter makes of the answers of llama.cpp's server: a real server on loopback."""

import asyncio
import json
import math

import pytest
from aiohttp import web

from coe.core import Message, Request
from coe.errors.experts import ExpertRejectedError, ExpertTimeoutError, ExpertUnavailableError
from coe.experts.continuation import Token
from coe.experts.hosted import EmbeddedExpert, HostedExpert
from coe.experts.mixed import MixedExpert
from coe.http.pool import Pool

MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
FILLER = 99
END = {"id": 0, "bytes": [], "prob": 0.3}


class Server:
    """Says "a", "b", "c" and ends; each token is its place's letter. Remembers what it was asked.

    ``mode``: ``well``; ``half`` is silent on a draw that is not forced; a number is a status;
    ``hang``, ``else`` and ``none`` answer nothing, something else, and no token ever.
    """

    def __init__(self):
        self.mode, self.bodies, self.keys = "well", [], []

    async def get(self, http):
        return web.json_response({"data": [{"meta": {"n_vocab": 100, "n_ctx": 64}}]})

    async def template(self, http):
        return web.json_response({"prompt": json.dumps((await http.json())["messages"])})

    async def tokens(self, http):
        text = (await http.json())["content"]
        return web.json_response({"tokens": [FILLER] if text == "~" else [1, 2, 3]})

    async def complete(self, http):
        body = await http.json()
        self.bodies.append(body)
        self.keys.append(http.headers.get("authorization"))
        if self.mode.isdecimal():
            return web.json_response({"error": "no"}, status=int(self.mode))
        if self.mode == "hang":
            await asyncio.sleep(60)
        if self.mode == "else":
            return web.json_response({"completion_probabilities": [{"top_probs": [{"id": 1}]}]})
        forced = "logit_bias" in body
        if self.mode == "none" or (self.mode == "half" and not forced):
            return web.json_response({"content": ""})
        return web.json_response({"completion_probabilities": [{"top_probs": self.rows(body)}]})

    def rows(self, body):
        place = len(body["prompt"]) - 3
        letter = {"id": 10 + place, "bytes": [97 + place], "prob": 0.6 if place < 3 else 0.1}
        rows = [letter, END, {"id": 50, "bytes": [122], "prob": 0.0}]
        if "logit_bias" in body:
            small = [{**row, "prob": row["prob"] * 1e-9} for row in rows]
            return [{"id": FILLER, "bytes": [126], "prob": 1.0}, *small]
        return rows


@pytest.fixture
def server():
    return Server()


@pytest.fixture
async def expert(server):
    app = web.Application()
    app.router.add_get("/v1/models", server.get)
    app.router.add_post("/apply-template", server.template)
    app.router.add_post("/tokenize", server.tokens)
    app.router.add_post("/completion", server.complete)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    async with Pool() as client:
        yield EmbeddedExpert(
            HostedExpert("up", client, lambda: url, 0.5, 0.5, api_key="k", keep_alive=False)
        )
    await runner.cleanup()


def ask(**payload):
    return Request((Message("user", "Hi"),), payload={"messages": MESSAGES, **payload})


async def expected(expert, *said, **payload):
    return await (await expert.continuation(ask(**payload))).expected(said)


async def test_a_place_is_the_logarithms_of_what_the_server_would_draw_from(expert, server):
    found = await expected(expert, Token(10, b"a"), presence_penalty=0.5)
    assert found == {Token(11, b"b"): math.log(0.6), Token(0, b""): math.log(0.3)}
    body = server.bodies[0]
    assert body["prompt"] == [1, 2, 3, 10]
    assert (body["presence_penalty"], body["n_predict"], body["temperature"]) == (0.5, 1, 1.0)
    assert server.keys == ["Bearer k"]


async def test_a_server_silent_on_half_a_character_is_asked_another_way(expert, server):
    server.mode = "half"
    found = await expected(expert)
    assert len(server.bodies) == 2
    assert found == pytest.approx(
        {Token(10, b"a"): math.log(2 / 3), Token(0, b""): math.log(1 / 3)}
    )


async def test_what_the_continuation_knows_of_the_server(expert):
    view = await expert.continuation(ask())
    assert (view.prompt_tokens, view.room_tokens, view.vocabulary.n_tokens) == (3, 61, 100)


async def test_a_mixture_of_one_writes_what_the_server_expects(expert):
    answer = MixedExpert("mix", {"up": expert}, {"up": 1.0}).stream(ask(), None)
    document = json.loads(b"".join([piece async for piece in answer]))
    assert document["choices"][0]["message"]["content"] == "abc"
    assert document["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        ("400", ExpertRejectedError), ("503", ExpertRejectedError), ("hang", ExpertTimeoutError),
        ("else", ExpertUnavailableError), ("none", ExpertUnavailableError),
    ],
)  # fmt: skip
async def test_a_server_in_trouble_is_an_error_of_the_expert(expert, server, mode, error):
    server.mode = mode
    with pytest.raises(error):
        await expected(expert)


async def test_an_engine_that_is_not_running_is_unavailable(expert):
    gone = EmbeddedExpert(HostedExpert("up", expert.engine.client, lambda: None))
    with pytest.raises(ExpertUnavailableError):
        await gone.continuation(ask())


async def test_a_server_without_these_paths_rejects(expert):
    engine = expert.engine
    other = HostedExpert("up", engine.client, lambda: f"{engine.address()}/nowhere")
    with pytest.raises(ExpertRejectedError):
        await EmbeddedExpert(other).continuation(ask())
