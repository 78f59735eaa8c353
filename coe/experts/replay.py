"""An expert that repeats recorded answers at the pace of a device profile."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass

from coe.answer import completion, pieces_of
from coe.core import ExpertSpec, Request
from coe.errors import ExpertRejectedError


@dataclass(frozen=True, slots=True)
class ReplayExpert:
    """Answers a known prompt with what a real expert once said.

    The first piece comes after the profile's time to the first token, the others at its decode
    rate, so that latency and modelled joules are those of the device. A word with the space
    before it stands for a token.

    Parameters
    ----------
    spec : whose profile sets the pace.
    answers : recorded answer by `prompt_key` of the user turns.
    time_scale : real seconds per profile second; 0 answers at once.
    """

    spec: ExpertSpec
    answers: Mapping[str, str]
    time_scale: float = 1.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """The recorded answer in pieces.

        Raises
        ------
        ExpertRejectedError
            The prompt was not recorded (HTTP 404).
        """
        key = prompt_key(request.text)
        text = self.answers.get(key)
        if text is None:
            raise ExpertRejectedError(self.spec.id, "has no recorded answer to this prompt", 404)
        tokens = re.findall(r"\s*\S+|\s+$", text)
        finish = "stop"
        if max_tokens is not None and len(tokens) > max_tokens:
            tokens, finish = tokens[:max_tokens], "length"
        answer_id = f"chatcmpl-replay-{key[:16]}"
        profile = self.spec.profile
        prefill_s = profile.ttft_ms(request.prompt_tokens) / 1000
        token_s = profile.decode_ms(1) / 1000
        if not request.stream:
            await self._pace(prefill_s + token_s * len(tokens))
            yield completion(
                answer_id,
                self.spec.id,
                "".join(tokens),
                request.prompt_tokens,
                len(tokens),
                finish,
            )
            return
        await self._pace(prefill_s)
        for n, piece in enumerate(pieces_of(answer_id, self.spec.id, tokens, finish)):
            if 0 < n <= len(tokens):
                await self._pace(token_s)
            yield piece

    async def _pace(self, seconds: float) -> None:
        if self.time_scale > 0:
            await self.sleep(seconds * self.time_scale)


def prompt_key(text: str) -> str:
    """Hash of a prompt, blind to white space at the ends and to its runs."""
    return hashlib.sha256(" ".join(text.split()).encode(errors="replace")).hexdigest()
