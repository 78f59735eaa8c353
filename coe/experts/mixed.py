"""One answer written by several experts at once, token by token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from random import Random
from typing import Literal, Self, TypeVar

from coe.answer import DONE, chunk, completion
from coe.combine import mixture, unmixable
from coe.core import Request
from coe.decision import Selection
from coe.errors.callers import RequestError
from coe.errors.experts import ExpertUnavailableError
from coe.experts.continuation import Continuation, Continuing, Token
from coe.experts.protocol import Expert
from coe.experts.writing import Drawing, Writing, asked_stops

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Spent:
    """What one expert read and made of a mixture; every expert makes every token."""

    prompt_tokens: int
    output_tokens: int


@dataclass(slots=True)
class MixedAnswer:
    """The pieces of an answer, and what they took so far.

    Parameters
    ----------
    spent : by expert id; empty until every expert has read the request.
    """

    pieces: AsyncGenerator[bytes, None]
    spent: Mapping[str, Spent]

    def __aiter__(self) -> MixedAnswer:
        """Itself."""
        return self

    async def __anext__(self) -> bytes:
        """The next piece; raises as `MixedExpert.stream`."""
        return await anext(self.pieces)

    async def aclose(self) -> None:
        """Stop the generation."""
        await self.pieces.aclose()


@dataclass(frozen=True, slots=True)
class MixedExpert:
    """Experts that share a vocabulary, as one: ``p = sum a_n p_n`` of every next token (MoE2).

    Each reads the request in its own chat template and goes on with the same answer. All are asked
    at once, so that a token takes as long as the slowest takes.

    Parameters
    ----------
    expert_id : the name that the answer bears.
    members : by expert id.
    weights : of the members; they need not sum to 1.
    rng : draws tokens where a request has a temperature and no seed.
    """

    expert_id: str
    members: Mapping[str, Continuing]
    weights: Mapping[str, float]
    rng: Random = field(default_factory=Random)

    @classmethod
    def of(cls, selection: Selection, experts: Mapping[str, Expert]) -> Self:
        """The mixture that was decided on, by the name of its mode.

        Raises
        ------
        ExpertUnavailableError
            One of ``experts`` does not say what it expects next.
        """
        weights = dict(zip(selection.expert_ids, selection.weights, strict=True))
        members: dict[str, Continuing] = {}
        for name in weights:
            expert = experts[name]
            if not isinstance(expert, Continuing):
                raise ExpertUnavailableError(name, "does not say what it expects next")
            members[name] = expert
        return cls(selection.mode.name, members, weights)

    def stream(self, request: Request, max_tokens: int | None) -> MixedAnswer:
        """The answer's body, as `Expert.stream` has it.

        ``usage`` counts the tokens that the answer takes each member to make, the one that ends it
        included, and of the prompts the longest. The answer ends with reason ``length`` when
        it has ``max_tokens`` or the context of a member is full.

        Raises
        ------
        RequestError
            The request asks for something that `unmixable` names, or a field is wrong.
        ExpertError
            Of the first member that fails. Before the first piece, nothing has been said.
        ExpertUnavailableError
            Also where two members do not share a vocabulary.
        """
        if (unable := unmixable(request)) is not None:
            raise RequestError(f"a mixture of experts cannot do {unable}", unable)
        answer = _Answer(
            Drawing.asked(request.payload, self.rng), Writing(asked_stops(request.payload))
        )
        name = (f"chatcmpl-mixed-{self.rng.getrandbits(64):016x}", self.expert_id)
        texts = self._texts(request, max_tokens, answer)
        body = _events(*name, texts, answer) if request.stream else _whole(*name, texts, answer)
        return MixedAnswer(body, answer.spent)

    async def _texts(
        self, request: Request, max_tokens: int | None, answer: _Answer
    ) -> AsyncGenerator[str, None]:
        """What each token adds to the text, which may be nothing; at least one."""
        names = list(self.members)
        weights = [self.weights[name] for name in names]
        views = await _together(self.members[name].continuation(request) for name in names)
        _check_shared(names, views)
        room = min(view.room_tokens for view in views)
        most = max(1, room if max_tokens is None else min(max_tokens, room))
        while answer.finish is None:
            expected = await _together(view.expected(answer.tokens) for view in views)
            text = answer.take(mixture(expected, weights), most)
            for name, view in zip(names, views, strict=True):
                answer.spent[name] = Spent(view.prompt_tokens, len(answer.tokens))
            yield text


@dataclass(slots=True)
class _Answer:
    """The answer so far, what it took, and why it ended."""

    drawing: Drawing
    writing: Writing
    tokens: list[Token] = field(default_factory=list)
    spent: dict[str, Spent] = field(default_factory=dict)
    finish: Literal["stop", "length"] | None = None

    def take(self, probabilities: Mapping[Token, float], most: int) -> str:
        """What the next token, drawn from ``probabilities``, adds to the text."""
        token = self.drawing.draw(probabilities)
        self.tokens.append(token)
        ends, is_last = not token.text, len(self.tokens) >= most
        said = self.writing.write(token.text, final=ends or is_last)
        if ends or self.writing.stopped:
            self.finish = "stop"
        elif is_last:
            self.finish = "length"
        return said

    @property
    def ending(self) -> tuple[tuple[int, int], str]:
        """Its usage, and why it ended."""
        longest = max(one.prompt_tokens for one in self.spent.values())
        return (longest, len(self.tokens)), self.finish or "length"


async def _events(
    answer_id: str, expert_id: str, texts: AsyncGenerator[str, None], answer: _Answer
) -> AsyncGenerator[bytes, None]:
    """The events of a stream, one a token.

    The first comes with the first token: others may answer for an expert that fails before it.
    """
    begun = False
    async with aclosing(texts):
        async for text in texts:
            if not begun:
                yield chunk(answer_id, expert_id, {"role": "assistant", "content": ""}, None)
                begun = True
            yield chunk(answer_id, expert_id, {"content": text}, None)
    usage, finish = answer.ending
    yield chunk(answer_id, expert_id, {}, finish, usage)
    yield DONE


async def _whole(
    answer_id: str, expert_id: str, texts: AsyncGenerator[str, None], answer: _Answer
) -> AsyncGenerator[bytes, None]:
    """One document, after an empty piece for each token."""
    said = []
    async with aclosing(texts):
        async for text in texts:
            said.append(text)
            yield b""
    usage, finish = answer.ending
    yield completion(answer_id, expert_id, "".join(said), *usage, finish)


def _check_shared(names: Sequence[str], views: Sequence[Continuation]) -> None:
    for name, view in zip(names, views, strict=True):
        if view.vocabulary != views[0].vocabulary:
            reason = f"does not share the vocabulary of {names[0]!r}: they cannot be mixed"
            raise ExpertUnavailableError(name, reason)


async def _together(asked: Iterable[Awaitable[_T]]) -> list[_T]:
    """All results, in order; when one fails, the others are cancelled."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
