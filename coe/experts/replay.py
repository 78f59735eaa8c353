"""An expert that repeats recorded answers at the pace of a device profile."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from coe.answer import completion, pieces_of
from coe.core import ExpertSpec, Request
from coe.errors.experts import ExpertRejectedError


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an expert once said, and how many tokens that took.

    Without a count, or with one of 0, a word with the space before it stands for a token.
    """

    text: str
    n_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ReplayExpert:
    """Answers a known prompt with what a real expert once said.

    The first piece comes after the profile's time to the first token, and the last when its
    decode rate has made all recorded tokens, so that latency and modelled joules are those of
    the device. Pieces are words, evenly spaced. As many requests as there are slots are answered at
    once, each at full pace; others wait, first come first served.

    Parameters
    ----------
    spec : whose profile sets the pace, and whose slots are taken.
    answers : what was recorded, by `prompt_key` of the user turns.
    time_scale : real seconds per profile second; 0 answers at once.
    """

    spec: ExpertSpec
    answers: Mapping[str, Recorded]
    time_scale: float = 1.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _free: asyncio.Semaphore = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_free", asyncio.Semaphore(self.spec.slots))

    async def stream(self, request: Request, max_tokens: int | None) -> AsyncIterator[bytes]:
        """The recorded answer in pieces.

        Raises
        ------
        ExpertRejectedError
            The prompt was not recorded (HTTP 404).
        """
        key = prompt_key(request.text)
        recorded = self.answers.get(key)
        if recorded is None:
            raise ExpertRejectedError(self.spec.id, "has no recorded answer to this prompt", 404)
        async with self._free:
            answer_id = f"chatcmpl-replay-{key[:16]}"
            async for piece in self._paced(request, recorded, answer_id, max_tokens):
                yield piece

    async def _paced(
        self, request: Request, recorded: Recorded, answer_id: str, max_tokens: int | None
    ) -> AsyncIterator[bytes]:
        words, n_tokens, finish = _said(recorded, max_tokens)
        profile, expert_id = self.spec.profile, self.spec.id
        prefill_s = profile.ttft_ms(request.prompt_tokens) / 1000
        decode_s = profile.decode_ms(n_tokens) / 1000
        usage = (request.prompt_tokens, n_tokens)
        if not request.stream:
            await self._pace(prefill_s + decode_s)
            yield completion(answer_id, expert_id, "".join(words), *usage, finish)
            return
        await self._pace(prefill_s)
        for n, piece in enumerate(pieces_of(answer_id, expert_id, words, finish, usage)):
            if 0 < n <= len(words):
                await self._pace(decode_s / len(words))
            yield piece

    async def _pace(self, seconds: float) -> None:
        if self.time_scale > 0:
            await self.sleep(seconds * self.time_scale)


def _said(recorded: Recorded, max_tokens: int | None) -> tuple[list[str], int, str]:
    """The words of an answer that a cap leaves, their tokens, and why it ends."""
    words = re.findall(r"\s*\S+|\s+$", recorded.text)
    n_tokens = recorded.n_tokens or len(words)
    if max_tokens is None or n_tokens <= max_tokens:
        return words, n_tokens, "stop"
    return words[: len(words) * max_tokens // n_tokens], max_tokens, "length"


def prompt_key(text: str) -> str:
    """Hash of a prompt, blind to white space at the ends and to its runs."""
    return hashlib.sha256(" ".join(text.split()).encode(errors="replace")).hexdigest()
