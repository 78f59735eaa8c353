"""What llama.cpp's server expects next in a text."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from coe.core import Request
from coe.errors.experts import ExpertUnavailableError
from coe.experts.continuation import Token, Vocabulary
from coe.experts.http import HttpExpert

N_LIKELIEST = 40
"""Tokens that a server is asked for."""

_SAMPLE = "Naïve café: 12,345 + 0.678 = x_1;\n\tdef f(self): return {'a': [漢字, Привет]} 🙂"
_PENALTIES = ("frequency_penalty", "presence_penalty", "repeat_penalty")
# one token, drawn by samplers none of which cuts the distribution
_UNCUT = {
    "n_predict": 1,
    "cache_prompt": True,
    "samplers": ["penalties", "temperature"],
    "temperature": 1.0,
    "seed": 0,
    "post_sampling_probs": True,
}
# a whole character that is hardly ever next, what makes sure that it is drawn, and how many tokens
# then tell how likely the others are beside each other
_FILLER = "~"
_SURELY = 60.0
_N_BESIDE = 2000


@dataclass(frozen=True, slots=True)
class LlamaContinuation:
    """An answer that is being written, as a llama.cpp server sees it.

    Parameters
    ----------
    prompt : the request in the expert's chat template.
    vocabulary, context_tokens : the server's.
    filler : a token that is a whole character, and hardly ever next.
    penalties : the request's own; those it does not name are the server's.
    """

    expert: HttpExpert
    prompt: tuple[int, ...]
    vocabulary: Vocabulary
    context_tokens: int
    filler: int
    penalties: Mapping[str, Any]

    @classmethod
    async def of(cls, expert: HttpExpert, request: Request) -> Self:
        """The continuation of a request that `coe.combine.unmixable` finds nothing in.

        Raises
        ------
        ExpertError
            The server cannot be reached, or rejects the messages.
        """
        own = [{"role": message.role, "content": message.text} for message in request.messages]
        messages = {"messages": request.payload.get("messages") or own}
        silence_s = expert.first_token_timeout_s
        templated, models, sample, filler = await asyncio.gather(
            expert.document("/apply-template", messages, silence_s),
            expert.document("/v1/models", None, silence_s),
            _tokenised(expert, _SAMPLE),
            _tokenised(expert, _FILLER),
        )
        try:
            prompt = await _tokenised(expert, templated["prompt"])
            meta = models["data"][0]["meta"]
            return cls(
                expert=expert,
                prompt=prompt,
                vocabulary=Vocabulary(int(meta["n_vocab"]), sample),
                context_tokens=int(meta["n_ctx"]),
                filler=filler[-1],
                penalties={k: v for k, v in request.payload.items() if k in _PENALTIES},
            )
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise _no_llama(expert) from error

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""
        return len(self.prompt)

    @property
    def room_tokens(self) -> int:
        """What the context leaves for the answer."""
        return self.context_tokens - len(self.prompt)

    async def expected(self, said: Sequence[Token]) -> dict[Token, float]:
        """As `Continuation.expected`: what the server would draw from at temperature 1.

        Its penalties, which it has from its command line or the request, are in it. The server
        remembers what it has read: a call costs about one token.
        """
        found = await self._likeliest(said, {"n_probs": N_LIKELIEST})
        if not found:
            # of the draw of a part of a character the server says nothing: have it draw another
            forced = {"n_probs": _N_BESIDE, "logit_bias": [[self.filler, _SURELY]]}
            found = await self._likeliest(said, forced)
            found = _shares({t: p for t, p in found.items() if t.token_id != self.filler})
        if not found:
            raise _no_llama(self.expert)
        return {token: math.log(min(1.0, share)) for token, share in found.items()}

    async def _likeliest(
        self, said: Sequence[Token], more: Mapping[str, Any]
    ) -> dict[Token, float]:
        """Tokens of positive probability, the likeliest first; none, where one is not told."""
        expert = self.expert
        prompt = [*self.prompt, *(token.token_id for token in said)]
        silence_s = expert.idle_timeout_s if said else expert.first_token_timeout_s
        body = {"prompt": prompt, **_UNCUT, **self.penalties, **more}
        document = await expert.document("/completion", body, silence_s)
        try:
            drawn = document.get("completion_probabilities") or [{"top_probs": []}]
            rows = [(row["id"], row["bytes"], row["prob"]) for row in drawn[0]["top_probs"]]
            found = {Token(int(number), bytes(text)): float(p) for number, text, p in rows}
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise _no_llama(expert) from error
        return {token: p for token, p in found.items() if p > 0}


def _shares(probabilities: Mapping[Token, float]) -> dict[Token, float]:
    """The first of them, as shares of all."""
    whole = math.fsum(probabilities.values())
    return {token: p / whole for token, p in list(probabilities.items())[:N_LIKELIEST]}


async def _tokenised(expert: HttpExpert, text: str) -> tuple[int, ...]:
    body = {"content": text, "add_special": True, "parse_special": True}
    document = await expert.document("/tokenize", body, expert.first_token_timeout_s)
    tokens = document.get("tokens")
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise _no_llama(expert)
    return tuple(tokens)


def _no_llama(expert: HttpExpert) -> ExpertUnavailableError:
    return ExpertUnavailableError(expert.expert_id, "does not answer as llama.cpp's server does")
