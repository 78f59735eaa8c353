"""Real engines that write an answer together."""

import asyncio
import json

import pytest

from coe.core import Message, Request
from coe.errors.experts import ExpertUnavailableError
from coe.experts.hosted import EmbeddedExpert, HostedExpert
from coe.experts.mixed import MixedExpert, Spent
from coe.http.pool import Pool

SMALL, LARGE = "smollm2-135m", "qwen2.5-coder-0.5b"
pytestmark = pytest.mark.engine
CAP = 24
SPAIN, CHINESE = "What is the capital of Spain?", "Say good evening in Chinese."


def ask(text, **payload):
    body = {"messages": [{"role": "user", "content": text}], **payload}
    return Request((Message("user", text),), payload=body)


@pytest.fixture
def experts(gateway):
    """The embedded experts by id, and a way to let one or several answer, in a loop of ours."""
    hosts = gateway.runtime.fleet.hosts

    def answers(ask_them):
        async def run():
            async with Pool() as client:
                mine = {
                    name: EmbeddedExpert(
                        HostedExpert(name, client, lambda h=host: h.address, keep_alive=False)
                    )
                    for name, host in hosts.items()
                }
                return await ask_them(mine)

        return asyncio.run(run())

    return answers


async def document(expert, request):
    return json.loads(b"".join([piece async for piece in expert.stream(request, CAP)]))


@pytest.mark.parametrize(("name", "text"), [(SMALL, SPAIN), (LARGE, SPAIN), (LARGE, CHINESE)])
def test_a_mixture_of_one_says_what_its_engine_says(experts, name, text):
    """Penalties, template, end and half characters included."""

    async def both(mine):
        # what a cached prefix was read with decides near-ties: read it once before
        await document(mine[name], ask(text))
        alone = await document(mine[name], ask(text))
        mixed = await document(MixedExpert("mix", {name: mine[name]}, {name: 1.0}), ask(text))
        return alone, mixed

    alone, mixed = experts(both)
    assert mixed["choices"][0]["finish_reason"] == alone["choices"][0]["finish_reason"]
    assert mixed["usage"]["prompt_tokens"] == alone["usage"]["prompt_tokens"]
    assert mixed["choices"][0]["message"]["content"] == alone["choices"][0]["message"]["content"]
    assert mixed["usage"]["completion_tokens"] == alone["usage"]["completion_tokens"]


def test_two_views_of_one_vocabulary_write_one_answer(experts):
    class Told:
        """An expert that is told to say something else."""

        def __init__(self, expert):
            self.expert = expert

        async def continuation(self, request):
            return await self.expert.continuation(ask("Count from 1 to 20."))

    async def two(mine):
        members = {"plain": mine[LARGE], "told": Told(mine[LARGE])}
        weighted = [{"plain": 1.0, "told": 9.0}, {"plain": 1.0, "told": 0.001}]
        asked = ask(SPAIN)
        found = []
        for weights in weighted:
            answer = MixedExpert("mix", members, weights).stream(asked, CAP)
            whole = json.loads(b"".join([piece async for piece in answer]))
            found.append((whole, answer.spent))
        return found, await document(mine[LARGE], asked)

    (told, plain), alone = experts(two)
    assert "1, 2, 3" in told[0]["choices"][0]["message"]["content"].replace("\n", ", ")
    plain_text = plain[0]["choices"][0]["message"]["content"]
    assert plain_text == alone["choices"][0]["message"]["content"]
    n_tokens = told[0]["usage"]["completion_tokens"]
    assert {spent.output_tokens for spent in told[1].values()} == {n_tokens}
    assert told[1]["plain"] == Spent(alone["usage"]["prompt_tokens"], n_tokens)


def test_experts_of_two_vocabularies_are_not_mixed(experts):
    async def both(mine):
        return await document(MixedExpert("mix", mine, dict.fromkeys(mine, 1.0)), ask("Hi"))

    with pytest.raises(ExpertUnavailableError, match="does not share the vocabulary"):
        experts(both)
